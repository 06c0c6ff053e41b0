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
#include "cuda/prefill_bring_sm90.cuh"
#include "cuda/prefill_expand_sm90.cuh"
#include "cuda/wgmma_f16.cuh"

/* A row's maximum is raised when it is behind by this much (in powers of 2): weights stay below 2^8, which f16 holds as
 * well as 1, and sums are seldom rescaled. */
static const float LATE = 8.0f;

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

/* Of four lanes' words: lane c gets the c-th of each. */
static __device__ __forceinline__ void transpose_quad(uint32_t (&w)[4])
{
    bool one = threadIdx.x & 1, two = threadIdx.x & 2;
    uint32_t x = __shfl_xor_sync(~0u, one ? w[0] : w[1], 1), y = __shfl_xor_sync(~0u, one ? w[2] : w[3], 1);
    w[0] = one ? x : w[0], w[1] = one ? w[1] : x;
    w[2] = one ? y : w[2], w[3] = one ? w[3] : y;
    x = __shfl_xor_sync(~0u, two ? w[0] : w[2], 2), y = __shfl_xor_sync(~0u, two ? w[1] : w[3], 2);
    w[0] = two ? x : w[0], w[2] = two ? w[2] : x;
    w[1] = two ? y : w[1], w[3] = two ? w[3] : y;
}

static __device__ __forceinline__ uint32_t two_of(float a, float b, __half *) { return halves(a, b); }
static __device__ __forceinline__ uint32_t two_of(float a, float b, __nv_bfloat16 *)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&x);
}

/* A row of 16 bits whose heads are whole units, 16 bytes at a time. */
template <int D, class T>
static __device__ __forceinline__ void put_units(T *to, int head_dim, const float (&o)[D / 2], int h, float by)
{
    int c = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < D / 8; j += 4) {
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = two_of(o[4 * (j + i) + 2 * h] * by, o[4 * (j + i) + 2 * h + 1] * by, (T *)0);
        transpose_quad(w);
        if (to && 8 * (j + c) < head_dim)
            *reinterpret_cast<uint4 *>(to + 8 * (j + c)) = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

/* Any row; to NULL: none. */
template <int D, class T>
static __device__ __forceinline__ void put_row(T *to, int head_dim, const float (&o)[D / 2], int h, float by)
{
    if (sizeof(T) == 2 && head_dim % 8 == 0) {
        if constexpr (sizeof(T) == 2)
            put_units<D>(to, head_dim, o, h, by);
        return;
    }
#pragma unroll
    for (int j = 0; j < D / 8; j++)
        if (to && 8 * j + (int)threadIdx.x % 4 * 2 < head_dim)
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
        bool there = r < u.n_rows;
        if (a.type == ATOM_CUDA_F16)
            put_row<D>(there ? (__half *)a.out + at : NULL, a.head_dim, o, h, 1.0f / sum);
        else if (a.type == ATOM_CUDA_BF16)
            put_row<D>(there ? (__nv_bfloat16 *)a.out + at : NULL, a.head_dim, o, h, 1.0f / sum);
        else
            put_row<D>(there ? (float *)a.out + at : NULL, a.head_dim, o, h, 1.0f / sum);
    }
}

/* A unit whose queries have come, and this thread's part of it. False: there are no more. */
template <int D>
static __device__ __forceinline__ bool take_unit(const struct args &a, struct shared &b, const uint8_t *raw,
                                                 const struct turn &u, struct unit &unit, struct sight &sight,
                                                 uint64_t &q)
{
    int half = threadIdx.x / 128 - 2;
    barrier_wait(&b.q_full[u.stage], u.phase);
    if (!b.units[u.stage].n_tiles)
        return false;
    unit = b.units[u.stage];
    sight = sight_of(a.a, unit, half);
    q = swizzled_descriptor(raw + u.stage * smem<D>::BYTES + half * 64 * 128);
    return true;
}

