/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: which items a block takes, and pages brought into each warp's ring, across the ends of items.
 *
 * The first items of every block are its by number, later ones are given out by a counter, as blocks get on unequally;
 * which block has which does not show in the result. A queue in shared memory knows a block's next items early enough
 * for its warps to load ahead. */
#ifndef ATOM_CUDA_DECODE_FETCH_CUH
#define ATOM_CUDA_DECODE_FETCH_CUH

#include "cuda/decode_page.cuh"
#include "cuda/hadamard.cuh"

struct decode_args {
    struct atom_cuda_step step;
    decode_space space;
    const uint8_t *pages;
    uint32_t page_bytes;
    const float2 *turns;
    const void *q;
    void *out;
    size_t q_stride, out_stride;
    int heads, kv_heads, head_dim;
    enum atom_cuda_float type;
    float scale; /* of scores, for powers of two */
    bool whole;  /* four numbers of a query can be read at once, and every channel is one */
    bool undo_v;
    hadamard_shape hadamard;
};

enum { QUEUE = 8, AHEAD = 4 /* items known: the one that is computed and those after it */ };

struct queue {
    unit units[QUEUE];
};

/* What the block's first warp does about items, a step at each: a number is asked for, then its unit is read, a word a
 * lane, then it is put where the others see it, so that nobody waits. */
struct giver {
    int n_items, asked; /* the number that was asked for last */
    int word;           /* lanes 0 to 7: of the unit that was read last */
};

PAGE_FN int read_word(const decode_args &a, int item, int n_items)
{
    int lane = threadIdx.x % 32;
    if (item >= n_items || lane >= UNIT_WORDS)
        return 0;
    int word = reinterpret_cast<const int *>(a.space.units + item / a.kv_heads)[lane];
    return lane == UNIT_WORDS - 1 ? item % a.kv_heads : word;
}

PAGE_FN void put_word(queue &q, int k, int word)
{
    if (threadIdx.x % 32 < UNIT_WORDS)
        reinterpret_cast<int *>(q.units + k % QUEUE)[threadIdx.x % 32] = word;
}

PAGE_FN giver start_giver(const decode_args &a, queue &q)
{
    giver g;
    g.n_items = *a.space.n_units * a.kv_heads;
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        put_word(q, i, read_word(a, blockIdx.x + i * gridDim.x, g.n_items));
    g.word = read_word(a, blockIdx.x + AHEAD * gridDim.x, g.n_items);
    g.asked = (int)(blockIdx.x + (AHEAD + 1) * gridDim.x);
    return g;
}

/* Before the barrier that ends item k. */
PAGE_FN void give_next(const decode_args &a, giver &g, queue &q, int k)
{
    put_word(q, k + AHEAD, g.word);
    int item = __shfl_sync(0xFFFFFFFFu, g.asked, 0);
    g.word = read_word(a, item, g.n_items);
    if (threadIdx.x == 0 && item < g.n_items)
        g.asked = (int)((AHEAD + 2) * gridDim.x) + atomicAdd(a.space.taken, 1);
}

/* After the last item. */
PAGE_FN void leave(const decode_args &a)
{
    __threadfence();
    if (atomicAdd(a.space.taken + 1, 1) == (int)gridDim.x - 1)
        a.space.taken[0] = a.space.taken[1] = 0;
}

/* What a warp loads: every warps-th page of an item. */
struct cursor {
    int k, known;     /* item; those before `known` are in the queue */
    int i, n, head;   /* of this warp's pages in it; its KV head */
    int ids;          /* lane l's is page i/32*32 + l of them */
    int next_ids, of; /* those of item `of`, loaded early */
};

template <class D> PAGE_FN int page_ids(const decode_args &a, const unit &u, int from)
{
    int i = (from + (int)(threadIdx.x % 32)) * D::warps + (int)(threadIdx.x / 32);
    return i < u.n_pages ? a.step.tables[(size_t)u.seq * a.step.max_pages + u.first_page + i] : 0;
}

template <class D> PAGE_FN void enter_item(const decode_args &a, const queue &q, cursor &c)
{
    const unit &u = q.units[c.k % QUEUE];
    c.i = 0;
    c.n = (u.n_pages - (int)(threadIdx.x / 32) + D::warps - 1) / D::warps;
    c.head = u.kv_head;
    c.ids = c.of == c.k ? c.next_ids : page_ids<D>(a, u, 0);
    if (c.k + 1 < c.known) {
        c.of = c.k + 1;
        c.next_ids = page_ids<D>(a, q.units[c.of % QUEUE], 0);
    }
}

template <class D> PAGE_FN void fetch_page(const decode_args &a, const queue &q, cursor &c, uint32_t to)
{
    while (c.i >= c.n && c.k + 1 < c.known) {
        c.k++;
        enter_item<D>(a, q, c);
    }
    if (c.i < c.n) {
        int at16 = (int)(threadIdx.x % 32) * 16, page = __shfl_sync(0xFFFFFFFFu, c.ids, c.i & 31);
        const uint8_t *from = a.pages + (size_t)(uint32_t)page * a.page_bytes + (c.head * D::page + at16);
#pragma unroll
        for (int at = 0; at < D::page; at += 512)
            if (at + 512 <= D::page || at + at16 < D::page)
                copy_16(to + at + at16, from + at);
        if ((++c.i & 31) == 0 && c.i < c.n)
            c.ids = page_ids<D>(a, q.units[c.k % QUEUE], c.i);
    }
    copies_commit();
}

#endif
