/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 linear on Hopper: s8 wgmma, both operands from shared memory.
 *
 * A block computes TOK tokens by up to ROWS rows. One warp brings 128 channels of both into a ring of stages, tokens by
 * tensor copies, weights as they were packed; two warpgroups multiply, each half of the tokens, or, where tokens are
 * few, half of the rows. Two blocks that form a cluster have the same rows: each brings half of them, for both.
 *
 * Blocks stay and take tiles in turn. How many rows a tile has is chosen for the job, in eights, so that the last round
 * of tiles is nearly full; with few tokens each multiprocessor then has one tile, as many bytes of weights as every
 * other, and all of K. */
#include "cuda/int8_linear.cuh"
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/tensor_map.cuh"
#include "cuda/tile_shares.cuh"
#include "cuda/wgmma_more.cuh"

enum { CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1), FEW = 64 /* tokens */ };

template <int TOK, int ROWS, int CLUSTER> struct shape {
    enum {
        COLUMNS = TOK == FEW ? ROWS / 2 : ROWS, /* of a warpgroup's wgmma: its rows; its lines are 64 tokens */
        SMEM_MAX = 222 * 1024,
        ACT_BYTES = TOK * INT8_CHANNELS,
        STAGE_BYTES = ACT_BYTES + ROWS * INT8_CHANNELS,
        STAGES = SMEM_MAX / STAGE_BYTES < 16 ? SMEM_MAX / STAGE_BYTES : 16,
        SMEM_BYTES = STAGES * STAGE_BYTES + 1024,
    };
};

struct args {
    struct int8_results r;
    enum atom_cuda_float type;
    bool silu;
    const int8_t *weights;
    int steps, n_padded;            /* stages of a tile; rows of a step's weights */
    int rows, row_tiles, tok_tiles; /* of a tile; tiles of clusters */
    uint32_t act_bytes;             /* that a stage's tokens take */
};

template <int CLUSTER> static __device__ __forceinline__ int my_rank()
{
    return CLUSTER == 1 ? 0 : (int)cluster_rank();
}

/* Rows of a tile from row0 on that there are, up to `most`. */
static __device__ __forceinline__ int rows_at(const struct args &a, int row0, int most)
{
    int left = a.n_padded - row0;
    return left < most ? left < 0 ? 0 : left : most;
}

