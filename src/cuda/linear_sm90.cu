/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper: INT4 weights through INT8 wgmma.
 *
 * A block computes 128 rows times BN tokens. One warp brings runs of 128 channels into a ring of stages: the tile's
 * weights by a bulk copy, the tokens' integers by a tensor copy. Two warpgroups of consumers, 64 rows each, take their
 * weights from a stage to registers, where two instructions make eight INT8 of eight nibbles (16 times the value), and
 * multiply; a run's integer sums then become floats, scaled by row and token, while the other warpgroup has the tensor
 * cores: they take turns. Two blocks that form a cluster have the same tokens: each brings half of them, for both.
 *
 * Few tokens leave the time to reading weights. Then the runs of a tile are split among several blocks, two a
 * multiprocessor; each leaves its sums in the workspace, and the last to come adds them up in order.
 *
 * Sums run over the groups ascending in one chain of fma, the scalar tier's: unsplit results are its bits. */
#include "cuda/linear.cuh"
#include "cuda/ptx.cuh"
#include "cuda/wgmma.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1), FEW = 64 /* tokens, at most, of split work */ };

template <int BN> struct shape {
    enum {
        CLUSTER = BN <= FEW ? 1 : 2,
        BLOCKS = BN <= FEW ? 2 : 1, /* a multiprocessor */
        SMEM_MAX = 227 * 1024 / BLOCKS - 1024,
        ACT_BYTES = BN * ATOM_CUDA_RUN,
        WEIGHT_AT = ACT_BYTES,
        TOK_SCALE_AT = WEIGHT_AT + (BYTE_RUN_BYTES + 127) / 128 * 128,
        STAGE_BYTES = (TOK_SCALE_AT + BN * 4 + 1023) / 1024 * 1024,
        STAGES = (SMEM_MAX - 1024) / STAGE_BYTES < 8 ? (SMEM_MAX - 1024) / STAGE_BYTES : 8,
        SMEM_BYTES = STAGES * STAGE_BYTES + 1024,
        PRODUCER_REGISTERS = BLOCKS == 2 ? 24 : 40,
        CONSUMER_REGISTERS = BLOCKS == 2 ? 104 : 232, /* in all no more than the kernel starts with */
    };
    static_assert(BN % (8 * CLUSTER) == 0, "each block of a cluster brings whole swizzle atoms");
};

enum { MAX_SPLITS = 16, TILE_COST = 24 /* what a tile takes besides its tokens, in tokens */ };
#define ARRIVED_BYTES(w) (((size_t)(w)->n_tiles * sizeof(int) + 255) / 256 * 256)

struct args {
    const uint8_t *weights;
    size_t tile_bytes;
    const float *tok_scales;
    int n, n_tok, tok_stride, n_groups, n_runs;
    int row_tiles, tok_tiles;
    int splits;
    float *partials; /* [row tile][split][BN/2][256] */
    int *arrived;    /* [row tile] */
    void *y;
    const void *add;
    const float *bias;
    size_t y_stride;
};

struct ring {
    uint8_t *stages;
    uint64_t *full, *empty;
    int stage;
    uint32_t phase;
};

template <int BN> static __device__ __forceinline__ void next(struct ring &r)
{
    if (++r.stage == shape<BN>::STAGES) {
        r.stage = 0;
        r.phase ^= 1;
    }
}

/* The blocks of a cluster take work items in turn: tokens fastest, so that what runs at once shares weights. */
struct item {
    int row_tile, tok0, split;
    int run0, run1;
};

template <int BN> static __device__ __forceinline__ int my_rank()
{
    return shape<BN>::CLUSTER == 1 ? 0 : (int)cluster_rank();
}

template <int BN> static __device__ __forceinline__ bool item_at(const struct args &a, int i, struct item &it)
{
    enum { CLUSTER = shape<BN>::CLUSTER };
    if (i >= a.row_tiles / CLUSTER * a.tok_tiles * a.splits)
        return false;
    it.split = i % a.splits;
    i /= a.splits;
    it.row_tile = i / a.tok_tiles * CLUSTER + my_rank<BN>();
    it.tok0 = i % a.tok_tiles * BN;
    it.run0 = a.n_runs * it.split / a.splits;
    it.run1 = a.n_runs * (it.split + 1) / a.splits;
    return true;
}

