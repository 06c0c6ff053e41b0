/* SPDX-License-Identifier: Apache-2.0 */
/* Linear through mma.sync: INT4 products where activations have 4 bits, INT8 ones for 8 bits and for outliers.
 *
 * A block computes ROWS rows times TOKS tokens. Chunks of weights and of tokens' integers come into a ring of slots by
 * asynchronous copies, STAGES - 1 of them ahead. A warp multiplies MT blocks of 16 rows by NT blocks of 8 tokens, a run
 * at a time: weights are operand A as they lie, tokens operand B through ldmatrix, their bytes made nibbles on the way.
 * Integer sums of a run start at a constant that makes them floats but for one subtraction, and are scaled at once.
 *
 * Few tokens leave the time to reading weights. Then the runs of a tile are split among several blocks; each leaves its
 * sums in the workspace, and the last to come adds them up in order.
 *
 * Sums run over the groups ascending in one chain of fma, the scalar tier's: unsplit results are its bits. */
#include "cuda/linear_out.cuh"
#include "cuda/linear_sm80.cuh"
#include "cuda/products_sm80.cuh"

#include <limits.h>

template <int ROWS_, int TOKS_, int MT_, int NT_, int STAGES_> struct shape {
    enum {
        ROWS = ROWS_,
        TOKS = TOKS_,
        MT = MT_,
        NT = NT_,
        STAGES = STAGES_,
        WARPS_DOWN = ROWS / (16 * MT),
        WARPS = WARPS_DOWN * (TOKS / (8 * NT)),
        THREADS = 32 * WARPS,
        BLOCKS = ROWS > 128 ? 1 : 2, /* a multiprocessor */
        WEIGHT_BYTES = ROWS / SM80_QUARTER_ROWS * SM80_QUARTER_BYTES,
        SLOT_BYTES = WEIGHT_BYTES + TOKS * ATOM_CUDA_RUN,
        SMEM_BYTES = STAGES * SLOT_BYTES,
        STAGING_FLOATS = 8 * (16 * MT + 4),
    };
    static_assert(STAGES >= 3, "a run of outliers is two chunks");
    static_assert(SLOT_BYTES % 128 == 0 && WEIGHT_BYTES % 128 == 0, "toks_at");
    static_assert((SMEM_BYTES + 1024) * BLOCKS <= 100 * 1024, "what 8.6 and 8.9 have");
    static_assert(WARPS * STAGING_FLOATS * 4 <= SLOT_BYTES, "results pass through the slot that is free");
    static_assert(THREADS % 64 == 0 && (TOKS % (THREADS / 8) == 0 || TOKS < THREADS / 8),
                  "a thread brings the same eighth of tokens a multiple of 8 apart");
};

enum { FEW = 64 /* tokens, at most, of split work */, MAX_SPLITS = 16, MAX_SPLIT_TILES = 4096, BAND = 8 };
enum { ARRIVED_BYTES = MAX_SPLIT_TILES * (int)sizeof(int) };

struct args {
    const uint8_t *weights;
    size_t tile_bytes;
    const int8_t *q;
    const float *tok_scales;
    int n_tok, tok_stride, k_padded, n_groups, n_runs;
    int row_tiles, tok_tiles, splits, items;
    float *partials; /* [row tile][split][sums of a thread][thread] */
    int *arrived;    /* [row tile] */
    struct out out;
};

/* ---- what a block does ------------------------------------------------------------------------------------------- */

struct item {
    int row_tile, tok0, split;
    int run0, run1, chunk1; /* the last ones not included */
    const uint8_t *weights; /* what this thread brings of chunk 0 */
    const int8_t *q;        /* and of run 0 */
    int toks;               /* from its first token on, as many there are */
};

/* Bands of some token tiles, whose blocks run at about the same time: they share weights and tokens in the cache. */
template <class S> static __device__ __forceinline__ struct item item_at(const struct args &a, int i)
{
    struct item it;
    it.split = i % a.splits;
    i /= a.splits;
    int band = i / (BAND * a.row_tiles), first = band * BAND;
    int width = min((int)BAND, a.tok_tiles - first);
    i -= first * a.row_tiles;
    it.tok0 = (first + i % width) * S::TOKS;
    it.row_tile = i / width;
    it.run0 = a.n_runs * it.split / a.splits;
    it.run1 = a.n_runs * (it.split + 1) / a.splits;
    it.chunk1 = sm80_chunk_of(it.run1, a.n_groups);
    enum { PER_TILE = SM80_TILE_ROWS / S::ROWS };
    it.weights = a.weights + (size_t)(it.row_tile / PER_TILE) * a.tile_bytes +
                 it.row_tile % PER_TILE * S::WEIGHT_BYTES + threadIdx.x * 16;
    it.toks = a.n_tok - it.tok0 - (int)threadIdx.x / 8;
    it.q = a.q + (size_t)(it.tok0 + threadIdx.x / 8) * a.k_padded + threadIdx.x % 8 * 16;
    return it;
}

