/* SPDX-License-Identifier: Apache-2.0 */
/* INT4 weights times 16-bit activations on Hopper: 16-bit wgmma with A in registers.
 *
 * Rows of weights are A, so that tokens are the flexible side. A block computes 128 rows by BN tokens; one warp brings
 * groups of 128 channels into a ring of stages, packed weights as they lie and tokens by tensor copies; warpgroups take
 * 64 rows each, make 16-bit floats of their nibbles in registers and multiply. Two blocks that form a cluster have the
 * same tokens: each brings half of them, for both.
 *
 * Nibbles become floats by writing them into the last bits of a power of two, from which it is subtracted again: both
 * are exact. Many tokens: the scale is multiplied on (and rounds), and the sums run on through all groups. Few tokens:
 * a group's sums are scaled by themselves, two pairs of warpgroups take groups in turn, and tiles are cut along K
 * (tile_shares.cuh), in the same way for any number of tokens up to 64. */
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/tensor_map.cuh"
#include "cuda/tile_shares.cuh"
#include "cuda/w4a16.cuh"
#include "cuda/wgmma_more.cuh"

enum { CLUSTER = 2, FEW = 64 /* tokens, at most, of tiles that are cut */, HALF = 64 /* channels: 128 bytes */ };

/* EXACT: scales come after products, pairs of warpgroups take turns; else they are multiplied on before. */
template <int BN, bool EXACT> struct shape {
    enum {
        PAIRS = EXACT ? 2 : 1,
        THREADS = 128 * (2 * PAIRS + 1),
        SMEM_MAX = 222 * 1024,
        X_BYTES = BN * 2 * ATOM_CUDA_RUN,
        PAIR_BYTES = PAIRS == 2 ? BN * W4_ROWS * 4 : 0, /* where the second pair's sums go to the first */
        STAGE_BYTES = (X_BYTES + W4_GROUP_BYTES + 1023) / 1024 * 1024,
        FIT = (SMEM_MAX - PAIR_BYTES) / STAGE_BYTES,
        STAGES = FIT < 16 ? FIT : 16,
        SMEM_BYTES = STAGES * STAGE_BYTES + PAIR_BYTES + 1024,
        PRODUCER_REGISTERS = PAIRS == 2 ? 32 : 40,
        CONSUMER_REGISTERS = PAIRS == 2 ? 104 : 232, /* in all no more than the kernel starts with */
    };
};

struct results {
    enum atom_cuda_float type;
    bool silu;
    void *y;
    const void *add;
    const float *bias;
    size_t y_stride;
    int n, n_tok;
};

struct args {
    const uint8_t *weights;
    struct tiles tiles; /* of clusters; a step is a group */
    struct meeting meeting;
    int row_tiles, tok_tiles; /* of clusters */
    struct results r;
};

/* First token and tile of 128 rows of this block's part of a tile. */
template <int BN>
static __device__ __forceinline__ void place_of(const struct args &a, const struct share &w, int &tok0, int &row_tile)
{
    tile_place(w.tile, a.tok_tiles, a.row_tiles, tok0, row_tile);
    tok0 *= BN;
    row_tile = row_tile * CLUSTER + (int)cluster_rank();
}

template <int BN, bool EXACT>
static __device__ void produce(const struct args &a, const CUtensorMap *map, struct ring r)
{
    using S = shape<BN, EXACT>;
    enum { MINE = BN / CLUSTER };
    struct share w;
    share_begin(a.tiles, blockIdx.x / CLUSTER, gridDim.x / CLUSTER, w);
    while (share_next(a.tiles, w)) {
        int rank = (int)cluster_rank(), tok0, row_tile;
        place_of<BN>(a, w, tok0, row_tile);
        tok0 += rank * MINE;
        const uint8_t *from = a.weights + ((size_t)row_tile * (size_t)a.tiles.steps + (size_t)w.from) * W4_GROUP_BYTES;
        for (int step = w.from; step < w.to; step++, next<shape<BN, EXACT>>(r), from += W4_GROUP_BYTES) {
            uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES;
            uint64_t *full = &r.full[r.stage];
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            barrier_arrive_expect(full, S::X_BYTES + W4_GROUP_BYTES);
            bulk_copy(to + S::X_BYTES, from, W4_GROUP_BYTES, full);
#pragma unroll
            for (int half = 0; half < 2; half++)
                tensor_copy(to + (half * BN + rank * MINE) * 128, map, step * ATOM_CUDA_RUN + half * HALF, tok0, full,
                            (1 << CLUSTER) - 1);
        }
    }
}

