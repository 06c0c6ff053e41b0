/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper: which kernel, with which tile, and what all of them are told. INT4 weights lie packed in tiles of
 * 128 rows (linear.cuh) and become INT8 in registers: two instructions make eight of eight nibbles, 16 times the
 * value. */
#include "cuda/linear_sm90.cuh"
#include "cuda/tensor_map.cuh"

#include <limits.h>

enum atom_status atom_cuda_sm90_map(const struct atom_cuda_acts *a, int rows, CUtensorMap *map, struct atom_error *err)
{
    const struct tensor_matrix m = {CU_TENSOR_MAP_DATA_TYPE_UINT8,
                                    a->q,
                                    a->site.k_padded,
                                    a->tok_stride,
                                    (size_t)a->site.k_padded,
                                    ATOM_CUDA_RUN,
                                    rows,
                                    false};
    return tensor_map(&m, map, err);
}

enum atom_status atom_cuda_sm90_map_rows(const struct atom_cuda_linear *j, const void *rows, int n_tok,
                                         CUtensorMap *map, struct atom_error *err)
{
    const struct tensor_matrix m = {CU_TENSOR_MAP_DATA_TYPE_UINT16, /* its bits are all that matters */
                                    rows,
                                    j->silu ? j->w->n / 2 : j->w->n,
                                    j->a->n_tok,
                                    j->y_stride * 2,
                                    j->silu ? 32 : 64,
                                    n_tok,
                                    j->silu};
    return tensor_map(&m, map, err);
}

static int ceil_of(int a, int b) { return (a + b - 1) / b; }

/* ---- splits ------------------------------------------------------------------------------------------------------ */

/* Where a tile's runs are split depends on the weights and on a class of tokens alone, so that a token's result does
 * not depend on its company. */

/* How many clusters of so many blocks, two to a multiprocessor, have a place at once: pairs fill the device; larger
 * ones do not come out even in its parts, of 16 or 18 multiprocessors or fewer, as they came from the factory. Measured
 * on one H100: 79, 62, 47, 39 and 30 of 3, 4, 5, 6 and 8 blocks. */
static int clusters_of(int blocks)
{
    int slots = 2 * atom_cuda_opened()->n_sm;
    return blocks <= 2 ? slots / blocks : slots * 9 / 10 / blocks;
}

/* Among how many blocks of a cluster when tokens are few: what makes the longest chain of runs shortest. */
int atom_cuda_sm90_few_splits(const struct atom_cuda_weights *w)
{
    enum { GATHER = 4 /* what adding up takes, in runs */ };
    int best = 1, least = INT_MAX, tiles = ceil_of(w->n, TILE_ROWS);
    for (int s = 1; s <= FEW_SPLITS && s <= w->site.n_runs; s++) {
        int chain = ceil_of(tiles, clusters_of(s)) * (ceil_of(w->site.n_runs, s) + (s > 1 ? GATHER : 0));
        if (chain < least && s != 7) { /* the sums of seven have no room (linear_gather_sm90.cuh) */
            least = chain;
            best = s;
        }
    }
    return best;
}

enum { SMALLEST_CLASS = 2 * FEW, LARGEST = CUT_CLASSES - 1 /* its tiles are whole */ };
static int class_of(int n_tok)
{
    int c = 0;
    while (c < LARGEST && n_tok > SMALLEST_CLASS << c)
        c++;
    return c;
}

/* A tile of so many tokens, and what it takes, in hundredths of what a run takes one of 128: small ones wait for their
 * own results; adding up is memory traffic. Measured over the matrices of Llama models, 128 to 1024 tokens. */
struct tile {
    int tokens, run, add, exchange;
};
static const struct tile tiles[] = {{64, 67, 750, 200}, {96, 84, 950, 275}, {128, 100, 1250, 550}};
enum { N_TILES = sizeof tiles / sizeof tiles[0], PUT = 50 /* to write a tile that is whole */ };

static int splits_of(const struct atom_cuda_cut *c) { return c->halved ? 2 : c->splits; }

static int items_of(int n, int slot, int slots) { return n > slot ? ceil_of(n - slot, slots) : 0; }

/* Of a launch. Pairs of blocks take items in turn: first whole tiles, then those that are split. */
static int64_t time_of(const struct atom_cuda_weights *w, int n_tok, const struct tile *t,
                       const struct atom_cuda_cut *c)
{
    int slots = atom_cuda_opened()->n_sm / 2, runs = w->site.n_runs, tok_tiles = ceil_of(n_tok, t->tokens),
        whole = c->whole_pairs * tok_tiles, parts = splits_of(c),
        all = whole + (w->n_tiles / 2 - c->whole_pairs) * tok_tiles * parts;
    const int ends[] = {0, whole % slots, all % slots}; /* where the number of items changes */
    int64_t longest = 0, of_whole = (int64_t)runs * t->run + PUT,
            of_split = (int64_t)ceil_of(runs, parts) * t->run + (c->halved ? t->exchange : t->add);
    for (int i = 0; i < 3; i++) {
        int n_whole = items_of(whole, ends[i], slots), n_split = items_of(all, ends[i], slots) - n_whole;
        int64_t time = n_whole * of_whole + n_split * of_split;
        longest = longest > time ? longest : time;
    }
    return longest;
}

struct choice {
    struct atom_cuda_cut cut;
    int64_t time;
};