/* Starts copying a chunk into a slot. Tokens lie 128 bytes apart, their eighths in an order that differs from token to
 * token, so that ldmatrix finds eight of them in different banks; of outliers, chunks bring four eighths each. */
template <class S>
static __device__ __forceinline__ void bring(const struct args &a, const struct item &it, int chunk, uint32_t slot)
{
    const uint8_t *w = it.weights + (size_t)chunk * SM80_CHUNK_BYTES;
    enum { UNITS = S::WEIGHT_BYTES / 16, STEP = S::THREADS / 8, TOK_STEPS = (S::TOKS + STEP - 1) / STEP };
#pragma unroll
    for (int i = 0; i < (UNITS + S::THREADS - 1) / S::THREADS; i++)
        if ((i + 1) * S::THREADS <= UNITS || threadIdx.x + i * S::THREADS < UNITS)
            copy_16(slot + (threadIdx.x + i * S::THREADS) * 16, w + i * S::THREADS * 16, true);
    int tok = threadIdx.x / 8, eighth = threadIdx.x % 8, extra = chunk - a.n_groups;
    if ((extra >= 0 && eighth / 4 != extra % 2) || (S::TOKS < STEP && tok >= S::TOKS))
        return;
    const int8_t *q = it.q + (size_t)(extra >= 0 ? a.n_groups + extra / 2 : chunk) * ATOM_CUDA_RUN;
    slot += S::WEIGHT_BYTES + tok * ATOM_CUDA_RUN + ((eighth ^ tok % 8) << 4);
#pragma unroll
    for (int i = 0; i < TOK_STEPS; i++)
        copy_16(slot + i * STEP * ATOM_CUDA_RUN, q + (size_t)i * STEP * a.k_padded, it.toks > i * STEP);
}

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

/* Scales of this lane's tokens: two of every 8. */
template <class S>
static __device__ __forceinline__ void load_tok_scales(const struct args &a, const struct item &it, int run,
                                                       float2 (&scales)[S::NT])
{
    int lane = threadIdx.x % 32, tok = it.tok0 + threadIdx.x / 32 / S::WARPS_DOWN * S::NT * 8 + lane % 4 * 2;
    const float *from = a.tok_scales + (size_t)min(run, a.n_groups) * a.tok_stride + tok;
#pragma unroll
    for (int j = 0; j < S::NT; j++)
        scales[j] = tok + 8 * j < a.tok_stride ? __ldg(reinterpret_cast<const float2 *>(from + 8 * j))
                                               : make_float2(0.0f, 0.0f);
}

struct ring {
    uint32_t slots; /* where they start */
    int at, chunk;  /* the slot of the chunk to be used next, and that chunk */
};

template <class S> static __device__ __forceinline__ uint32_t slot_at(const struct ring &r, int ahead)
{
    int i = r.at + ahead;
    return r.slots + (i < S::STAGES ? i : i - S::STAGES) * S::SLOT_BYTES;
}

/* Starts the chunk that is `ahead` of the next. A group of copies even when there is none: they are counted. */
template <class S>
static __device__ __forceinline__ void bring_ahead(const struct args &a, const struct item &it, const struct ring &r,
                                                   int ahead)
{
    if (r.chunk + ahead < it.chunk1)
        bring<S>(a, it, r.chunk + ahead, slot_at<S>(r, ahead));
    copy_commit();
}

template <class S> static __device__ __forceinline__ void advance(struct ring &r)
{
    r.at = r.at + 1 < S::STAGES ? r.at + 1 : 0;
    r.chunk++;
}

/* The first chunks of an item. */
template <class S>
static __device__ __forceinline__ void begin(const struct args &a, const struct item &it, struct ring &r)
{
    r.chunk = sm80_chunk_of(it.run0, a.n_groups);
    for (int i = 0; i < S::STAGES - 1; i++)
        bring_ahead<S>(a, it, r, i);
}

