/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: warps that walk through units of pages by themselves.
 *
 * A warp brings pages into a ring of its own, several ahead and across the ends of units, so that memory never waits
 * for what happens at them; warps share nothing until the splits of a sequence are merged. Which warp has which unit
 * does not show in the result. */
#include "cuda/check.cuh"
#include "cuda/decode_page.cuh"
#include "cuda/hadamard.cuh"

struct decode_args {
    struct atom_cuda_step step;
    decode_space space;
    const uint8_t *pages;
    size_t page_bytes;
    const float2 *turns;
    const void *q;
    void *out;
    size_t q_stride, out_stride;
    int heads, kv_heads, head_dim;
    enum atom_cuda_float type;
    float scale; /* of scores, for powers of two */
    bool undo_v;
    hadamard_shape hadamard;
};

template <class D> struct ring {
    static constexpr int warps = D::page > 8192 ? 2 : 4;
    static constexpr int stages = D::page > 4500 ? 3 : D::page > 2200 ? 3 : 6;
    static constexpr int warp_bytes = stages * D::page;
    static constexpr int turn_bytes = D::pre ? D::tiles * 32 * 16 : 0;
    static constexpr int bytes = warps * warp_bytes + turn_bytes;
    static constexpr int blocks = D::wide > 128 ? 1 : 4; /* a multiprocessor, as far as registers matter */
};

/* ---- bringing pages ---------------------------------------------------------------------------------------------- */

/* Where this warp is in what it loads. The next two units and the next one's page numbers are there early, so that no
 * load waits for another. */
struct cursor {
    int item, step, n_items;
    int i; /* page of the unit */
    int4 now, next, after;
    int ids, next_ids; /* lane l's is page i/32*32 + l of the unit */
};

PAGE_FN int4 unit_of(const decode_args &a, int item, int n_items)
{
    return item < n_items ? a.space.units[item / a.kv_heads] : make_int4(0, 0, 0, 0);
}

PAGE_FN int page_ids(const decode_args &a, int4 u, int from)
{
    int i = from + (int)(threadIdx.x % 32);
    return i < u.z ? a.step.tables[(size_t)u.x * a.step.max_pages + u.y + i] : 0;
}

PAGE_FN cursor start_cursor(const decode_args &a, int item, int step, int n_items)
{
    cursor c = {item, step, n_items, 0, {}, {}, {}, 0, 0};
    c.now = unit_of(a, item, n_items);
    c.next = unit_of(a, item + step, n_items);
    c.after = unit_of(a, item + 2 * step, n_items);
    c.ids = page_ids(a, c.now, 0);
    c.next_ids = page_ids(a, c.next, 0);
    return c;
}

template <class D> PAGE_FN void fetch_page(const decode_args &a, cursor &c, uint32_t to)
{
    if (c.now.z) {
        int lane = threadIdx.x % 32, page = __shfl_sync(0xFFFFFFFFu, c.ids, c.i % 32);
        const uint8_t *from =
            a.pages + (size_t)page * a.page_bytes + (size_t)(c.item % a.kv_heads) * D::page + lane * 16;
#pragma unroll
        for (int at = 0; at < D::page; at += 512)
            if (at + 512 <= D::page || at + lane * 16 < D::page)
                copy_16(to + at + lane * 16, from + at);
        if (++c.i == c.now.z) {
            c.item += c.step;
            c.i = 0;
            c.now = c.next, c.ids = c.next_ids;
            c.next = c.after;
            c.next_ids = page_ids(a, c.next, 0);
            c.after = unit_of(a, c.item + 2 * c.step, c.n_items);
        } else if (c.i % 32 == 0) {
            c.ids = page_ids(a, c.now, c.i);
        }
    }
    copies_commit();
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

/* Two neighbours, at an even index. */
PAGE_FN float2 read_two(enum atom_cuda_float type, const void *x, size_t i)
{
    if (type == ATOM_CUDA_F32)
        return *reinterpret_cast<const float2 *>((const float *)x + i);
    if (type == ATOM_CUDA_F16)
        return __half22float2(*reinterpret_cast<const __half2 *>((const __half *)x + i));
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>((const __nv_bfloat16 *)x + i));
}