/* Where a run of a tile starts. */
static __device__ __forceinline__ size_t run_at(const struct args &a, int run)
{
    return run <= a.n_groups ? (size_t)run * NIBBLE_RUN_BYTES
                             : (size_t)a.n_groups * NIBBLE_RUN_BYTES + (size_t)(run - a.n_groups) * BYTE_RUN_BYTES;
}

template <int BN> static __device__ void produce(const struct args &a, const CUtensorMap *map, struct ring r)
{
    using S = shape<BN>;
    int rank = my_rank<BN>();
    struct item it;
    for (int i = blockIdx.x / S::CLUSTER; item_at<BN>(a, i, it); i += gridDim.x / S::CLUSTER) {
        const uint8_t *w = a.weights + (size_t)it.row_tile * a.tile_bytes + run_at(a, it.run0);
        int tok = a.tok_stride - it.tok0 < BN ? a.tok_stride - it.tok0 : BN;
        for (int run = it.run0; run < it.run1; run++, next<BN>(r)) {
            uint32_t w_bytes = run < a.n_groups ? NIBBLE_RUN_BYTES : BYTE_RUN_BYTES;
            int scale = run < a.n_groups ? run : a.n_groups;
            uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES;
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            barrier_arrive_expect(&r.full[r.stage], S::ACT_BYTES + w_bytes + (uint32_t)tok * 4);
            bulk_copy(to + S::WEIGHT_AT, w, w_bytes, &r.full[r.stage]);
            if constexpr (S::CLUSTER == 1)
                tensor_copy(to, map, run * ATOM_CUDA_RUN, it.tok0, &r.full[r.stage]);
            else
                tensor_copy(to + rank * (S::ACT_BYTES / S::CLUSTER), map, run * ATOM_CUDA_RUN,
                            it.tok0 + rank * (BN / S::CLUSTER), &r.full[r.stage], (1 << S::CLUSTER) - 1);
            bulk_copy(to + S::TOK_SCALE_AT, a.tok_scales + (size_t)scale * a.tok_stride + it.tok0, (uint32_t)tok * 4,
                      &r.full[r.stage]);
            w += w_bytes;
        }
    }
}

/* A of four steps from a stage's nibbles or bytes; unit: this thread's first 16 bytes. */
static __device__ __forceinline__ void load_weights(const uint8_t *unit, bool nibbles, uint32_t (&a)[4][4])
{
    if (nibbles) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint4 w = *reinterpret_cast<const uint4 *>(unit + h * 2048);
            const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                a[2 * h][i] = words[i] << 4 & 0xF0F0F0F0u;
                a[2 * h + 1][i] = words[i] & 0xF0F0F0F0u;
            }
        }
        return;
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint4 w = *reinterpret_cast<const uint4 *>(unit + step * 2048);
        a[step][0] = w.x, a[step][1] = w.y, a[step][2] = w.z, a[step][3] = w.w;
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

/* Warpgroups take turns at the tensor cores, so that one may scale while the other multiplies. No gain was measured so
 * far: docs/design.md, section 7. */
static __device__ __forceinline__ void warpgroup_wait(int group)
{
    asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory");
}
static __device__ __forceinline__ void warpgroup_go(int group)
{
    asm volatile("bar.arrive %0, 256;" ::"r"(1 + group) : "memory");
}

