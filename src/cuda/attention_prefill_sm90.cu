/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention on Hopper with f16 wgmma. A block, one a multiprocessor, has four warpgroups:
 *
 *   0  one warp brings tiles of keys and values from the workspace's ring by bulk copies, two the next query rows, and
 *      one finds what to expand
 *   1  expands pages into the ring, a tile at a time, ahead of whoever reads them (attention_plan.cuh)
 *   2  and 3 compute, 64 of a unit's 128 rows each: scores Q K^T, the softmax as it grows (powers of 2, sums in float),
 *      and weights times values with the weights in registers.
 *
 * A tile is expanded once for all the queries that see it, while tensor cores work on others; the ring is small enough
 * to stay in the L2 cache. The products of a tile's scores and of the tile before's values, be it another unit's, are
 * under way while the other warpgroup does its softmax: they take turns (Shah et al., FlashAttention-3, arXiv
 * 2407.08608). Keys come in ascending tiles from position 0 on: every row has a finite maximum from its first tile on.
 */
#include "cuda/attention_plan.cuh"
#include "cuda/mma.cuh"
#include "cuda/ptx.cuh"
#include "cuda/wgmma_f16.cuh"

enum {
    CONSUMERS = 2,
    THREADS = 128 * (CONSUMERS + 2),
    LOADERS = 64, /* threads that bring query rows */
    STAGES = 2,   /* of keys, of values, of queries, of tiles to expand */
    PRODUCER_REGISTERS = 40,
    EXPANDER_REGISTERS = 56,
    CONSUMER_REGISTERS = 208, /* in all, 512 */
};

/* A row's maximum is raised when it is behind by this much (in powers of 2): weights stay below 2^8, which f16 holds as
 * well as 1, and sums are seldom rescaled. */
static const float LATE = 8.0f;

struct args {
    struct prefill_args a;
    struct plan *plan;
    const struct group *groups;
    int *ready, *read; /* of each group: warps that have expanded a tile, units that need its tiles no more */
    int *filled;       /* of each place in the ring: warps that have expanded a tile there */
    uint8_t *tiles;
    int bits;
};

/* Query rows row0.. of a KV head, and the keys they see. n_tiles 0: there are no more units. */
struct unit {
    int first_tok, n_rows, pos0, row0, head;
    int n_tiles, tile0; /* where they start, counted from the first group's */
    int group;
};

/* A tile to expand. */
struct task {
    int tile0_pos, end; /* its first position, the sequence's end; end 0: there are no more */
    int head, group, place;
    int pages[KEY_TILE / PAGE]; /* -1: past the end */
};

struct shared {
    uint64_t unit_full[STAGES], q_full[STAGES], q_empty[STAGES];
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    uint64_t task_full[STAGES], task_empty[STAGES];
    struct unit units[STAGES];
    struct task tasks[STAGES];
    float4 turns[2][8][32]; /* of a page's first and last 8 positions: what is inside_turns' */
};

/* Then come queries, keys, values, each a ring of stages. */
template <int D> struct smem {
    enum {
        BYTES = tile_bytes(D, KEY_TILE),
        K_AT = STAGES * BYTES,
        V_AT = 2 * STAGES * BYTES,
        ALL = 3 * STAGES * BYTES + 1024,
    };
    static_assert(QUERY_TILE == KEY_TILE, "query rows lie as keys do");
};

struct turn {
    int stage;
    uint32_t phase;
};
static __device__ __forceinline__ void next(struct turn &t)
{
    if (++t.stage == STAGES) {
        t.stage = 0;
        t.phase ^= 1;
    }
}

static __device__ __forceinline__ void arrive_at(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(b)) : "memory");
}
static __device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async;" ::: "memory"); }

/* ---- among blocks ---- */