PAGE_FN void write_two(enum atom_cuda_float type, void *x, size_t i, float a, float b)
{
    if (type == ATOM_CUDA_F32)
        *reinterpret_cast<float2 *>((float *)x + i) = make_float2(a, b);
    else if (type == ATOM_CUDA_F16)
        *reinterpret_cast<__half2 *>((__half *)x + i) = __floats2half2_rn(a, b);
    else
        *reinterpret_cast<__nv_bfloat162 *>((__nv_bfloat16 *)x + i) = __floats2bfloat162_rn(a, b);
}

/* What a warp knows of the unit it is at. */
struct place_in_step {
    unit u;
    struct atom_cuda_seq seq;
    int kv_head, rep;
    size_t q_at; /* of this lane's query: column lane/4 */
    bool has_q;
    float q_by; /* power of two that makes its halves neither large nor tiny */
};

PAGE_FN int token_of(const place_in_step &p, int row) { return (p.u.tile * TILE_ROWS + row) / p.rep; }
PAGE_FN int head_of(const place_in_step &p, int row)
{
    return p.kv_head * p.rep + (p.u.tile * TILE_ROWS + row) % p.rep;
}

/* The halves of this lane's queries, for PRE turned back by the first position of a page. Returns their sum as the
 * integers will meet them. */
template <class D> PAGE_FN float fill_queries(const decode_args &a, const place_in_step &p, int page, rows<D> &r)
{
    int half = a.head_dim / 2, first = (int)(threadIdx.x % 4) * D::pairs;
    const float2 *turns = a.turns + (size_t)page * PAGE * half;
    float total = 0.0f;
#pragma unroll
    for (int m = 0; m < D::tiles; m++) {
        int i = first + 2 * m;
        float x[2][2] = {}; /* pair, side */
#pragma unroll
        for (int j = 0; j < 2; j++)
            for (int side = 0; side < 2; side++)
                if (p.has_q && i + j < half) {
                    size_t at = p.q_at + (size_t)(i + j + side * half);
                    float2 two = read_two(a.type, a.q, at & ~(size_t)1);
                    x[j][side] = at % 2 ? two.y : two.x;
                }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float u = x[j][0] * p.q_by, v = x[j][1] * p.q_by;
            if (D::pre && i + j < half) {
                float2 t = turns[i + j];
                x[j][0] = fmaf(u, t.x, v * t.y);
                x[j][1] = fmaf(v, t.x, -u * t.y);
            } else {
                x[j][0] = u;
                x[j][1] = v * (D::bits == 4 && !D::pre ? 0.0625f : 1.0f);
            }
        }
        __half2 lo = __floats2half2_rn(x[0][0], x[1][0]), hi = __floats2half2_rn(x[0][1], x[1][1]);
        r.q[2 * m] = as_bits(lo);
        r.q[2 * m + 1] = as_bits(hi);
        float2 l = __half22float2(lo), h = __half22float2(hi);
        total += l.x + l.y + (h.x + h.y) * (D::bits == 4 && !D::pre ? 16.0f : 1.0f);
    }
    return total;
}

/* Bits of the largest magnitude of this lane's query. */
PAGE_FN uint32_t largest_query(const decode_args &a, const place_in_step &p)
{
    uint32_t most = 0;
    for (int i = 2 * (int)(threadIdx.x % 4); i < a.head_dim && p.has_q; i += 8) {
        float2 x = read_two(a.type, a.q, p.q_at + (size_t)i);
        most = max(most, max(__float_as_uint(x.x) & 0x7FFFFFFFu, __float_as_uint(x.y) & 0x7FFFFFFFu));
    }
    most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    return max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
}

