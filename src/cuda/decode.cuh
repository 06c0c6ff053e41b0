/* SPDX-License-Identifier: Apache-2.0 */
/* Inside decode attention: how sequences are cut into units, and the workspace that the plan and attention share.
 *
 * A unit is some pages of a sequence for up to eight of its query rows (row = token * heads a KV head serves + head);
 * the work of a step, its items, is every unit for every KV head. Results of a sequence's splits are kept as
 * (sum of weighted values, largest score, sum of weights) and added up in order, by a kernel of their own; where there
 * is an item for every warp at most and they are few, by the warp that finishes the last one, since starting a kernel
 * takes longer than a fence then, and less time where there are more items. */
#ifndef ATOM_CUDA_DECODE_CUH
#define ATOM_CUDA_DECODE_CUH

#include "cuda/kv_pages.cuh"

enum {
    SPLIT_PAGES = 11, /* a split has about so many, where there are */
    MAX_SPLITS = 128, /* and a sequence at most so many, times its new tokens */
    TILE_ROWS = 8,    /* query rows of a unit */
    FEW_SPLITS = 8,   /* are added up by one warp */
    TURN_PAGES = 16,   /* the angles of whose places are kept at hand, of fewer where a page is large */
};

struct __align__(16) unit
{
    int seq, first_page, n_pages; /* n_pages 0: there is no more work */
    uint8_t split, n_splits;
    uint16_t tile;
    int first_tok, n_tok, pos0, kv_head; /* kv_head: of an item */
};
enum { UNIT_WORDS = sizeof(struct unit) / sizeof(int) };

struct decode_space {
    int *n_units;
    unit *units;    /* without KV head, long ones first */
    int *arrived;   /* [max_seqs, heads]: splits of a unit, which is one of a sequence's heads; 0 between launches */
    uint4 *turns;   /* [TURN_PAGES, tiles of 16 channels, lane]: cos and sin as lanes want them (decode_plan.cu) */
    float2 *weight; /* [max_seqs, slots, heads]: largest score and sum of weights; a slot is split * n_tok + token */
    float *part;    /* [max_seqs, slots, heads, wide] */
    int slots, max_units;
    size_t n_bytes;
};

static inline __host__ __device__ int splits_of(int n_pages, int n_tok)
{
    int most = MAX_SPLITS / n_tok, n = (n_pages + SPLIT_PAGES - 3) / SPLIT_PAGES;
    n = n > 1 ? n : 1;
    return n < most ? n : most;
}

/* Where a row's result of a split is. */
static __device__ __forceinline__ size_t slot_of(const decode_space &d, int seq, int slot, int heads, int head)
{
    return ((size_t)seq * d.slots + slot) * heads + head;
}

decode_space atom_cuda_decode_space(const struct atom_cuda_kv *kv, int max_seqs, int max_pages, void *workspace);

/* Adds up splits. */
enum atom_status atom_cuda_decode_merge(const struct atom_cuda_attend *job, const decode_space &space,
                                        atom_cuda_stream s, struct atom_error *err);

#endif
