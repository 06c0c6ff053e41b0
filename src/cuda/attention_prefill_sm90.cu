/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention on Hopper, over keys and values in f16 tiles (attention_prefill.cuh), with f16 wgmma.
 *
 * A block takes tiles of 128 query rows one after the other. One warp brings tiles of 128 keys and values by bulk
 * copies, three others the next query rows, and two warpgroups of 64 rows compute: scores Q K^T, the softmax as it
 * grows (exponents of 2, sums in float), and weights times values with the weights in registers. The products of
 * a tile's scores and of the tile before's values run while the other warpgroup does its softmax: they take turns (Shah
 * et al., FlashAttention-3, arXiv 2407.08608). Keys come in ascending tiles from position 0 on, so that every row has
 * a finite maximum from its first tile on. */
#include "cuda/attention_prefill.cuh"
#include "cuda/ptx.cuh"
#include "cuda/wgmma_f16.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum {
    CONSUMERS = 2,
    THREADS = 128 * (CONSUMERS + 1),
    LOADERS = 96, /* threads that bring query rows */
    STAGES = 2,   /* of keys, of values, of queries */
    PRODUCER_REGISTERS = 40,
    CONSUMER_REGISTERS = 232,
};

/* A row's maximum is raised when it is behind by this much (in exponents of 2): weights stay below 2^8, which f16
 * holds as well as 1, and sums are seldom rescaled. */
static const float LATE = 8.0f;

struct barriers {
    uint64_t unit_full[STAGES], q_full[STAGES], q_empty[STAGES];
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    struct prefill_unit units[STAGES];
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

/* Shared memory: queries, keys, values, each a ring of stages. */
template <int D> struct smem {
    enum {
        BYTES = D > 64 ? 2 * BLOCK_BYTES : BLOCK_BYTES, /* of a tile */
        K_AT = STAGES * BYTES,
        V_AT = 2 * STAGES * BYTES,
        ALL = 3 * STAGES * BYTES + 1024,
    };
};

static __device__ __forceinline__ void arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(b)) : "memory");
}

/* ---- bringing ---------------------------------------------------------------------------------------------------- */

template <int D> static __device__ void bring_tiles(const struct prefill_args &a, struct barriers &b, uint8_t *raw)
{
    enum { BYTES = smem<D>::BYTES };
    struct turn u = {0, 0}, t = {0, 0};
    for (;; next(u)) {
        barrier_wait(&b.unit_full[u.stage], u.phase);
        const struct prefill_unit unit = b.units[u.stage];
        if (!unit.n_tiles)
            return;
        const uint8_t *from = a.tiles + (size_t)unit.tile0 * (2 * BYTES);
        for (int i = 0; i < unit.n_tiles; i++, next(t), from += 2 * BYTES) {
            barrier_wait(&b.k_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.k_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::K_AT + t.stage * BYTES, from, BYTES, &b.k_full[t.stage]);
            barrier_wait(&b.v_empty[t.stage], t.phase ^ 1);
            barrier_arrive_expect(&b.v_full[t.stage], BYTES);
            bulk_copy(raw + smem<D>::V_AT + t.stage * BYTES, from + BYTES, BYTES, &b.v_full[t.stage]);
        }
    }
}

static __device__ __forceinline__ uint32_t halves(float a, float b)
{
    __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}
static __device__ __forceinline__ float2 pair_at(const float *x) { return *reinterpret_cast<const float2 *>(x); }
static __device__ __forceinline__ float2 pair_at(const __half *x)
{
    return __half22float2(*reinterpret_cast<const __half2 *>(x));
}
static __device__ __forceinline__ float2 pair_at(const __nv_bfloat16 *x)
{
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(x));
}

