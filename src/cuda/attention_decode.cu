/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: warps that walk through items (decode.cuh) by themselves.
 *
 * A warp brings pages into a ring of its own, several ahead and across the ends of items, so that memory never waits
 * for what happens there; warps share nothing but a table of angles. */
#include "cuda/check.cuh"
#include "cuda/decode_result.cuh"

/* The angles that all warps share, from the plan. */
template <class D> PAGE_FN void bring_turns(const decode_args &a, uint8_t *to)
{
    for (int i = (int)threadIdx.x; i < D::turn_bytes / 16; i += (int)blockDim.x)
        copy_16(shared_address(to) + i * 16, a.space.turns + i);
}

template <class D> PAGE_FN int ring_step(int at, int by) { return at + by < D::stages ? at + by : at + by - D::stages; }

/* This warp's pages of an item; `at` is where the next one is in the ring. known: items before this one are in the
 * queue. */
template <class D>
PAGE_FN void attend_item(const decode_args &a, const queue &q, cursor &c, int known, const place_in_step &p, rows<D> &r,
                         uint8_t *pages, int &at, const uint4 *turns, turner &t)
{
    const int first = p.u->first_page, n = p.u->n_pages;
    int i = 0;
#pragma unroll 1
    while (i < n) {
        const uint4 *its_turns = turns + i % D::turn_pages * D::tiles * 32;
        if (D::pre && i % D::turn_pages == 0) {
            wait_angles<D>(t);
            turn_queries(t, r);
            __syncwarp();
            const unit &later = q.units[(known - AHEAD + 1) % QUEUE];
            ask_angles<D>(a, i + D::turn_pages < n ? first + i + D::turn_pages : later.first_page, t);
        }
        int next = ring_step<D>(at, 1), to = ring_step<D>(at, D::ahead);
        if (D::two && r.shift < 3 && i + 1 < n) {
            copies_wait<D::two ? D::ahead - 2 : 0>();
            __syncwarp();
            fetch_page<D>(a, q, c, known, shared_address(pages + to * D::page));
            fetch_page<D>(a, q, c, known, shared_address(pages + ring_step<D>(to, 1) * D::page));
            attend_two(pages + at * D::page, pages + next * D::page, (first + i) * PAGE, r, its_turns);
            at = ring_step<D>(next, 1);
            i += 2, t.since += 2;
        } else {
            copies_wait<D::ahead - 1>();
            __syncwarp();
            fetch_page<D>(a, q, c, known, shared_address(pages + to * D::page));
            attend_page(pages + at * D::page, (first + i) * PAGE, r, its_turns);
            at = next;
            i++, t.since++;
        }
    }
}

template <class D> static __global__ void __launch_bounds__(D::warps * 32, D::blocks) decode(const decode_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    uint8_t *mine = shared + D::turn_bytes + threadIdx.x / 32 * D::warp_bytes, *pages = mine + D::ring_at;
    const uint4 *turns = reinterpret_cast<const uint4 *>(shared) + threadIdx.x % 32;
    turner t = {reinterpret_cast<uint2 *>(mine + D::queries_at) + threadIdx.x % 32,
                reinterpret_cast<float2 *>(mine + D::angles_at), D::stages};
    queue &q = *reinterpret_cast<queue *>(mine);
    int at = 0;
    let_next_come();
    bring_turns<D>(a, shared);
    giver g = start_giver<D>(a, q);
    cursor c = {0, 0, 0, 0, 0, 0, -1};
    enter_item(a, q, c, AHEAD);
    if (D::pre)
        ask_angles<D>(a, q.units[0].first_page, t);
#pragma unroll 1
    for (int i = 0; i < D::ahead; i++)
        fetch_page<D>(a, q, c, AHEAD, shared_address(pages + i * D::page));
    if (D::pre) { /* the table, and the first angles */
        copies_wait<D::ahead - 1>();
        __syncthreads();
        t.since = D::stages;
    }
#pragma unroll 1
    for (int k = 0; q.units[k % QUEUE].n_pages; k++) {
        rows<D> r;
        place_in_step p = start_item(a, q.units[k % QUEUE], t.unturned, r);
        attend_item(a, q, c, k + AHEAD, p, r, pages, at, turns, t);
        give_next<D>(a, g, q, k);
        finish_item(a, p, r);
    }
    copies_wait<0>();
    leave<D>(a);
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
    to->warps = D::pre && room < D::warps ? room : D::warps;
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
    decode<D><<<(unsigned)n_blocks, is.warps * 32, (size_t)(D::turn_bytes + is.warps * D::warp_bytes), s>>>(a);
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
                     kv->wide == kv->head_dim && (uintptr_t)kv->turns % 16 == 0};
    st = kv->wide == 64    ? launch_bits<64>(a, kv, s, err)
         : kv->wide == 96  ? launch_bits<96>(a, kv, s, err)
         : kv->wide == 128 ? launch_bits<128>(a, kv, s, err)
                           : launch_bits<256>(a, kv, s, err);
    return st || a.finish ? st : atom_cuda_decode_merge(job, a.space, s, err);
}