static __device__ __forceinline__ int count_at(const int *count)
{
    int x;
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(x) : "l"(count) : "memory");
    return x;
}
static __device__ __forceinline__ void wait_count(const int *count, int n)
{
    while (count_at(count) < n)
        __nanosleep(64);
}
static __device__ __forceinline__ void add_count(int *count)
{
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(count) : "memory");
}

/* ---- expanding --------------------------------------------------------------------------------------------------- */

/* The rotation of position 16g + i is that of 16g times that of i: of the first, four lanes of a warp have all that a
 * page needs, and the second is at hand in shared memory, where a table of each position's would be more to read than
 * the keys. */
struct inside_turns {
    enum { ANY = 1 };
    const float2 *page;   /* of the page's first position, from the unit's first pair on */
    const float4 *inside; /* of the unit's, every 32 */
    int pairs;            /* that are left */
    __device__ __forceinline__ void find(int r, float2 &t0, float2 &t1) const
    {
        float4 a = __ldg(reinterpret_cast<const float4 *>(page + (r < pairs ? r : 0))), b = inside[r / 2 * 32];
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

/* A tile's pages, a third of one a piece; one of 4 warps does every fourth piece. */
template <int D, int BITS>
static __device__ void expand_tile(const struct args &args, const struct shared &b, const struct task &t)
{
    const struct prefill_args &a = args.a;
    int lane = threadIdx.x % 32, pairs = a.head_dim / 2;
    uint8_t *to = args.tiles + (size_t)t.place * (2 * smem<D>::BYTES);
    for (int i = threadIdx.x / 32 % EXPANDERS; i < 3 * KEY_TILE / PAGE; i += EXPANDERS) {
        int page = t.pages[i / 3], row0 = i / 3 * PAGE, part = i % 3, first = lane % 4 * (D / 8);
        const uint8_t *half = a.pages + (size_t)page * a.page_bytes + (size_t)(2 * t.head) * a.half_bytes;
        if (page < 0) { /* keys of no position are never seen, values are given no weight */
            for (int j = lane; part == 2 && j < PAGE * (tile_bytes(D, 1) / 16); j += 32)
                *reinterpret_cast<uint4 *>(to + smem<D>::BYTES + unit_at<KEY_TILE>(row0 + j % PAGE, j / PAGE)) =
                    make_uint4(0, 0, 0, 0);
        } else if (part == 2) {
            expand_value_unit<D, BITS, KEY_TILE>(half + a.half_bytes, lane, to + smem<D>::BYTES, row0);
        } else if (a.turns && pairs % 2) { /* rows of odd length are not at 16-byte addresses */
            const float2 *turns = a.turns + (size_t)min(t.tile0_pos + row0 + part * 8 + lane / 4, t.end - 1) * pairs;
            expand_key_unit<D, BITS, KEY_TILE>(half, part * 32 + lane, table_turns{turns, first, pairs}, to,
                                               row0 + part * 8 + lane / 4);
        } else if (a.turns) {
            const float2 *turns = a.turns + (size_t)(t.tile0_pos + row0) * pairs + (first < pairs ? first : 0);
            expand_key_unit<D, BITS, KEY_TILE>(half, part * 32 + lane,
                                               inside_turns{turns, &b.turns[part][0][lane], pairs - first}, to,
                                               row0 + part * 8 + lane / 4);
        } else {
            expand_key_unit<D, BITS, KEY_TILE>(half, part * 32 + lane, no_turns{}, to, row0 + part * 8 + lane / 4);
        }
    }
}

template <int D> static __device__ void expand(const struct args &a, struct shared &b)
{
    for (struct turn t = {0, 0};; next(t)) {
        barrier_wait(&b.task_full[t.stage], t.phase);
        const struct task &task = b.tasks[t.stage];
        if (!task.end)
            return;
        if (a.bits == 16)
            expand_tile<D, 16>(a, b, task);
        else if (a.bits == 8)
            expand_tile<D, 8>(a, b, task);
        else
            expand_tile<D, 4>(a, b, task);
        fence_async();
        __threadfence();
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            add_count(a.filled + task.place);
            add_count(a.ready + task.group);
            arrive_at(&b.task_empty[t.stage]);
        }
    }
}

/* Waits until nobody reads what is in place of a group's tile (counted from the first group's). */
static __device__ void wait_place(const struct args &a, const struct group &g, int tile, int ring)
{
    if (tile < ring)
        return;
    int i = g.before;
    while (a.groups[i].tile0 + a.groups[i].n_heads * a.groups[i].key_tiles <= tile - ring)
        i++;
    wait_count(a.read + i, a.groups[i].n_heads * a.groups[i].query_tiles);
}

/* Takes tickets of tiles. All heads' first tiles of a group come first: who reads begins there. */
static __device__ void find_tasks(const struct args &a, struct shared &b)
{
    int lane = threadIdx.x % 32, group = 0, ring = a.plan->ring_tiles, n = a.plan->n_tiles, n_groups = a.plan->n_groups;
    for (struct turn t = {0, 0};; next(t)) {
        int ticket = lane ? 0 : atomicAdd(&a.plan->tile_ticket, 1);
        ticket = __shfl_sync(~0u, ticket, 0);
        while (group + 1 < n_groups && a.groups[group + 1].tile0 <= ticket)
            group++;
        struct task task = {};
        int page = -1;
        if (ticket < n) {
            const struct group g = a.groups[group];
            int i = ticket - g.tile0, tile = i / g.n_heads, head = i % g.n_heads;
            int at = g.tile0 + head * g.key_tiles + tile, first = tile * (KEY_TILE / PAGE) + lane;
            task.tile0_pos = tile * KEY_TILE;
            task.end = g.pos0 + g.n_rows / a.a.group;
            task.head = g.head0 + head;
            task.group = group;
            task.place = at % ring;
            if (lane < KEY_TILE / PAGE && first * PAGE < task.end)
                page = a.a.step.tables[(size_t)g.seq * a.a.step.max_pages + first];
            wait_place(a, g, at, ring);
        }
        barrier_wait(&b.task_empty[t.stage], t.phase ^ 1);
        if (lane < KEY_TILE / PAGE)
            b.tasks[t.stage].pages[lane] = page;
        if (lane == 0) {
            b.tasks[t.stage].tile0_pos = task.tile0_pos;
            b.tasks[t.stage].end = task.end;
            b.tasks[t.stage].head = task.head;
            b.tasks[t.stage].group = task.group;
            b.tasks[t.stage].place = task.place;
        }
        __syncwarp();
        if (lane == 0)
            arrive_at(&b.task_full[t.stage]);
        if (ticket >= n)
            return;
    }
}

/* ---- bringing ---------------------------------------------------------------------------------------------------- */

template <int D> static __device__ void bring_tiles(const struct args &a, struct shared &b, uint8_t *raw)
{
    enum { BYTES = smem<D>::BYTES };
    struct turn u = {0, 0}, t = {0, 0};
    int ring = a.plan->ring_tiles, there = -1;
    for (;; next(u)) {
        barrier_wait(&b.unit_full[u.stage], u.phase);
        int n_tiles = b.units[u.stage].n_tiles, tile = b.units[u.stage].tile0, group = b.units[u.stage].group;
        if (!n_tiles)
            return;
        if (group != there) {
            const struct group &g = a.groups[group];
            if (count_at(a.ready + group) >= EXPANDERS * g.n_heads * g.key_tiles) {
                fence_async();
                there = group;
            }
        }
        int at = tile % ring, times = tile / ring + 1;
        for (int i = 0; i < n_tiles; i++, next(t)) {
            const uint8_t *from = a.tiles + (size_t)at * (2 * BYTES);
            if (group != there) {
                wait_count(a.filled + at, EXPANDERS * times);
                fence_async();
            }
            barrier_wait(&b.k_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.k_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::K_AT + t.stage * BYTES, from, BYTES, &b.k_full[t.stage]);
            barrier_wait(&b.v_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.v_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::V_AT + t.stage * BYTES, from + BYTES, BYTES, &b.v_full[t.stage]);
            if (++at == ring)
                at = 0, times++;
        }
    }
}

/* The unit of a ticket; group: that of an earlier one, or 0. */
static __device__ void find_unit(const struct args &a, int ticket, int &group, struct unit &u)
{
    u.n_tiles = 0;
    if (ticket >= a.plan->n_units)
        return;
    while (group + 1 < a.plan->n_groups && a.groups[group + 1].unit0 <= ticket)
        group++;
    const struct group g = a.groups[group];
    int i = ticket - g.unit0, head = i % g.n_heads;
    u.first_tok = g.first_tok;
    u.n_rows = g.n_rows;
    u.pos0 = g.pos0;
    u.row0 = (g.query_tiles - 1 - i / g.n_heads) * QUERY_TILE;
    u.head = g.head0 + head;
    u.n_tiles = (g.pos0 + (min(u.row0 + QUERY_TILE, g.n_rows) - 1) / a.a.group) / KEY_TILE + 1;
    u.tile0 = g.tile0 + head * g.key_tiles;
    u.group = group;
}

static __device__ __forceinline__ size_t row_at(const struct prefill_args &a, const struct unit &u, int r)
{
    return (size_t)(u.first_tok + r / a.group) * a.q_stride + (size_t)(u.head * a.group + r % a.group) * a.head_dim;
}

/* Rows of 16 bits, as they are: copies that nobody waits for. */
template <int D>
static __device__ void copy_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *to)
{
    enum { UNITS = D / 8 };
    for (int i = me; i < QUERY_TILE * UNITS; i += LOADERS) {
        int r = u.row0 + i / UNITS, n_bytes = r < u.n_rows ? 16 : 0; /* the others become zeros */
        const uint16_t *from = (const uint16_t *)a.q + (n_bytes ? row_at(a, u, r) + i % UNITS * 8 : 0);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         smem_address(to + unit_at<QUERY_TILE>(i / UNITS, i % UNITS))),
                     "l"(from), "r"(n_bytes)
                     : "memory");
    }
}

