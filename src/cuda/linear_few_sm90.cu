/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper for few tokens, where reading the weights takes the time.
 *
 * A block computes 128 rows times BN tokens. One warp brings runs of 128 channels into a ring of stages: the tile's
 * weights by a bulk copy, the tokens' integers by a tensor copy. Two warpgroups of consumers, 64 rows each, take their
 * weights from a stage to registers, multiply, and scale the run's integer sums by row and token. A block takes half of
 * a multiprocessor. Where tiles are few, or do not come out even, a tile's runs are split among the blocks of a
 * cluster, which add up over their shared memory.
 *
 * Sums run over the groups ascending in one chain of fma, the scalar tier's: unsplit results are its bits. */
#include "cuda/early.cuh"
#include "cuda/linear_gather_sm90.cuh"

/* A stage has its tokens in one place, for swizzling, and in another its rows: weights and their scales, then the
 * scales of the tokens and its barriers. INT8 weights take two stages, a warpgroup's in each, the rest as it comes. */
template <int BN> struct few_shape {
    enum {
        BLOCKS = 2, /* a multiprocessor */
        PRODUCER_REGISTERS = 24,
        CONSUMER_REGISTERS = 104, /* in all no more than the kernel starts with */
        ACT_BYTES = BN * ATOM_CUDA_RUN,
        TOK_SCALE_AT = NIBBLE_RUN_BYTES,
        FULL_AT = TOK_SCALE_AT + BN * 4,
        EMPTY_AT = FULL_AT + 8,
        ROW_BYTES = EMPTY_AT + 8,
        FIXED_BYTES = 1024 + gather_shape<BN>::BYTES,
        MOST_BYTES = 228 * 1024 / BLOCKS - 2048, /* less what the system and variables take */
        FIT = (MOST_BYTES - FIXED_BYTES) / (ACT_BYTES + ROW_BYTES),
        STAGES = FIT < 12 ? FIT : 12,
        SMEM_BYTES = FIXED_BYTES + STAGES * (ACT_BYTES + ROW_BYTES),
    };
    static_assert(ROW_BYTES % 16 == 0, "copies go to multiples of 16 bytes");
};

/* A block's share of a tile's runs, as stages: of INT4 weights, then of INT8. */
struct share {
    int run, nibbles, bytes;
};

static __device__ __forceinline__ struct share share_of(const struct args &a)
{
    int rank = (int)cluster_rank(), run0 = a.n_runs * rank / a.splits, run1 = a.n_runs * (rank + 1) / a.splits,
        nibbles = max(0, min(run1, a.n_groups) - run0);
    return {run0, nibbles, run1 - run0 - nibbles};
}

/* ---- feeding ----------------------------------------------------------------------------------------------------- */

/* The ring by the addresses of a stage's two places. */
template <int BN> struct place {
    uint32_t tokens, rows, tokens0, rows0, phase;
};

template <int BN> static __device__ __forceinline__ struct place<BN> place_first(uint32_t stages) {
    uint32_t rows = stages + few_shape<BN>::STAGES * few_shape<BN>::ACT_BYTES;
    return {stages, rows, stages, rows, 0};
}

template <int BN>
static __device__ __forceinline__ void step_on(struct place<BN> &p)
{
    using S = few_shape<BN>;
    p.tokens += S::ACT_BYTES;
    p.rows += S::ROW_BYTES;
    if (p.rows == p.rows0 + S::STAGES * S::ROW_BYTES) {
        p.tokens = p.tokens0;
        p.rows = p.rows0;
        p.phase ^= 1;
    }
}

/* Two threads bring a stage, which have few turns to issue: each does little. */

/* N_BYTES of weights, and of their scales if the stage has them, with what else comes to the stage. Only early_wait is
 * not for them: no kernel of a step writes weights. */
template <int BN, int N_BYTES, int OTHER_BYTES>
static __device__ __forceinline__ void bring_weights(struct place<BN> &p, const uint8_t *&w)
{
    using S = few_shape<BN>;
    uint32_t full = p.rows + S::FULL_AT;
    barrier_wait(p.rows + S::EMPTY_AT, p.phase ^ 1);
    barrier_arrive_expect(full, N_BYTES + OTHER_BYTES);
    bulk_copy(p.rows, w, N_BYTES, full);
    w += N_BYTES;
    step_on(p);
}

template <int BN> static __device__ void produce_weights(const struct args &a, struct place<BN> p, int tile, int step)
{
    enum { TOKEN_BYTES = few_shape<BN>::ACT_BYTES + BN * 4 };
    const struct share s = share_of(a);
    for (; tile < a.row_tiles; tile += step) {
        const uint8_t *w = a.weights + (size_t)tile * a.tile_bytes + run_at(a, s.run);
#pragma unroll 1
        for (int i = s.nibbles; i > 0; i--)
            bring_weights<BN, NIBBLE_RUN_BYTES, TOKEN_BYTES>(p, w);
#pragma unroll 1
        for (int i = s.bytes; i > 0; i--) {
            bring_weights<BN, BYTE_BYTES / 2, TOKEN_BYTES>(p, w);
            bring_weights<BN, BYTE_BYTES / 2 + SCALE_BYTES, 0>(p, w);
        }
    }
}

