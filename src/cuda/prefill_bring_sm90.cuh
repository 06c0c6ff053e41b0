/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention on Hopper: what brings tiles of keys and values, and query rows, to those who compute. */
#ifndef ATOM_CUDA_PREFILL_BRING_SM90_CUH
#define ATOM_CUDA_PREFILL_BRING_SM90_CUH

#include "cuda/prefill_sm90.cuh"

/* A unit whose last tile is on its way to a stage. */
struct owed {
    int group; /* -1: none */
    int stage;
    uint32_t phase;
};
/* Counts it as read once its tiles have come; in its stage: nothing else was sent there since, or they are known to. */
static __device__ void tell_read(const struct args &a, struct shared &b, struct owed &o, bool in_stage)
{
    if (o.group < 0)
        return;
    if (in_stage)
        barrier_wait(&b.v_full[o.stage], o.phase);
    fence_counts();
    add_count(a.read + o.group);
    o.group = -1;
}

template <int D> static __device__ void bring_tiles(const struct args &a, struct shared &b, uint8_t *raw)
{
    enum { BYTES = smem<D>::BYTES };
    struct turn u = {0, 0}, t = {0, 0};
    int ring = a.plan->ring_tiles, there = -1;
    struct owed owed = {-1, 0, 0};
    struct turn last = t;
    for (;; next(u)) {
        barrier_wait(&b.unit_full[u.stage], u.phase);
        int n_tiles = b.units[u.stage].n_tiles, tile = b.units[u.stage].tile0, group = b.units[u.stage].group;
        if (!n_tiles)
            return tell_read(a, b, owed, true);
        if (group != there) {
            const struct group &g = a.groups[group];
            if (count_at(a.ready + group) >= EXPANDERS * g.n_heads * g.key_tiles) {
                fence_global();
                there = group;
            }
        }
        int at = tile % ring, times = tile / ring + 1;
        for (int i = 0; i < n_tiles; i++, next(t)) {
            const uint8_t *from = a.tiles + (size_t)at * (2 * BYTES);
            if (group != there) {
                if (count_at(a.filled + at) < EXPANDERS * times) {
                    tell_read(a, b, owed, true); /* the tile's place may wait for just that */
                    wait_count(a.filled + at, EXPANDERS * times);
                }
                fence_global();
            }
            barrier_wait(&b.k_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.k_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::K_AT + t.stage * BYTES, from, BYTES, &b.k_full[t.stage]);
            barrier_wait(&b.v_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.v_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::V_AT + t.stage * BYTES, from + BYTES, BYTES, &b.v_full[t.stage]);
            if (i == STAGES - 1)
                tell_read(a, b, owed, false);
            if (++at == ring)
                at = 0, times++;
            last = t;
        }
        tell_read(a, b, owed, true);
        owed = {group, last.stage, last.phase};
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

/* f(row of the tile, unit of 8 channels, row of q or NULL) for this thread's share: always the same unit. */
template <int D, class T, class F>
static __device__ __forceinline__ void each_query(const struct prefill_args &a, const struct unit &u, int me, F f)
{
    enum { UNITS = D > 64 ? 16 : 8, STEP = LOADERS / UNITS };
    int r = u.row0 + me / UNITS, tok = u.first_tok + r / a.group, head = r % a.group;
    int step_tok = STEP / a.group, step_head = STEP % a.group;
    if (me % UNITS >= D / 8)
        return;
    for (int i = me / UNITS; i < QUERY_TILE; i += STEP) {
        const T *row = (const T *)a.q + (size_t)tok * a.q_stride + (size_t)(u.head * a.group + head) * a.head_dim;
        f(i, me % UNITS, u.row0 + i < u.n_rows ? row : NULL);
        tok += step_tok, head += step_head;
        if (head >= a.group)
            tok++, head -= a.group;
    }
}

/* Rows of 16 bits, as they are: copies that nobody waits for. */
template <int D>
static __device__ void copy_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *to)
{
    each_query<D, uint16_t>(a, u, me, [&](int i, int c, const uint16_t *row) {
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_address(to + unit_at<QUERY_TILE>(i, c))),
            "l"(row ? row + c * 8 : a.q), "r"(row ? 16 : 0) /* the others become zeros */
            : "memory");
    });
}

/* BF16 to F16, what this thread has copied. */
template <int D>
static __device__ void convert_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *rows)
{
    each_query<D, __nv_bfloat16>(a, u, me, [&](int i, int c, const __nv_bfloat16 *) {
        uint8_t *at = rows + unit_at<QUERY_TILE>(i, c);
        *reinterpret_cast<uint4 *>(at) = query_unit<D>((const __nv_bfloat16 *)at, 0, D);
    });
}

template <int D, class T>
static __device__ void load_rows(const struct prefill_args &a, const struct unit &u, int me, uint8_t *to)
{
    each_query<D, T>(a, u, me, [&](int i, int c, const T *row) {
        uint4 x = make_uint4(0, 0, 0, 0);
        if (row)
            x = query_unit<D>(row, c, a.head_dim);
        *reinterpret_cast<uint4 *>(to + unit_at<QUERY_TILE>(i, c)) = x;
    });
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
            convert_rows<D>(a, u, me, to);
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
        fence_shared();
        arrive_at(&b.q_full[u.stage]);
        if (!unit.n_tiles)
            return;
        if (me == 0)
            find_unit(a, atomicAdd(&a.plan->unit_ticket, 1), group, coming);
    }
}

#endif
