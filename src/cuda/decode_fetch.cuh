/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: which items a warp takes, and pages brought into its ring, across the ends of items.
 *
 * Items are dealt to warps by number, long ones first, neighbours to different multiprocessors. (A counter that gives
 * them out as warps get on has to be asked an item or two early, and gives the last round of them to a few
 * multiprocessors: 5 % slower.) Which warp has which does not show in the result. */
#ifndef ATOM_CUDA_DECODE_FETCH_CUH
#define ATOM_CUDA_DECODE_FETCH_CUH

#include "cuda/decode_bring.cuh"

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
    float scale;              /* of scores, for powers of two */
    bool whole;               /* four numbers of a query can be read at once, and every channel is one */
    bool keep;                /* results are for the merge, where there is one split too */
    bool finish;              /* whoever finishes the last split of a unit adds them up; asked for, if items are few */
    int most_items;           /* where every sequence has one new token */
    int unit_step, head_step; /* from an item of a warp to its next */
    bool whole_turns;         /* two pairs' cos and sin can be read at once, and every pair is one */
    bool ask;                 /* queries are halves that can be copied 16 bytes at once */
};

enum {
    QUEUE = 4,
    AHEAD = 2,     /* items known: the one that is computed and the next */
    ASKED_ROWS = 4 /* of queries that are brought while the item before is computed */
};

struct __align__(128) queue
{
    unit units[QUEUE];
    uint64_t full[MAX_STAGES]; /* barriers: a stage is there */
    int n_units;
};
static_assert(sizeof(struct queue) == QUEUE_BYTES, "what decode_dims leaves for it");

/* Of this warp's items, which follow each other at a constant distance: the last that was read, and a word of its unit
 * a lane. A unit is read at the item two before and put in the queue at the one before, so that nothing is waited for;
 * not even the last word, an item's KV head, is put in a register that waits. */
struct giver {
    int unit, head, word;
};

/* Units past the last hold anything, and are there. */
PAGE_FN int read_word(const decode_args &a, int unit, int n_units)
{
    int lane = threadIdx.x % 32, word = 0;
    if (unit < n_units && lane < UNIT_WORDS - 1)
        word = reinterpret_cast<const int *>(a.space.units + unit)[lane];
    return word;
}

PAGE_FN void step_giver(const decode_args &a, giver &g)
{
    g.unit += a.unit_step, g.head += a.head_step;
    if (g.head >= a.kv_heads)
        g.head -= a.kv_heads, g.unit++;
}

/* The last word of an item is known first. */
PAGE_FN void put_head(queue &q, unsigned k, int head)
{
    if (threadIdx.x % 32 == UNIT_WORDS - 1)
        q.units[k % QUEUE].kv_head = head;
}

PAGE_FN void put_word(queue &q, unsigned k, int word)
{
    if (threadIdx.x % 32 < UNIT_WORDS - 1)
        reinterpret_cast<int *>(q.units + k % QUEUE)[threadIdx.x % 32] = word;
}

/* The first units are read before it is known how many there are. */
PAGE_FN giver start_giver(const decode_args &a, queue &q)
{
    int warp = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x), n_units = *a.space.n_units;
    giver g = {warp / a.kv_heads, warp % a.kv_heads, 0};
    int unit = g.unit, first = read_word(a, unit, a.space.max_units);
    put_head(q, 0, g.head);
    step_giver(a, g);
    g.word = read_word(a, g.unit, a.space.max_units);
    put_head(q, 1, g.head);
    g.word = g.unit < n_units ? g.word : 0;
    put_word(q, 0, unit < n_units ? first : 0);
    put_word(q, 1, g.word);
    q.n_units = n_units;
    __syncwarp();
    return g;
}

/* At item k: item k+1 into the queue, the next one is read. */
PAGE_FN void give_next(const decode_args &a, giver &g, queue &q, unsigned k)
{
    put_word(q, k + 1, g.word);
    step_giver(a, g);
    g.word = read_word(a, g.unit, q.n_units);
    put_head(q, k + 2, g.head);
    __syncwarp();
}

/* What a warp loads, and where it is in its ring. */
struct cursor {
    unsigned k;    /* item */
    int i, n;      /* page, of so many */
    int head;      /* its KV head */
    int ids;       /* lane l's is page i/32*32 + l */
    int next_ids;  /* those of the item after the one that is computed, loaded early */
    int owed;      /* stages that there is room for */
    int at, to;    /* stages: the next one to compute, to load */
    uint32_t turn; /* of the ring, parity, where the next one to compute is */
};

template <class D> PAGE_FN int ring_next(int at) { return at + 1 < D::stages ? at + 1 : 0; }

/* Until the next stage is there. */
template <class D> PAGE_FN void wait_next(queue &q, cursor &c)
{
    wait_stage(shared_address(q.full + c.at), c.turn);
    c.at = ring_next<D>(c.at);
    c.turn ^= c.at == 0;
}

PAGE_FN int page_ids(const decode_args &a, const unit &u, int from)
{
    int i = from + (int)(threadIdx.x % 32);
    return i < u.n_pages ? a.step.tables[(size_t)u.seq * a.step.max_pages + u.first_page + i] : 0;
}

/* Goes on to the next item that is known, if it has pages. */
PAGE_FN bool enter_next(const queue &q, cursor &c, unsigned known)
{
    if (c.k + 1 >= known)
        return false;
    c.k++;
    const unit &u = q.units[c.k % QUEUE];
    c.i = 0;
    c.n = u.n_pages;
    c.head = u.kv_head;
    c.ids = c.next_ids;
    return c.n > 0;
}

/* Loads stages where there is room for `more` than there was, in their order; known: items before this one are in the
 * queue. What lay there was read by the whole warp. */
template <class D>
PAGE_FN void fetch_stages(const decode_args &a, queue &q, cursor &c, unsigned known, uint8_t *ring, int more)
{
    if ((c.owed += more) <= 0)
        return;
#pragma unroll 1
    do {
        if (c.i >= c.n && !enter_next(q, c, known))
            break;
        int n = D::step == 2 ? min(c.n - c.i, 2) : 1;
        bring_pages<D>(shared_address(ring) + c.to * D::stage, shared_address(q.full + c.to),
                       {a.pages + c.head * D::page, a.page_bytes, c.ids, c.i & 31, n});
        c.i += n;
        c.to = ring_next<D>(c.to);
        if ((c.i & 31) == 0 && c.i < c.n)
            c.ids = page_ids(a, q.units[c.k % QUEUE], c.i);
    } while (--c.owed > 0);
}

#endif