/* BF16 to F16, what this thread has copied. */
template <int D> static __device__ void convert_rows(int me, uint8_t *rows)
{
    enum { UNITS = D / 8 };
    for (int i = me; i < QUERY_TILE * UNITS; i += LOADERS) {
        uint8_t *at = rows + unit_at<QUERY_TILE>(i / UNITS, i % UNITS);
        *reinterpret_cast<uint4 *>(at) = query_unit<D>((const __nv_bfloat16 *)at, 0, D);
    }
}

template <int D, class T>
static __device__ void load_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *to)
{
    enum { UNITS = D / 8 };
#pragma unroll 2
    for (int i = me; i < QUERY_TILE * UNITS; i += LOADERS) {
        int r = u.row0 + i / UNITS;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (r < u.n_rows)
            x = query_unit<D>((const T *)a.q + row_at(a, u, r), i % UNITS, a.head_dim);
        *reinterpret_cast<uint4 *>(to + unit_at<QUERY_TILE>(i / UNITS, i % UNITS)) = x;
    }
}

template <int D>
static __device__ void bring_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *to)
{
    if (a.type == ATOM_CUDA_F32)
        return load_rows<D, float>(a, u, me, to);
    if (a.head_dim == D) {
        copy_rows<D>(a, u, me, to);
        asm volatile("cp.async.wait_all;" ::: "memory");
        if (a.type == ATOM_CUDA_BF16)
            convert_rows<D>(me, to);
    } else if (a.type == ATOM_CUDA_F16) {
        load_rows<D, __half>(a, u, me, to);
    } else {
        load_rows<D, __nv_bfloat16>(a, u, me, to);
    }
}