/* All runs of an item that has begun: at each, the next STAGES - 1 chunks are there or under way. */
template <class S, bool S4>
static __device__ __forceinline__ void sum_runs(const struct args &a, const struct item &it, struct ring &r,
                                                float (&y)[S::MT * S::NT * 4])
{
    struct place p = my_place<S>();
    float2 tok_scales[S::NT];
    int run = it.run0;
    for (; run < min(it.run1, a.n_groups); run++) {
        load_tok_scales<S>(a, it, run, tok_scales);
        copy_wait<S::STAGES - 2>();
        __syncthreads(); /* all copies of the chunk are done, and nobody needs the last one's slot */
        bring_ahead<S>(a, it, r, S::STAGES - 1);
        const uint32_t slots[2] = {slot_at<S>(r, 0), 0};
        consume<S, S4 ? INT4 : INT8>(slots, p, tok_scales, y);
        advance<S>(r);
    }
    for (; run < it.run1; run++) {
        load_tok_scales<S>(a, it, run, tok_scales);
        copy_wait<S::STAGES - 3>();
        __syncthreads();
        bring_ahead<S>(a, it, r, S::STAGES - 1);
        const uint32_t slots[2] = {slot_at<S>(r, 0), slot_at<S>(r, 1)};
        consume<S, OUTLIERS>(slots, p, tok_scales, y);
        advance<S>(r);
        __syncthreads();
        bring_ahead<S>(a, it, r, S::STAGES - 1);
        advance<S>(r);
    }
}

/* Leaves this split's sums in the workspace. True for the last split of the tile, which then has all of them added up
 * in order. */
template <class S>
static __device__ bool gather_splits(const struct args &a, const struct item &it, int *last,
                                     float (&y)[S::MT * S::NT * 4])
{
    enum { SUMS = S::MT * S::NT * 4, SPLIT = SUMS * S::THREADS };
    float *first = a.partials + (size_t)it.row_tile * a.splits * SPLIT + threadIdx.x, *mine = first + it.split * SPLIT;
#pragma unroll
    for (int e = 0; e < SUMS; e++)
        __stcg(mine + e * S::THREADS, y[e]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        *last = atomicAdd(&a.arrived[it.row_tile], 1) == a.splits - 1;
    __syncthreads();
    bool all_there = *last;
    __syncthreads(); /* its place has other uses */
    if (!all_there)
        return false;
    __threadfence();
    for (int split = 0; split < a.splits; split++, first += SPLIT)
#pragma unroll
        for (int e = 0; e < SUMS; e++) {
            float part = __ldcg(first + e * S::THREADS);
            y[e] = split ? y[e] + part : part;
        }
    if (threadIdx.x == 0)
        a.arrived[it.row_tile] = 0; /* as the next job wants it */
    return true;
}

template <class S, bool S4>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS) linear_sm80(const struct args a)
{
    extern __shared__ __align__(128) uint8_t raw[];
    struct item it = item_at<S>(a, blockIdx.x);
    struct ring r = {smem_address(raw), 0, 0};
    int warp = threadIdx.x / 32;
    begin<S>(a, it, r);
    for (int i = blockIdx.x;;) {
        float y[S::MT * S::NT * 4];
#pragma unroll
        for (int e = 0; e < S::MT * S::NT * 4; e++)
            y[e] = 0.0f;
        sum_runs<S, S4>(a, it, r, y);
        int row0 = it.row_tile * S::ROWS + warp % S::WARPS_DOWN * 16 * S::MT;
        int tok0 = it.tok0 + warp / S::WARPS_DOWN * 8 * S::NT;
        uint8_t *free_slot = raw + (slot_at<S>(r, S::STAGES - 1) - r.slots);
        __syncthreads(); /* nobody needs that slot any more */
        bool put = S::TOKS > FEW || a.splits == 1 || gather_splits<S>(a, it, reinterpret_cast<int *>(free_slot), y);
        i += gridDim.x;
        if (i < a.items) { /* its first chunks come while these results go */
            it = item_at<S>(a, i);
            begin<S>(a, it, r);
        }
        if (put)
            put_warp<S::MT, S::NT>(a.out, reinterpret_cast<float *>(free_slot) + warp * S::STAGING_FLOATS, row0, tok0,
                                   y);
        if (i >= a.items)
            return;
    }
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

typedef shape<128, 16, 1, 2, 4> for_16;
typedef shape<128, 32, 2, 4, 4> for_32;
typedef shape<128, 64, 4, 4, 3> for_64;
typedef shape<256, 96, 4, 6, 3> for_many;

enum { SPLIT_ROWS = 128 };
static int split_tiles(const struct atom_cuda_weights *w) { return (w->n - 1) / SPLIT_ROWS + 1; }

/* Splits of a tile's runs when tokens are few: what makes the longest chain of runs on a multiprocessor shortest.
 * Depends on the weights alone, so that a token's result does not depend on its company. */
static int splits_for(const struct atom_cuda_weights *w)
{
    int best = 1, least = INT_MAX, slots = 2 * atom_cuda_opened()->n_sm, tiles = split_tiles(w);
    for (int s = 1; s <= MAX_SPLITS && s <= w->site.n_runs && tiles <= MAX_SPLIT_TILES; s++) {
        int waves = (tiles * s + slots - 1) / slots, runs = (w->site.n_runs + s - 1) / s;
        int chain = waves * runs * 4 + s; /* adding up costs a little */
        if (chain < least) {
            least = chain;
            best = s;
        }
    }
    return best;
}

int atom_cuda_sm80_splits(const struct atom_cuda_weights *w, int n_tok) { return n_tok <= FEW ? splits_for(w) : 1; }

size_t atom_cuda_sm80_workspace(const struct atom_cuda_weights *w)
{
    size_t splits = (size_t)splits_for(w);
    return splits == 1 ? 0 : ARRIVED_BYTES + split_tiles(w) * splits * FEW * SPLIT_ROWS * sizeof(float);
}

static struct args args_of(const struct atom_cuda_linear *j)
{
    struct args a = {};
    a.weights = j->w->data;
    a.tile_bytes = j->w->tile_bytes;
    a.q = j->a->q;
    a.tok_scales = j->a->scales;
    a.n_tok = j->a->n_tok;
    a.tok_stride = j->a->tok_stride;
    a.k_padded = j->w->site.k_padded;
    a.n_groups = j->w->site.n_groups;
    a.n_runs = j->w->site.n_runs;
    a.splits = atom_cuda_sm80_splits(j->w, j->a->n_tok);
    a.arrived = (int *)j->workspace;
    a.partials = (float *)((uint8_t *)j->workspace + ARRIVED_BYTES);
    a.out.y = j->y;
    a.out.add = j->add;
    a.out.bias = j->bias;
    a.out.y_stride = j->y_stride;
    a.out.n = j->w->n;
    a.out.n_tok = j->a->n_tok;
    a.out.type = j->type;
    a.out.silu = j->silu;
    return a;
}

template <class S, bool S4>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    struct args a = args_of(j);
    a.row_tiles = (j->w->n - 1) / S::ROWS + 1;
    a.tok_tiles = (j->a->n_tok - 1) / S::TOKS + 1;
    size_t items = (size_t)a.row_tiles * (size_t)a.tok_tiles * (size_t)a.splits;
    if (items > INT_MAX / 2)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d rows for %d tokens has %zu tiles, more than %d",
                         j->w->n, j->a->n_tok, items, INT_MAX / 2);
    int slots = atom_cuda_opened()->n_sm * S::BLOCKS;
    a.items = (int)items;
    enum atom_status st = atom_cuda_status(
        cudaFuncSetAttribute(linear_sm80<S, S4>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
        "asking for shared memory", err);
    if (st)
        return st;
    linear_sm80<S, S4><<<(unsigned)(a.items < slots ? a.items : slots), S::THREADS, S::SMEM_BYTES, s>>>(a);
    return atom_cuda_launched("starting a linear", err);
}

