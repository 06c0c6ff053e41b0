/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: which items a warp takes, and pages brought into its ring, across the ends of items.
 *
 * Long items come first, and neighbours go to different multiprocessors. The first of every warp are its by number;
 * later ones too where computing takes the time, the same on all multiprocessors: a counter would give the last round of
 * them to a few. Where memory does, which is not as near to all, a counter gives them out. Which warp has which does not
 * show in the result. */
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
    float scale;      /* of scores, for powers of two */
    bool whole;       /* four numbers of a query can be read at once, and every channel is one */
    bool keep;        /* results are for the merge, where there is one split too */
    bool finish;      /* whoever finishes the last split of a unit adds them up; asked for, if items are few */
    int most_items;   /* where every sequence has one new token */
    bool whole_turns; /* two pairs' cos and sin can be read at once, and every pair is one */
    bool ask;         /* queries are halves that can be copied 16 bytes at once */
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
    int n_items;
};
static_assert(sizeof(struct queue) == QUEUE_BYTES, "what decode_dims leaves for it");

PAGE_FN int warps_of_grid() { return (int)(blockDim.x / 32 * gridDim.x); }

/* Units past the last hold anything, and are there. */
PAGE_FN int read_word(const decode_args &a, int item, bool there)
{
    int lane = threadIdx.x % 32, at = item / a.kv_heads, word = 0;
    if (there && at < a.space.max_units && lane < UNIT_WORDS - 1)
        word = reinterpret_cast<const int *>(a.space.units + at)[lane];
    return word;
}

PAGE_FN void put_head(const decode_args &a, queue &q, unsigned k, int item)
{
    if (threadIdx.x % 32 == UNIT_WORDS - 1)
        q.units[k % QUEUE].kv_head = item % a.kv_heads;
}

PAGE_FN void put_word(queue &q, unsigned k, int word)
{
    if (threadIdx.x % 32 < UNIT_WORDS - 1)
        reinterpret_cast<int *>(q.units + k % QUEUE)[threadIdx.x % 32] = word;
}

/* Which items are a warp's after the first AHEAD, and what of them is under way: the number of one is found (or asked
 * for), then its unit is read, a word a lane, then it is put in the queue, so that nothing is waited for; not even the
 * last word, an item's KV head, is put in a register that waits. */
struct giver {
    int item; /* the last that was found; given: first lane's, counted from the first that the counter gives */
    int word; /* of the unit that was read last */
};

/* Written so that nothing waits for it here: the compiler would add lanes' atomics up first. */
PAGE_FN int ask_number(const decode_args &a)
{
    int number;
    asm volatile("atom.global.add.u32 %0, [%1], 1;" : "=r"(number) : "l"(a.space.taken) : "memory");
    return number;
}

template <class D> PAGE_FN giver start_giver(const decode_args &a, queue &q)
{
    giver g;
    int warp = (int)(threadIdx.x / 32 * gridDim.x + blockIdx.x), next = warp + warps_of_grid();
    int n_items = *a.space.n_units * a.kv_heads, first = read_word(a, warp, true);
    g.word = read_word(a, next, true); /* before it is known how many there are */
    put_head(a, q, 0, warp);
    put_head(a, q, 1, next);
    g.word = next < n_items ? g.word : 0;
    put_word(q, 0, warp < n_items ? first : 0);
    put_word(q, 1, g.word);
    g.item = D::dealt ? next : 0;
    q.n_items = n_items;
    __syncwarp();
    return g;
}

template <class D> PAGE_FN void read_item(const decode_args &a, giver &g, queue &q, unsigned k, int item)
{
    g.word = read_word(a, item, item < q.n_items);
    put_head(a, q, k, item);
}

/* At item k: item k+1 into the queue, and the next one is found. */
template <class D> PAGE_FN void give_next(const decode_args &a, giver &g, queue &q, unsigned k)
{
    put_word(q, k + 1, g.word);
    if (D::dealt)
        read_item<D>(a, g, q, k + 2, g.item += warps_of_grid());
    else if (threadIdx.x % 32 == 0 && g.item + AHEAD * warps_of_grid() < q.n_items)
        g.item = ask_number(a);
    __syncwarp();
}

/* Towards the end of item k. */
template <class D> PAGE_FN void read_given(const decode_args &a, giver &g, queue &q, unsigned k)
{
    if (!D::dealt)
        read_item<D>(a, g, q, k + 2, __shfl_sync(0xFFFFFFFFu, g.item, 0) + AHEAD * warps_of_grid());
}

/* After the last item: the counter is 0 again when all are done, if it gave any. What a warp asked for has come when it
 * is done. */
template <class D> PAGE_FN void leave(const decode_args &a, const queue &q)
{
    int n = warps_of_grid();
    if (D::dealt || threadIdx.x % 32 || q.n_items <= AHEAD * n)
        return;
    if (atomicAdd(a.space.taken + 1, 1) == n - 1)
        a.space.taken[0] = a.space.taken[1] = 0;
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