template <int D> static __device__ void bring_queries(const struct args &a, struct shared &b, uint8_t *raw)
{
    int me = threadIdx.x - 32, group = 0;
    struct turn u = {0, 0};
    struct unit coming;
    if (me == 0)
        find_unit(a, atomicAdd(&a.plan->unit_ticket, 1), group, coming);
    for (;; next(u)) {
        barrier_wait(&b.q_empty[u.stage], u.phase ^ 1);
        if (me == 0) {
            b.units[u.stage] = coming;
            arrive_at(&b.unit_full[u.stage]);
        }
        asm volatile("bar.sync 3, 64;" ::: "memory");
        const struct unit unit = b.units[u.stage];
        if (unit.n_tiles)
            bring_rows<D>(a.a, unit, me, raw + u.stage * smem<D>::BYTES);
        fence_async();
        arrive_at(&b.q_full[u.stage]);
        if (!unit.n_tiles)
            return;
        if (me == 0)
            find_unit(a, atomicAdd(&a.plan->unit_ticket, 1), group, coming);
    }
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

/* Values [positions, channels] as B of which the channels are contiguous: 8 positions are 1024 bytes, 64 channels a
 * block. */
static __device__ __forceinline__ uint64_t values_descriptor(const void *tile)
{
    return (uint64_t)((smem_address(tile) & 0x3FFFF) >> 4) | (uint64_t)(KEY_TILE * 128 >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ void turn_wait(int half)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + half) : "memory");
}
static __device__ __forceinline__ void turn_go(int half)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + half) : "memory");
}