template <class D> PAGE_FN place_in_step start_unit(const decode_args &a, int item, rows<D> &r)
{
    int lane = threadIdx.x % 32, column = lane / 4;
    place_in_step p;
    p.u = unpack_unit(a.space.units[item / a.kv_heads]);
    p.seq = a.step.seqs[p.u.seq];
    p.kv_head = item % a.kv_heads;
    p.rep = a.heads / a.kv_heads;
    r.n = min(p.seq.n_tok * p.rep - p.u.tile * TILE_ROWS, (int)TILE_ROWS);
    r.run = D::pre && (r.n == 1 || r.n == 2 || r.n == 4) ? TILE_ROWS / r.n : 1;
    p.has_q = column < r.n * r.run;
    p.q_at = (size_t)(p.seq.first_tok + token_of(p, column % r.n)) * a.q_stride +
             (size_t)(head_of(p, column % r.n) * a.head_dim);
    uint32_t most = largest_query(a, p), exponent = max(most >> 23, 16u);
    p.q_by = __uint_as_float((263 - exponent) << 23);
    float total = D::pre ? 0.0f : fill_queries(a, p, 0, r);
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
    /* Integers come as 2^-24 of themselves. A query of 1e28 counts as one whose scores overflow. */
    float c = __uint_as_float((exponent - 9) << 23) * a.scale * (D::integers && !D::pre ? 16777216.0f : 1.0f);
    c = most < 0x6E01B37Bu ? c : NAN;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int of = 2 * (lane % 4) + j;
        r.c[j] = __shfl_sync(0xFFFFFFFFu, c, of * 4);
        r.cz[j] = r.c[j] * __shfl_sync(0xFFFFFFFFu, total, of * 4);
        r.max[j] = NOTHING_YET;
        r.sum[j] = r.zeros[j] = 0.0f;
        r.limit[j] = of < r.n * r.run ? p.seq.pos0 + token_of(p, of % r.n) + 1 : 0;
        r.of_run[j] = r.run == 1 ? 0 : of / r.n;
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            r.o[t][j] = r.o[t][2 + j] = 0.0f;
    }
    return p;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

template <class D> PAGE_FN float over_columns(float x, int n, int by)
{
    return D::pre && n <= by ? x + __shfl_xor_sync(0xFFFFFFFFu, x, by / 2) : x;
}

/* Sums over the warp's positions, and over columns of one row. Then o holds values in their own units. */
template <class D> PAGE_FN void fold_rows(rows<D> &r)
{
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int by = 4; by < 32; by *= 2) {
            r.sum[j] += __shfl_xor_sync(0xFFFFFFFFu, r.sum[j], by);
            r.zeros[j] += __shfl_xor_sync(0xFFFFFFFFu, r.zeros[j], by);
        }
#pragma unroll
    for (int t = 0; t < D::tiles; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = r.o[t][i];
            if (D::integers)
                x = (x * (D::bits == 4 && i / 2 ? 0.0625f : 1.0f) - r.zeros[i % 2]) * 16777216.0f;
            r.o[t][i] = x;
        }
    if (!D::pre || r.run == 1)
        return;
    if (r.n == 1) {
        r.sum[0] += r.sum[1];
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            r.o[t][0] += r.o[t][1], r.o[t][2] += r.o[t][3];
    }
#pragma unroll
    for (int by = 2; by <= 4; by *= 2) {
        r.sum[0] = over_columns<D>(r.sum[0], r.n, by);
        r.sum[1] = over_columns<D>(r.sum[1], r.n, by);
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                r.o[t][i] = over_columns<D>(r.o[t][i], r.n, by);
    }
}

PAGE_FN size_t slot_of(const decode_args &a, const place_in_step &p, int split, int row)
{
    int slot = split * p.seq.n_tok + token_of(p, row);
    return ((size_t)p.u.seq * a.space.slots + slot) * a.heads + head_of(p, row);
}

template <class D> PAGE_FN void write_part(const decode_args &a, const place_in_step &p, const rows<D> &r)
{
    int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = 2 * (lane % 4) + j;
        if (row >= r.n)
            continue;
        size_t slot = slot_of(a, p, p.u.split, row);
        float *to = a.space.part + slot * D::wide + 2 * D::tiles * g;
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            *reinterpret_cast<float2 *>(to + 2 * t) = make_float2(r.o[t][j], r.o[t][2 + j]);
        if (g == 0)
            a.space.weight[slot] = make_float2(r.max[j], r.sum[j]);
    }
}