template <int TOK, int ROWS, int CLUSTER>
static __device__ void produce(const struct args &a, const CUtensorMap *acts, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int rank = my_rank<CLUSTER>(), part = a.rows / CLUSTER;
    for (int tile = blockIdx.x / CLUSTER; tile < a.row_tiles * a.tok_tiles; tile += gridDim.x / CLUSTER) {
        int tok_tile, row_tile;
        tile_place(tile, a.tok_tiles, a.row_tiles, tok_tile, row_tile);
        int tok0 = (tok_tile * CLUSTER + rank) * TOK, row0 = row_tile * a.rows;
        uint32_t both = (uint32_t)rows_at(a, row0, a.rows) * INT8_CHANNELS,
                 mine = (uint32_t)rows_at(a, row0 + rank * part, part) * INT8_CHANNELS;
        const int8_t *from = a.weights + (size_t)(row0 + rank * part) * INT8_CHANNELS;
        for (int step = 0; step < a.steps; step++, next<S>(r), from += (size_t)a.n_padded * INT8_CHANNELS) {
            uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES;
            uint64_t *full = &r.full[r.stage];
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            barrier_arrive_expect(full, a.act_bytes + both);
            if constexpr (CLUSTER == 1)
                bulk_copy(to + S::ACT_BYTES, from, mine, full);
            else if (mine)
                bulk_copy(to + S::ACT_BYTES + rank * part * INT8_CHANNELS, from, mine, full, (1 << CLUSTER) - 1);
            tensor_copy(to, acts, step * INT8_CHANNELS, tok0, full);
        }
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* A warpgroup's part of a tile. Terms of its rows lie in shared memory: from global memory, every load would wait for
 * the store before it. */
struct part {
    int tok, row0, end;         /* this lane's first token, the other is 8 on; rows */
    float by[2];                /* the two tokens' scales */
    const float *scales, *bias; /* of the rows from row0 on; bias NULL: none */
};

/* A token's two neighbouring sums, scaled, with bias. */
static __device__ __forceinline__ float2 scaled(const struct part &p, int at, float s, int a, int b)
{
    float2 by = load2(p.scales + at), v = make_float2(scale_sum(a, s, by.x), scale_sum(b, s, by.y));
    if (p.bias) {
        float2 bias = load2(p.bias + at);
        v.x += bias.x;
        v.y += bias.y;
    }
    return v;
}

/* One of two neighbouring results, at a token's column. */
template <class T> static __device__ __forceinline__ void put_at(const struct int8_results &r, size_t at, float v)
{
    if (r.add)
        v += to_float(static_cast<const T *>(r.add)[at]);
    from_float(v, static_cast<T *>(r.y)[at]);
}

/* Four pairs, those of lane q at columns 8i + 2q, as 16-byte stores. */
template <class T> static __device__ __forceinline__ void store_32(T *to, bool there, const float2 (&v)[4])
{
    int q = threadIdx.x % 4;
    if constexpr (sizeof(T) == 4) {
        if (there)
#pragma unroll
            for (int i = 0; i < 4; i++)
                *reinterpret_cast<float2 *>(to + 8 * i + 2 * q) = v[i];
    } else {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            words[i] = pack2(v[i].x, v[i].y, (T *)0);
        swap_quad(words, q);
        if (there)
            *reinterpret_cast<uint4 *>(to + 8 * q) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* 32 results of a token from `column` on. */
template <class T>
static __device__ __forceinline__ void put_32(const struct int8_results &r, int tok, int column, float2 (&v)[4])
{
    int q = threadIdx.x % 4;
    size_t line = (size_t)tok * r.y_stride + (size_t)column;
    if (r.add && tok < r.n_tok)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 add = load2(static_cast<const T *>(r.add) + line + 8 * i + 2 * q);
            v[i].x += add.x;
            v[i].y += add.y;
        }
    store_32(static_cast<T *>(r.y) + line, tok < r.n_tok, v);
}

/* Results 8i + 2q and one more of token tok, i of four: of rows, or by turns of 16. */
template <bool SILU>
static __device__ __forceinline__ float2 result_of(const struct part &p, int at, float s, const int *sums, int i)
{
    if constexpr (!SILU)
        return scaled(p, at + 8 * i, s, sums[4 * i], sums[4 * i + 1]);
    float2 g = scaled(p, at + 16 * i, s, sums[8 * i], sums[8 * i + 1]);
    float2 u = scaled(p, at + 16 * i + 8, s, sums[8 * i + 4], sums[8 * i + 5]);
    return make_float2(silu(g.x, u.x), silu(g.y, u.y));
}

/* COUNT times eight results of this lane's tokens tok and tok + 8, from row0 + at on. */
template <class T, bool SILU, int COUNT>
static __device__ __forceinline__ void put_rows(const struct int8_results &r, const struct part &p, int at,
                                                const int *sums)
{
    enum { WIDTH = SILU ? 16 : 8 }; /* rows of eight results */
    int q2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int tok = p.tok + 8 * h, column = SILU ? (p.row0 + at) / 2 : p.row0 + at;
        float2 v[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            v[i] = result_of<SILU>(p, at + q2, p.by[h], sums + 2 * h, i);
        if constexpr (COUNT == 4)
            if (p.row0 + at + 4 * WIDTH <= p.end) {
                put_32<T>(r, tok, column, v);
                continue;
            }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int row = p.row0 + at + WIDTH * i + q2;
            size_t to = (size_t)tok * r.y_stride + (size_t)(column + 8 * i + q2);
            if (tok < r.n_tok && row < p.end)
                put_at<T>(r, to, v[i].x);
            if (tok < r.n_tok && row + 1 < p.end)
                put_at<T>(r, to + 1, v[i].y);
        }
    }
}

/* A part within all edges, with nothing to add: without branches, so that one result's steps fill the gaps of
 * another's. */
template <int COLUMNS, class T, bool SILU>
static __device__ __forceinline__ void put_inner(const struct int8_results &r, const struct part &p,
                                                 const int (&sums)[COLUMNS / 2])
{
    enum { WIDE = SILU ? 64 : 32 };
    int q2 = threadIdx.x % 4 * 2;
    T *to[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        to[h] = static_cast<T *>(r.y) + (size_t)(p.tok + 8 * h) * r.y_stride + (SILU ? p.row0 / 2 : p.row0);
#pragma unroll
    for (int at = 0; at < COLUMNS; at += WIDE)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = result_of<SILU>(p, at + q2, p.by[h], sums + at / 2 + 2 * h, i);
            store_32(to[h] + (SILU ? at / 2 : at), p.tok + 8 * h < r.n_tok, v);
        }
}

template <int COLUMNS, class T, bool SILU>
static __device__ __forceinline__ void put_part(const struct int8_results &r, const struct part &p,
                                                const int (&sums)[COLUMNS / 2])
{
    enum { WIDE = SILU ? 64 : 32, NARROW = SILU ? 16 : 8, WHOLE = COLUMNS / WIDE * WIDE };
    if constexpr (COLUMNS >= 128)
        if (p.row0 + COLUMNS <= p.end && !r.add) {
            put_inner<COLUMNS, T, SILU>(r, p, sums);
            return;
        }
#pragma unroll
    for (int at = 0; at < WHOLE; at += WIDE)
        put_rows<T, SILU, 4>(r, p, at, sums + at / 2);
#pragma unroll
    for (int at = WHOLE; at < COLUMNS; at += NARROW)
        put_rows<T, SILU, 1>(r, p, at, sums + at / 2);
}

template <int COLUMNS, class T>
static __device__ __forceinline__ void put_part(const struct args &a, const struct part &p,
                                                const int (&sums)[COLUMNS / 2])
{
    if (a.silu)
        put_part<COLUMNS, T, true>(a.r, p, sums);
    else
        put_part<COLUMNS, T, false>(a.r, p, sums);
}

/* What scales a tile, brought while it is being summed: a thread's rows, and its two tokens. */
template <int COLUMNS> struct terms {
    enum { EACH = (COLUMNS + 127) / 128 };
    float scales[EACH], bias[EACH], by[2];
};

template <int COLUMNS>
static __device__ __forceinline__ void bring_terms(const struct int8_results &r, int tok, int row0,
                                                   struct terms<COLUMNS> &t)
{
#pragma unroll
    for (int i = 0; i < terms<COLUMNS>::EACH; i++) {
        int row = row0 + i * 128 + threadIdx.x % 128;
        t.scales[i] = row < r.n ? r.row_scales[row] : 0.0f;
        t.bias[i] = r.bias && row < r.n ? r.bias[row] : 0.0f;
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        t.by[h] = tok + 8 * h < r.n_tok ? r.tok_scales[tok + 8 * h] : 0.0f;
}

template <int COLUMNS>
static __device__ __forceinline__ void put_tile(const struct args &a, int tok, int row0, int end,
                                                const struct terms<COLUMNS> &t, const int (&sums)[COLUMNS / 2])
{
    __shared__ __align__(8) float scales[CONSUMERS][COLUMNS], bias[CONSUMERS][COLUMNS];
    int group = threadIdx.x / 128 - 1;
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); /* the tile before is done with them */
#pragma unroll
    for (int i = 0; i < terms<COLUMNS>::EACH; i++) {
        int at = i * 128 + threadIdx.x % 128;
        if (at < COLUMNS) {
            scales[group][at] = t.scales[i];
            bias[group][at] = t.bias[i];
        }
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    const struct part p = {
        tok, row0, end < a.r.n ? end : a.r.n, {t.by[0], t.by[1]}, scales[group], a.r.bias ? bias[group] : NULL};
    if (a.type == ATOM_CUDA_F16)
        put_part<COLUMNS, __half>(a, p, sums);
    else if (a.type == ATOM_CUDA_BF16)
        put_part<COLUMNS, __nv_bfloat16>(a, p, sums);
    else
        put_part<COLUMNS, float>(a, p, sums);
}

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

template <int CLUSTER> static __device__ __forceinline__ void release(const struct ring &r, int stage)
{
    __syncwarp();
    if (threadIdx.x % 32 < CLUSTER) /* all blocks of the cluster write to it */
        barrier_arrive_remote(&r.empty[stage], threadIdx.x % 32, CLUSTER);
}

/* A tile's sums: one stage's products run while the next one's are being asked for. */
template <class S, int CLUSTER>
static __device__ __forceinline__ void sum_tile(struct ring &r, int steps, int act_at, int weight_at,
                                                int (&sums)[S::COLUMNS / 2])
{
    int last = 0;
    for (int step = 0; step < steps; step++, next<S>(r)) {
        const uint8_t *stage = r.stages + (size_t)r.stage * S::STAGE_BYTES;
        uint64_t acts = swizzled_descriptor(stage + act_at), weights = swizzled_descriptor(stage + weight_at);
        barrier_wait(&r.full[r.stage], r.phase);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma_s8_smem<S::COLUMNS>::run(sums, acts + i * 2, weights + i * 2, i > 0 || step > 0);
        wgmma_commit();
        if (step > 0) {
            wgmma_wait<1>();
            release<CLUSTER>(r, last);
        }
        last = r.stage;
    }
    wgmma_wait<0>();
    release<CLUSTER>(r, last);
}

template <int TOK, int ROWS, int CLUSTER> static __device__ void multiply(const struct args &a, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int group = threadIdx.x / 128 - 1, at = TOK == FEW ? group * S::COLUMNS : 0;
    int line = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + (TOK == FEW ? 0 : group * 64);
    int act_at = TOK == FEW ? 0 : group * 64 * INT8_CHANNELS;
    for (int tile = blockIdx.x / CLUSTER; tile < a.row_tiles * a.tok_tiles; tile += gridDim.x / CLUSTER) {
        int tok_tile, row_tile;
        tile_place(tile, a.tok_tiles, a.row_tiles, tok_tile, row_tile);
        int tok = (tok_tile * CLUSTER + my_rank<CLUSTER>()) * TOK + line, row0 = row_tile * a.rows;
        int sums[S::COLUMNS / 2];
        struct terms<S::COLUMNS> t;
        bring_terms<S::COLUMNS>(a.r, tok, row0 + at, t);
        sum_tile<S, CLUSTER>(r, a.steps, act_at, S::ACT_BYTES + at * INT8_CHANNELS, sums);
        put_tile<S::COLUMNS>(a, tok, row0 + at, row0 + a.rows, t, sums);
    }
}

template <int TOK, int ROWS, int CLUSTER>
static __global__ void __launch_bounds__(THREADS, 1)
    int8_linear(const __grid_constant__ CUtensorMap acts, const struct args a)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    extern __shared__ uint8_t raw[];
    __shared__ uint64_t full[S::STAGES], empty[S::STAGES];
    struct ring r = {raw + (1024 - smem_address(raw) % 1024) % 1024, full, empty, 0, 0};
    if (threadIdx.x == 0) {
        tensor_prefetch(&acts);
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], CLUSTER * CONSUMERS * 4);
        }
        barrier_init_fence();
    }
    if (CLUSTER == 1)
        __syncthreads();
    else
        cluster_sync();
    if (threadIdx.x < 128) {
        registers_down<40>();
        if (threadIdx.x == 0)
            produce<TOK, ROWS, CLUSTER>(a, &acts, r);
    } else {
        registers_up<232>();
        multiply<TOK, ROWS, CLUSTER>(a, r);
    }
    if (CLUSTER > 1)
        cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

