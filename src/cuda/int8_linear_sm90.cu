/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 linear on Hopper: s8 wgmma, both operands from shared memory.
 *
 * A block computes TOK tokens by ROWS rows. One warp brings 128 channels of both into a ring of stages, tokens by
 * tensor copies, weights as they were packed; two warpgroups multiply, each half of the tokens, or, where tokens are
 * few, half of the rows. Two blocks that form a cluster have the same rows: each brings half of them, for both.
 *
 * Blocks stay and share the tiles (tile_shares.cuh); tiles may be cut anywhere, as sums are integers. */
#include "cuda/int8_linear.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tensor_map.cuh"
#include "cuda/tile_shares.cuh"
#include "cuda/wgmma_more.cuh"

enum { CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1), CHANNELS = 128 /* of a stage, a byte each */, FEW = 64 };

template <int TOK, int ROWS, int CLUSTER> struct shape {
    enum {
        COLUMNS = TOK == FEW ? ROWS / 2 : ROWS, /* of a warpgroup's wgmma: its rows; its lines are 64 tokens */
        SMEM_MAX = 220 * 1024,
        ACT_BYTES = TOK * CHANNELS,
        STAGE_BYTES = ACT_BYTES + ROWS * CHANNELS,
        STAGES = SMEM_MAX / STAGE_BYTES < 8 ? SMEM_MAX / STAGE_BYTES : 8,
        SMEM_BYTES = STAGES * STAGE_BYTES + 1024,
        TILE_SUMS = TOK * ROWS,
    };
};

struct args {
    struct int8_results r;
    const int8_t *weights;
    struct tiles tiles; /* of clusters; a step is a stage */
    struct meeting meeting;
    int tok_tiles, n_blocks;
    uint32_t act_bytes; /* that a stage's tokens take */
};

struct ring {
    uint8_t *stages;
    uint64_t *full, *empty;
    int stage;
    uint32_t phase;
};

template <class S> static __device__ __forceinline__ void next(struct ring &r)
{
    if (++r.stage == S::STAGES) {
        r.stage = 0;
        r.phase ^= 1;
    }
}

template <int CLUSTER> static __device__ __forceinline__ int my_rank()
{
    return CLUSTER == 1 ? 0 : (int)cluster_rank();
}

/* The weights of a stage, 64 rows at a time; of a cluster's blocks, each brings its half of them. */
template <int ROWS, int CLUSTER>
static __device__ __forceinline__ void bring_weights(const struct args &a, int block0, int step, uint8_t *to,
                                                     uint64_t *full)
{
    enum { N_BYTES = INT8_BLOCK_BYTES / CLUSTER };
    int at = my_rank<CLUSTER>() * N_BYTES;
#pragma unroll
    for (int b = 0; b < ROWS / INT8_ROWS; b++) {
        const int8_t *from =
            a.weights + ((size_t)(block0 + b) * (size_t)a.tiles.steps + (size_t)step) * INT8_BLOCK_BYTES;
        if (block0 + b >= a.n_blocks)
            break;
        if constexpr (CLUSTER == 1)
            bulk_copy(to + b * INT8_BLOCK_BYTES, from, N_BYTES, full);
        else
            bulk_copy(to + b * INT8_BLOCK_BYTES + at, from + at, N_BYTES, full, (1 << CLUSTER) - 1);
    }
}