/* Half a group's A: four words. */
template <class X, bool SCALED>
static __device__ __forceinline__ void unpack_half(uint4 words, const typename pair_of<X>::type (&s)[2],
                                                   uint32_t (&a)[4][4])
{
    const uint32_t w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        typename pair_of<X>::type v[4];
        unpack(w[i], v);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (SCALED)
                v[e] = __hmul2(v[e], s[e % 2]);
            a[i][e] = *reinterpret_cast<uint32_t *>(&v[e]);
        }
    }
}

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

/* What a warpgroup has of a stage: its nibbles, its rows' scales, the tokens. */
struct operands {
    const uint8_t *nibbles; /* this lane's; the other half of the channels lies 2048 bytes on */
    __half2 scales;         /* of row l/4, and 8 more */
    uint64_t x;             /* descriptor */
};

template <int BN, bool EXACT>
static __device__ __forceinline__ struct operands operands_of(const uint8_t *stage, int group)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint8_t *w = stage + shape<BN, EXACT>::X_BYTES;
    struct operands o = {w + group * 4096 + warp * 512 + lane * 16,
                         reinterpret_cast<const __half2 *>(w + W4_NIBBLE_BYTES)[group * 32 + warp * 8 + lane / 4],
                         swizzled_descriptor(stage)};
    return o;
}

template <int BN, class X>
static __device__ __forceinline__ void multiply_half(const struct operands &o, int half, const uint32_t (&a)[4][4],
                                                     bool more, float (&sums)[BN / 2])
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++)
        wgmma_half<BN, X>::run(sums, a[i], o.x + (uint64_t)(half * BN * 8 + i * 2), more || i > 0);
    wgmma_commit();
}

static __device__ __forceinline__ void release(const struct ring &r, int stage)
{
    __syncwarp();
    if (threadIdx.x % 32 < CLUSTER) /* both blocks of the cluster write to it */
        barrier_arrive_remote(&r.empty[stage], threadIdx.x % 32, CLUSTER);
}

/* Steps from, to of a tile, weights scaled. Half a group is unpacked while the other multiplies; the gap between two
 * groups is the other warpgroup's. (Products in flight across the loop's end would make ptxas wait after each.) */
template <int BN, bool EXACT, class X>
static __device__ __forceinline__ void sum_scaled(struct ring &r, const struct share &w, int group, float (&y)[BN / 2])
{
    for (int step = w.from; step < w.to; step++, next<shape<BN, EXACT>>(r)) {
        uint32_t a[2][4][4];
        barrier_wait(&r.full[r.stage], r.phase);
        const struct operands o =
            operands_of<BN, EXACT>(r.stages + (size_t)r.stage * shape<BN, EXACT>::STAGE_BYTES, group);
        const typename pair_of<X>::type s[2] = {pair_of<X>::twice(__low2half(o.scales)),
                                                pair_of<X>::twice(__high2half(o.scales))};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unpack_half<X, true>(*reinterpret_cast<const uint4 *>(o.nibbles + half * 2048), s, a[half]);
            multiply_half<BN, X>(o, half, a[half], step > w.from || half, y);
        }
        wgmma_wait<0>();
        release(r, r.stage);
    }
}