/* One run of a stage: multiply, then scale. */
template <int BN>
static __device__ __forceinline__ void consume(const uint8_t *stage, bool nibbles, int group, float (&y)[BN / 2])
{
    using S = shape<BN>;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    uint32_t a[4][4];
    int acc[BN / 2];
    const uint8_t *w = stage + S::WEIGHT_AT;
    load_weights(w + group * (nibbles ? NIBBLE_BYTES / 2 : BYTE_BYTES / 2) + warp * 512 + lane * 16, nibbles, a);
    uint64_t desc = swizzled_descriptor(stage);
    const bool turns = BN > FEW;
    if (turns)
        warpgroup_wait(group);
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
    if (turns)
        warpgroup_go(1 - group);
    promote<BN>(acc, reinterpret_cast<const float *>(stage + S::TOK_SCALE_AT) + lane % 4 * 2, s0, s1, y);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t pack2(float a, float b, __half *)
{
    __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}
static __device__ __forceinline__ uint32_t pack2(float a, float b, __nv_bfloat16 *)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}
static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void from_float(float x, float &y) { y = x; }
static __device__ __forceinline__ void from_float(float x, __half &y) { y = __float2half_rn(x); }
static __device__ __forceinline__ void from_float(float x, __nv_bfloat16 &y) { y = __float2bfloat16_rn(x); }

static __device__ __forceinline__ float silu(float g, float u) { return g / (1.0f + __expf(-g)) * u; }

/* One element, with all that may come with it. */
template <class T> static __device__ __forceinline__ void put(const struct args &a, int tok, int row, float v)
{
    if (tok >= a.n_tok || row >= a.n)
        return;
    if (a.bias)
        v += a.bias[row];
    size_t at = (size_t)tok * a.y_stride + (size_t)row;
    if (a.add)
        v += to_float(static_cast<const T *>(a.add)[at]);
    from_float(v, static_cast<T *>(a.y)[at]);
}

template <int BN, class T>
static __device__ __forceinline__ void put_plain(const struct args &a, const struct item &it, int row0,
                                                 float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            put<T>(a, it.tok0 + 8 * j + lane % 4 * 2 + i % 2, row0 + lane / 4 + i / 2 * 8, y[4 * j + i]);
}

/* Sixteen bits: an 8x8 tile is transposed, so that a thread has two rows of one token and four threads eight. */
template <int BN, class T>
static __device__ __forceinline__ void put_pairs(const struct args &a, const struct item &it, int row0,
                                                 float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        int tok = it.tok0 + 8 * j + lane / 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = row0 + 8 * h + lane % 4 * 2;
            uint32_t two = transpose_8x8(pack2(y[4 * j + 2 * h], y[4 * j + 2 * h + 1], (T *)0));
            if (tok < a.n_tok)
                *reinterpret_cast<uint32_t *>(static_cast<T *>(a.y) + (size_t)tok * a.y_stride + row) = two;
        }
    }
}

template <int BN, class T>
static __device__ __forceinline__ void put_silu(const struct args &a, const struct item &it, int row0,
                                                float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int tok = it.tok0 + 8 * j + lane % 4 * 2 + i, row = row0 + lane / 4;
            float g = y[4 * j + i], u = y[4 * j + 2 + i];
            if (a.bias && row + 8 < a.n)
                g += a.bias[row], u += a.bias[row + 8];
            if (tok < a.n_tok && row < a.n)
                from_float(silu(g, u), static_cast<T *>(a.y)[(size_t)tok * a.y_stride + row0 / 2 + lane / 4]);
        }
}

template <int BN, class T, bool SILU>
static __device__ __forceinline__ void put_tile(const struct args &a, const struct item &it, int row0,
                                                float (&y)[BN / 2])
{
    if constexpr (SILU)
        put_silu<BN, T>(a, it, row0, y);
    else if (sizeof(T) == 2 && !a.bias && !a.add && row0 + 16 <= a.n)
        if constexpr (sizeof(T) == 2)
            put_pairs<BN, T>(a, it, row0, y);
        else
            ;
    else
        put_plain<BN, T>(a, it, row0, y);
}

/* Leaves this split's sums in the workspace. True for the last split of the tile, which then has all of them added up
 * in order. */
