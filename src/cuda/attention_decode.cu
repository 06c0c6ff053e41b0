/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: warps that walk through items (decode.cuh) by themselves.
 *
 * A warp brings pages into a ring of its own, several ahead and across the ends of items, so that memory never waits
 * for what happens there; warps share nothing but a table of angles. */
#include "cuda/check.cuh"
#include "cuda/decode_result.cuh"
#include "cuda/early.cuh"

/* The angles that all warps share, from the plan, as far as the longest item goes. */
template <class D> PAGE_FN void bring_turns(const decode_args &a, uint8_t *to)
{
    const int n = min(D::turn_pages, a.space.units->n_pages) * D::tiles * 32; /* units: long ones first */
    const int first = (int)blockIdx.x * 16 % max(n, 1);                       /* not all blocks the same at once */
    for (int i = (int)threadIdx.x, at; i < n; i += (int)blockDim.x) {
        at = i + first < n ? i + first : i + first - n;
        copy_16(shared_address(to) + at * 16, a.space.turns + at);
    }
}

/* This warp's pages of an item; known: items before this one are in the queue. */
template <class D>
PAGE_FN void attend_item(const decode_args &a, queue &q, cursor &c, unsigned known, const place_in_step &p, rows<D> &r,
                         uint8_t *pages, const uint4 *turns, const turner &t)
{
    const int first = p.u->first_page, n = p.u->n_pages;
#pragma unroll 1
    for (int i = 0; i < n; i += D::step) {
        const uint4 *its_turns = turns + i % D::turn_pages * D::tiles * 32;
        if (D::pre && i % D::turn_pages == 0) {
            i ? copies_wait<0>() : copies_wait<1>(); /* the next item's queries were asked for just now */
            __syncwarp();
            turn_queries(t, r);
            __syncwarp();
            const unit &later = q.units[(known - AHEAD + 1) % QUEUE];
            ask_angles<D>(a, i + D::turn_pages < n ? first + i + D::turn_pages : later.first_page, t);
        }
        const uint8_t *page = pages + c.at * D::stage;
        int m = D::step == 2 ? min(n - i, 2) : 1;
        wait_next<D>(q, c);
        fetch_stages<D>(a, q, c, known, pages, 1);
        if (__builtin_expect(D::two && r.shift < 3, 1))
            attend_two(page, m, (first + i) * PAGE, r, its_turns);
        else
#pragma unroll 1
            for (int j = 0; j < m; j++)
                attend_page(page + j * D::page, (first + i + j) * PAGE, r, its_turns + j * D::tiles * 32);
        __syncwarp();
    }
}

/* A block that has no item leaves. */
template <class D> static __global__ void __launch_bounds__(D::warps * 32, D::blocks) decode(const decode_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    uint8_t *mine = shared + D::turn_bytes + threadIdx.x / 32 * D::warp_bytes, *pages = mine + D::ring_at;
    const uint4 *turns = reinterpret_cast<const uint4 *>(shared) + threadIdx.x % 32;
    turner t = {reinterpret_cast<uint2 *>(mine + QUEUE_BYTES), reinterpret_cast<float2 *>(mine + D::angles_at), 32, 0};
    queue &q = *reinterpret_cast<queue *>(mine);
    if (threadIdx.x % 32 == 0)
        init_barriers(q.full, D::stages);
    giver g = start_giver(a, q);
    if ((int)blockIdx.x >= q.n_units * a.kv_heads) {
        wait_for_last(); /* as nothing that comes later may begin before that has ended */
        return;
    }
    cursor c = {};
    c.n = q.units[0].n_pages, c.head = q.units[0].kv_head;
    c.ids = page_ids(a, q.units[0], 0), c.next_ids = page_ids(a, q.units[1], 0);
    if (D::pre) {
        bring_turns<D>(a, shared);
        ask_angles<D>(a, q.units[0].first_page, t);
    }
    wait_for_last();
    let_next_come();
    bool asked = ask_queries<D>(a, q.units[0], true, mine + D::asked_at);
    fetch_stages<D>(a, q, c, AHEAD, pages, D::stages);
    c.owed--;     /* there is no room at the first stage, where there is at others */
    __syncwarp(); /* the queue was read */
    if (D::pre) {
        copies_wait<0>();
        __syncthreads();
    }
#pragma unroll 1
    for (unsigned k = 0; q.units[k % QUEUE].n_pages; k++) {
        rows<D> r;
        place_in_step p = start_item(a, q.units[k % QUEUE], asked ? mine + D::asked_at : NULL, t, r);
        give_next(a, g, q, k);
        r.cz[0] *= r.c[0], r.cz[1] *= r.c[1]; /* only now: sums of queries take their time */
        const unit &next = q.units[(k + 1) % QUEUE];
        asked = ask_queries<D>(a, next, !D::pre || r.shift < 3, mine + D::asked_at);
        c.next_ids = page_ids(a, next, 0);
        attend_item(a, q, c, k + AHEAD, p, r, pages, turns, t);
        finish_item(a, p, r);
    }
    copies_wait<0>();
}

/* How a device takes a kernel: warps of a block, blocks of a multiprocessor. */
struct shape {
    int warps, blocks;
};

