/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention on Hopper: a warp finds tiles to expand and brings their pages to shared memory, four expand them
 * into the workspace's ring. */
#ifndef ATOM_CUDA_PREFILL_EXPAND_SM90_CUH
#define ATOM_CUDA_PREFILL_EXPAND_SM90_CUH

#include "cuda/prefill_sm90.cuh"

/* The rotation of position 16g + i is that of 16g times that of i: of the first, four lanes of a warp have all that a
 * page needs, and the second is at hand in shared memory, where a table of each position's would be more to read than
 * the keys. */
struct inside_turns {
    enum { ANY = 1 };
    const float4 *page;   /* of the page's first position, from the unit's first pair on */
    const float4 *inside; /* of the unit's, every 32 */
    int pairs;            /* that are left */
    __device__ __forceinline__ void find(int r, float2 &t0, float2 &t1) const
    {
        float4 a = page[r < pairs ? r / 2 : 0], b = inside[r / 2 * 32];
        t0 = make_float2(a.x * b.x - a.y * b.y, fmaf(a.y, b.x, a.x * b.y));
        t1 = make_float2(a.z * b.z - a.w * b.w, fmaf(a.w, b.z, a.z * b.w));
    }
};

/* turns[part][r / 2][lane]: the unit's of position 8 * part + lane / 4, as expand_key_unit counts them. */
template <int D> static __device__ void keep_turns(const struct prefill_args &a, struct shared &b)
{
    int pairs = a.head_dim / 2;
    for (int i = threadIdx.x; a.turns && i < 2 * (D / 16) * 32; i += THREADS) {
        int lane = i % 32, r = i / 32 % (D / 16) * 2, part = i / 32 / (D / 16);
        const float2 *row = a.turns + (size_t)min(part * 8 + lane / 4, a.n_turns - 1) * pairs;
        float2 x = row[min(lane % 4 * (D / 8) + r, pairs - 1)], y = row[min(lane % 4 * (D / 8) + r + 1, pairs - 1)];
        b.turns[part][r / 2][lane] = make_float4(x.x, x.y, y.x, y.y);
    }
}

/* A page of a KV head in shared memory: keys, values, and cos and sin of its first position. */
struct page_room {
    int copied, n_bytes; /* of the page; with the angles */
    int n;               /* so many pages have room: as many, twice or half as many as there are warps for them */
    int step;            /* so many warps work */
};
static __device__ __forceinline__ struct page_room room_of(const struct prefill_args &a)
{
    int copied = 2 * (int)a.half_bytes, pairs = a.head_dim / 2;
    int n_bytes = copied + (pairs % 2 ? 0 : pairs * 8);
    int n = PAGE_ROOM / n_bytes, warps = EXPANDERS;
    n = n >= 2 * warps ? 2 * warps : n >= warps ? warps : warps / 2; /* a page comes where this warp's last one was */
    return {copied, n_bytes, n, min(n, warps)};
}

/* 16 positions of a tile, by a warp; page NULL: positions of nothing. */
template <int D, int BITS>
static __device__ void expand_page(const struct args &args, const struct shared &b, const struct task &t, int row0,
                                   const uint8_t *page, uint8_t *to)
{
    const struct prefill_args &a = args.a;
    int lane = threadIdx.x % 32, pairs = a.head_dim / 2, first = lane % 4 * (D / 8);
    if (!page) { /* keys of no position are never seen, values are given no weight */
        for (int j = lane; j < PAGE * (tile_bytes(D, 1) / 16); j += 32)
            *reinterpret_cast<uint4 *>(to + smem<D>::BYTES + unit_at<KEY_TILE>(row0 + j % PAGE, j / PAGE)) =
                make_uint4(0, 0, 0, 0);
        return;
    }
    expand_value_unit<D, BITS, KEY_TILE>(page + a.half_bytes, lane, to + smem<D>::BYTES, row0);
#pragma unroll 1
    for (int part = 0; part < 2; part++) {
        int unit = part * 32 + lane, row = row0 + part * 8 + lane / 4;
        if (!a.turns) {
            expand_key_unit<D, BITS, KEY_TILE>(page, unit, no_turns{}, to, row);
        } else if (pairs % 2) { /* rows of odd length are not at 16-byte addresses */
            const float2 *turns = a.turns + (size_t)min(t.tile0_pos + row, t.end - 1) * pairs;
            expand_key_unit<D, BITS, KEY_TILE>(page, unit, table_turns{turns, first, pairs}, to, row);
        } else {
            const float4 *turns =
                reinterpret_cast<const float4 *>(page + 2 * a.half_bytes) + (first < pairs ? first / 2 : 0);
            expand_key_unit<D, BITS, KEY_TILE>(page, unit, inside_turns{turns, &b.turns[part][0][lane], pairs - first},
                                               to, row);
        }
    }
}

template <int D> static __device__ void expand(const struct args &a, struct shared &b, uint8_t *raw)
{
    int warp = threadIdx.x / 32 % EXPANDERS, lane = threadIdx.x % 32;
    const struct page_room room = room_of(a.a);
    int n_pages = warp; /* this warp's next one of all */
    for (struct turn t = {0, 0};; next(t)) {
        barrier_wait(&b.task_full[t.stage], t.phase);
        const struct task &task = b.tasks[t.stage];
        if (!task.end)
            return;
        uint8_t *to = a.tiles + (size_t)task.place * (2 * smem<D>::BYTES);
        for (int i = warp; warp < room.step && i < KEY_TILE / PAGE; i += room.step, n_pages += room.step) {
            int slot = n_pages % room.n;
            const uint8_t *page = raw + smem<D>::PAGES_AT + slot * room.n_bytes;
            barrier_wait(&b.page_full[slot], (uint32_t)(n_pages / room.n) & 1);
            page = task.pages[i] < 0 ? NULL : page;
            if (a.bits == 16)
                expand_page<D, 16>(a, b, task, i * PAGE, page, to);
            else if (a.bits == 8)
                expand_page<D, 8>(a, b, task, i * PAGE, page, to);
            else
                expand_page<D, 4>(a, b, task, i * PAGE, page, to);
            arrive_at(&b.page_empty[slot]);
        }
        __syncwarp();
        if (lane == 0) {
            fence_counts();
            add_count(a.filled + task.place);
            add_count(a.ready + task.group);
        }
        arrive_at(&b.task_empty[t.stage]);
    }
}

