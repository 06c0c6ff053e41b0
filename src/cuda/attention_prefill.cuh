/* SPDX-License-Identifier: Apache-2.0 */
/* Inside prefill attention: what the expanding kernels leave in the workspace, and what reads it there.
 *
 * Keys and values of a KV head are expanded to f16 in tiles of 128 positions, in the very bytes that tensor cores want
 * in shared memory, so that a tile is one contiguous copy:
 *
 *   [keys, values][blocks of 64 channels][128 positions][8 units of 8 channels]
 *
 * where unit u of position p lies at u ^ (p % 8) (the swizzle of 128 bytes). Channels past head_dim are zeros up to the
 * next width of tile_width(), positions past the sequence's end are zeros. */
#ifndef ATOM_CUDA_ATTENTION_PREFILL_CUH
#define ATOM_CUDA_ATTENTION_PREFILL_CUH

#include "cuda/attention_prefill.h"
#include "cuda/check.cuh"

enum {
    KEY_TILE = 128,   /* positions */
    QUERY_TILE = 128, /* rows: heads of a KV head within tokens */
    BLOCK_BYTES = KEY_TILE * 128,
};

/* Channels that a tile computes with. */
static inline __host__ __device__ constexpr int tile_width(int head_dim)
{
    return head_dim <= 64 ? 64 : head_dim <= 96 ? 96 : 128;
}
/* Bytes of a tile's keys, or of its values. */
static inline __host__ __device__ constexpr int tile_bytes(int head_dim)
{
    return head_dim <= 64 ? BLOCK_BYTES : 2 * BLOCK_BYTES;
}
/* Where unit u (8 channels) of position p is in its tile. */
static inline __host__ __device__ constexpr int unit_at(int p, int u)
{
    return u / 8 * BLOCK_BYTES + p * 128 + ((u ^ p) & 7) * 16;
}

/* A tile of query rows: row r is token r / group, head r % group of the KV head's. n_tiles 0: there are no more. */
struct __align__(16) prefill_unit {
    int first_tok, n_rows; /* of the sequence */
    int pos0;              /* of its first token */
    int row0;              /* of the tile */
    int head;              /* KV head */
    int n_tiles;           /* of keys that its last row sees */
    int tile0;             /* where they start in the workspace, in tiles */
    int padding;
};

struct prefill_args {
    const struct prefill_unit *units;
    int *n_units, *ticket;
    const uint8_t *tiles;
    int head_dim, group; /* query heads of a KV head */
    enum atom_cuda_float type;
    const void *q; /* [n_tok, >= heads * head_dim] */
    size_t q_stride;
    float scale; /* of a score, times log2(e) */
    void *out;
    size_t out_stride;
};

enum atom_status atom_cuda_prefill_sm90(const struct prefill_args *a, atom_cuda_stream s, struct atom_error *err);
enum atom_status atom_cuda_prefill_mma(const struct prefill_args *a, atom_cuda_stream s, struct atom_error *err);

#endif