/* Eight channels, scaled. */
template <class T> static __device__ __forceinline__ uint4 load_unit(const T *x, float scale)
{
    struct __align__(16) { T e[8]; } from;
    memcpy(&from, __builtin_assume_aligned(x, 16), sizeof from);
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 two = pair_at(from.e + 2 * i);
        w[i] = halves(two.x * scale, two.y * scale);
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

template <int D, class T>
static __device__ __forceinline__ void load_rows(const struct prefill_args &a, const struct prefill_unit &unit, int me,
                                                 uint8_t *to)
{
    enum { UNITS = D > 64 ? 16 : 8, AHEAD = 4 };
    const T *q = static_cast<const T *>(a.q);
    for (int i0 = me; i0 < QUERY_TILE * UNITS; i0 += LOADERS * AHEAD) {
        uint4 x[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            int i = i0 + j * LOADERS, r = unit.row0 + i / UNITS, u = i % UNITS;
            x[j] = make_uint4(0, 0, 0, 0);
            if (i < QUERY_TILE * UNITS && r < unit.n_rows && u * 8 < a.head_dim) {
                int tok = r / a.group, head = unit.head * a.group + r % a.group;
                x[j] = load_unit(q + (size_t)(unit.first_tok + tok) * a.q_stride + (size_t)head * a.head_dim + u * 8,
                                 a.scale);
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            int i = i0 + j * LOADERS;
            if (i < QUERY_TILE * UNITS)
                *reinterpret_cast<uint4 *>(to + unit_at(i / UNITS, i % UNITS)) = x[j];
        }
    }
}

template <int D, class T>
static __device__ void bring_queries(const struct prefill_args &a, struct barriers &b, uint8_t *raw)
{
    int me = threadIdx.x - 32;
    struct turn u = {0, 0};
    for (;; next(u)) {
        barrier_wait(&b.q_empty[u.stage], u.phase ^ 1);
        if (me == 0) {
            int n = atomicAdd(a.ticket, 1);
            struct prefill_unit unit = {};
            if (n < *a.n_units)
                unit = a.units[n];
            b.units[u.stage] = unit;
            arrive(&b.unit_full[u.stage]);
        }
        asm volatile("bar.sync 3, 96;" ::: "memory");
        const struct prefill_unit unit = b.units[u.stage];
        if (unit.n_tiles)
            load_rows<D, T>(a, unit, me, raw + u.stage * smem<D>::BYTES);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        arrive(&b.q_full[u.stage]);
        if (!unit.n_tiles)
            return;
    }
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

/* Values [positions, channels] as B of which the channels are contiguous: 8 positions are 1024 bytes, 64 channels a
 * block. */
static __device__ __forceinline__ uint64_t values_descriptor(const void *tile)
{
    return (uint64_t)((smem_address(tile) & 0x3FFFF) >> 4) | (uint64_t)(BLOCK_BYTES >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ void turn_wait(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}
static __device__ __forceinline__ void turn_go(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + group) : "memory");
}
static __device__ __forceinline__ float exp_2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <int D> static __device__ __forceinline__ void score(float (&s)[64], uint64_t q, uint64_t k)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        uint64_t at = i / 4 * (BLOCK_BYTES >> 4) + i % 4 * 2;
        wgmma_f16_shared<128>::run(s, q + at, k + at, i > 0);
    }
    wgmma_commit();
}

template <int D>
static __device__ __forceinline__ void weigh(float (&o)[D / 2], const uint32_t (&p)[8][4], uint64_t v)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 8; i++)
        wgmma_f16_held<D>::run(o, p[i], v + i * 128);
    wgmma_commit();
}

/* Where this thread's two rows end: the last key they see, from the tile's first on. */
static __device__ __forceinline__ void hide_later(float (&s)[64], int last0, int last1)
{
    int c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < 16; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * j + c + i % 2 > (i / 2 ? last1 : last0))
                s[4 * j + i] = -INFINITY;
}

struct rows {
    float max[2], sum[2]; /* the sum is this thread's part */
};

