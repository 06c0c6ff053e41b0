/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the many-token linear of Hopper: the stages of its ring, and a warpgroup's way through the runs of a tile. */
#ifndef ATOM_CUDA_LINEAR_MANY_SM90_CUH
#define ATOM_CUDA_LINEAR_MANY_SM90_CUH

#include "cuda/linear_sm90.cuh"

template <int BN> struct many_shape {
    enum {
        CLUSTER = 2,
        LOW = (BN / 2 + 15) / 16 * 16, /* tokens of the low half, and of the high one */
        HIGH = BN - LOW,
        ACT_BYTES = BN * ATOM_CUDA_RUN,
        WEIGHT_AT = ACT_BYTES,
        TOK_SCALE_AT = WEIGHT_AT + (BYTE_RUN_BYTES + 127) / 128 * 128, /* [BN][4 of k] */
        FULL_AT = TOK_SCALE_AT + BN * 16,                              /* the stage's barriers */
        EMPTY_AT = FULL_AT + 8,
        RELEASES = CONSUMERS * 128 + (CLUSTER - 1) * CONSUMERS * 4, /* arrivals: lanes here, warps there */
        STAGE_BYTES = (EMPTY_AT + 8 + 1023) / 1024 * 1024,
        OUT_BYTES = BN * 128, /* a warpgroup's results on their way: 64 rows of two bytes */
        STAGES = (226 * 1024 - 2 * OUT_BYTES) / STAGE_BYTES < 8 ? (226 * 1024 - 2 * OUT_BYTES) / STAGE_BYTES : 8,
        SMEM_BYTES = STAGES * STAGE_BYTES + 2 * OUT_BYTES + 1024,
        PRODUCER_REGISTERS = 24,
        CONSUMER_REGISTERS = 240, /* in all no more than the kernel starts with */
    };
    static_assert(BN % (8 * CLUSTER) == 0, "each block of a cluster brings whole swizzle atoms");
    static_assert(LOW * ATOM_CUDA_RUN % 1024 == 0 && HIGH % 16 == 0, "halves are whole swizzle atoms and wgmmas");
};

/* The ring as a warp of consumers walks it: by the stage's address in shared memory, from which all it reads lies as
 * far in every stage. Numbers that the compiler knows to be the same in a warp, and few of a lane's own: both show in
 * the instructions of a run, which are what bounds it. */
template <int BN> struct place {
    uint32_t at, first, phase;
    uint32_t weights, scales;      /* of this lane, from the stage's start */
    uint32_t empty;                /* lane 0: from a stage to its barrier in the other block of the cluster */
    uint64_t tokens0, tok_scales0; /* descriptors of B, of a stage at address 0 */
};

template <int BN> static __device__ __forceinline__ place<BN> place_first(uint8_t *stages)
{
    using S = many_shape<BN>;
    uint32_t group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    place<BN> p;
    p.first = p.at = smem_address(stages);
    p.phase = 0;
    p.weights = S::WEIGHT_AT + group * (NIBBLE_BYTES / 2) + warp * 512 + lane * 16;
    p.scales = S::WEIGHT_AT + group * 128 + warp * 32 + lane / 4 * 2;
    p.empty = lane == 0 ? cluster_address(p.first + S::EMPTY_AT, cluster_rank() ^ 1) - p.first : 0;
    p.tokens0 = swizzled_descriptor(stages) - p.first / 16;
    /* A is zero from k 4 on, so that B may be anything: the first half of k again */
    p.tok_scales0 = plain_descriptor(stages + S::TOK_SCALE_AT, 0, 128) - p.first / 16;
    return p;
}

template <int BN> static __device__ __forceinline__ void step_on(struct place<BN> &p)
{
    using S = many_shape<BN>;
    p.at += S::STAGE_BYTES;
    if (p.at == p.first + S::STAGES * S::STAGE_BYTES) {
        p.at = p.first;
        p.phase ^= 1;
    }
}

template <int BN> static __device__ __forceinline__ void await_stage(const struct place<BN> &p)
{
    barrier_wait(p.at + many_shape<BN>::FULL_AT, p.phase);
}

/* This warp needs the stage at `at` no more; both blocks of the cluster write to it. Every lane says so to its own
 * block, as it is its own reads that racecheck takes for released; one tells the other block. */
template <int BN> static __device__ __forceinline__ void release(const struct place<BN> &p, uint32_t at)
{
    barrier_arrive(at + many_shape<BN>::EMPTY_AT);
    __syncwarp();
    barrier_arrive_cluster(p.empty + at, p.empty != 0);
}

/* A of a run in registers: its weights, and the scales of this thread's two rows for tf32, k 4 on zeros. */
struct rows_of_run {
    uint32_t weights[4][4], scales[4];
};

template <int BN, bool NIBBLES>
static __device__ __forceinline__ void load_scales(const struct place<BN> &p, struct rows_of_run &w)
{
    uint32_t at = p.at + p.scales + (NIBBLES ? NIBBLE_BYTES : BYTE_BYTES);
    w.scales[0] = load_half_as_float(at);
    w.scales[1] = load_half_as_float(at + 16);
}