template <class D> PAGE_FN void write_out(const decode_args &a, const place_in_step &p, const rows<D> &r)
{
    int lane = threadIdx.x % 32, first = 2 * D::tiles * (lane / 4);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = 2 * (lane % 4) + j;
        if (row >= r.n)
            continue;
        float by = 1.0f / r.sum[j];
        size_t at = (size_t)(p.seq.first_tok + token_of(p, row)) * a.out_stride +
                    (size_t)(head_of(p, row) * a.head_dim + first);
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            if (first + 2 * t < a.head_dim)
                write_two(a.type, a.out, at + 2 * t, r.o[t][j] * by, r.o[t][2 + j] * by);
    }
}

/* Whether this warp is the last of a sequence's splits; then it sees what the others wrote. */
PAGE_FN bool is_last(const decode_args &a, const place_in_step &p)
{
    int before = 0, *arrived = a.space.arrived + ((size_t)p.u.seq * a.kv_heads + p.kv_head) * a.space.tiles + p.u.tile;
    __threadfence();
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
        before = atomicAdd(arrived, 1);
        if (before == p.u.n_splits - 1)
            *arrived = 0;
        __threadfence();
    }
    return __shfl_sync(0xFFFFFFFFu, before, 0) == p.u.n_splits - 1;
}

/* Splits of a row added in order, lane l channels 2l, 2l+1, and 64 further on. scratch: [head_dim]. */
template <class D> PAGE_FN void merge_row(const decode_args &a, const place_in_step &p, int row, float *scratch)
{
    constexpr int each = (D::wide + 63) / 64;
    int lane = threadIdx.x % 32;
    float2 w = make_float2(NOTHING_YET, 0.0f), o[each] = {};
    if (lane < p.u.n_splits)
        w = __ldcg(&a.space.weight[slot_of(a, p, lane, row)]);
    float top = w.x;
#pragma unroll
    for (int by = 1; by < 32; by *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, by));
    float by = exp2_fast(w.x - top), total = w.y * by;
#pragma unroll
    for (int d = 1; d < 32; d *= 2)
        total += __shfl_xor_sync(0xFFFFFFFFu, total, d);
#pragma unroll 4
    for (int s = 0; s < p.u.n_splits; s++) {
        const float2 *part = (const float2 *)(a.space.part + slot_of(a, p, s, row) * D::wide);
        float f = __shfl_sync(0xFFFFFFFFu, by, s);
#pragma unroll
        for (int k = 0; k < each; k++)
            if (lane + 32 * k < D::wide / 2) {
                float2 x = __ldcg(part + lane + 32 * k);
                o[k].x = fmaf(x.x, f, o[k].x);
                o[k].y = fmaf(x.y, f, o[k].y);
            }
    }
#pragma unroll
    for (int k = 0; k < each; k++) {
        o[k].x /= total, o[k].y /= total;
        if (a.undo_v && 2 * (lane + 32 * k) < a.head_dim)
            reinterpret_cast<float2 *>(scratch)[lane + 32 * k] = o[k];
    }
    if (a.undo_v)
        hadamard(scratch, a.hadamard, true);
    size_t at = (size_t)(p.seq.first_tok + token_of(p, row)) * a.out_stride + (size_t)(head_of(p, row) * a.head_dim);
#pragma unroll
    for (int k = 0; k < each; k++) {
        int d = 2 * (lane + 32 * k);
        if (d < a.head_dim)
            write_two(a.type, a.out, at + d, a.undo_v ? scratch[d] : o[k].x, a.undo_v ? scratch[d + 1] : o[k].y);
    }
    __syncwarp();
}