/* Scores to weights; by what is summed so far must be multiplied. */
static __device__ __forceinline__ void soften(float (&s)[64], struct rows &r, float (&by)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < 16; j++)
            top = fmaxf(top, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        by[h] = 1.0f;
        if (top > r.max[h] + LATE) {
            by[h] = exp_2(r.max[h] - top);
            r.max[h] = top;
        }
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[4 * j + i] = exp_2(s[4 * j + i] - r.max[h]);
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

static __device__ __forceinline__ void put2(float *to, float a, float b)
{
    *reinterpret_cast<float2 *>(to) = make_float2(a, b);
}
static __device__ __forceinline__ void put2(__half *to, float a, float b)
{
    *reinterpret_cast<__half2 *>(to) = __floats2half2_rn(a, b);
}
static __device__ __forceinline__ void put2(__nv_bfloat16 *to, float a, float b)
{
    *reinterpret_cast<__nv_bfloat162 *>(to) = __floats2bfloat162_rn(a, b);
}

template <int D, class T>
static __device__ __forceinline__ void put_rows(const struct prefill_args &a, const struct prefill_unit &unit, int row,
                                                const float (&o)[D / 2], const struct rows &rows)
{
    T *out = static_cast<T *>(a.out);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = rows.sum[h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        int r = row + 8 * h, tok = r / a.group, head = unit.head * a.group + r % a.group;
        if (r >= unit.n_rows)
            continue;
        T *to = out + (size_t)(unit.first_tok + tok) * a.out_stride + (size_t)head * a.head_dim;
        float by = 1.0f / sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            if (D % 64 == 0 && D == 128 ? 8 * j < a.head_dim : 8 * j < a.head_dim)
                put2(to + 8 * j + threadIdx.x % 4 * 2, o[4 * j + 2 * h] * by, o[4 * j + 2 * h + 1] * by);
    }
}

template <int D, class T>
static __device__ void compute(const struct prefill_args &a, struct barriers &b, uint8_t *raw)
{
    enum { BYTES = smem<D>::BYTES };
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    struct turn u = {0, 0}, k = {0, 0}, v = {0, 0};
    if (group == 1)
        turn_go(0);
    for (;; next(u)) {
        barrier_wait(&b.q_full[u.stage], u.phase);
        const struct prefill_unit unit = b.units[u.stage];
        if (!unit.n_tiles)
            return;
        uint64_t q = swizzled_descriptor(raw + u.stage * BYTES + group * 64 * 128);
        int row = unit.row0 + group * 64 + warp * 16 + lane / 4;
        int last0 = unit.pos0 + row / a.group, last1 = unit.pos0 + (row + 8) / a.group;
        int seen = unit.pos0 + (unit.row0 + group * 64) / a.group; /* by all rows of this warpgroup */
        float o[D / 2], s[64], by[2];
        uint32_t p[8][4];
        struct rows rows = {{-INFINITY, -INFINITY}, {0, 0}};
#pragma unroll
        for (int i = 0; i < D / 2; i++)
            o[i] = 0.0f;

        barrier_wait(&b.k_full[k.stage], k.phase);
        turn_wait(group);
        score<D>(s, q, swizzled_descriptor(raw + smem<D>::K_AT + k.stage * BYTES));
        turn_go(1 - group);
        wgmma_wait<0>();
        if (lane == 0)
            arrive(&b.k_empty[k.stage]);
        next(k);
        if (seen < KEY_TILE - 1)
            hide_later(s, last0, last1);
        soften(s, rows, by);
        pack(s, p);
        for (int i = 1; i < unit.n_tiles; i++) {
            barrier_wait(&b.k_full[k.stage], k.phase);
            barrier_wait(&b.v_full[v.stage], v.phase);
            turn_wait(group);
            score<D>(s, q, swizzled_descriptor(raw + smem<D>::K_AT + k.stage * BYTES));
            weigh<D>(o, p, values_descriptor(raw + smem<D>::V_AT + v.stage * BYTES));
            turn_go(1 - group);
            wgmma_wait<1>();
            if (lane == 0)
                arrive(&b.k_empty[k.stage]);
            next(k);
            if (seen < (i + 1) * KEY_TILE - 1)
                hide_later(s, last0 - i * KEY_TILE, last1 - i * KEY_TILE);
            soften(s, rows, by);
            wgmma_wait<0>();
            if (lane == 0)
                arrive(&b.v_empty[v.stage]);
            next(v);
            rescale<D>(o, by);
            pack(s, p);
        }
        if (lane == 0)
            arrive(&b.q_empty[u.stage]);
        barrier_wait(&b.v_full[v.stage], v.phase);
        weigh<D>(o, p, values_descriptor(raw + smem<D>::V_AT + v.stage * BYTES));
        wgmma_wait<0>();
        if (lane == 0)
            arrive(&b.v_empty[v.stage]);
        next(v);
        put_rows<D, T>(a, unit, row, o, rows);
    }
}

template <int D, class T> static __global__ void __launch_bounds__(THREADS, 1) attend(const struct prefill_args a)
{
    extern __shared__ uint8_t unaligned[];
    __shared__ struct barriers b;
    uint8_t *raw = unaligned + (1024 - smem_address(unaligned) % 1024) % 1024;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&b.unit_full[i], 1);
            barrier_init(&b.q_full[i], LOADERS);
            barrier_init(&b.k_full[i], 1);
            barrier_init(&b.v_full[i], 1);
            barrier_init(&b.q_empty[i], CONSUMERS * 4);
            barrier_init(&b.k_empty[i], CONSUMERS * 4);
            barrier_init(&b.v_empty[i], CONSUMERS * 4);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_down<PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            bring_tiles<D>(a, b, raw);
        else if (threadIdx.x >= 32)
            bring_queries<D, T>(a, b, raw);
    } else {
        registers_up<CONSUMER_REGISTERS>();
        compute<D, T>(a, b, raw);
    }
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <int D, class T>
static enum atom_status launch(const struct prefill_args *a, atom_cuda_stream s, struct atom_error *err)
{
    enum atom_status st = atom_cuda_status(
        cudaFuncSetAttribute(attend<D, T>, cudaFuncAttributeMaxDynamicSharedMemorySize, smem<D>::ALL),
        "asking for shared memory", err);
    if (st)
        return st;
    attend<D, T><<<(unsigned)atom_cuda_opened()->n_sm, THREADS, smem<D>::ALL, s>>>(*a);
    return atom_cuda_launched("starting prefill attention", err);
}

template <int D>
static enum atom_status launch(const struct prefill_args *a, atom_cuda_stream s, struct atom_error *err)
{
    switch (a->type) {
    case ATOM_CUDA_F16:
        return launch<D, __half>(a, s, err);
    case ATOM_CUDA_BF16:
        return launch<D, __nv_bfloat16>(a, s, err);
    default:
        return launch<D, float>(a, s, err);
    }
}

enum atom_status atom_cuda_prefill_sm90(const struct prefill_args *a, atom_cuda_stream s, struct atom_error *err)
{
    switch (tile_width(a->head_dim)) {
    case 64:
        return launch<64>(a, s, err);
    case 96:
        return launch<96>(a, s, err);
    default:
        return launch<128>(a, s, err);
    }
}