template <int TOK, int ROWS, int CLUSTER>
static __device__ void produce(const struct args &a, const CUtensorMap *acts, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    struct share w;
    share_begin(a.tiles, blockIdx.x / CLUSTER, gridDim.x / CLUSTER, w);
    while (share_next(a.tiles, w)) {
        int tok0 = (w.tile % a.tok_tiles * CLUSTER + my_rank<CLUSTER>()) * TOK;
        int block0 = w.tile / a.tok_tiles * (ROWS / INT8_ROWS), blocks = a.n_blocks - block0;
        uint32_t weight_bytes = (uint32_t)(blocks < ROWS / INT8_ROWS ? blocks : ROWS / INT8_ROWS) * INT8_BLOCK_BYTES;
        for (int step = w.from; step < w.to; step++, next<S>(r)) {
            uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES;
            uint64_t *full = &r.full[r.stage];
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            barrier_arrive_expect(full, a.act_bytes + weight_bytes);
            bring_weights<ROWS, CLUSTER>(a, block0, step, to + S::ACT_BYTES, full);
            tensor_copy(to, acts, step * CHANNELS, tok0, full);
        }
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* What belongs to a warpgroup's rows, in shared memory: from global memory, every load would wait for the store before
 * it. */
struct row_terms {
    const float *scales, *bias; /* bias NULL: none */
};

/* A token's two neighbouring sums, scaled, with bias. */
static __device__ __forceinline__ float2 scaled(const struct row_terms &terms, int row, float s, int a, int b)
{
    float2 by = load2(terms.scales + row);
    float2 v = make_float2(scale_sum(a, s, by.x), scale_sum(b, s, by.y));
    if (terms.bias) {
        float2 bias = load2(terms.bias + row);
        v.x += bias.x;
        v.y += bias.y;
    }
    return v;
}

/* 32 results of a token, the pairs v[i] of lane q at columns 8i + 2q. */
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
    T *to = static_cast<T *>(r.y) + line;
    if constexpr (sizeof(T) == 4) {
        if (tok < r.n_tok)
#pragma unroll
            for (int i = 0; i < 4; i++)
                *reinterpret_cast<float2 *>(to + 8 * i + 2 * q) = v[i];
    } else {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            words[i] = pack2(v[i].x, v[i].y, (T *)0);
        swap_quad(words, q);
        if (tok < r.n_tok)
            *reinterpret_cast<uint4 *>(to + 8 * q) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* 32 rows of this lane's tokens tok and tok + 8, from row0 + at on. */
template <class T>
static __device__ __forceinline__ void put_rows(const struct int8_results &r, const struct row_terms &terms, int tok,
                                                int row0, int at, const int *sums)
{
    int q = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int t = tok + 8 * h;
        float s = t < r.n_tok ? r.tok_scales[t] : 0.0f;
        if (row0 + at + 32 <= r.n) {
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = scaled(terms, at + 8 * i + 2 * q, s, sums[4 * i + 2 * h], sums[4 * i + 2 * h + 1]);
            put_32<T>(r, t, row0 + at, v);
        } else
#pragma unroll
            for (int e = 0; e < 8; e++)
                put_one<T>(r, t, row0 + at + e / 2 * 8 + 2 * q + e % 2, sums[e / 2 * 4 + 2 * h + e % 2]);
    }
}

/* 64 rows by turns: 32 results. */
template <class T>
static __device__ __forceinline__ void put_turns(const struct int8_results &r, const struct row_terms &terms, int tok,
                                                 int row0, int at, const int *sums)
{
    int q = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int t = tok + 8 * h;
        float s = t < r.n_tok ? r.tok_scales[t] : 0.0f;
        if (row0 + at + 64 <= r.n) {
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int *pairs = sums + 8 * i + 2 * h;
                float2 g = scaled(terms, at + 16 * i + 2 * q, s, pairs[0], pairs[1]);
                float2 u = scaled(terms, at + 16 * i + 8 + 2 * q, s, pairs[4], pairs[5]);
                v[i] = make_float2(silu(g.x, u.x), silu(g.y, u.y));
            }
            put_32<T>(r, t, (row0 + at) / 2, v);
        } else
#pragma unroll
            for (int e = 0; e < 8; e++)
                put_one_silu<T>(r, t, row0 + at + e / 2 * 16 + 2 * q + e % 2, sums[e / 2 * 8 + 2 * h + e % 2],
                                sums[e / 2 * 8 + 4 + 2 * h + e % 2]);
    }
}

template <int COLUMNS, class T, bool SILU>
static __device__ __forceinline__ void put_tile(const struct int8_results &r, int tok, int row0,
                                                const int (&sums)[COLUMNS / 2])
{
    __shared__ float scales[CONSUMERS][COLUMNS], bias[CONSUMERS][COLUMNS];
    int group = threadIdx.x / 128 - 1;
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); /* the tile before is done with them */
    for (int i = threadIdx.x % 128; i < COLUMNS && row0 + i < r.n; i += 128) {
        scales[group][i] = r.row_scales[row0 + i];
        bias[group][i] = r.bias ? r.bias[row0 + i] : 0.0f;
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    const struct row_terms terms = {scales[group], r.bias ? bias[group] : NULL};
#pragma unroll
    for (int at = 0; at < COLUMNS; at += SILU ? 64 : 32)
        if constexpr (SILU)
            put_turns<T>(r, terms, tok, row0, at, sums + at / 2);
        else
            put_rows<T>(r, terms, tok, row0, at, sums + at / 2);
}

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

