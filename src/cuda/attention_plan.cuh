/* SPDX-License-Identifier: Apache-2.0 */
/* How prefill attention on Hopper is cut into work, in device memory: attention_plan.cu writes it, the kernel takes it.
 *
 * A group is some KV heads of one sequence. Its keys and values are expanded into a ring of tiles (128 positions, keys,
 * then values, as attention_expand.cuh draws them), and its units, tiles of 128 query rows, read them there. Groups,
 * the longest sequences first, take the ring's tiles one after the other, over and over; a group's units come with the
 * latest queries, which take longest, first. A block takes tiles to expand and units by two tickets that count up,
 * whatever is next, so that whatever it may have to wait for was taken by somebody before. */
#ifndef ATOM_CUDA_ATTENTION_PLAN_CUH
#define ATOM_CUDA_ATTENTION_PLAN_CUH

#include "cuda/attention_prefill.cuh"

enum {
    KEY_TILE = 128,    /* positions */
    QUERY_TILE = 128,  /* rows */
    GROUP_TILES = 256, /* of a group of short sequences; at 128 channels, 16 MiB */
    RING_TILES = 4096, /* at most, unless two heads of the longest sequence need more */
};

struct group {
    int seq, first_tok, n_rows, pos0; /* rows: tokens times query heads of a KV head */
    int head0, n_heads;               /* KV heads */
    int key_tiles, query_tiles;       /* of one head */
    int tile0, unit0;                 /* of all groups' */
    int before;                       /* the first group that may have had tiles in this one's place, or this one */
    int padding;
};

struct plan {
    int n_groups, n_tiles, n_units, ring_tiles;
    int tile_ticket, unit_ticket;
};

/* A workspace: plan, groups, how much of each is ready and read, how often each of the ring's places was filled, tiles.
 * Counts of what is ready count the warps that expand a tile. */
enum { EXPANDERS = 4 };
struct work_layout {
    size_t groups_at, ready_at, read_at, filled_at, tiles_at, n_bytes;
    int max_groups, ring_tiles;
};

static inline __host__ __device__ size_t pad(size_t n) { return (n + 1023) / 1024 * 1024; }

static inline struct work_layout layout_of(const struct atom_cuda_kv *kv, const struct atom_cuda_step *step)
{
    struct work_layout l;
    int longest = (step->max_pages + KEY_TILE / PAGE - 1) / (KEY_TILE / PAGE);
    int seqs = step->max_tok / (ATOM_CUDA_DECODE_TOK + 1);
    seqs = seqs < step->max_seqs ? seqs : step->max_seqs;
    l.max_groups = seqs * kv->kv_heads + 1;
    size_t all = (size_t)seqs * longest * kv->kv_heads;
    l.ring_tiles = 2 * longest > RING_TILES ? 2 * longest : RING_TILES;
    l.ring_tiles = all < (size_t)l.ring_tiles ? (int)all : l.ring_tiles;
    l.groups_at = pad(sizeof(struct plan));
    l.ready_at = pad(l.groups_at + (size_t)l.max_groups * sizeof(struct group));
    l.read_at = pad(l.ready_at + (size_t)l.max_groups * sizeof(int));
    l.filled_at = pad(l.read_at + (size_t)l.max_groups * sizeof(int));
    l.tiles_at = pad(l.filled_at + (size_t)l.ring_tiles * sizeof(int));
    l.n_bytes = l.tiles_at + (size_t)l.ring_tiles * 2 * tile_bytes(kv->wide, KEY_TILE);
    return l;
}

enum atom_status atom_cuda_prefill_plan(const struct prefill_args *a, const struct work_layout *l, uint8_t *workspace,
                                        atom_cuda_stream s, struct atom_error *err);

#endif