static void consider(const struct atom_cuda_weights *w, int n_tok, const struct tile *t, struct atom_cuda_cut c,
                     struct choice *best)
{
    int64_t time = time_of(w, n_tok, t, &c);
    time += splits_of(&c) > 1 ? time / 50 : 0; /* little to gain is not taken */
    if (time < best->time)
        *best = (struct choice){c, time};
}

/* Every pair of blocks gets as many whole tiles as every other; the tiles that are left are split, or halved. */
static struct atom_cuda_cut find_cut(const struct atom_cuda_weights *w, int n_tok)
{
    enum { MOST = 4, LEAST_HALF = 8 /* runs: no warpgroup of a block is further ahead of the other */ };
    int pairs = w->n_tiles / 2, slots = atom_cuda_opened()->n_sm / 2, runs = w->site.n_runs;
    struct choice best = {{pairs, 1, false}, INT64_MAX};
    for (int i = 0; i < N_TILES; i++) {
        int tok_tiles = ceil_of(n_tok, tiles[i].tokens), turns = pairs * tok_tiles / slots;
        consider(w, n_tok, &tiles[i], {pairs, 1, false}, &best);
        for (int n = 0; n < 2 && n <= turns; n++) {
            int whole = (turns - n) * slots / tok_tiles;
            if ((pairs - whole) * 2 * ceil_of(n_tok, 64) > MAX_SPLIT_TILES)
                continue;
            for (int splits = 2; splits <= MOST && splits <= runs; splits++)
                consider(w, n_tok, &tiles[i], {whole, splits, false}, &best);
            if (runs % 2 == 0 && runs / 2 >= LEAST_HALF)
                consider(w, n_tok, &tiles[i], {whole, 1, true}, &best);
        }
    }
    return best.cut;
}

void atom_cuda_sm90_find_cuts(struct atom_cuda_weights *w)
{
    for (int c = 0; c < LARGEST; c++)
        w->cuts[c] = find_cut(w, SMALLEST_CLASS << c);
    w->cuts[LARGEST] = {w->n_tiles / 2, 1, false};
}

struct atom_cuda_cut atom_cuda_sm90_cut(const struct atom_cuda_weights *w, int n_tok)
{
    return w->cuts[class_of(n_tok)];
}

bool atom_cuda_sm90_is_cut(const struct atom_cuda_weights *w, int n_tok, int row, int run)
{
    int runs = w->site.n_runs, splits = atom_cuda_sm90_few_splits(w);
    if (n_tok > FEW) {
        struct atom_cuda_cut c = atom_cuda_sm90_cut(w, n_tok);
        splits = row / (2 * TILE_ROWS) < c.whole_pairs ? 1 : splits_of(&c);
    }
    for (int s = 1; s < splits; s++)
        if (run == runs * s / splits)
            return true;
    return false;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

size_t atom_cuda_sm90_workspace(const struct atom_cuda_weights *w, int max_tok)
{
    enum { PAST = 128 /* tokens that tiles may hold past the last */ };
    size_t most = 0; /* sums of a tile's rows */
    for (int c = 0; c < LARGEST && (SMALLEST_CLASS << c) / 2 < max_tok; c++) {
        const struct atom_cuda_cut cut = w->cuts[c];
        int splits = splits_of(&cut);
        size_t tiles_split = splits > 1 ? (size_t)(w->n_tiles - 2 * cut.whole_pairs) : 0,
               sums = tiles_split * (size_t)splits * (size_t)((SMALLEST_CLASS << c) + PAST);
        most = sums > most ? sums : most;
    }
    return ARRIVED_BYTES + most * TILE_ROWS * sizeof(float);
}

struct args atom_cuda_sm90_args(const struct atom_cuda_linear *j)
{
    struct args a = {};
    a.weights = j->w->data;
    a.tile_bytes = j->w->tile_bytes;
    a.tok_scales = j->a->scales;
    a.scale_parts = j->a->scale_parts;
    a.n = j->w->n;
    a.n_tok = j->a->n_tok;
    a.tok_stride = j->a->tok_stride;
    a.n_groups = j->w->site.n_groups;
    a.n_runs = j->w->site.n_runs;
    a.arrived = (int *)j->workspace;
    a.partials = (float *)((uint8_t *)j->workspace + ARRIVED_BYTES);
    a.y = j->y;
    a.add = j->add;
    a.bias = j->bias;
    a.y_stride = j->y_stride;
    return a;
}

static int tile_for(const struct atom_cuda_weights *w, int n_tok)
{
    const struct atom_cuda_cut cut = atom_cuda_sm90_cut(w, n_tok);
    int best = 0;
    int64_t least = INT64_MAX;
    for (int i = 0; i < N_TILES; i++) {
        int64_t time = time_of(w, n_tok, &tiles[i], &cut);
        if (time <= least) {
            least = time;
            best = tiles[i].tokens;
        }
    }
    return best;
}

enum atom_status atom_cuda_linear_sm90(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err)
{
    int n_tok = job->a->n_tok;
    if (n_tok <= FEW)
        return atom_cuda_linear_few(job, n_tok <= 16 ? 16 : n_tok <= 32 ? 32 : 64, s, err);
    if (!job->a->scale_parts)
        return atom_fail(err, ATOM_ERR_INVALID, "%d tokens without their scales in parts: from %d on they are needed",
                         n_tok, FEW + 1);
    return atom_cuda_linear_many(job, tile_for(job->w, n_tok), s, err);
}
