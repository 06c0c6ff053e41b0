/* SPDX-License-Identifier: Apache-2.0 */
/* How weights lie for mma.sync.
 *
 * Rows are cut in tiles of 256, those past n zeros. A tile is its chunks one after the other: a group's run is one, a
 * run of outliers two of 64 channels. A chunk is four quarters of 64 rows, each 4096 bytes of weights, then F16 scales
 * [8][4 blocks of 16 rows][2], that of row 16b + 8h + i at [i][b][h], so that a lane finds what it needs together.
 *
 * A quarter's weights are [4 blocks of 16 rows][2 steps][32 lanes][16 bytes], a lane's bytes its share of operand A as
 * four words: of row l/4 and of row l/4 + 8 for the step's first half, then for the second. A step is 32 outliers, or
 * 64 channels of 4 bits: there byte i of a word has channel c in the low nibble and c + 16 in the high one, where
 * c = 4(l%4) + i, and 32 more in the second half. That is the order in which the integers of tokens, 16 apart, become
 * nibbles with one shift and one selection; and as INT8, the low nibbles of a word and its high ones are operands too.
 * Products do not mind which channel is which, if both sides agree. */
#ifndef ATOM_CUDA_LINEAR_SM80_CUH
#define ATOM_CUDA_LINEAR_SM80_CUH

#include "cuda/linear.cuh"

enum {
    SM80_TILE_ROWS = 256,
    SM80_QUARTER_ROWS = 64,
    SM80_WEIGHT_BYTES = 4096,
    SM80_QUARTER_BYTES = SM80_WEIGHT_BYTES + 2 * SM80_QUARTER_ROWS,
    SM80_CHUNK_BYTES = 4 * SM80_QUARTER_BYTES,
};

/* The first chunk of a run, of n_groups groups and then outliers. */
static __host__ __device__ inline int sm80_chunk_of(int run, int n_groups)
{
    return run <= n_groups ? run : n_groups + 2 * (run - n_groups);
}

#endif
