/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: warps that walk through items (decode.cuh) by themselves.
 *
 * A warp brings pages into a ring of its own, several ahead and across the ends of items, so that memory never waits
 * for what happens there; warps share nothing but a table of angles. */
#include "cuda/check.cuh"
#include "cuda/decode_result.cuh"

template <class D> struct ring {
    static constexpr int bytes = D::stages * D::page;
    /* in shared memory: queues, turns, rings */
    static constexpr int turns_at = D::warps * (int)sizeof(queue);
    static constexpr int rings_at = turns_at + (D::pre ? D::tiles * 32 * 16 : 0);
    static constexpr int all_bytes = rings_at + D::warps * bytes;
    /* a multiprocessor */
    static constexpr int blocks = D::wide > 128 ? 1 : D::bits == 16 ? 4 : D::bits == 8 || D::pre ? 3 : 4;
};

/* cos and sin of the sixteen places of a page as lanes want them: [tile][lane] of positions g, then g+8. */
template <class D> PAGE_FN void fill_turns(const decode_args &a, uint4 *to)
{
    int half = a.head_dim / 2;
    for (int i = threadIdx.x; i < D::tiles * 32; i += blockDim.x) {
        int lane = i % 32, pair = lane % 4 * D::pairs + i / 32 * 2;
        uint32_t w[4];
        for (int j = 0; j < 4; j++) {
            int position = min(lane / 4 + j / 2 * 8, a.max_position - 1); /* there may be no more */
            const float *t = (const float *)(a.turns + (size_t)position * half) + j % 2;
            w[j] =
                as_bits(__floats2half2_rn(pair < half ? t[2 * pair] : 0.0f, pair + 1 < half ? t[2 * pair + 2] : 0.0f));
        }
        to[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

template <class D> PAGE_FN int ring_step(int at, int by) { return at + by < D::stages ? at + by : at + by - D::stages; }

/* This warp's pages of an item; `at` is where the next one is in the ring. */
template <class D>
PAGE_FN void attend_item(const decode_args &a, const queue &q, cursor &c, const place_in_step &p, rows<D> &r,
                         uint8_t *pages, int &at, const uint4 *turns)
{
    const int first = p.u->first_page, n = p.u->n_pages, column = (int)(threadIdx.x % 32 / 4);
    int i = 0, u = 0;
#pragma unroll 1
    while (i < n) {
        if (D::pre && u == 0) /* columns of a run are for this warp's next pages */
            turn_queries(a, min(first + i + (column >> r.shift), first + n - 1), r);
        int next = ring_step<D>(at, 1), to = ring_step<D>(at, D::ahead);
        if (D::two && r.run > 1 && i + 1 < n) {
            copies_wait<D::two ? D::ahead - 2 : 0>();
            __syncwarp();
            fetch_page<D>(a, q, c, shared_address(pages + to * D::page));
            fetch_page<D>(a, q, c, shared_address(pages + ring_step<D>(to, 1) * D::page));
            attend_two(pages + at * D::page, pages + next * D::page, (first + i) * PAGE, (first + i + 1) * PAGE, u, r,
                       turns);
            at = ring_step<D>(next, 1);
            i += 2, u += 2;
        } else {
            copies_wait<D::ahead - 1>();
            __syncwarp();
            fetch_page<D>(a, q, c, shared_address(pages + to * D::page));
            attend_page(pages + at * D::page, (first + i) * PAGE, u, r, turns);
            at = next;
            i++, u++;
        }
        u = u < r.run ? u : 0;
    }
}

template <class D> static __global__ void __launch_bounds__(D::warps * 32, ring<D>::blocks) decode(const decode_args a)
{
    extern __shared__ __align__(16) uint8_t shared[];
    int warp = threadIdx.x / 32, at = 0;
    queue &q = reinterpret_cast<queue *>(shared)[warp];
    uint4 *turns = reinterpret_cast<uint4 *>(shared + ring<D>::turns_at);
    uint8_t *pages = shared + ring<D>::rings_at + warp * ring<D>::bytes;
    let_next_come();
    giver g = start_giver(a, q);
    cursor c = {0, AHEAD, 0, 0, 0, 0, 0, -1};
    enter_item(a, q, c);
#pragma unroll 1
    for (int i = 0; i < D::ahead; i++)
        fetch_page<D>(a, q, c, shared_address(pages + i * D::page));
    if (D::pre) {
        fill_turns<D>(a, turns);
        __syncthreads();
    }
#pragma unroll 1
    for (int k = 0; q.units[k % QUEUE].n_pages; k++) {
        rows<D> r;
        place_in_step p = start_item(a, q.units[k % QUEUE], r);
        attend_item(a, q, c, p, r, pages, at, turns + threadIdx.x % 32);
        give_next(a, g, q, k);
        c.known++;
        finish_item(a, p, r);
    }
    copies_wait<0>();
    leave(a, g);
}

template <class D> static enum atom_status launch(const decode_args &a, cudaStream_t s, struct atom_error *err)
{
    static int blocks; /* a multiprocessor, known after the first call */
    const struct atom_cuda_device *dev = atom_cuda_opened();
    if (!dev)
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (!blocks) {
        cudaError_t e =
            cudaFuncSetAttribute(decode<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, ring<D>::all_bytes);
        if (!e)
            e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, decode<D>, D::warps * 32, ring<D>::all_bytes);
        if (e)
            return atom_cuda_status(e, "preparing decode attention", err);
        blocks = blocks ? blocks : 1;
    }
    decode<D><<<(unsigned)(dev->n_sm * blocks), D::warps * 32, ring<D>::all_bytes, s>>>(a);
    return atom_cuda_launched("decode attention", err);
}

template <int WIDE, int BITS>
static enum atom_status launch_rope(const decode_args &a, bool pre, cudaStream_t s, struct atom_error *err)
{
    return pre ? launch<decode_dims<WIDE, BITS, true>>(a, s, err) : launch<decode_dims<WIDE, BITS, false>>(a, s, err);
}

template <int WIDE>
static enum atom_status launch_bits(const decode_args &a, const struct atom_cuda_kv *kv, cudaStream_t s,
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
                     kv->max_position,
                     job->type,
                     job->scale * 1.4426950408889634f,
                     kv->wide == kv->head_dim && job->q_stride % 4 == 0 && (uintptr_t)job->q % 16 == 0,
                     (kv->rotate & ATOM_ROTATE_V) != 0};
    st = kv->wide == 64    ? launch_bits<64>(a, kv, s, err)
         : kv->wide == 96  ? launch_bits<96>(a, kv, s, err)
         : kv->wide == 128 ? launch_bits<128>(a, kv, s, err)
                           : launch_bits<256>(a, kv, s, err);
    return st ? st : atom_cuda_decode_merge(job, a.space, s, err);
}