/* The pair's share of the steps, each group's sums scaled by themselves. */
template <int BN, bool EXACT, class X>
static __device__ __forceinline__ void sum_exact(struct ring &r, const struct share &w, int group, int pair,
                                                 float (&y)[BN / 2])
{
    const typename pair_of<X>::type none[2] = {};
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        y[e] = 0.0f;
    for (int step = w.from; step < w.to; step++, next<shape<BN, EXACT>>(r)) {
        if ((step - w.from) % shape<BN, EXACT>::PAIRS != pair)
            continue;
        uint32_t a[2][4][4];
        float sums[BN / 2];
        barrier_wait(&r.full[r.stage], r.phase);
        const struct operands o =
            operands_of<BN, EXACT>(r.stages + (size_t)r.stage * shape<BN, EXACT>::STAGE_BYTES, group);
        float s0 = __low2float(o.scales), s1 = __high2float(o.scales);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unpack_half<X, false>(*reinterpret_cast<const uint4 *>(o.nibbles + half * 2048), none, a[half]);
            multiply_half<BN, X>(o, half, a[half], half, sums);
        }
        wgmma_wait<0>();
        release(r, r.stage);
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] = fmaf(sums[e], e / 2 % 2 ? s1 : s0, y[e]);
    }
}

/* The second pair's sums are added to the first's. */
template <int BN>
static __device__ __forceinline__ void join_pairs(float *buffer, int group, int pair, float (&y)[BN / 2])
{
    float *at = buffer + (size_t)group * (BN / 2) * 128 + threadIdx.x % 128;
    if (pair == 1)
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            at[e * 128] = y[e];
    asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory");
    if (pair == 0)
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] += at[e * 128];
    asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory");
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* One by one: at the edges, and in float32. */
template <int BN, class T>
static __device__ __forceinline__ void put_each(const struct results &r, int tok0, int row0, const float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int e = 0; e < BN / 2; e++) {
        int tok = tok0 + e / 4 * 8 + lane % 4 * 2 + e % 2, row = row0 + lane / 4 + e / 2 % 2 * 8;
        size_t at = (size_t)tok * r.y_stride + (size_t)row;
        if (tok < r.n_tok && row < r.n)
            from_float(r.add ? y[e] + to_float(static_cast<const T *>(r.add)[at]) : y[e], static_cast<T *>(r.y)[at]);
    }
}

/* Sixteen tokens by sixteen rows, transposed so that a lane has eight rows of one token. */
template <class T>
static __device__ __forceinline__ void put_16x16(const struct results &r, int tok0, int row0, const float *y)
{
    int lane = threadIdx.x % 32, q = lane % 4, tok = tok0 + q / 2 * 8 + lane / 4;
    size_t at = (size_t)tok * r.y_stride + (size_t)(row0 + q % 2 * 8);
    uint32_t words[4];
    float2 add[4] = {};
    if (r.add) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (tok < r.n_tok)
            v = *reinterpret_cast<const uint4 *>(static_cast<const T *>(r.add) + at);
        words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
        swap_quad(words, q);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t two = transpose_8x8(words[i]);
            add[i] = load2(reinterpret_cast<const T *>(&two));
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] = transpose_8x8(pack2(y[2 * i] + add[i].x, y[2 * i + 1] + add[i].y, (T *)0));
    swap_quad(words, q);
    if (tok < r.n_tok)
        *reinterpret_cast<uint4 *>(static_cast<T *>(r.y) + at) = make_uint4(words[0], words[1], words[2], words[3]);
}

template <int BN, class T>
static __device__ __forceinline__ void put_silu(const struct results &r, int tok0, int row0, const float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32, column = row0 / 2;
    if (row0 >= r.n)
        return;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        float v0 = silu(y[4 * j], y[4 * j + 2]), v1 = silu(y[4 * j + 1], y[4 * j + 3]);
        if constexpr (sizeof(T) == 2) {
            int tok = tok0 + 8 * j + lane / 4;
            uint32_t two = transpose_8x8(pack2(v0, v1, (T *)0));
            if (tok < r.n_tok)
                *reinterpret_cast<uint32_t *>(static_cast<T *>(r.y) + (size_t)tok * r.y_stride + column +
                                              lane % 4 * 2) = two;
        } else {
            int tok = tok0 + 8 * j + lane % 4 * 2;
            T *to = static_cast<T *>(r.y) + (size_t)tok * r.y_stride + column + lane / 4;
            if (tok < r.n_tok)
                to[0] = v0;
            if (tok + 1 < r.n_tok)
                to[r.y_stride] = v1;
        }
    }
}

