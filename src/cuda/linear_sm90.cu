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

/* Up to which number of tokens a step counts as this one; 0: any. */
enum { LARGEST_CLASS = 1024 };
static int class_of(int n_tok)
{
    int most = FEW;
    while (most < n_tok && most <= LARGEST_CLASS)
        most *= 2;
    return most <= LARGEST_CLASS ? most : 0;
}

/* A tile of so many tokens, and what it takes, in hundredths of what a run takes one of 128: small ones wait for their
 * own results; adding up is memory traffic. Measured over the matrices of Llama models, 128 to 1024 tokens. */
struct tile {
    int tokens, run, add;
};
static const struct tile tiles[] = {{64, 67, 750}, {96, 84, 950}, {128, 100, 1250}};
enum { N_TILES = sizeof tiles / sizeof tiles[0], PUT = 50 /* to write a tile that is whole */ };

static int items_of(int n, int slot, int slots) { return n > slot ? ceil_of(n - slot, slots) : 0; }

/* Of a launch. Pairs of blocks take items in turn: first whole tiles, then those that are split. */
static int64_t time_of(const struct atom_cuda_weights *w, int n_tok, const struct tile *t,
                       const struct atom_cuda_cut *c)
{
    int slots = atom_cuda_opened()->n_sm / 2, runs = w->site.n_runs, tok_tiles = ceil_of(n_tok, t->tokens),
        whole = c->whole_pairs * tok_tiles, all = whole + (w->n_tiles / 2 - c->whole_pairs) * tok_tiles * c->splits;
    const int ends[] = {0, whole % slots, all % slots}; /* where the number of items changes */
    int64_t longest = 0, of_whole = (int64_t)runs * t->run + PUT,
            of_split = (int64_t)ceil_of(runs, c->splits) * t->run + t->add;
    for (int i = 0; i < 3; i++) {
        int n_whole = items_of(whole, ends[i], slots), n_split = items_of(all, ends[i], slots) - n_whole;
        int64_t time = n_whole * of_whole + n_split * of_split;
        longest = longest > time ? longest : time;
    }
    return longest;
}

/* Every pair of blocks gets as many whole tiles as every other; the tiles that are left are split. */
struct atom_cuda_cut atom_cuda_sm90_cut(const struct atom_cuda_weights *w, int n_tok)
{
    enum { MOST = 4 };
    int most = class_of(n_tok), pairs = w->n_tiles / 2, slots = atom_cuda_opened()->n_sm / 2;
    int64_t least = INT64_MAX;
    struct atom_cuda_cut best = {pairs, 1};
    for (int i = 0; i < N_TILES && most; i++) {
        int tok_tiles = ceil_of(most, tiles[i].tokens), turns = pairs * tok_tiles / slots;
        for (int n = 0; n < 2 && n <= turns; n++) {
            struct atom_cuda_cut c = {(turns - n) * slots / tok_tiles, 1};
            if ((pairs - c.whole_pairs) * 2 * ceil_of(most, 64) > MAX_SPLIT_TILES)
                continue;
            for (; c.splits <= MOST && c.splits <= w->site.n_runs; c.splits++) {
                struct atom_cuda_cut tried = c.splits > 1 ? c : (struct atom_cuda_cut){pairs, 1};
                int64_t time = time_of(w, most, &tiles[i], &tried);
                time += tried.splits > 1 ? time / 50 : 0; /* little to gain is not taken */
                if (time < least) {
                    least = time;
                    best = tried;
                }
            }
        }
    }
    return best;
}

bool atom_cuda_sm90_is_cut(const struct atom_cuda_weights *w, int n_tok, int row, int run)
{
    int runs = w->site.n_runs, splits = atom_cuda_sm90_few_splits(w);
    if (n_tok > FEW) {
        struct atom_cuda_cut c = atom_cuda_sm90_cut(w, n_tok);
        splits = row / (2 * TILE_ROWS) < c.whole_pairs ? 1 : c.splits;
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
    for (int c = 2 * FEW; c <= LARGEST_CLASS && c / 2 < max_tok; c *= 2) {
        struct atom_cuda_cut cut = atom_cuda_sm90_cut(w, c);
        size_t tiles_split = cut.splits > 1 ? (size_t)(w->n_tiles - 2 * cut.whole_pairs) : 0,
               sums = tiles_split * (size_t)cut.splits * (size_t)(c + PAST);
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