template <class S>
static enum atom_status launch(const struct atom_cuda_linear *j, bool s4, atom_cuda_stream s, struct atom_error *err)
{
    return s4 ? launch<S, true>(j, s, err) : launch<S, false>(j, s, err);
}

/* Whether large tiles end sooner. A third of one takes a multiprocessor as long as a small tile's products, but small
 * tiles bring 1.7 times the bytes for them. INT8 products take twice the time, so that small tiles need not wait. */
static bool wants_large(const struct atom_cuda_linear *j)
{
    size_t n_sm = (size_t)atom_cuda_opened()->n_sm, n_tok = (size_t)j->a->n_tok, rows = ((size_t)j->w->n + 127) / 128;
    size_t large = ((rows + 1) / 2 * ((n_tok + 95) / 96) + n_sm - 1) / n_sm * 3;
    size_t small = (rows * ((n_tok + 63) / 64) + n_sm - 1) / n_sm;
    return 2 * large < 3 * small;
}

enum atom_status atom_cuda_linear_sm80(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err)
{
    int bits = job->a->bits, n_tok = job->a->n_tok;
    bool s4 = job->w->form == ATOM_CUDA_FORM_SM80 && bits <= 4;
    if (bits < 2 || bits > 8)
        return atom_fail(err, ATOM_ERR_INVALID, "activations of %d bits; expected 2 to 8", bits);
    if (n_tok <= 16)
        return launch<for_16>(job, s4, s, err);
    if (n_tok <= 32)
        return launch<for_32>(job, s4, s, err);
    if (n_tok > FEW && s4 && wants_large(job))
        return launch<for_many, true>(job, s, err);
    return launch<for_64>(job, s4, s, err);
}