/* A tile's pages to shared memory; lane i has the number of page i, n_pages is how many were brought before. */
static __device__ void bring_pages(const struct prefill_args &a, struct shared &b, const struct task &t, int page,
                                   int &n_pages, uint8_t *to)
{
    const struct page_room room = room_of(a);
    int pairs = a.head_dim / 2;
    for (int i = 0; i < KEY_TILE / PAGE; i++, n_pages++) {
        int slot = n_pages % room.n, number = __shfl_sync(~0u, page, i);
        if (threadIdx.x % 32)
            continue;
        barrier_wait(&b.page_empty[slot], (uint32_t)(n_pages / room.n) & 1 ^ 1);
        if (number < 0) {
            arrive_at(&b.page_full[slot]);
            continue;
        }
        bool turns = a.turns && pairs % 2 == 0;
        barrier_arrive_expect(&b.page_full[slot], (uint32_t)(turns ? room.n_bytes : room.copied));
        bulk_copy(to + slot * room.n_bytes,
                  a.pages + (size_t)number * a.page_bytes + (size_t)(2 * t.head) * a.half_bytes, (uint32_t)room.copied,
                  &b.page_full[slot]);
        if (turns)
            bulk_copy(to + slot * room.n_bytes + room.copied, a.turns + (size_t)(t.tile0_pos + i * PAGE) * pairs,
                      (uint32_t)pairs * 8, &b.page_full[slot]);
    }
}

/* What a ticket is for; in lane i the number of page i. */
struct found {
    struct task task;
    int page;
    int tile, before; /* counted from the first group's; the first group that may have had its place before */
};

/* All heads' first tiles of a group come first: who reads begins there. group: that of an earlier ticket, or 0. */
static __device__ void find_task(const struct args &a, int ticket, int &group, struct found &f)
{
    int lane = threadIdx.x % 32;
    f.task.end = 0;
    if (ticket >= a.plan->n_tiles)
        return;
    while (group + 1 < a.plan->n_groups && a.groups[group + 1].tile0 <= ticket)
        group++;
    const struct group g = a.groups[group];
    int i = ticket - g.tile0, tile = i / g.n_heads, head = i % g.n_heads, first = tile * (KEY_TILE / PAGE) + lane;
    f.tile = g.tile0 + head * g.key_tiles + tile;
    f.before = g.before;
    f.task.tile0_pos = tile * KEY_TILE;
    f.task.end = g.pos0 + g.n_rows / a.a.group;
    f.task.head = g.head0 + head;
    f.task.group = group;
    f.task.place = f.tile % a.plan->ring_tiles;
    f.page = -1;
    if (lane < KEY_TILE / PAGE && first * PAGE < f.task.end)
        f.page = a.a.step.tables[(size_t)g.seq * a.a.step.max_pages + first];
}

/* Waits until nobody reads what is in a tile's place. */
static __device__ void wait_place(const struct args &a, const struct found &f)
{
    int before = f.tile - a.plan->ring_tiles, i = f.before;
    if (before < 0)
        return;
    while (a.groups[i].tile0 + a.groups[i].n_heads * a.groups[i].key_tiles <= before)
        i++;
    wait_count(a.read + i, a.groups[i].n_heads * a.groups[i].query_tiles);
}

static __device__ void send_task(const struct args &a, struct shared &b, const struct found &f, struct turn &t,
                                 int &n_pages, uint8_t *pages)
{
    int lane = threadIdx.x % 32;
    struct task &to = b.tasks[t.stage];
    if (f.task.end)
        wait_place(a, f);
    barrier_wait(&b.task_empty[t.stage], t.phase ^ 1);
    if (lane < KEY_TILE / PAGE)
        to.pages[lane] = f.page;
    if (lane == 0) {
        to.tile0_pos = f.task.tile0_pos;
        to.end = f.task.end;
        to.head = f.task.head;
        to.group = f.task.group;
        to.place = f.task.place;
    }
    arrive_at(&b.task_full[t.stage]); /* each for what it wrote */
    next(t);
    if (f.task.end)
        bring_pages(a.a, b, f.task, f.page, n_pages, pages);
}

static __device__ __forceinline__ int take_tile(const struct args &a)
{
    return __shfl_sync(~0u, threadIdx.x % 32 ? 0 : atomicAdd(&a.plan->tile_ticket, 1), 0);
}

/* Takes tickets of tiles: one ahead, since it takes microseconds to find what a ticket is for. */
static __device__ void find_tasks(const struct args &a, struct shared &b, uint8_t *pages)
{
    int group = 0, n_pages = 0;
    struct turn t = {0, 0};
    struct found now, coming;
    find_task(a, take_tile(a), group, now);
    send_task(a, b, now, t, n_pages, pages);
    if (!now.task.end)
        return;
    find_task(a, take_tile(a), group, now);
    int ticket = take_tile(a);
    while (now.task.end) {
        int after = take_tile(a);
        find_task(a, ticket, group, coming);
        send_task(a, b, now, t, n_pages, pages);
        now = coming;
        ticket = after;
    }
    send_task(a, b, now, t, n_pages, pages);
}

#endif