template <int BN, class T>
static __device__ __forceinline__ void put_typed(const struct results &r, int tok0, int row0, float (&y)[BN / 2])
{
    if (r.silu) {
        put_silu<BN, T>(r, tok0, row0, y);
        return;
    }
    if constexpr (sizeof(T) == 2)
        if (row0 + 16 <= r.n) {
#pragma unroll
            for (int j = 0; j < BN / 16; j++)
                put_16x16<T>(r, tok0 + 16 * j, row0, y + 8 * j);
            return;
        }
    put_each<BN, T>(r, tok0, row0, y);
}

/* Sixteen rows of a warp from row0 on. */
template <int BN>
static __device__ __forceinline__ void put_tile(const struct results &r, int tok0, int row0, float (&y)[BN / 2])
{
    int row = row0 + threadIdx.x % 32 / 4;
    if (r.bias) {
        float b0 = row < r.n ? r.bias[row] : 0.0f, b1 = row + 8 < r.n ? r.bias[row + 8] : 0.0f;
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] += e / 2 % 2 ? b1 : b0;
    }
    if (r.type == ATOM_CUDA_F16)
        put_typed<BN, __half>(r, tok0, row0, y);
    else if (r.type == ATOM_CUDA_BF16)
        put_typed<BN, __nv_bfloat16>(r, tok0, row0, y);
    else
        put_typed<BN, float>(r, tok0, row0, y);
}

template <int BN, bool EXACT, class X>
static __device__ void multiply(const struct args &a, struct ring r, float *buffer)
{
    int group = (threadIdx.x / 128 - 1) % 2, pair = (threadIdx.x / 128 - 1) / 2;
    struct share w;
    share_begin(a.tiles, blockIdx.x / CLUSTER, gridDim.x / CLUSTER, w);
    while (share_next(a.tiles, w)) {
        float y[BN / 2];
        if constexpr (EXACT) {
            sum_exact<BN, EXACT, X>(r, w, group, pair, y);
            join_pairs<BN>(buffer, group, pair, y);
            if (pair == 1)
                continue;
            if (is_piece(a.tiles, w) && !meet(a.tiles, w, a.meeting, (int)cluster_rank() * 2 + group, 1 + group, y))
                continue;
        } else
            sum_scaled<BN, EXACT, X>(r, w, group, y);
        int tok0, row_tile;
        place_of<BN>(a, w, tok0, row_tile);
        put_tile<BN>(a.r, tok0, row_tile * W4_ROWS + group * 64 + threadIdx.x / 32 % 4 * 16, y);
    }
}

template <int BN, bool EXACT, class X>
static __global__ void __launch_bounds__(shape<BN, EXACT>::THREADS, 1)
    w4a16(const __grid_constant__ CUtensorMap map, const struct args a)
{
    using S = shape<BN, EXACT>;
    extern __shared__ uint8_t raw[];
    __shared__ uint64_t full[S::STAGES], empty[S::STAGES];
    struct ring r = {raw + (1024 - smem_address(raw) % 1024) % 1024, full, empty, 0, 0};
    if (threadIdx.x == 0) {
        tensor_prefetch(&map);
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], CLUSTER * 2 * 4);
        }
        barrier_init_fence();
    }
    cluster_sync();
    if (threadIdx.x < 128) {
        registers_down<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            produce<BN, EXACT>(a, &map, r);
    } else {
        registers_up<S::CONSUMER_REGISTERS>();
        multiply<BN, EXACT, X>(a, r, reinterpret_cast<float *>(r.stages + S::STAGES * S::STAGE_BYTES));
    }
    cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

/* Tiles that are cut are fewer than clusters. */
enum { ARRIVED_BYTES = 4096 };