template <int D> static __device__ __forceinline__ void score(float (&s)[64], uint64_t q, uint64_t k)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint64_t at = i / 4 * (KEY_TILE * 128 >> 4) + i % 4 * 2;
        wgmma_f16_shared<128>::run(s, q + at, k + at, i > 0);
    }
    wgmma_commit();
}

template <int D>
static __device__ __forceinline__ void weigh(float (&o)[D / 2], const uint32_t (&p)[8][4], uint64_t v, int more)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; i++)
        wgmma_f16_held<D>::run(o, p[i], v + i * 128, more | i);
    wgmma_commit();
}

/* This thread's two rows of a unit: the last key that each sees. */
struct sight {
    int row, last0, last1;
    int all; /* the last key that every row of the warpgroup sees */
};
static __device__ __forceinline__ struct sight sight_of(const struct prefill_args &a, const struct unit &u, int half)
{
    int row0 = u.row0 + half * 64, row = row0 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    return {row, u.pos0 + row / a.group, u.pos0 + (row + 8) / a.group, u.pos0 + row0 / a.group};
}

static __device__ __forceinline__ void hide_later(float (&s)[64], const struct sight &t, int tile)
{
    int c = tile * KEY_TILE + threadIdx.x % 4 * 2;
    if (t.all >= (tile + 1) * KEY_TILE - 1)
        return;
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * j + c + i % 2 > (i / 2 ? t.last1 : t.last0))
                s[4 * j + i] = -INFINITY;
}

struct softmax {
    float max[2], sum[2]; /* the sum is this thread's part */
};

/* Scores to weights; what is summed so far must be multiplied by `by`. */
static __device__ __forceinline__ void soften(float (&s)[64], float scale, struct softmax &r, float (&by)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 16; j++)
            top = fmaxf(top, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)) * scale;
        by[h] = 1.0f;
        if (top > r.max[h] + LATE) {
            by[h] = exp2_fast(r.max[h] - top);
            r.max[h] = top;
        }
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[4 * j + i] = exp2_fast(fmaf(s[4 * j + i], scale, -r.max[h]));
                sum += s[4 * j + i];
            }
        r.sum[h] = fmaf(r.sum[h], by[h], sum);
    }
}