static int up(int a, int b) { return (a + b - 1) / b; }

template <int TOK, int ROWS, int CLUSTER>
static enum atom_status launch(const struct atom_cuda_int8_linear *j, int rows, atom_cuda_stream s,
                               struct atom_error *err)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int few = up(j->a->n_tok, 8) * 8, box = TOK == FEW && few < FEW ? few : TOK, k = j->w->site.k_padded;
    const struct tensor_matrix acts = {
        CU_TENSOR_MAP_DATA_TYPE_UINT8, j->a->q, k, j->a->tok_stride, (size_t)k, INT8_CHANNELS, box, false};
    CUtensorMap map;
    enum atom_status st = tensor_map(&acts, &map, err);
    st = st ? st
            : atom_cuda_status(cudaFuncSetAttribute(int8_linear<TOK, ROWS, CLUSTER>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                               "asking for shared memory", err);
    if (st)
        return st;
    int tok_tiles = up(j->a->n_tok, TOK * CLUSTER), row_tiles = up(j->w->n, rows), tiles = tok_tiles * row_tiles;
    const struct args a = {
        .r = int8_results_of(j),
        .type = j->type,
        .silu = j->silu,
        .weights = j->w->q,
        .steps = k / INT8_CHANNELS,
        .n_padded = j->w->n_padded,
        .rows = rows,
        .row_tiles = row_tiles,
        .tok_tiles = tok_tiles,
        .act_bytes = (uint32_t)(box * INT8_CHANNELS),
    };
    int clusters = atom_cuda_opened()->n_sm / CLUSTER;
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.gridDim = dim3((unsigned)((tiles < clusters ? tiles : clusters) * CLUSTER));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = S::SMEM_BYTES;
    config.stream = s;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return atom_cuda_status(cudaLaunchKernelEx(&config, int8_linear<TOK, ROWS, CLUSTER>, map, a),
                            "starting an INT8 linear", err);
}