template <int BN>
static __device__ __forceinline__ void bring_tokens(struct place<BN> &p, const CUtensorMap *map, int &channel,
                                                    const float *scales)
{
    using S = few_shape<BN>;
    uint32_t full = p.rows + S::FULL_AT;
    barrier_wait(p.rows + S::EMPTY_AT, p.phase ^ 1);
    tensor_copy(p.tokens, map, channel, 0, full);
    bulk_copy(p.rows + S::TOK_SCALE_AT, scales, BN * 4, full);
    channel += ATOM_CUDA_RUN;
    step_on(p);
}

template <int BN>
static __device__ void produce_tokens(const struct args &a, const CUtensorMap *map, struct place<BN> p, int tile,
                                      int step)
{
    const struct share s = share_of(a);
    early_wait();
    for (; tile < a.row_tiles; tile += step) {
        int channel = s.run * ATOM_CUDA_RUN;
        const float *scales = a.tok_scales + (size_t)min(s.run, a.n_groups) * a.tok_stride;
#pragma unroll 1
        for (int i = s.nibbles; i > 0; i--, scales += a.tok_stride)
            bring_tokens(p, map, channel, scales);
#pragma unroll 1
        for (int i = s.bytes; i > 0; i--) {
            bring_tokens(p, map, channel, scales);
            step_on(p);
        }
    }
}

/* ---- consuming --------------------------------------------------------------------------------------------------- */

/* Where a thread's own lie in a stage. */
struct mine {
    uint32_t weights, row_scales, tok_scales;
};

static __device__ __forceinline__ struct mine mine_of()
{
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    struct mine m = {warp / 4 * (NIBBLE_BYTES / 2) + warp % 4 * 512 + lane * 16,
                     NIBBLE_BYTES + warp * 32 + lane / 4 * 2, lane % 4 * 8};
    asm volatile("" : "+r"(m.weights), "+r"(m.row_scales), "+r"(m.tok_scales)); /* not found anew for each run */
    return m;
}

template <int BN> static __device__ __forceinline__ void await(const struct place<BN> &p)
{
    barrier_wait(p.rows + few_shape<BN>::FULL_AT, p.phase);
}

template <int BN> static __device__ __forceinline__ void release(uint32_t rows)
{
    barrier_arrive(rows + few_shape<BN>::EMPTY_AT);
}

/* y += integer sums of a run, scaled by row and token. */
template <int BN>
static __device__ __forceinline__ void promote(const int (&sums)[BN / 2], const float2 (&tok)[BN / 8], float s0,
                                               float s1, float (&y)[BN / 2])
{
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        y[4 * j] = fmaf((float)sums[4 * j], tok[j].x * s0, y[4 * j]);
        y[4 * j + 1] = fmaf((float)sums[4 * j + 1], tok[j].y * s0, y[4 * j + 1]);
        y[4 * j + 2] = fmaf((float)sums[4 * j + 2], tok[j].x * s1, y[4 * j + 2]);
        y[4 * j + 3] = fmaf((float)sums[4 * j + 3], tok[j].y * s1, y[4 * j + 3]);
    }
}

template <int BN>
static __device__ __forceinline__ void load_tok_scales(uint32_t rows, const struct mine &m, float2 (&tok)[BN / 8])
{
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
        tok[j] = load_two_floats(rows + few_shape<BN>::TOK_SCALE_AT + m.tok_scales + 32 * j);
}

static __device__ __forceinline__ float load_scale(uint32_t at) { return __uint_as_float(load_half_as_float(at)); }

/* INT8 weights of a run, whose stages lie at `first` and `second`. */
static __device__ __forceinline__ void load_bytes(uint32_t first, uint32_t second, const struct mine &m,
                                                  uint32_t (&weights)[4][4])
{
    uint32_t at = (threadIdx.x < 128 ? first : second) + m.weights % (NIBBLE_BYTES / 2);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint4 w = load_16(at + step * 2048);
        weights[step][0] = w.x, weights[step][1] = w.y, weights[step][2] = w.z, weights[step][3] = w.w;
    }
}

/* Zero, once a thread's token scales have come, and with them all that it read of a stage before: what it adds to the
 * barrier's address when it releases the stage. The arrival itself does not wait for loads, and the compiler does not
 * keep their order: a stage was filled again before the last of them, once in some million runs. */
template <int BN> static __device__ __forceinline__ uint32_t all_read(const struct args &a, const float2 (&tok)[BN / 8])
{
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
        bits |= __float_as_uint(tok[j].y);
    return bits & a.zero;
}

/* One run: both kinds of weights go through the same instructions as far as they can, as those of the rare kind come
 * from far. */
