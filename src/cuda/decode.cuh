/* SPDX-License-Identifier: Apache-2.0 */
/* Inside decode attention: how sequences are cut into units, and the workspace both kernels share.
 *
 * A unit is some pages of a sequence for up to eight of its query rows (row = token * heads a KV head serves + head);
 * the work of a step is every unit for every KV head. Results of a sequence's splits are kept as
 * (sum of weighted values, largest score, sum of weights) and merged in order by whoever finishes last. */
#ifndef ATOM_CUDA_DECODE_CUH
#define ATOM_CUDA_DECODE_CUH

#include "cuda/kv_pages.cuh"

enum {
    SPLIT_PAGES = 8,  /* a split has at least so many, where there are */
    MAX_SPLITS = 128, /* and a sequence at most so many, times its new tokens */
    TILE_ROWS = 8,    /* query rows of a unit */
};

struct unit {
    int seq, first_page, n_pages;
    int split, n_splits, tile;
};

/* As it lies in memory. */
static __device__ __forceinline__ int4 pack_unit(const unit &u)
{
    return make_int4(u.seq, u.first_page, u.n_pages, u.split | u.n_splits << 8 | u.tile << 16);
}
static __device__ __forceinline__ unit unpack_unit(int4 p)
{
    return {p.x, p.y, p.z, p.w & 255, p.w >> 8 & 255, p.w >> 16};
}

struct decode_space {
    int *n_units;
    int4 *units;
    int *arrived;   /* [max_seqs, kv_heads, tiles]: splits done, back to 0 after the last */
    float2 *weight; /* [max_seqs, slots, heads]: largest score and sum of weights; a slot is split * n_tok + token */
    float *part;    /* [max_seqs, slots, heads, wide] */
    int slots, tiles;
    size_t n_bytes;
};

static inline __host__ __device__ int splits_of(int n_pages, int n_tok)
{
    int most = MAX_SPLITS / n_tok, n = (n_pages + SPLIT_PAGES - 1) / SPLIT_PAGES;
    return n < most ? n : most;
}

decode_space atom_cuda_decode_space(const struct atom_cuda_kv *kv, int max_seqs, int max_pages, void *workspace);

#endif