template <int BN> static __device__ bool gather_splits(const struct args &a, const struct item &it, float (&y)[BN / 2])
{
    __shared__ int last;
    int t = threadIdx.x - 128;
    float *mine = a.partials + ((size_t)it.row_tile * a.splits + it.split) * (BN / 2) * 256 + t;
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        __stcg(mine + e * 256, y[e]);
    __threadfence();
    asm volatile("bar.sync 3, 256;" ::: "memory");
    if (t == 0)
        last = atomicAdd(&a.arrived[it.row_tile], 1) == a.splits - 1;
    asm volatile("bar.sync 3, 256;" ::: "memory");
    if (!last)
        return false;
    __threadfence();
    const float *from = a.partials + (size_t)it.row_tile * a.splits * (BN / 2) * 256 + t;
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        y[e] = __ldcg(from + e * 256);
    for (int split = 1; split < a.splits; split++) {
        from += (BN / 2) * 256;
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] += __ldcg(from + e * 256);
    }
    if (t == 0)
        a.arrived[it.row_tile] = 0; /* as the next job wants it */
    return true;
}

template <int BN, class T, bool SILU> static __device__ void multiply(const struct args &a, struct ring r)
{
    using S = shape<BN>;
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    struct item it;
    if (BN > FEW && group == 1)
        warpgroup_go(0);
    for (int i = blockIdx.x / S::CLUSTER; item_at<BN>(a, i, it); i += gridDim.x / S::CLUSTER) {
        float y[BN / 2];
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] = 0.0f;
        for (int run = it.run0; run < it.run1; run++, next<BN>(r)) {
            barrier_wait(&r.full[r.stage], r.phase);
            consume<BN>(r.stages + (size_t)r.stage * S::STAGE_BYTES, run < a.n_groups, group, y);
            __syncwarp();
            if (threadIdx.x % 32 <
                S::CLUSTER) /* this warp needs the stage no more; all blocks of the cluster write to it */
                barrier_arrive_remote(&r.empty[r.stage], threadIdx.x % 32);
        }
        if (BN <= FEW && a.splits > 1 && !gather_splits<BN>(a, it, y))
            continue;
        put_tile<BN, T, SILU>(a, it, it.row_tile * TILE_ROWS + group * 64 + warp * 16, y);
    }
}

template <int BN, class T, bool SILU>
static __global__ void __launch_bounds__(THREADS, shape<BN>::BLOCKS)
    linear(const __grid_constant__ CUtensorMap map, const struct args a)
{
    using S = shape<BN>;
    extern __shared__ uint8_t raw[];
    __shared__ uint64_t full[S::STAGES], empty[S::STAGES];
    struct ring r = {raw + (1024 - smem_address(raw) % 1024) % 1024, full, empty, 0, 0};
    if (threadIdx.x == 0) {
        tensor_prefetch(&map);
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], S::CLUSTER * CONSUMERS * 4);
        }
        barrier_init_fence();
    }
    if (S::CLUSTER == 1)
        __syncthreads();
    else
        cluster_sync();
    if (threadIdx.x < 128) {
        registers_down<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            produce<BN>(a, &map, r);
    } else {
        registers_up<S::CONSUMER_REGISTERS>();
        multiply<BN, T, SILU>(a, r);
    }
    if (S::CLUSTER > 1)
        cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

typedef CUresult encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                           const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                           CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static encode_fn *find_encode(void)
{
    static encode_fn *fn;
    cudaDriverEntryPointQueryResult found;
    void *p = NULL;
    if (!fn &&
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault, &found) ==
            cudaSuccess &&
        found == cudaDriverEntryPointSuccess)
        fn = (encode_fn *)p;
    return fn;
}

static enum atom_status map_tokens(const struct atom_cuda_acts *a, int rows, CUtensorMap *map, struct atom_error *err)
{
    encode_fn *encode = find_encode();
    if (!encode)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "the CUDA driver has no cuTensorMapEncodeTiled: it is older than CUDA 12");
    const cuuint64_t dims[2] = {(cuuint64_t)a->site.k_padded, (cuuint64_t)a->tok_stride};
    const cuuint64_t strides[1] = {(cuuint64_t)a->site.k_padded};
    const cuuint32_t box[2] = {ATOM_CUDA_RUN, (cuuint32_t)rows}, step[2] = {1, 1};
    CUresult e =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, a->q, dims, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
               CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return e == CUDA_SUCCESS ? ATOM_OK
                             : atom_fail(err, ATOM_ERR_DEVICE, "CUDA, describing activations: error %d", (int)e);
}

