/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 linear on Hopper: s8 wgmma, both operands from shared memory.
 *
 * A block computes TOK tokens by up to ROWS rows. Two threads bring 128 channels of both into a ring of stages, tokens
 * by tensor copies, weights as they were packed; two warpgroups multiply, each half of the tokens, or, where tokens are
 * few, half of the rows. Two blocks that form a cluster have the same rows: each brings half of them, for both.
 *
 * Blocks stay and take tiles in turn. How many rows a tile has is chosen for the job, in eights, so that the last round
 * of tiles is nearly full; with few tokens each multiprocessor then has one tile, as many bytes of weights as every
 * other, and all of K. With many tokens results leave by tensor copies while the next tile is summed. */
#include "cuda/early.cuh"
#include "cuda/int8_linear_sm90.cuh"
#include "cuda/ring.cuh"
#include "cuda/tensor_map.cuh"
#include "cuda/tile_shares.cuh"
#include "cuda/wgmma_more.cuh"

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

/* What a block brings of a tile: a stage's weights from `from` on, `mine` bytes of `both` blocks'. */
struct feed {
    const int8_t *from;
    uint32_t mine, both;
    int tok0;
};

template <int TOK, int CLUSTER> static __device__ __forceinline__ struct feed feed_at(const struct args &a, int tile)
{
    int tok_tile, row_tile, rank = my_rank<CLUSTER>(), part = a.rows / CLUSTER;
    tile_place(tile, a.tok_tiles, a.row_tiles, tok_tile, row_tile);
    int row0 = row_tile * a.rows;
    return {a.weights + (size_t)(row0 + rank * part) * INT8_CHANNELS,
            (uint32_t)rows_at(a, row0 + rank * part, part) * INT8_CHANNELS,
            (uint32_t)rows_at(a, row0, a.rows) * INT8_CHANNELS, (tok_tile * CLUSTER + rank) * TOK};
}

template <int TOK, int ROWS, int CLUSTER>
static __device__ __forceinline__ void bring_weights(const struct args &a, const struct feed &f, const struct ring &r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    uint8_t *to = r.stages + (size_t)r.stage * S::STAGE_BYTES + S::ACT_BYTES;
    uint64_t *full = &r.full[r.stage];
    barrier_arrive_expect(full, a.act_bytes + f.both);
    if constexpr (CLUSTER == 1)
        bulk_copy(to, f.from, f.mine, full);
    else if (f.mine)
        bulk_copy(to + my_rank<CLUSTER>() * (a.rows / CLUSTER) * INT8_CHANNELS, f.from, f.mine, full,
                  (1 << CLUSTER) - 1);
}

/* Two threads bring a stage: with few tokens its instructions take one alone longer than its products. Weights come
 * before the kernel in front has ended. */
template <int TOK, int ROWS, int CLUSTER> static __device__ void produce_weights(const struct args &a, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    for (int tile = blockIdx.x / CLUSTER; tile < a.row_tiles * a.tok_tiles; tile += gridDim.x / CLUSTER) {
        struct feed f = feed_at<TOK, CLUSTER>(a, tile);
        for (int step = 0; step < a.steps; step++, next<S>(r)) {
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            bring_weights<TOK, ROWS, CLUSTER>(a, f, r);
            f.from += (size_t)a.n_padded * INT8_CHANNELS;
        }
    }
}

template <int TOK, int ROWS, int CLUSTER>
static __device__ void produce_tokens(const struct args &a, const CUtensorMap *acts, struct ring r)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    early_wait();
    for (int tile = blockIdx.x / CLUSTER; tile < a.row_tiles * a.tok_tiles; tile += gridDim.x / CLUSTER) {
        int tok0 = feed_at<TOK, CLUSTER>(a, tile).tok0;
        for (int step = 0; step < a.steps; step++, next<S>(r)) {
            barrier_wait(&r.empty[r.stage], r.phase ^ 1);
            tensor_copy(r.stages + (size_t)r.stage * S::STAGE_BYTES, acts, step * INT8_CHANNELS, tok0,
                        &r.full[r.stage]);
        }
    }
}

/* ---- multiplying ------------------------------------------------------------------------------------------------- */

template <int CLUSTER> static __device__ __forceinline__ void release(const struct ring &r, int stage)
{
    __syncwarp();
    if (threadIdx.x % 32 < CLUSTER) /* all blocks of the cluster write to it */
        barrier_arrive_remote(&r.empty[stage], threadIdx.x % 32, CLUSTER);
}

