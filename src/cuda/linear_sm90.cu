/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper: which kernel, with which tile, and what all of them are told. INT4 weights lie packed in tiles of
 * 128 rows (linear.cuh) and become INT8 in registers: two instructions make eight of eight nibbles, 16 times the
 * value. */
#include "cuda/linear_sm90.cuh"
#include "cuda/tensor_map.cuh"

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

/* Splits of a tile's runs when tokens are few: what makes the longest chain of runs on a multiprocessor shortest.
 * Depends on the weights alone, so that a token's result does not depend on its company. */
static int splits_for_few(const struct atom_cuda_weights *w)
{
    enum { RUN = 4, GATHER = 20 /* what adding up takes, in quarters of a run */ };
    int best = 1, least = 1 << 30, slots = 2 * atom_cuda_opened()->n_sm, tiles = (w->n + TILE_ROWS - 1) / TILE_ROWS;
    for (int s = 1; s <= MAX_SPLITS && s <= w->site.n_runs && (s == 1 || tiles <= MAX_SPLIT_TILES); s++) {
        int waves = (tiles * s + slots - 1) / slots, runs = (w->site.n_runs + s - 1) / s;
        int chain = waves * (runs * RUN + (s > 1 ? GATHER + s : 0));
        if (chain < least) {
            least = chain;
            best = s;
        }
    }
    return best;
}

/* The same for up to 256 tokens, in pairs of blocks: where rows are few and runs many, the two tiles of tokens leave
 * most multiprocessors idle. Partial sums cost memory traffic, so that little to gain is not taken. */
static int splits_for_medium(const struct atom_cuda_weights *w)
{
    enum {
        TOKEN_TILES = 2,
        LOW = 4 /* runs that adding up takes at the least */,
        PER_PAIR = 11 /* pairs of rows a run */
    };
    int best = 1, pairs = w->n_tiles / 2, slots = atom_cuda_opened()->n_sm / 2;
    int whole = (pairs * TOKEN_TILES + slots - 1) / slots * w->site.n_runs, least = whole * 8 / 10;
    for (int s = 2; s <= 4 && s <= w->site.n_runs && pairs * 2 * 4 <= MAX_SPLIT_TILES; s++) {
        int waves = (pairs * TOKEN_TILES * s + slots - 1) / slots, runs = (w->site.n_runs + s - 1) / s;
        int chain = waves * runs + LOW + pairs * s / PER_PAIR;
        if (chain < least) {
            least = chain;
            best = s;
        }
    }
    return best;
}

int atom_cuda_sm90_splits(const struct atom_cuda_weights *w, int n_tok)
{
    return n_tok <= FEW ? splits_for_few(w) : n_tok <= MEDIUM ? splits_for_medium(w) : 1;
}

static size_t partial_bytes(const struct atom_cuda_weights *w, int splits, int n_tok)
{
    return splits > 1 ? (size_t)w->n_tiles * splits * n_tok * TILE_ROWS * sizeof(float) : 0;
}

size_t atom_cuda_sm90_workspace(const struct atom_cuda_weights *w, int max_tok)
{
    enum { TILES_OF_MEDIUM = 384 /* tokens of whole tiles that 256 may take */ };
    size_t few = partial_bytes(w, splits_for_few(w), FEW);
    size_t medium = max_tok > FEW ? partial_bytes(w, splits_for_medium(w), TILES_OF_MEDIUM) : 0;
    return ARRIVED_BYTES + (few > medium ? few : medium);
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

/* Tokens of a tile: whole waves of blocks, and not much more than is asked for. What a run takes a tile, as measured:
 * small ones wait for their own results most of the time. */
static int tile_for(const struct atom_cuda_weights *w, int n_tok)
{
    static const struct {
        int tokens, time;
    } tiles[] = {{64, 83}, {96, 94}, {128, 100}};
    int best = 128, least = 1 << 30, pairs = atom_cuda_opened()->n_sm / 2, splits = atom_cuda_sm90_splits(w, n_tok);
    for (int i = 0; i < 3; i++) {
        int items = w->n_tiles / 2 * ((n_tok + tiles[i].tokens - 1) / tiles[i].tokens) * splits;
        int cost = (items + pairs - 1) / pairs * tiles[i].time;
        if (cost <= least) {
            least = cost;
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