static __device__ __forceinline__ void pack(const float (&s)[64], uint32_t (&p)[8][4])
{
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            p[i][j] = halves(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
}

template <int D> static __device__ __forceinline__ void rescale(float (&o)[D / 2], const float (&by)[2])
{
    if (__any_sync(~0u, by[0] != 1.0f || by[1] != 1.0f)) {
#pragma unroll
        for (int i = 0; i < D / 2; i++)
            o[i] *= by[i % 4 / 2];
    }
}

template <int D, class T>
static __device__ __forceinline__ void put_row(const struct prefill_args &a, size_t at, const float (&o)[D / 2], int h,
                                               float by)
{
    T *to = (T *)a.out + at;
#pragma unroll
    for (int j = 0; j < D / 8; j++)
        if (8 * j + (int)threadIdx.x % 4 * 2 < a.head_dim)
            put2(to + 8 * j + threadIdx.x % 4 * 2, o[4 * j + 2 * h] * by, o[4 * j + 2 * h + 1] * by);
}

template <int D>
static __device__ __forceinline__ void put_rows(const struct prefill_args &a, const struct unit &u, int row,
                                                const float (&o)[D / 2], const float (&sums)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = sums[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        int r = row + 8 * h, tok = u.first_tok + r / a.group, head = u.head * a.group + r % a.group;
        size_t at = (size_t)tok * a.out_stride + (size_t)head * a.head_dim;
        if (r >= u.n_rows)
            continue;
        if (a.type == ATOM_CUDA_F16)
            put_row<D, __half>(a, at, o, h, 1.0f / sum);
        else if (a.type == ATOM_CUDA_BF16)
            put_row<D, __nv_bfloat16>(a, at, o, h, 1.0f / sum);
        else
            put_row<D, float>(a, at, o, h, 1.0f / sum);
    }
}

template <int D> static __device__ void compute(const struct args &a, struct shared &b, uint8_t *raw)
{
    enum { BYTES = smem<D>::BYTES };
    int half = threadIdx.x / 128 - 2, lane = threadIdx.x % 32;
    struct turn u = {0, 0}, k = {0, 0}, v = {0, 0};
    float o[D / 2], s[64], by[2];
    uint32_t p[8][4];
    int more = 0; /* o holds sums of the unit's earlier tiles */
    struct softmax soft = {{-INFINITY, -INFINITY}, {0, 0}};
    if (half == 1)
        turn_go(0);
    barrier_wait(&b.q_full[0], 0);
    struct unit unit = b.units[0];
    if (!unit.n_tiles)
        return;
    uint64_t q = swizzled_descriptor(raw + half * 64 * 128);
    struct sight sight = sight_of(a.a, unit, half);

    barrier_wait(&b.k_full[0], 0);
    turn_wait(half);
    score<D>(s, q, swizzled_descriptor(raw + smem<D>::K_AT));
    turn_go(1 - half);
    wgmma_wait<0>();
    if (lane == 0)
        arrive_at(&b.k_empty[0]);
    next(k);
    hide_later(s, sight, 0);
    soften(s, a.a.scale, soft, by);
    pack(s, p);
    for (int i = 1;; i++) {
        struct unit done = unit;
        int row = sight.row;
        bool last = i == unit.n_tiles;
        barrier_wait(&b.v_full[v.stage], v.phase);
        if (last) { /* the next unit's first scores go with this one's last values */
            if (threadIdx.x == 256)
                add_count(a.read + unit.group);
            if (lane == 0)
                arrive_at(&b.q_empty[u.stage]);
            next(u);
            barrier_wait(&b.q_full[u.stage], u.phase);
            unit = b.units[u.stage];
            if (!unit.n_tiles) {
                unit = done;
                break;
            }
            q = swizzled_descriptor(raw + u.stage * BYTES + half * 64 * 128);
            sight = sight_of(a.a, unit, half);
            i = 0;
        }
        barrier_wait(&b.k_full[k.stage], k.phase);
        turn_wait(half);
        score<D>(s, q, swizzled_descriptor(raw + smem<D>::K_AT + k.stage * BYTES));
        weigh<D>(o, p, values_descriptor(raw + smem<D>::V_AT + v.stage * BYTES), more);
        turn_go(1 - half);
        wgmma_wait<1>();
        if (lane == 0)
            arrive_at(&b.k_empty[k.stage]);
        next(k);
        hide_later(s, sight, i);
        const float sums[2] = {soft.sum[0], soft.sum[1]};
        if (last)
            soft = {{-INFINITY, -INFINITY}, {0, 0}};
        soften(s, a.a.scale, soft, by);
        wgmma_wait<0>();
        if (lane == 0)
            arrive_at(&b.v_empty[v.stage]);
        next(v);
        more = !last;
        if (last) {
            put_rows<D>(a.a, done, row, o, sums);
        } else {
            rescale<D>(o, by);
        }
        pack(s, p);
    }
    weigh<D>(o, p, values_descriptor(raw + smem<D>::V_AT + v.stage * BYTES), more);
    wgmma_wait<0>();
    put_rows<D>(a.a, unit, sight.row, o, soft.sum);
}

template <int D> static __global__ void __launch_bounds__(THREADS, 1) attend(const struct args a)
{
    extern __shared__ uint8_t unaligned[];
    __shared__ struct shared b;
    uint8_t *raw = unaligned + (1024 - smem_address(unaligned) % 1024) % 1024;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&b.unit_full[i], 1);
            barrier_init(&b.q_full[i], LOADERS);
            barrier_init(&b.k_full[i], 1);
            barrier_init(&b.v_full[i], 1);
            barrier_init(&b.task_full[i], 1);
            barrier_init(&b.task_empty[i], EXPANDERS);
            barrier_init(&b.q_empty[i], CONSUMERS * 4);
            barrier_init(&b.k_empty[i], CONSUMERS * 4);
            barrier_init(&b.v_empty[i], CONSUMERS * 4);
        }
        barrier_init_fence();
    }
    keep_turns<D>(a.a, b);
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_down<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            bring_tiles<D>(a, b, raw);
        else if (threadIdx.x >= 96)
            find_tasks(a, b);
        else if (threadIdx.x >= 32)
            bring_queries<D>(a, b, raw);
    } else if (threadIdx.x < 256) {
        registers_down<EXPANDER_REGISTERS>();
        expand<D>(a, b);
    } else {
        registers_up<CONSUMER_REGISTERS>();
        compute<D>(a, b, raw);
    }
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <int D> static enum atom_status launch(const struct args *a, atom_cuda_stream s, struct atom_error *err)
{
    enum atom_status st =
        atom_cuda_status(cudaFuncSetAttribute(attend<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, smem<D>::ALL),
                         "asking for shared memory", err);
    if (st)
        return st;
    attend<D><<<(unsigned)atom_cuda_opened()->n_sm, THREADS, smem<D>::ALL, s>>>(*a);
    return atom_cuda_launched("starting prefill attention", err);
}

enum atom_status atom_cuda_prefill_sm90(const struct atom_cuda_attend *job, const struct prefill_args *a,
                                        atom_cuda_stream s, struct atom_error *err)
{
    struct work_layout l = layout_of(job->kv, job->step);
    uint8_t *w = (uint8_t *)job->workspace;
    if (l.max_groups < 2) /* too few tokens for any prefill */
        return ATOM_OK;
    enum atom_status st = atom_cuda_prefill_plan(a, &l, w, s, err);
    if (st)
        return st;
    const struct args args = {*a,
                              (struct plan *)w,
                              (struct group *)(w + l.groups_at),
                              (int *)(w + l.ready_at),
                              (int *)(w + l.read_at),
                              (int *)(w + l.filled_at),
                              w + l.tiles_at,
                              job->kv->bits == 3 ? 4 : job->kv->bits};
    return job->kv->wide == 64   ? launch<64>(&args, s, err)
           : job->kv->wide == 96 ? launch<96>(&args, s, err)
                                 : launch<128>(&args, s, err);
}