size_t atom_cuda_w4a16_workspace_sm90(const struct atom_cuda_w4a16_weights *w)
{
    (void)w;
    return ARRIVED_BYTES + (size_t)atom_cuda_opened()->n_sm * 2 * FEW * W4_ROWS * sizeof(float);
}

static struct results results_of(const struct atom_cuda_w4a16 *j)
{
    const struct results r = {j->type, j->silu, j->y, j->add, j->bias, j->y_stride, j->w->n, j->n_tok};
    return r;
}

template <int BN, bool EXACT, class X>
static enum atom_status launch(const struct atom_cuda_w4a16 *j, atom_cuda_stream s, struct atom_error *err)
{
    using S = shape<BN, EXACT>;
    const struct tensor_matrix x = {j->x_type == ATOM_CUDA_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                               : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                    j->x,
                                    j->w->k,
                                    j->n_tok,
                                    2 * j->x_stride,
                                    HALF,
                                    BN / CLUSTER,
                                    false};
    CUtensorMap map;
    enum atom_status st = tensor_map(&x, &map, err);
    st = st ? st
            : atom_cuda_status(
                  cudaFuncSetAttribute(w4a16<BN, EXACT, X>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                  "asking for shared memory", err);
    if (st)
        return st;
    int clusters = atom_cuda_opened()->n_sm / CLUSTER, tok_tiles = (j->n_tok + BN - 1) / BN,
        count = j->w->n_tiles / CLUSTER * tok_tiles;
    const struct args a = {
        .weights = j->w->data,
        .tiles = {count, EXACT ? count / clusters * clusters : count, j->w->n_groups},
        .meeting = {CLUSTER * 2, (int *)j->workspace, (uint8_t *)j->workspace + ARRIVED_BYTES},
        .row_tiles = j->w->n_tiles / CLUSTER,
        .tok_tiles = tok_tiles,
        .r = results_of(j),
    };
    if (!EXACT && count < clusters)
        clusters = count;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.gridDim = dim3((unsigned)(clusters * CLUSTER));
    config.blockDim = dim3(S::THREADS);
    config.dynamicSmemBytes = S::SMEM_BYTES;
    config.stream = s;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return atom_cuda_status(cudaLaunchKernelEx(&config, w4a16<BN, EXACT, X>, map, a), "starting a w4a16 linear", err);
}

/* Tokens of a tile: whole rounds of blocks, and not much more than is asked for. */
static int tile_for(const struct atom_cuda_w4a16 *j)
{
    static const int tiles[] = {32, 64, 96, 128, 192, 256};
    enum { TILE_COST = 50 /* what a tile takes besides its tokens, in tokens */ };
    int best = 256, least = 1 << 30, clusters = atom_cuda_opened()->n_sm / CLUSTER;
    for (int i = 0; i < 6; i++) {
        int count = j->w->n_tiles / CLUSTER * ((j->n_tok + tiles[i] - 1) / tiles[i]);
        int cost = (count + clusters - 1) / clusters * (tiles[i] + TILE_COST);
        if (cost <= least) {
            least = cost;
            best = tiles[i];
        }
    }
    return best;
}

template <class X>
static enum atom_status launch(const struct atom_cuda_w4a16 *j, atom_cuda_stream s, struct atom_error *err)
{
    if (j->n_tok <= FEW)
        return j->n_tok <= 32 ? launch<32, true, X>(j, s, err) : launch<64, true, X>(j, s, err);
    switch (tile_for(j)) {
    case 32:
        return launch<32, false, X>(j, s, err);
    case 64:
        return launch<64, false, X>(j, s, err);
    case 96:
        return launch<96, false, X>(j, s, err);
    case 128:
        return launch<128, false, X>(j, s, err);
    case 192:
        return launch<192, false, X>(j, s, err);
    default:
        return launch<256, false, X>(j, s, err);
    }
}

enum atom_status atom_cuda_w4a16_sm90(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err)
{
    return job->x_type == ATOM_CUDA_F16 ? launch<__half>(job, s, err) : launch<__nv_bfloat16>(job, s, err);
}
