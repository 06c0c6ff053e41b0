/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the linears: packed weights, and what the kernels of each generation offer to linear.cu. */
#ifndef ATOM_CUDA_LINEAR_CUH
#define ATOM_CUDA_LINEAR_CUH

#include "cuda/check.cuh"
#include "cuda/linear_form.h"
#include "cuda/ops.h"

/* For sm_90, rows are cut in tiles of 128, an even number of them, those past n zeros. A tile is its runs one after the
 * other, each weights and then the F16 scales of its 128 rows:
 *
 *   4 bits: [2 warpgroups][2 halves of 64 channels][4 warps][32 lanes][16 bytes]   8192 bytes
 *   8 bits: [2 warpgroups][4 steps of 32 channels][4 warps][32 lanes][16 bytes]   16384 bytes
 *
 * so that a lane's 16 bytes are its share of A of s8 wgmma (wgmma.cuh): of one step at 8 bits, and of two at 4, the
 * first in the low nibbles, two's complement. */
enum {
    TILE_ROWS = 128,
    NIBBLE_BYTES = 8192,
    BYTE_BYTES = 16384,
    SCALE_BYTES = 2 * TILE_ROWS,
    NIBBLE_RUN_BYTES = NIBBLE_BYTES + SCALE_BYTES,
    BYTE_RUN_BYTES = BYTE_BYTES + SCALE_BYTES,
};

/* Of how many pairs of tiles, the first, runs are not cut when tokens are many; those of the others in so many equal
 * parts, or each tile's in two for both blocks of a cluster. */
struct atom_cuda_cut {
    int whole_pairs, splits;
    bool halved;
};

/* Numbers of tokens for which cuts are the same: up to 128, 256, 512, 1024, and more. */
enum { CUT_CLASSES = 5 };

struct atom_cuda_weights {
    enum atom_cuda_form form; /* never AUTO */
    struct atom_cuda_site site;
    int n, n_tiles;
    bool by_turns;
    size_t tile_bytes;
    uint8_t *data;
    struct atom_cuda_cut cuts[CUT_CLASSES]; /* sm_90 */
};

void atom_cuda_sm90_find_cuts(struct atom_cuda_weights *w); /* from n_tiles and site */
size_t atom_cuda_sm90_workspace(const struct atom_cuda_weights *w, int max_tok);
bool atom_cuda_sm90_is_cut(const struct atom_cuda_weights *w, int n_tok, int row, int run);
enum atom_status atom_cuda_linear_sm90(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err);

/* Weights of every other form: linear_sm80.cuh. */
struct stacked;
void atom_cuda_sm80_layout(struct atom_cuda_weights *w); /* n_tiles and tile_bytes, from n and site */
enum atom_status atom_cuda_sm80_pack(const struct stacked *from, const struct atom_cuda_weights *w, atom_cuda_stream s,
                                     struct atom_error *err);
size_t atom_cuda_sm80_workspace(const struct atom_cuda_weights *w);
int atom_cuda_sm80_splits(const struct atom_cuda_weights *w, int n_tok);
enum atom_status atom_cuda_linear_sm80(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err);

#endif