/* 64 tokens by COLUMNS rows, 32 channels; a wgmma has 256 rows at most. */
template <int COLUMNS>
static __device__ __forceinline__ void multiply_tile(uint64_t acts, uint64_t weights, int more,
                                                     int (&sums)[COLUMNS / 2])
{
    if constexpr (COLUMNS <= 256) {
        wgmma_s8_smem<COLUMNS>::run(sums, acts, weights, more);
    } else {
        enum { HALF = COLUMNS / 2 };
        wgmma_s8_smem<HALF>::run(reinterpret_cast<int(&)[HALF / 2]>(sums[0]), acts, weights, more);
        wgmma_s8_smem<HALF>::run(reinterpret_cast<int(&)[HALF / 2]>(sums[HALF / 2]), acts,
                                 weights + HALF * INT8_CHANNELS / 16, more);
    }
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
            multiply_tile<S::COLUMNS>(acts + i * 2, weights + i * 2, i > 0 || step > 0, sums);
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

template <int TOK, int ROWS, int CLUSTER>
static __device__ void multiply(const struct args &a, struct ring r, struct out<shape<TOK, ROWS, CLUSTER>::OUT_TILES> o)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int group = threadIdx.x / 128 - 1, at = TOK == FEW ? group * S::COLUMNS : 0;
    int line = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + (TOK == FEW ? 0 : group * 64);
    int act_at = TOK == FEW ? 0 : group * 64 * INT8_CHANNELS;
    early_wait();
    for (int tile = blockIdx.x / CLUSTER; tile < a.row_tiles * a.tok_tiles; tile += gridDim.x / CLUSTER) {
        int tok_tile, row_tile;
        tile_place(tile, a.tok_tiles, a.row_tiles, tok_tile, row_tile);
        int tok = (tok_tile * CLUSTER + my_rank<CLUSTER>()) * TOK + line, row0 = row_tile * a.rows;
        int sums[S::COLUMNS / 2];
        struct terms<S::COLUMNS> t;
        bring_terms<S::COLUMNS>(a.r, tok, row0 + at, t);
        sum_tile<S, CLUSTER>(r, a.steps, act_at, S::ACT_BYTES + at * INT8_CHANNELS, sums);
        put_tile<S::COLUMNS>(a, tok, row0 + at, row0 + a.rows, t, o, sums);
    }
    if (speaks())
        tensor_store_wait_read();
}

template <int TOK, int ROWS, int CLUSTER>
static __global__ void __launch_bounds__(THREADS, 1)
    int8_linear(const __grid_constant__ CUtensorMap acts, const __grid_constant__ CUtensorMap y, const struct args a)
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
    early_next();
    if (threadIdx.x < 128) {
        registers_down<40>();
        if (threadIdx.x == 0)
            produce_weights<TOK, ROWS, CLUSTER>(a, r);
        if (threadIdx.x == 32)
            produce_tokens<TOK, ROWS, CLUSTER>(a, &acts, r);
        __syncwarp();
    } else {
        registers_up<232>();
        int group = threadIdx.x / 128 - 1;
        multiply<TOK, ROWS, CLUSTER>(
            a, r, {r.stages + S::STAGES * S::STAGE_BYTES + group * S::OUT_TILES * OUT_TILE_BYTES, 0, &y});
    }
    if (CLUSTER > 1)
        cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

static int up(int a, int b) { return (a + b - 1) / b; }

/* Whether results leave by tensor copies: those of two bytes, of tiles that fill the kernel's, in rows that end at a
 * multiple of 16 bytes, with nothing to add. */
template <int TOK, int ROWS> static bool is_stored(const struct atom_cuda_int8_linear *j, int rows)
{
    int columns = j->silu ? j->w->n / 2 : j->w->n, whole = j->silu ? 2 * OUT_COLUMNS : OUT_COLUMNS;
    return TOK != FEW && ROWS >= 128 && rows == ROWS && ROWS % whole == 0 && j->type != ATOM_CUDA_F32 && !j->add &&
           columns % 8 == 0;
}

static enum atom_status map_results(const struct atom_cuda_int8_linear *j, CUtensorMap *y, struct atom_error *err)
{
    const struct tensor_matrix m = {CU_TENSOR_MAP_DATA_TYPE_UINT16, /* its bits are all that matters */
                                    j->y,
                                    j->silu ? j->w->n / 2 : j->w->n,
                                    j->a->n_tok,
                                    j->y_stride * 2,
                                    OUT_COLUMNS,
                                    64,
                                    true};
    return tensor_map(&m, y, err);
}