/* Splits of a tile's runs when tokens are few: what makes the longest chain of runs on a multiprocessor shortest.
 * Depends on the weights alone, so that a token's result does not depend on its company. */
static int splits_for(const struct atom_cuda_weights *w)
{
    int best = 1, least = 1 << 30, slots = 2 * atom_cuda_opened()->n_sm, tiles = (w->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int s = 1; s <= MAX_SPLITS && s <= w->site.n_runs; s++) {
        int chain =
            (tiles * s + slots - 1) / slots * ((w->site.n_runs + s - 1) / s) * 4 + s; /* adding up costs a little */
        if (chain < least) {
            least = chain;
            best = s;
        }
    }
    return best;
}

int atom_cuda_sm90_splits(const struct atom_cuda_weights *w, int n_tok) { return n_tok <= FEW ? splits_for(w) : 1; }

size_t atom_cuda_sm90_workspace(const struct atom_cuda_weights *w)
{
    return ARRIVED_BYTES(w) + (size_t)w->n_tiles * splits_for(w) * FEW * TILE_ROWS * sizeof(float);
}

template <int BN, class T, bool SILU>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    using S = shape<BN>;
    CUtensorMap map;
    enum atom_status st = map_tokens(j->a, BN / S::CLUSTER, &map, err);
    st = st ? st
            : atom_cuda_status(
                  cudaFuncSetAttribute(linear<BN, T, SILU>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                  "asking for shared memory", err);
    if (st)
        return st;
    struct args a = {};
    a.weights = j->w->data;
    a.tile_bytes = j->w->tile_bytes;
    a.tok_scales = j->a->scales;
    a.n = j->w->n;
    a.n_tok = j->a->n_tok;
    a.tok_stride = j->a->tok_stride;
    a.n_groups = j->w->site.n_groups;
    a.n_runs = j->w->site.n_runs;
    a.row_tiles = S::CLUSTER == 1 ? (j->w->n + TILE_ROWS - 1) / TILE_ROWS : j->w->n_tiles;
    a.tok_tiles = (j->a->n_tok + BN - 1) / BN;
    a.splits = BN <= FEW ? splits_for(j->w) : 1;
    a.arrived = (int *)j->workspace;
    a.partials = (float *)((uint8_t *)j->workspace + ARRIVED_BYTES(j->w));
    a.y = j->y;
    a.add = j->add;
    a.bias = j->bias;
    a.y_stride = j->y_stride;
    int items = a.row_tiles / S::CLUSTER * a.tok_tiles * a.splits;
    int slots = atom_cuda_opened()->n_sm * S::BLOCKS / S::CLUSTER;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = S::CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.gridDim = dim3((unsigned)((items < slots ? items : slots) * S::CLUSTER));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = S::SMEM_BYTES;
    config.stream = s;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return atom_cuda_status(cudaLaunchKernelEx(&config, linear<BN, T, SILU>, map, a), "starting a linear", err);
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

/* Tokens of a tile: whole waves of blocks, and not much more than is asked for. */
static int tile_for(const struct atom_cuda_weights *w, int n_tok)
{
    static const int tiles[] = {96, 128, 192};
    int best = 192, least = 1 << 30, pairs = atom_cuda_opened()->n_sm / 2;
    if (n_tok <= FEW)
        return n_tok <= 16 ? 16 : n_tok <= 32 ? 32 : 64;
    for (int i = 0; i < 3; i++) {
        int items = w->n_tiles / 2 * ((n_tok + tiles[i] - 1) / tiles[i]);
        int cost = (items + pairs - 1) / pairs * (tiles[i] + TILE_COST);
        if (cost <= least) {
            least = cost;
            best = tiles[i];
        }
    }
    return best;
}

enum atom_status atom_cuda_linear_sm90(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err)
{
    switch (tile_for(job->w, job->a->n_tok)) {
    case 16:
        return launch<16>(job, s, err);
    case 32:
        return launch<32>(job, s, err);
    case 64:
        return launch<64>(job, s, err);
    case 96:
        return launch<96>(job, s, err);
    case 128:
        return launch<128>(job, s, err);
    default:
        return launch<192>(job, s, err);
    }
}