template <class D> PAGE_FN void finish_unit(const decode_args &a, const place_in_step &p, rows<D> &r, float *scratch)
{
    fold_rows(r);
    if (p.u.n_splits == 1 && !a.undo_v)
        return write_out(a, p, r);
    write_part(a, p, r);
    if (is_last(a, p))
        for (int row = 0; row < r.n; row++)
            merge_row<D>(a, p, row, scratch);
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

/* cos and sin of the sixteen places of a page as lanes want them: [tile][lane] of positions g, then g+8. */
template <class D> PAGE_FN void fill_turns(const decode_args &a, uint4 *to)
{
    int half = a.head_dim / 2;
    for (int i = threadIdx.x; i < D::tiles * 32; i += blockDim.x) {
        int lane = i % 32, pair = lane % 4 * D::pairs + i / 32 * 2;
        uint32_t w[4];
        for (int j = 0; j < 4; j++) {
            const float *t = (const float *)(a.turns + (lane / 4 + j / 2 * 8) * half) + j % 2;
            w[j] =
                as_bits(__floats2half2_rn(pair < half ? t[2 * pair] : 0.0f, pair + 1 < half ? t[2 * pair + 2] : 0.0f));
        }
        to[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
    __syncthreads();
}

template <class D>
static __global__ void __launch_bounds__(ring<D>::warps * 32, ring<D>::blocks) decode(const decode_args a)
{
    extern __shared__ __align__(16) uint8_t shared[];
    int warp = threadIdx.x / 32, n_items = *a.space.n_units * a.kv_heads;
    int first = warp * gridDim.x + blockIdx.x, step = gridDim.x * ring<D>::warps;
    const uint4 *turns = (const uint4 *)(shared + ring<D>::warps * ring<D>::warp_bytes);
    uint8_t *pages = shared + warp * ring<D>::warp_bytes;
    if (D::pre)
        fill_turns<D>(a, (uint4 *)turns);
    turns += threadIdx.x % 32;
    cursor c = start_cursor(a, first, step, n_items);
#pragma unroll 1
    for (int k = 0; k < ring<D>::stages - 1; k++)
        fetch_page<D>(a, c, shared_address(pages + k * D::page));
    int at = 0, to = ring<D>::stages - 1;
#pragma unroll 1
    for (int item = first; item < n_items; item += step) {
        rows<D> r;
        place_in_step p = start_unit(a, item, r);
#pragma unroll 1
        for (int i = 0; i < p.u.n_pages; i++) {
            int page = p.u.first_page + i, u = i % r.run;
            if (D::pre && u == 0)
                fill_queries(a, p, min(page + (int)(threadIdx.x % 32 / 4) / r.n, p.u.first_page + p.u.n_pages - 1), r);
            copies_wait<ring<D>::stages - 2>();
            __syncwarp();
            fetch_page<D>(a, c, shared_address(pages + to * D::page));
            attend_page(pages + at * D::page, page * PAGE, u, r, turns);
            at = at + 1 == ring<D>::stages ? 0 : at + 1;
            to = to + 1 == ring<D>::stages ? 0 : to + 1;
        }
        /* The last page's place is free until the next fetch. */
        finish_unit(a, p, r, (float *)(pages + to * D::page));
    }
    copies_wait<0>();
}

template <class D> static enum atom_status launch(const decode_args &a, cudaStream_t s, struct atom_error *err)
{
    static int blocks; /* a multiprocessor, known after the first call */
    const struct atom_cuda_device *dev = atom_cuda_opened();
    if (!dev)
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (!blocks) {
        cudaError_t e = cudaFuncSetAttribute(decode<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, ring<D>::bytes);
        if (!e)
            e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, decode<D>, ring<D>::warps * 32, ring<D>::bytes);
        if (e)
            return atom_cuda_status(e, "preparing decode attention", err);
        blocks = blocks ? blocks : 1;
    }
    decode<D><<<(unsigned)(dev->n_sm * blocks), ring<D>::warps * 32, ring<D>::bytes, s>>>(a);
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
                     kv->page_bytes,
                     (const float2 *)kv->turns,
                     job->q,
                     job->out,
                     job->q_stride,
                     job->out_stride,
                     kv->heads,
                     kv->kv_heads,
                     kv->head_dim,
                     job->type,
                     job->scale * 1.4426950408889634f,
                     (kv->rotate & ATOM_ROTATE_V) != 0,
                     hadamard_of(kv->head_dim)};
    return kv->wide == 64    ? launch_bits<64>(a, kv, s, err)
           : kv->wide == 96  ? launch_bits<96>(a, kv, s, err)
           : kv->wide == 128 ? launch_bits<128>(a, kv, s, err)
                             : launch_bits<256>(a, kv, s, err);
}
