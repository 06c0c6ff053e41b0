/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper for few tokens, where reading the weights takes the time.
 *
 * A block computes 128 rows times BN tokens. One warp brings runs of 128 channels into a ring of stages: the tile's
 * weights by a bulk copy, the tokens' integers by a tensor copy. Two warpgroups of consumers, 64 rows each, take their
 * weights from a stage to registers, multiply, and scale the run's integer sums by row and token. There are two blocks
 * a multiprocessor; where tiles are fewer, the runs of a tile are split among several, and the last to come adds up.
 *
 * Sums run over the groups ascending in one chain of fma, the scalar tier's: unsplit results are its bits. */
#include "cuda/early.cuh"
#include "cuda/linear_sm90.cuh"

template <int BN> struct few_shape {
    enum {
        BLOCKS = 2, /* a multiprocessor */
        SMEM_MAX = 227 * 1024 / BLOCKS - 1024,
        ACT_BYTES = BN * ATOM_CUDA_RUN,
        WEIGHT_AT = ACT_BYTES,
        TOK_SCALE_AT = WEIGHT_AT + (BYTE_RUN_BYTES + 127) / 128 * 128,
        STAGE_BYTES = (TOK_SCALE_AT + BN * 4 + 1023) / 1024 * 1024,
        STAGES = (SMEM_MAX - 1024) / STAGE_BYTES < 8 ? (SMEM_MAX - 1024) / STAGE_BYTES : 8,
        SMEM_BYTES = STAGES * STAGE_BYTES + 1024,
        PRODUCER_REGISTERS = 24,
        CONSUMER_REGISTERS = 104, /* in all no more than the kernel starts with */
    };
};

/* A tile whole, or a block's share of its runs. */
static __device__ __forceinline__ bool item_at(const struct args &a, int i, struct item &it)
{
    if (i >= a.row_tiles * a.splits)
        return false;
    it.slot = i;
    it.n_splits = a.splits;
    it.split = i % a.splits;
    it.row_tile = it.word = i / a.splits;
    it.tok0 = 0;
    it.run0 = a.n_runs * it.split / a.splits;
    it.run1 = a.n_runs * (it.split + 1) / a.splits;
    return true;
}

/* A run's weights, on their way before the kernel in front has ended; what that may have written comes later. */
template <int BN>
static __device__ __forceinline__ void bring_weights(const struct args &a, const struct item &it, int run,
                                                     const struct ring &r)
{
    using S = few_shape<BN>;
    uint32_t tok = a.tok_stride < BN ? a.tok_stride : BN,
             w_bytes = run < a.n_groups ? NIBBLE_RUN_BYTES : BYTE_RUN_BYTES;
    barrier_wait(&r.empty[r.stage], r.phase ^ 1);
    barrier_arrive_expect(&r.full[r.stage], S::ACT_BYTES + w_bytes + tok * 4);
    bulk_copy(r.stages + (size_t)r.stage * S::STAGE_BYTES + S::WEIGHT_AT,
              a.weights + (size_t)it.row_tile * a.tile_bytes + run_at(a, run), w_bytes, &r.full[r.stage]);
}

template <int BN>
static __device__ __forceinline__ void bring_tokens(const struct args &a, const CUtensorMap *map, int run,
                                                    const struct ring &r)
{
    using S = few_shape<BN>;
    uint32_t tok = a.tok_stride < BN ? a.tok_stride : BN;
    int scale = run < a.n_groups ? run : a.n_groups;
    uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES;
    tensor_copy(to, map, run * ATOM_CUDA_RUN, 0, &r.full[r.stage]);
    bulk_copy(to + S::TOK_SCALE_AT, a.tok_scales + (size_t)scale * a.tok_stride, tok * 4, &r.full[r.stage]);
}

template <int BN> static __device__ void produce(const struct args &a, const CUtensorMap *map, struct ring r)
{
    using S = few_shape<BN>;
    struct item it;
    struct ring ahead = r;
    int n_ahead = 0;
    if (item_at(a, blockIdx.x, it))
        for (int run = it.run0; run < it.run1 && n_ahead < S::STAGES; run++, n_ahead++, next<S>(ahead))
            bring_weights<BN>(a, it, run, ahead);
    early_wait();
    for (int i = blockIdx.x; item_at(a, i, it); i += gridDim.x)
        for (int run = it.run0; run < it.run1; run++, next<S>(r)) {
            if (n_ahead > 0)
                n_ahead--;
            else
                bring_weights<BN>(a, it, run, r);
            bring_tokens<BN>(a, map, run, r);
        }
}

/* y += integer sums of a run, scaled. */
template <int BN>
static __device__ __forceinline__ void promote(const int (&acc)[BN / 2], const float *tok_scales, float s0, float s1,
                                               float (&y)[BN / 2])
{
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        float2 s = *reinterpret_cast<const float2 *>(tok_scales + 8 * j);
        y[4 * j] = fmaf((float)acc[4 * j], s.x * s0, y[4 * j]);
        y[4 * j + 1] = fmaf((float)acc[4 * j + 1], s.y * s0, y[4 * j + 1]);
        y[4 * j + 2] = fmaf((float)acc[4 * j + 2], s.x * s1, y[4 * j + 2]);
        y[4 * j + 3] = fmaf((float)acc[4 * j + 3], s.y * s1, y[4 * j + 3]);
    }
}

