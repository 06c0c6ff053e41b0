/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: which items a warp takes, and pages brought into its ring, across the ends of items.
 *
 * The first items of every warp are its by number, later ones are given out by a counter, as warps get on unequally;
 * which warp has which does not show in the result. A queue knows a warp's next items early enough to load ahead. */
#ifndef ATOM_CUDA_DECODE_FETCH_CUH
#define ATOM_CUDA_DECODE_FETCH_CUH

#include "cuda/decode_page.cuh"

struct decode_args {
    struct atom_cuda_step step;
    decode_space space;
    const uint8_t *pages;
    uint32_t page_bytes;
    const float2 *turns;
    const void *q;
    void *out;
    size_t q_stride, out_stride;
    int heads, kv_heads, head_dim, max_position;
    enum atom_cuda_float type;
    float scale; /* of scores, for powers of two */
    bool whole;  /* four numbers of a query can be read at once, and every channel is one */
    bool keep;   /* results are for the merge, where there is one split too */
};

enum { QUEUE = 8, AHEAD = 4 /* items known: the one that is computed and those after it */ };

struct queue {
    unit units[QUEUE];
};

/* A step at each item: a number is asked for, then its unit is read, a word a lane, then it is put in the queue, so
 * that nothing is waited for. */
struct giver {
    int n_items, n_warps;
    int asked; /* the number that was asked for last, first lane's */
    int word;  /* lanes 0 to 7: of the unit that was read last */
};

/* The first read does not wait for n_items: units past the last hold anything, and are there. */
PAGE_FN int read_word(const decode_args &a, int item, int n_items)
{
    int lane = threadIdx.x % 32, at = item / a.kv_heads, word = 0;
    if (at < a.space.max_units && lane < UNIT_WORDS)
        word = reinterpret_cast<const int *>(a.space.units + at)[lane];
    word = lane == UNIT_WORDS - 1 ? item - at * a.kv_heads : word;
    return item < n_items ? word : 0;
}

PAGE_FN void put_word(queue &q, int k, int word)
{
    if (threadIdx.x % 32 < UNIT_WORDS)
        reinterpret_cast<int *>(q.units + k % QUEUE)[threadIdx.x % 32] = word;
}

PAGE_FN giver start_giver(const decode_args &a, queue &q)
{
    giver g;
    int warp = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x);
    g.n_items = *a.space.n_units * a.kv_heads;
    g.n_warps = (int)(blockDim.x / 32 * gridDim.x);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        put_word(q, i, read_word(a, warp + i * g.n_warps, g.n_items));
    g.word = read_word(a, warp + AHEAD * g.n_warps, g.n_items);
    g.asked = warp + (AHEAD + 1) * g.n_warps;
    __syncwarp();
    return g;
}

/* After item k. */
PAGE_FN void give_next(const decode_args &a, giver &g, queue &q, int k)
{
    put_word(q, k + AHEAD, g.word);
    int item = __shfl_sync(0xFFFFFFFFu, g.asked, 0);
    g.word = read_word(a, item, g.n_items);
    if (threadIdx.x % 32 == 0 && item < g.n_items)
        g.asked = (AHEAD + 2) * g.n_warps + atomicAdd(a.space.taken, 1);
    __syncwarp();
}

/* After the last item: the counter is 0 again when all are done. */
PAGE_FN void leave(const decode_args &a, const giver &g)
{
    if (threadIdx.x % 32)
        return;
    __threadfence();
    if (atomicAdd(a.space.taken + 1, 1) == g.n_warps - 1)
        a.space.taken[0] = a.space.taken[1] = 0;
}

/* What a warp loads. */
struct cursor {
    int k, known;     /* item; those before `known` are in the queue */
    int i, n, head;   /* page, of so many; its KV head */
    int ids;          /* lane l's is page i/32*32 + l */
    int next_ids, of; /* those of item `of`, loaded early */
};

PAGE_FN int page_ids(const decode_args &a, const unit &u, int from)
{
    int i = from + (int)(threadIdx.x % 32);
    return i < u.n_pages ? a.step.tables[(size_t)u.seq * a.step.max_pages + u.first_page + i] : 0;
}

PAGE_FN void enter_item(const decode_args &a, const queue &q, cursor &c)
{
    const unit &u = q.units[c.k % QUEUE];
    c.i = 0;
    c.n = u.n_pages;
    c.head = u.kv_head;
    c.ids = c.of == c.k ? c.next_ids : page_ids(a, u, 0);
    if (c.k + 1 < c.known) {
        c.of = c.k + 1;
        c.next_ids = page_ids(a, q.units[c.of % QUEUE], 0);
    }
}

template <class D> PAGE_FN void fetch_page(const decode_args &a, const queue &q, cursor &c, uint32_t to)
{
    if (c.i >= c.n)
        while (c.i >= c.n && c.k + 1 < c.known) {
            c.k++;
            enter_item(a, q, c);
        }
    if (c.i < c.n) {
        int at16 = (int)(threadIdx.x % 32) * 16, page = __shfl_sync(0xFFFFFFFFu, c.ids, c.i & 31);
        const uint8_t *from = a.pages + (size_t)(uint32_t)page * a.page_bytes + (c.head * D::page + at16);
#pragma unroll
        for (int at = 0; at < D::page; at += 512)
            if (at + 512 <= D::page || at + at16 < D::page)
                copy_16(to + at + at16, from + at);
        if ((++c.i & 31) == 0 && c.i < c.n)
            c.ids = page_ids(a, q.units[c.k % QUEUE], c.i);
    }
    copies_commit();
}

#endif