template <class S, int CLUSTER> static __device__ __forceinline__ void release(const struct ring &r, int stage)
{
    __syncwarp();
    if (threadIdx.x % 32 < CLUSTER) /* all blocks of the cluster write to it */
        barrier_arrive_remote(&r.empty[stage], threadIdx.x % 32);
}

template <int TOK, int ROWS, int CLUSTER, class T, bool SILU>
static __device__ void multiply(const struct args &a, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int group = threadIdx.x / 128 - 1;
    int line = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + (TOK == FEW ? 0 : group * 64);
    int act_at = TOK == FEW ? 0 : group * 64 * CHANNELS;
    int weight_at = S::ACT_BYTES + (TOK == FEW ? group * S::COLUMNS * CHANNELS : 0);
    struct share w;
    share_begin(a.tiles, blockIdx.x / CLUSTER, gridDim.x / CLUSTER, w);
    while (share_next(a.tiles, w)) {
        int sums[S::COLUMNS / 2], last = 0;
        for (int step = w.from; step < w.to; step++, next<S>(r)) {
            const uint8_t *stage = r.stages + (size_t)r.stage * S::STAGE_BYTES;
            uint64_t acts = swizzled_descriptor(stage + act_at), weights = swizzled_descriptor(stage + weight_at);
            barrier_wait(&r.full[r.stage], r.phase);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 4; i++)
                wgmma_s8_smem<S::COLUMNS>::run(sums, acts + i * 2, weights + i * 2, i > 0 || step > w.from);
            wgmma_commit();
            if (step > w.from) {
                wgmma_wait<1>();
                release<S, CLUSTER>(r, last);
            }
            last = r.stage;
        }
        wgmma_wait<0>();
        release<S, CLUSTER>(r, last);
        int rank = my_rank<CLUSTER>(), tok = (w.tile % a.tok_tiles * CLUSTER + rank) * TOK + line;
        int row0 = w.tile / a.tok_tiles * ROWS + (TOK == FEW ? group * S::COLUMNS : 0);
        if (is_piece(a.tiles, w) && !meet(a.tiles, w, a.meeting, rank * CONSUMERS + group, 1 + group, tok < a.r.n_tok,
                                          tok + 8 < a.r.n_tok, sums))
            continue;
        put_tile<S::COLUMNS, T, SILU>(a.r, tok, row0, sums);
    }
}

template <int TOK, int ROWS, int CLUSTER, class T, bool SILU>
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
        multiply<TOK, ROWS, CLUSTER, T, SILU>(a, r);
    }
    if (CLUSTER > 1)
        cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

/* How a job is cut. Cycles are estimates that only comparisons see. */
struct cut {
    int rows, cluster; /* of a block; blocks */
    int tiles, tok_tiles, whole;
    long long cycles;
};

enum {
    ROUND_CYCLES = 2500 /* a tile's start and end */,
    PARTS_CYCLES = 5000 /* gathering, and 40 a row of the tile */
};

static int up(int a, int b) { return (a + b - 1) / b; }

static struct cut cut_by(const struct atom_cuda_int8_linear *j, int tok, int rows, int cluster)
{
    int clusters = atom_cuda_opened()->n_sm / cluster, n_kb = j->w->site.k_padded / CHANNELS;
    struct cut c = {rows, cluster, 0, up(j->a->n_tok, tok * cluster), 0, 0};
    c.tiles = c.tok_tiles * up(j->w->n, rows);
    int rest = c.tiles % clusters, stage = 4 * rows + 40;
    long long rounds = c.tiles / clusters * (long long)(n_kb * stage + ROUND_CYCLES);
    long long uncut = rest ? n_kb * stage + ROUND_CYCLES : 0;
    long long parts = rest ? (long long)rest * n_kb / clusters * stage + PARTS_CYCLES + 40 * rows : 0;
    c.whole = parts < uncut ? c.tiles - rest : c.tiles;
    c.cycles = rounds + (parts < uncut ? parts : uncut);
    return c;
}