static __device__ __forceinline__ void leave(uint64_t *empty, struct turn &t)
{
    if (threadIdx.x % 32 == 0)
        arrive_at(&empty[t.stage]);
    next(t);
}

template <int D> static __device__ void compute(const struct args &a, struct shared &b, const uint8_t *raw)
{
    int half = threadIdx.x / 128 - 2, more = 0; /* o holds sums of the unit's earlier tiles */
    const uint8_t *keys = raw + smem<D>::K_AT, *values = raw + smem<D>::V_AT;
    struct turn u = {0, 0}, k = {0, 0}, v = {0, 0};
    float o[D / 2], s[64], by[2];
    uint32_t p[8][4];
    const struct softmax fresh = {{-INFINITY, -INFINITY}, {0, 0}};
    struct softmax soft = fresh;
    struct unit unit, done;
    struct sight sight;
    uint64_t q;
    if (half == 1)
        turn_go(0);
    if (!take_unit<D>(a, b, raw, u, unit, sight, q))
        return;
    barrier_wait(&b.k_full[0], 0);
    turn_wait(half);
    score<D>(s, q, swizzled_descriptor(keys));
    turn_go(1 - half);
    wgmma_wait<0>();
    leave(b.k_empty, k);
    hide_later(s, sight, 0);
    soften(s, a.a.scale, soft, by);
    pack(s, p);
    for (int i = 1;; i++) {
        int row = sight.row;
        bool last = i == unit.n_tiles;
        done = unit;
        barrier_wait(&b.v_full[v.stage], v.phase);
        if (last) { /* the next unit's first scores go with this one's last values */
            leave(b.q_empty, u);
            if (!take_unit<D>(a, b, raw, u, unit, sight, q))
                break;
            i = 0;
        }
        barrier_wait(&b.k_full[k.stage], k.phase);
        turn_wait(half);
        score<D>(s, q, swizzled_descriptor(keys + k.stage * smem<D>::BYTES));
        weigh<D>(o, p, values_descriptor(values + v.stage * smem<D>::BYTES), more);
        turn_go(1 - half);
        wgmma_wait<1>();
        leave(b.k_empty, k);
        hide_later(s, sight, i);
        const float sums[2] = {soft.sum[0], soft.sum[1]};
        soft = last ? fresh : soft;
        soften(s, a.a.scale, soft, by);
        wgmma_wait<0>();
        leave(b.v_empty, v);
        more = !last;
        if (last)
            put_rows<D>(a.a, done, row, o, sums);
        else
            rescale<D>(o, by);
        pack(s, p);
    }
    weigh<D>(o, p, values_descriptor(values + v.stage * smem<D>::BYTES), more);
    wgmma_wait<0>();
    put_rows<D>(a.a, done, sight.row, o, soft.sum);
}

template <int D> static __global__ void __launch_bounds__(THREADS, 1) attend(const struct args a)
{
    extern __shared__ uint8_t unaligned[];
    __shared__ struct shared b;
    uint8_t *raw = unaligned + (1024 - smem_address(unaligned) % 1024) % 1024;
    if (threadIdx.x == 0) {
        for (int i = 0; i < PAGES; i++) {
            barrier_init(&b.page_full[i], 1);
            barrier_init(&b.page_empty[i], 32);
        }
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&b.unit_full[i], 1);
            barrier_init(&b.q_full[i], LOADERS);
            barrier_init(&b.k_full[i], 1);
            barrier_init(&b.v_full[i], 1);
            barrier_init(&b.task_full[i], 32);
            barrier_init(&b.task_empty[i], 32 * EXPANDERS);
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
            find_tasks(a, b, raw + smem<D>::PAGES_AT);
        else if (threadIdx.x >= 32)
            bring_queries<D>(a, b, raw);
    } else if (threadIdx.x < 256) {
        registers_down<EXPANDER_REGISTERS>();
        expand<D>(a, b, raw);
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
