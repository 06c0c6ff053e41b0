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
    int heads, kv_heads, head_dim;
    int rep; /* heads of a KV head */
    enum atom_cuda_float type;
    float scale;      /* of scores, for powers of two */
    bool whole;       /* four numbers of a query can be read at once, and every channel is one */
    bool keep;        /* results are for the merge, where there is one split too */
    bool finish;      /* whoever finishes the last split of a unit adds them up; asked for, if items are few */
    int most_items;   /* where every sequence has one new token */
    bool whole_turns; /* two pairs' cos and sin can be read at once, and every pair is one */
};

enum { QUEUE = 8, AHEAD = 4 /* items known: the one that is computed and those after it */ };

struct __align__(128) queue
{
    unit units[QUEUE];
    int n_items;
};
static_assert(sizeof(struct queue) == 384, "what decode_dims leaves for it");

/* A step at each item: a number is asked for, then its unit is read, a word a lane, then it is put in the queue, so
 * that nothing is waited for; not even the last word, an item's KV head, is put in a register that waits. */
struct giver {
    int asked; /* the number that was asked for last, first lane's, counted from the first one that the counter gives */
    int word;  /* of the unit that was read last */
};

template <class D> PAGE_FN int warps_of_grid() { return (D::pre ? (int)(blockDim.x / 32) : D::warps) * (int)gridDim.x; }

/* Units past the last hold anything, and are there. */
PAGE_FN int read_word(const decode_args &a, int item, bool there)
{
    int lane = threadIdx.x % 32, at = item / a.kv_heads, word = 0;
    if (there && at < a.space.max_units && lane < UNIT_WORDS - 1)
        word = reinterpret_cast<const int *>(a.space.units + at)[lane];
    return word;
}

PAGE_FN void put_head(const decode_args &a, queue &q, int k, int item)
{
    if (threadIdx.x % 32 == UNIT_WORDS - 1)
        q.units[k % QUEUE].kv_head = item % a.kv_heads;
}

PAGE_FN void put_word(queue &q, int k, int word)
{
    if (threadIdx.x % 32 < UNIT_WORDS - 1)
        reinterpret_cast<int *>(q.units + k % QUEUE)[threadIdx.x % 32] = word;
}

/* The first units are asked for before it is known how many there are. */
template <class D> PAGE_FN giver start_giver(const decode_args &a, queue &q)
{
    giver g;
    int warp = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x), n_items = *a.space.n_units * a.kv_heads;
    int words[AHEAD + 1];
#pragma unroll
    for (int i = 0; i <= AHEAD; i++) {
        words[i] = read_word(a, warp + i * warps_of_grid<D>(), true);
        put_head(a, q, i, warp + i * warps_of_grid<D>());
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        put_word(q, i, warp + i * warps_of_grid<D>() < n_items ? words[i] : 0);
    g.word = warp + AHEAD * warps_of_grid<D>() < n_items ? words[AHEAD] : 0;
    g.asked = warp - warps_of_grid<D>();
    q.n_items = n_items;
    __syncwarp();
    return g;
}

/* After item k. */
template <class D> PAGE_FN void give_next(const decode_args &a, giver &g, queue &q, int k)
{
    put_word(q, k + AHEAD, g.word);
    int item = __shfl_sync(0xFFFFFFFFu, g.asked, 0) + (AHEAD + 2) * warps_of_grid<D>();
    bool there = item < q.n_items;
    g.word = read_word(a, item, there);
    put_head(a, q, k + AHEAD + 1, item);
    if (threadIdx.x % 32 == 0 && there)
        g.asked = atomicAdd(a.space.taken, 1);
    __syncwarp();
}

/* After the last item: the counter is 0 again when all are done. */
template <class D> PAGE_FN void leave(const decode_args &a)
{
    if (threadIdx.x % 32)
        return;
    __threadfence();
    if (atomicAdd(a.space.taken + 1, 1) == warps_of_grid<D>() - 1)
        a.space.taken[0] = a.space.taken[1] = 0;
}

/* What a warp loads. */
struct cursor {
    int k;            /* item */
    int i, n, head;   /* page, of so many; its KV head */
    int ids;          /* lane l's is page i/32*32 + l */
    int next_ids, of; /* those of item `of`, loaded early */
};

PAGE_FN int page_ids(const decode_args &a, const unit &u, int from)
{
    int i = from + (int)(threadIdx.x % 32);
    return i < u.n_pages ? a.step.tables[(size_t)u.seq * a.step.max_pages + u.first_page + i] : 0;
}

/* known: items before this one are in the queue. */
PAGE_FN void enter_item(const decode_args &a, const queue &q, cursor &c, int known)
{
    const unit &u = q.units[c.k % QUEUE];
    c.i = 0;
    c.n = u.n_pages;
    c.head = u.kv_head;
    c.ids = c.of == c.k ? c.next_ids : page_ids(a, u, 0);
    if (c.k + 1 < known) {
        c.of = c.k + 1;
        c.next_ids = page_ids(a, q.units[c.of % QUEUE], 0);
    }
}

template <class D> PAGE_FN void fetch_page(const decode_args &a, const queue &q, cursor &c, int known, uint32_t to)
{
    if (c.i >= c.n)
        while (c.i >= c.n && c.k + 1 < known) {
            c.k++;
            enter_item(a, q, c, known);
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