static struct cut cut_job(const struct atom_cuda_int8_linear *j)
{
    static const int rows[] = {128, 192, 256};
    struct cut best = cut_by(j, 128, 128, j->a->n_tok > 128 ? 2 : 1);
    if (j->a->n_tok <= FEW) {
        best = cut_by(j, FEW, 128, 1);
        best.whole = best.tiles / atom_cuda_opened()->n_sm * atom_cuda_opened()->n_sm;
        return best;
    }
    for (int i = 1; i < 3 && j->a->n_tok > 128; i++) {
        struct cut c = cut_by(j, 128, rows[i], 2);
        best = c.cycles < best.cycles ? c : best;
    }
    return best;
}

/* Tiles that are cut are fewer than workers. */
enum { ARRIVED_BYTES = 4096, PIECE_BYTES = 128 * 256 * sizeof(int) /* at most, of a block */ };

size_t atom_cuda_int8_workspace_sm90(const struct atom_cuda_int8_weights *w)
{
    (void)w;
    return ARRIVED_BYTES + (size_t)atom_cuda_opened()->n_sm * 2 * PIECE_BYTES;
}

template <int TOK, int ROWS, int CLUSTER, class T, bool SILU>
static enum atom_status launch(const struct atom_cuda_int8_linear *j, const struct cut *c, atom_cuda_stream s,
                               struct atom_error *err)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int few = (j->a->n_tok + 7) / 8 * 8, box = TOK == FEW && few < FEW ? few : TOK, k = j->w->site.k_padded;
    const struct tensor_matrix acts = {
        CU_TENSOR_MAP_DATA_TYPE_UINT8, j->a->q, k, j->a->tok_stride, (size_t)k, CHANNELS, box};
    CUtensorMap map;
    enum atom_status st = tensor_map(&acts, &map, err);
    st = st ? st
            : atom_cuda_status(cudaFuncSetAttribute(int8_linear<TOK, ROWS, CLUSTER, T, SILU>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                               "asking for shared memory", err);
    if (st)
        return st;
    int clusters = atom_cuda_opened()->n_sm / CLUSTER;
    if (c->whole == c->tiles && c->tiles < clusters)
        clusters = c->tiles;
    const struct args a = {
        .r = int8_results_of(j),
        .weights = j->w->q,
        .tiles = {c->tiles, c->whole, k / CHANNELS},
        .meeting = {CLUSTER * CONSUMERS, (int *)j->workspace, (uint8_t *)j->workspace + ARRIVED_BYTES},
        .tok_tiles = c->tok_tiles,
        .n_blocks = j->w->n_blocks,
        .act_bytes = (uint32_t)(box * CHANNELS),
    };
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = CLUSTER;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    config.gridDim = dim3((unsigned)(clusters * CLUSTER));
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = S::SMEM_BYTES;
    config.stream = s;
    config.attrs = &cluster;
    config.numAttrs = 1;
    return atom_cuda_status(cudaLaunchKernelEx(&config, int8_linear<TOK, ROWS, CLUSTER, T, SILU>, map, a),
                            "starting an INT8 linear", err);
}

template <class T, bool SILU>
static enum atom_status launch(const struct atom_cuda_int8_linear *j, const struct cut *c, atom_cuda_stream s,
                               struct atom_error *err)
{
    if (j->a->n_tok <= FEW)
        return launch<FEW, 128, 1, T, SILU>(j, c, s, err);
    if (c->cluster == 1)
        return launch<128, 128, 1, T, SILU>(j, c, s, err);
    switch (c->rows) {
    case 128:
        return launch<128, 128, 2, T, SILU>(j, c, s, err);
    case 192:
        return launch<128, 192, 2, T, SILU>(j, c, s, err);
    default:
        return launch<128, 256, 2, T, SILU>(j, c, s, err);
    }
}

template <class T>
static enum atom_status launch(const struct atom_cuda_int8_linear *j, const struct cut *c, atom_cuda_stream s,
                               struct atom_error *err)
{
    return j->silu ? launch<T, true>(j, c, s, err) : launch<T, false>(j, c, s, err);
}

enum atom_status atom_cuda_int8_linear_sm90(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                            struct atom_error *err)
{
    const struct cut c = cut_job(job);
    switch (job->type) {
    case ATOM_CUDA_F16:
        return launch<__half>(job, &c, s, err);
    case ATOM_CUDA_BF16:
        return launch<__nv_bfloat16>(job, &c, s, err);
    default:
        return launch<float>(job, &c, s, err);
    }
}