template <class D> static cudaError_t find_shape(shape *to)
{
    int device, most;
    cudaError_t e = cudaGetDevice(&device);
    e = e ? e : cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e)
        return e;
    int room = (most - D::turn_bytes) / D::warp_bytes, n_bytes;
    to->warps = D::alone && room < D::warps ? room : D::warps;
    n_bytes = D::turn_bytes + to->warps * D::warp_bytes;
    e = cudaFuncSetAttribute(decode<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes);
    e = e ? e : cudaOccupancyMaxActiveBlocksPerMultiprocessor(&to->blocks, decode<D>, to->warps * 32, (size_t)n_bytes);
    return e;
}

template <class D> static enum atom_status launch(decode_args &a, cudaStream_t s, struct atom_error *err)
{
    static shape is; /* known after the first call */
    const struct atom_cuda_device *dev = atom_cuda_opened();
    if (!dev)
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    cudaError_t e = is.blocks ? cudaSuccess : find_shape<D>(&is);
    if (e)
        return atom_cuda_status(e, "preparing decode attention", err);
    is.blocks = is.blocks ? is.blocks : 1;
    int n_blocks = dev->n_sm * is.blocks;
    a.finish = a.finish && a.most_items <= n_blocks * is.warps;
    const size_t n_bytes = (size_t)(D::turn_bytes + is.warps * D::warp_bytes);
    int n_used = a.most_items * a.rep < n_blocks ? a.most_items * a.rep : n_blocks; /* rep: tiles, of 8 new tokens */
    a.unit_step = n_used * is.warps / a.kv_heads, a.head_step = n_used * is.warps % a.kv_heads;
    launch_early(decode<D>, {dim3((unsigned)n_used), is.warps * 32, n_bytes}, s, (const decode_args)a);
    return atom_cuda_launched("decode attention", err);
}

template <int WIDE, int BITS>
static enum atom_status launch_rope(decode_args &a, bool pre, cudaStream_t s, struct atom_error *err)
{
    return pre ? launch<decode_dims<WIDE, BITS, true>>(a, s, err) : launch<decode_dims<WIDE, BITS, false>>(a, s, err);
}

template <int WIDE>
static enum atom_status launch_bits(decode_args &a, const struct atom_cuda_kv *kv, cudaStream_t s,
                                    struct atom_error *err)
{
    bool pre = kv->rope == ATOM_KV_PRE;
    return kv->bits == 16  ? launch_rope<WIDE, 16>(a, pre, s, err)
           : kv->bits == 8 ? launch_rope<WIDE, 8>(a, pre, s, err)
                           : launch_rope<WIDE, 4>(a, pre, s, err);
}

static enum atom_status check_attend(const struct atom_cuda_attend *j, struct atom_error *err)
{
    const struct atom_cuda_kv *kv = j->kv;
    size_t row = (size_t)(kv->heads * kv->head_dim);
    if (!kv->page_bytes || !kv->pages || !kv->turns || !j->workspace)
        return atom_fail(err, ATOM_ERR_INVALID, "attention without pages, angles or workspace");
    if (j->q_stride < row || j->out_stride < row || j->q_stride % 2 || j->out_stride % 2 || (uintptr_t)j->q % 8 ||
        (uintptr_t)j->out % 8)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "query and result rows of %zu numbers, %zu and %zu apart: expected even, at 8-byte addresses",
                         row, j->q_stride, j->out_stride);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_decode_run(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    const struct atom_cuda_kv *kv = job->kv;
    enum atom_status st = check_attend(job, err);
    if (st)
        return st;
    int n_splits = splits_of(job->step->max_pages, 1);
    decode_args a = {*job->step,
                     atom_cuda_decode_space(kv, job->step->max_seqs, job->step->max_pages, job->workspace),
                     kv->pages,
                     (uint32_t)kv->page_bytes,
                     (const float2 *)kv->turns,
                     job->q,
                     job->out,
                     job->q_stride,
                     job->out_stride,
                     kv->heads,
                     kv->kv_heads,
                     kv->head_dim,
                     kv->heads / kv->kv_heads,
                     job->type,
                     job->scale * 1.4426950408889634f,
                     kv->wide == kv->head_dim && job->q_stride % 4 == 0 && (uintptr_t)job->q % 16 == 0,
                     (kv->rotate & ATOM_ROTATE_V) != 0,
                     !(kv->rotate & ATOM_ROTATE_V) && kv->heads == kv->kv_heads && n_splits <= FEW_SPLITS,
                     job->step->max_seqs * n_splits * kv->kv_heads,
                     0,
                     0,
                     kv->wide == kv->head_dim && (uintptr_t)kv->turns % 16 == 0,
                     kv->wide == kv->head_dim && job->type == ATOM_CUDA_F16 && job->q_stride % 8 == 0 &&
                         (uintptr_t)job->q % 16 == 0};
    st = kv->wide == 64    ? launch_bits<64>(a, kv, s, err)
         : kv->wide == 96  ? launch_bits<96>(a, kv, s, err)
         : kv->wide == 128 ? launch_bits<128>(a, kv, s, err)
                           : launch_bits<256>(a, kv, s, err);
    return st || a.finish ? st : atom_cuda_decode_merge(job, a.space, s, err);
}
