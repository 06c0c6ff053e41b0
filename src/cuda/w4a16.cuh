/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the linears of 16-bit activations: packed weights, and the kernel of Hopper. */
#ifndef ATOM_CUDA_W4A16_CUH
#define ATOM_CUDA_W4A16_CUH

#include "cuda/check.cuh"
#include "cuda/floats.cuh"
#include "cuda/w4a16.h"

/* Rows are cut in tiles of 128, an even number of them; those past n are zeros. A tile is its groups one after the
 * other, each [2 warpgroups][2 halves of 64 channels][4 warps][32 lanes][16 bytes] and the F16 scales of its 128 rows.
 *
 * A lane's 16 bytes are its share of A of four 16-bit wgmma (wgmma_more.cuh), a word each: of a[e]'s two values, the
 * low one at bit 4e, the high one at bit 4e + 16, as q+8. */
enum {
    W4_ROWS = 128,
    W4_NIBBLE_BYTES = 8192,
    W4_GROUP_BYTES = W4_NIBBLE_BYTES + 2 * W4_ROWS,
};

struct atom_cuda_w4a16_weights {
    int n, k, n_groups, n_tiles;
    bool by_turns;
    uint8_t *data; /* [n_tiles][n_groups][W4_GROUP_BYTES] */
};

size_t atom_cuda_w4a16_workspace_sm90(const struct atom_cuda_w4a16_weights *w);
enum atom_status atom_cuda_w4a16_sm90(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err);

#endif