/* One run of a stage: multiply, then scale. */
template <int BN>
static __device__ __forceinline__ void consume(const uint8_t *stage, bool nibbles, int group, float (&y)[BN / 2])
{
    using S = few_shape<BN>;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    uint32_t a[4][4];
    int acc[BN / 2];
    const uint8_t *w = stage + S::WEIGHT_AT;
    load_weights(w + group * (nibbles ? NIBBLE_BYTES / 2 : BYTE_BYTES / 2) + warp * 512 + lane * 16, nibbles, a);
    uint64_t desc = swizzled_descriptor(stage);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_s8<BN>::run(acc, a[step], desc + (uint64_t)step * 2, step > 0);
    wgmma_commit();
    const __half *row_scales =
        reinterpret_cast<const __half *>(w + (nibbles ? NIBBLE_BYTES : BYTE_BYTES)) + group * 64 + warp * 16 + lane / 4;
    float by = nibbles ? 0.0625f : 1.0f; /* nibbles came as 16 times their value */
    float s0 = __half2float(row_scales[0]) * by, s1 = __half2float(row_scales[8]) * by;
    wgmma_wait<0>();
    promote<BN>(acc, reinterpret_cast<const float *>(stage + S::TOK_SCALE_AT) + lane % 4 * 2, s0, s1, y);
}

template <int BN, class T, bool SILU> static __device__ void multiply(const struct args &a, struct ring r)
{
    using S = few_shape<BN>;
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    struct item it;
    early_wait();
    for (int i = blockIdx.x; item_at(a, i, it); i += gridDim.x) {
        float y[BN / 2];
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] = 0.0f;
        for (int run = it.run0; run < it.run1; run++, next<S>(r)) {
            barrier_wait(&r.full[r.stage], r.phase);
            consume<BN>(r.stages + (size_t)r.stage * S::STAGE_BYTES, run < a.n_groups, group, y);
            barrier_arrive(&r.empty[r.stage]); /* this thread needs the stage no more */
        }
        if (a.splits > 1) {
            leave_sums<BN>(a, it.slot, y);
            if (!add_splits<BN>(a, it, y))
                continue;
        }
        put_tile<BN, T, SILU>(a, it, it.row_tile * TILE_ROWS + group * 64 + warp * 16, y);
    }
}

template <int BN, class T, bool SILU>
static __global__ void __launch_bounds__(THREADS, few_shape<BN>::BLOCKS)
    linear(const __grid_constant__ CUtensorMap map, const __grid_constant__ struct args a)
{
    using S = few_shape<BN>;
    extern __shared__ uint8_t raw[];
    __shared__ uint64_t full[S::STAGES], empty[S::STAGES];
    struct ring r = {raw + (1024 - smem_address(raw) % 1024) % 1024, full, empty, 0, 0};
    early_next();
    if (threadIdx.x == 0) {
        tensor_prefetch(&map);
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], CONSUMERS * 128);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_down<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            produce<BN>(a, &map, r);
    } else {
        registers_up<S::CONSUMER_REGISTERS>();
        multiply<BN, T, SILU>(a, r);
    }
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <int BN, class T, bool SILU>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    using S = few_shape<BN>;
    CUtensorMap map;
    enum atom_status st = atom_cuda_sm90_map(j->a, BN, &map, err);
    st = st ? st
            : atom_cuda_status(
                  cudaFuncSetAttribute(linear<BN, T, SILU>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                  "asking for shared memory", err);
    if (st)
        return st;
    struct args a = atom_cuda_sm90_args(j);
    a.row_tiles = (j->w->n + TILE_ROWS - 1) / TILE_ROWS;
    a.tok_tiles = 1;
    a.splits = atom_cuda_sm90_few_splits(j->w);
    int items = a.row_tiles * a.splits, slots = atom_cuda_opened()->n_sm * S::BLOCKS;
    const struct early_grid grid = {dim3((unsigned)(items < slots ? items : slots)), THREADS, S::SMEM_BYTES};
    launch_early(linear<BN, T, SILU>, grid, s, map, a);
    return atom_cuda_launched("starting a linear", err);
}

template <int BN, class T>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    return j->silu ? launch<BN, T, true>(j, s, err) : launch<BN, T, false>(j, s, err);
}

template <int BN>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    switch (j->type) {
    case ATOM_CUDA_F16:
        return launch<BN, __half>(j, s, err);
    case ATOM_CUDA_BF16:
        return launch<BN, __nv_bfloat16>(j, s, err);
    default:
        return launch<BN, float>(j, s, err);
    }
}

enum atom_status atom_cuda_linear_few(const struct atom_cuda_linear *job, int tile, atom_cuda_stream s,
                                      struct atom_error *err)
{
    switch (tile) {
    case 16:
        return launch<16>(job, s, err);
    case 32:
        return launch<32>(job, s, err);
    default:
        return launch<64>(job, s, err);
    }
}
