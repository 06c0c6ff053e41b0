/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of linears as mma.sync wants them: linear_sm80.cuh draws the layout. */
#include "cuda/linear_sm80.cuh"
#include "cuda/stacked.cuh"

struct target {
    size_t tile_bytes;
    uint8_t *data;
};

/* Four bytes of a lane: bytes of outliers, or two nibbles each of channels 16 apart. */
static __device__ uint32_t word_of(const struct stacked &from, int row, int run, int channel)
{
    uint32_t word = 0;
    bool nibbles = run < from.site.n_groups;
    for (int i = 0; i < 4; i++) {
        uint32_t q = (uint32_t)stored_q(from, row, run, channel + i) & (nibbles ? 15u : 255u);
        if (nibbles)
            q |= ((uint32_t)stored_q(from, row, run, channel + 16 + i) & 15u) << 4;
        word |= q << (8 * i);
    }
    return word;
}

/* One block a chunk of a tile, a thread 16 bytes at a time. */
static __global__ void pack_sm80(const struct stacked from, const struct target to)
{
    int chunk = blockIdx.x, tile = blockIdx.y, extra = chunk - from.site.n_groups;
    bool nibbles = extra < 0;
    int run = nibbles ? chunk : from.site.n_groups + extra / 2;
    uint8_t *at = to.data + (size_t)tile * to.tile_bytes + (size_t)chunk * SM80_CHUNK_BYTES;
    for (int u = threadIdx.x; u < 4 * SM80_WEIGHT_BYTES / 16; u += blockDim.x) {
        int lane = u % 32, step = u / 32 % 2, block = u / 64 % 4, quarter = u / 256;
        int row = tile * SM80_TILE_ROWS + quarter * SM80_QUARTER_ROWS + block * 16 + lane / 4;
        int channel = (nibbles ? step * 64 : extra % 2 * 64 + step * 32) + lane % 4 * 4, half = nibbles ? 32 : 16;
        uint4 words = {word_of(from, row, run, channel), word_of(from, row + 8, run, channel),
                       word_of(from, row, run, channel + half), word_of(from, row + 8, run, channel + half)};
        *reinterpret_cast<uint4 *>(at + quarter * SM80_QUARTER_BYTES + u % 256 * 16) = words;
    }
    for (int i = threadIdx.x; i < SM80_TILE_ROWS; i += blockDim.x) {
        int quarter = i / SM80_QUARTER_ROWS, row = i % SM80_QUARTER_ROWS;
        uint8_t *scales = at + quarter * SM80_QUARTER_BYTES + SM80_WEIGHT_BYTES;
        reinterpret_cast<uint16_t *>(scales)[row % 8 * 8 + row / 8] =
            stored_scale(from, tile * SM80_TILE_ROWS + i, run);
    }
}

void atom_cuda_sm80_layout(struct atom_cuda_weights *w)
{
    w->n_tiles = (int)(((size_t)w->n + SM80_TILE_ROWS - 1) / SM80_TILE_ROWS);
    w->tile_bytes = (size_t)sm80_chunk_of(w->site.n_runs, w->site.n_groups) * SM80_CHUNK_BYTES;
}

enum atom_status atom_cuda_sm80_pack(const struct stacked *from, const struct atom_cuda_weights *w, atom_cuda_stream s,
                                     struct atom_error *err)
{
    const struct target to = {w->tile_bytes, w->data};
    int n_chunks = sm80_chunk_of(w->site.n_runs, w->site.n_groups);
    pack_sm80<<<dim3((unsigned)n_chunks, (unsigned)w->n_tiles), 256, 0, s>>>(*from, to);
    return atom_cuda_launched("packing a linear", err);
}