/* Half of the run's channels, steps 2h and 2h + 1. */
template <int BN, bool NIBBLES>
static __device__ __forceinline__ void load_half(const struct place<BN> &p, int h, struct rows_of_run &w)
{
    if constexpr (NIBBLES) {
        unpack(load_16(p.at + p.weights + h * 2048), w.weights[2 * h], w.weights[2 * h + 1]);
    } else {
        uint32_t group = threadIdx.x / 128 - 1;
#pragma unroll
        for (int step = 2 * h; step < 2 * h + 2; step++) {
            uint4 x = load_16(p.at + p.weights + group * (BYTE_BYTES - NIBBLE_BYTES) / 2 + step * 2048);
            w.weights[step][0] = x.x, w.weights[step][1] = x.y, w.weights[step][2] = x.z, w.weights[step][3] = x.w;
        }
    }
}

/* Half of the tokens: integer sums of a run, and what to multiply them by. */
template <int H> struct half_tile {
    int sums[H / 2];
    float scales[H / 2];
};

/* The compiler must neither move nor copy what a wgmma in flight works on. */
template <int H> static __device__ __forceinline__ void pin(struct half_tile<H> &t)
{
#pragma unroll
    for (int i = 0; i < H / 2; i++)
        asm volatile("" : "+r"(t.sums[i]), "+f"(t.scales[i]));
}

/* A quarter: tokens from `first` of the tile on, half `h` of the channels of the run at p.at; with the first half, the
 * products of scales. */
template <int BN, int H>
static __device__ __forceinline__ void start(const struct place<BN> &p, const struct rows_of_run &w, int first, int h,
                                             struct half_tile<H> &t)
{
    uint64_t stage = p.at / 16;
    pin(t);
    wgmma_fence();
    if (h == 0)
        wgmma_tf32<H>::run(t.scales, w.scales, p.tok_scales0 + (uint64_t)first + stage);
#pragma unroll
    for (int step = 2 * h; step < 2 * h + 2; step++)
        wgmma_s8<H>::run(t.sums, w.weights[step], p.tokens0 + (uint64_t)(first * ATOM_CUDA_RUN / 16 + step * 2) + stage,
                         step > 0);
    wgmma_commit();
    pin(t);
}

template <int H, int ALL>
static __device__ __forceinline__ void finish(int first, struct half_tile<H> &t, float (&y)[ALL])
{
    pin(t);
#pragma unroll
    for (int i = 0; i < H / 2; i++)
        y[first / 2 + i] = fmaf((float)t.sums[i], t.scales[i], y[first / 2 + i]);
}

/* RUNS runs of one kind, nothing in flight before or after: the compiler follows what is in flight through straight
 * code alone, and branches cost it registers. In the order of these lines there are never fewer than two quarters in
 * flight while sums are scaled. */
template <int BN, int RUNS, bool NIBBLES>
static __device__ __forceinline__ void sum_runs(struct place<BN> &p, float (&y)[BN / 2])
{
    using S = many_shape<BN>;
    struct rows_of_run w;
    struct half_tile<S::LOW> low;
    struct half_tile<S::HIGH> high;
    w.scales[2] = w.scales[3] = opaque_zero();
    await_stage(p);
    load_scales<BN, NIBBLES>(p, w);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        load_half<BN, NIBBLES>(p, h, w);
        start(p, w, 0, h, low);
    }
    start(p, w, S::LOW, 0, high);
    start(p, w, S::LOW, 1, high);
#pragma unroll
    for (int i = 1; i < RUNS; i++) {
        uint32_t done = p.at;
        step_on(p);
        wgmma_wait<2>();
        finish(0, low, y);
        await_stage(p);
        wgmma_wait<1>();
        load_scales<BN, NIBBLES>(p, w);
        load_half<BN, NIBBLES>(p, 0, w);
        start(p, w, 0, 0, low);
        wgmma_wait<1>();
        release(p, done);
        load_half<BN, NIBBLES>(p, 1, w);
        start(p, w, 0, 1, low);
        finish(S::LOW, high, y);
        start(p, w, S::LOW, 0, high);
        start(p, w, S::LOW, 1, high);
    }
    wgmma_wait<2>();
    finish(0, low, y);
    wgmma_wait<0>();
    release(p, p.at);
    step_on(p);
    finish(S::LOW, high, y);
}

template <int BN>
static __device__ __forceinline__ void sum_tile(int nibbles, int bytes, struct place<BN> &p, float (&y)[BN / 2])
{
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        y[e] = 0.0f;
    for (; nibbles >= 4; nibbles -= 4)
        sum_runs<BN, 4, true>(p, y);
    if (nibbles == 3) /* as most often, of 128 outliers: the last run of four is theirs */
        sum_runs<BN, 3, true>(p, y);
    else
#pragma unroll 1
        for (; nibbles > 0; nibbles--)
            sum_runs<BN, 1, true>(p, y);
    for (; bytes > 0; bytes--)
        sum_runs<BN, 1, false>(p, y);
}

#endif