/* Kernels, each for tiles of up to so many rows. */
typedef enum atom_status launch_fn(const struct atom_cuda_int8_linear *, int, atom_cuda_stream, struct atom_error *);
struct config {
    int tok, rows, cluster;
    launch_fn *launch;
};
static const struct config configs[] = {
    {FEW, 32, 1, launch<FEW, 32, 1>},   {FEW, 64, 1, launch<FEW, 64, 1>},   {FEW, 96, 1, launch<FEW, 96, 1>},
    {FEW, 128, 1, launch<FEW, 128, 1>}, {FEW, 192, 1, launch<FEW, 192, 1>}, {128, 64, 1, launch<128, 64, 1>},
    {128, 96, 1, launch<128, 96, 1>},   {128, 128, 1, launch<128, 128, 1>}, {128, 128, 2, launch<128, 128, 2>},
    {128, 192, 2, launch<128, 192, 2>}, {128, 256, 2, launch<128, 256, 2>},
};
enum { N_CONFIGS = sizeof configs / sizeof *configs };

/* Cycles of a job by tiles of so many rows; only comparisons see them. A stage takes what multiplying or what bringing
 * it takes. */
static long long cost_of(const struct atom_cuda_int8_linear *j, const struct config *c, int rows)
{
    enum { TILE_CYCLES = 3000 /* a tile's start and end */, BYTES_A_CYCLE = 40 };
    int tiles = up(j->a->n_tok, c->tok * c->cluster) * up(j->w->n, rows);
    int bring = (c->tok + rows / c->cluster) * INT8_CHANNELS / BYTES_A_CYCLE,
        multiply = 4 * c->rows * c->tok / 128 + 60;
    long long rounds = up(tiles, atom_cuda_opened()->n_sm / c->cluster);
    return rounds *
           (j->w->site.k_padded / INT8_CHANNELS * (long long)(bring > multiply ? bring : multiply) + TILE_CYCLES);
}

static const struct config *choose(const struct atom_cuda_int8_linear *j, int *rows)
{
    const struct config *best = NULL;
    long long least = 0;
    for (int i = 0; i < N_CONFIGS; i++) {
        const struct config *c = &configs[i];
        if ((c->tok == FEW) != (j->a->n_tok <= FEW) || (c->cluster == 2 && j->a->n_tok <= 128))
            continue;
        for (int r = c->rows; r > (c->cluster == 2 ? c->rows - 1 : c->rows / 2); r -= 16) {
            long long cost = cost_of(j, c, r);
            if (!best || cost < least) {
                best = c;
                least = cost;
                *rows = r;
            }
        }
    }
    return best;
}

enum atom_status atom_cuda_int8_linear_sm90(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                            struct atom_error *err)
{
    int rows = 0;
    const struct config *c = choose(job, &rows);
    return c->launch(job, rows, s, err);
}