template <int BN>
static __device__ __forceinline__ void sum_run(const struct args &a, struct place<BN> &p, const struct mine &m,
                                               bool nibbles, float (&y)[BN / 2])
{
    uint32_t weights[4][4], first = p.rows, tokens = p.tokens / 16;
    int sums[BN / 2];
    await(p);
    if (nibbles) {
        unpack(load_16(p.rows + m.weights), weights[0], weights[1]);
        unpack(load_16(p.rows + m.weights + 2048), weights[2], weights[3]);
    } else {
        step_on(p);
        await(p);
        load_bytes(first, p.rows, m, weights);
    }
    /* all lanes have the same; that it comes from one makes it a number of the warp, not of each */
    uint64_t desc = swizzled_descriptor_at(0) + __shfl_sync(0xFFFFFFFFu, tokens, 0);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < 4; step++)
        wgmma_s8<BN>::run(sums, weights[step], desc + (uint64_t)step * 2, step > 0);
    wgmma_commit();
    float2 tok[BN / 8];
    if (BN < 64) /* else there are no registers for them yet */
        load_tok_scales<BN>(first, m, tok);
    float by = nibbles ? 0.0625f : 1.0f; /* nibbles came as 16 times their value */
    float s0 = load_scale(p.rows + m.row_scales) * by, s1 = load_scale(p.rows + m.row_scales + 16) * by;
    wgmma_wait<0>();
    if (BN == 64)
        load_tok_scales<BN>(first, m, tok);
    promote<BN>(sums, tok, s0, s1, y);
    uint32_t read = all_read<BN>(a, tok);
    release<BN>(p.rows + read);
    if (!nibbles)
        release<BN>(first + read);
    step_on(p);
}

template <int BN, class T, bool SILU>
static __device__ void multiply(const struct args &a, struct place<BN> p, struct gather<BN> &g, int tile, int step)
{
    const struct mine m = mine_of();
    const struct share s = share_of(a);
    struct gathering at = {p.rows0 + few_shape<BN>::STAGES * few_shape<BN>::ROW_BYTES, 0, false};
    early_wait();
    if (a.splits > 1)
        cluster_wait(); /* every block has its barriers */
    for (; tile < a.row_tiles; tile += step) {
        float y[BN / 2];
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] = 0.0f;
        for (int i = 0; i < s.nibbles + s.bytes; i++)
            sum_run(a, p, m, i < s.nibbles, y);
        if (a.splits == 1) {
            struct item it = {};
            put_tile<BN, T, SILU>(a, it, tile * TILE_ROWS + threadIdx.x / 32 * 16, y);
            continue;
        }
        at.more = tile + step < a.row_tiles;
        gather_tile<BN, T, SILU>(a, g, tile, at, y);
    }
}

template <int BN, class T, bool SILU>
static __global__ void __launch_bounds__(THREADS, few_shape<BN>::BLOCKS)
    linear(const __grid_constant__ CUtensorMap map, const __grid_constant__ struct args a)
{
    using S = few_shape<BN>;
    extern __shared__ uint8_t raw[];
    __shared__ struct gather<BN> gather;
    uint32_t stages = (smem_address(raw) + 1023) / 1024 * 1024;
    const struct place<BN> p = place_first<BN>(stages);
    int cluster = blockIdx.x / a.splits, clusters = gridDim.x / a.splits;
    early_next();
    if (threadIdx.x == CONSUMERS * 128) {
        tensor_prefetch(&map);
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(p.rows + i * S::ROW_BYTES + S::FULL_AT, 1);
            barrier_init(p.rows + i * S::ROW_BYTES + S::EMPTY_AT, CONSUMERS * 128);
        }
        barrier_init_fence();
    } else if (a.splits > 1) {
        gather_init(gather, a.splits, p.rows + S::STAGES * S::ROW_BYTES);
        barrier_init_fence();
    }
    __syncthreads(); /* before it goes by splits again: the compiler would join the branches, and part warps */
    if (a.splits > 1)
        cluster_arrive();
    if (threadIdx.x < CONSUMERS * 128) {
        registers_up<S::CONSUMER_REGISTERS>();
        multiply<BN, T, SILU>(a, p, gather, cluster, clusters);
    } else {
        registers_down<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == CONSUMERS * 128)
            produce_weights<BN>(a, p, cluster, clusters);
        if (threadIdx.x == CONSUMERS * 128 + 32)
            produce_tokens<BN>(a, &map, p, cluster, clusters);
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
    a.tok_tiles = 1; /* more are not for this kernel */
    a.splits = atom_cuda_sm90_few_splits(j->w);
    int slots = atom_cuda_opened()->n_sm * S::BLOCKS / a.splits;
    const struct early_grid grid = {dim3((unsigned)((a.row_tiles < slots ? a.row_tiles : slots) * a.splits)), THREADS,
                                    S::SMEM_BYTES, a.splits > 1 ? (unsigned)a.splits : 0};
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