template <int TOK, int ROWS, int CLUSTER>
static enum atom_status launch(const struct atom_cuda_int8_linear *j, int rows, atom_cuda_stream s,
                               struct atom_error *err)
{
    using S = shape<TOK, ROWS, CLUSTER>;
    int few = up(j->a->n_tok, 8) * 8, box = TOK == FEW && few < FEW ? few : TOK, k = j->w->site.k_padded;
    const struct tensor_matrix acts = {
        CU_TENSOR_MAP_DATA_TYPE_UINT8, j->a->q, k, j->a->tok_stride, (size_t)k, INT8_CHANNELS, box, false};
    bool stored = is_stored<TOK, ROWS>(j, rows);
    CUtensorMap map, y = {};
    enum atom_status st = tensor_map(&acts, &map, err);
    if (stored)
        st = st ? st : map_results(j, &y, err);
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
        .stored = stored,
        .weights = j->w->q,
        .steps = k / INT8_CHANNELS,
        .n_padded = j->w->n_padded,
        .rows = rows,
        .row_tiles = row_tiles,
        .tok_tiles = tok_tiles,
        .act_bytes = (uint32_t)(box * INT8_CHANNELS),
    };
    int clusters = atom_cuda_opened()->n_sm / CLUSTER;
    const struct early_grid grid = {dim3((unsigned)((tiles < clusters ? tiles : clusters) * CLUSTER)), THREADS,
                                    S::SMEM_BYTES, CLUSTER > 1 ? CLUSTER : 0};
    launch_early(int8_linear<TOK, ROWS, CLUSTER>, grid, s, map, y, a);
    return atom_cuda_launched("starting an INT8 linear", err);
}

/* Kernels, each for tiles of up to so many rows. Cycles of a step, and of what lies between two tiles, where there are
 * many tokens: fitted to what the matrices of Llama models took on an H100, 128 to 8192 tokens. */
typedef enum atom_status launch_fn(const struct atom_cuda_int8_linear *, int, atom_cuda_stream, struct atom_error *);
struct config {
    int tok, rows, cluster;
    int step, tile;
    launch_fn *launch;
};
static const struct config configs[] = {
    {FEW, 32, 1, 0, 0, launch<FEW, 32, 1>},         {FEW, 64, 1, 0, 0, launch<FEW, 64, 1>},
    {FEW, 96, 1, 0, 0, launch<FEW, 96, 1>},         {FEW, 128, 1, 0, 0, launch<FEW, 128, 1>},
    {FEW, 192, 1, 0, 0, launch<FEW, 192, 1>},       {128, 64, 1, 473, 1919, launch<128, 64, 1>},
    {128, 96, 1, 477, 5601, launch<128, 96, 1>},    {128, 128, 1, 589, 2913, launch<128, 128, 1>},
    {128, 128, 2, 650, 1688, launch<128, 128, 2>},  {128, 160, 2, 744, 2724, launch<128, 160, 2>},
    {128, 192, 2, 854, 4229, launch<128, 192, 2>},  {128, 256, 2, 1127, 4563, launch<128, 256, 2>},
    {128, 320, 2, 1457, 5790, launch<128, 320, 2>},
};
enum { N_CONFIGS = sizeof configs / sizeof *configs };

static int rounds_of(const struct atom_cuda_int8_linear *j, const struct config *c, int rows)
{
    int tiles = up(j->a->n_tok, c->tok * c->cluster) * up(j->w->n, rows);
    return up(tiles, atom_cuda_opened()->n_sm / c->cluster);
}

/* Cycles by tiles of so many rows; only comparisons see them. With few tokens a stage takes what multiplying or what
 * bringing it takes. */
static long long cost_of(const struct atom_cuda_int8_linear *j, const struct config *c, int rows)
{
    enum { TILE_CYCLES = 3000 /* a tile's start and end */, BYTES_A_CYCLE = 40 };
    int bring = (c->tok + rows) * INT8_CHANNELS / BYTES_A_CYCLE, multiply = 4 * c->rows * c->tok / 128 + 60;
    long long steps = j->w->site.k_padded / INT8_CHANNELS;
    if (j->a->n_tok > 128)
        return rounds_of(j, c, rows) * (steps * c->step + c->tile);
    return rounds_of(j, c, rows) * (steps * (bring > multiply ? bring : multiply) + TILE_CYCLES);
}

static bool is_for(const struct atom_cuda_int8_linear *j, const struct config *c)
{
    if (c->rows > 256 && !is_stored<128, 320>(j, c->rows))
        return false;
    if (c->cluster == 2 && (j->a->n_tok <= 128 || (j->silu && c->rows % (2 * OUT_COLUMNS))))
        return false;
    return (c->tok == FEW) == (j->a->n_tok <= FEW);
}

/* Tiles may have fewer rows than their kernel where weights are what is waited for. */
static const struct config *choose(const struct atom_cuda_int8_linear *j, int *rows)
{
    const struct config *best = NULL;
    long long least = 0;
    for (int i = 0; i < N_CONFIGS; i++) {
        const struct config *c = &configs[i];
        for (int r = c->rows; r > (j->a->n_tok > 128 ? c->rows - 1 : c->rows / 2) && is_for(j, c); r -= 16) {
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
