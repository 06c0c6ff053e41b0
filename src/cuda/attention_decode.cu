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
    bool whole;  /* four numbers of a query can be read at once, and every channel is one */
    bool undo_v;
    hadamard_shape hadamard;
};

template <class D> struct ring {
    static constexpr int warps = D::page > 8192 ? 2 : 4;
    static constexpr int stages = D::page > 4500 ? 3 : D::page > 2200 ? 3 : 6;
    static constexpr int warp_bytes = stages * D::page;
    static constexpr int turn_bytes = D::pre ? D::tiles * 32 * 16 : 0;
    static constexpr int bytes = warps * warp_bytes + turn_bytes;
    static constexpr int blocks = D::wide > 128   ? 1
                                  : D::bits == 16 ? 2
                                  : D::pre        ? 3
                                                  : 4; /* a multiprocessor, as far as registers matter */
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

PAGE_FN void write_two(enum atom_cuda_float type, void *x, size_t i, float a, float b)
{
    if (type == ATOM_CUDA_F32)
        *reinterpret_cast<float2 *>((float *)x + i) = make_float2(a, b);
    else if (type == ATOM_CUDA_F16)
        *reinterpret_cast<__half2 *>((__half *)x + i) = __floats2half2_rn(a, b);
    else
        *reinterpret_cast<__nv_bfloat162 *>((__nv_bfloat16 *)x + i) = __floats2bfloat162_rn(a, b);
}

PAGE_FN float read_one(enum atom_cuda_float type, const void *x, size_t i)
{
    return type == ATOM_CUDA_F32   ? ((const float *)x)[i]
           : type == ATOM_CUDA_F16 ? to_float(((const __half *)x)[i])
                                   : to_float(((const __nv_bfloat16 *)x)[i]);
}

PAGE_FN float4 read_four(enum atom_cuda_float type, const void *x, size_t i)
{
    if (type == ATOM_CUDA_F32)
        return *reinterpret_cast<const float4 *>((const float *)x + i);
    uint2 w = *reinterpret_cast<const uint2 *>((const uint16_t *)x + i);
    float2 a, b;
    if (type == ATOM_CUDA_F16) {
        a = __half22float2(as_half2(w.x)), b = __half22float2(as_half2(w.y));
    } else {
        a = make_float2(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xFFFF0000u));
        b = make_float2(__uint_as_float(w.y << 16), __uint_as_float(w.y & 0xFFFF0000u));
    }
    return make_float4(a.x, a.y, b.x, b.y);
}

/* What a warp knows of the unit it is at. */
struct place_in_step {
    unit u;
    struct atom_cuda_seq seq;
    int kv_head, tok, head; /* of this lane's query: column lane/4 */
    float q_by;             /* power of two that makes its halves neither large nor tiny; 0: there is no query */
};

/* Channels i .. i+3, from an i that is a multiple of 4, and the same of the other half of the head. Those past the end
 * are 0. */
PAGE_FN void four_pairs(const decode_args &a, const place_in_step &p, int i, float (&lo)[4], float (&hi)[4])
{
    int half = a.head_dim / 2;
    size_t at = (size_t)(p.seq.first_tok + p.tok) * a.q_stride + (size_t)(p.head * a.head_dim);
    if (a.whole) {
        *reinterpret_cast<float4 *>(lo) = read_four(a.type, a.q, at + i);
        *reinterpret_cast<float4 *>(hi) = read_four(a.type, a.q, at + i + half);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int d = min(i + j, half - 1);
        float x = read_one(a.type, a.q, at + d), y = read_one(a.type, a.q, at + d + half);
        lo[j] = i + j < half ? x : 0.0f;
        hi[j] = i + j < half ? y : 0.0f;
    }
}

/* Pairs turned back by an angle each. */
PAGE_FN void turn_back(const decode_args &a, int page, int i, float (&lo)[4], float (&hi)[4])
{
    int half = a.head_dim / 2;
    const float2 *turns = a.turns + (size_t)page * PAGE * half;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 t = turns[min(i + j, half - 1)];
        float u = lo[j], v = hi[j];
        lo[j] = fmaf(u, t.x, v * t.y);
        hi[j] = fmaf(v, t.x, -u * t.y);
    }
}

/* The halves of this lane's queries, for PRE turned back by the first position of a page. Returns their sum as the
 * integers will meet them. */
template <class D> PAGE_FN float fill_queries(const decode_args &a, const place_in_step &p, int page, rows<D> &r)
{
    constexpr float high = D::bits == 4 && !D::pre ? 16.0f : 1.0f; /* times what it is in a nibble */
    int first = (int)(threadIdx.x % 4) * D::pairs;
    float total = 0.0f;
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        float lo[4], hi[4];
        four_pairs(a, p, first + 4 * k, lo, hi);
        if (D::pre)
            turn_back(a, page, first + 4 * k, lo, hi);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            __half2 l = __floats2half2_rn(lo[j] * p.q_by, lo[j + 1] * p.q_by);
            __half2 h = __floats2half2_rn(hi[j] * p.q_by / high, hi[j + 1] * p.q_by / high);
            r.q[4 * k + j] = as_bits(l);
            r.q[4 * k + j + 1] = as_bits(h);
            float2 x = __half22float2(l), y = __half22float2(h);
            total += x.x + x.y + (y.x + y.y) * high;
        }
    }
    return total;
}

/* Bits of the largest magnitude of this lane's query. */
template <class D> PAGE_FN uint32_t largest_query(const decode_args &a, const place_in_step &p)
{
    uint32_t most = 0;
    int first = (int)(threadIdx.x % 4) * D::pairs;
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        float lo[4], hi[4];
        four_pairs(a, p, first + 4 * k, lo, hi);
#pragma unroll
        for (int j = 0; j < 4; j++)
            most = max(most, max(__float_as_uint(lo[j]) & 0x7FFFFFFFu, __float_as_uint(hi[j]) & 0x7FFFFFFFu));
    }
    most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    return max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
}

/* Columns to rows: n rows lie side by side where n is 1, 2 or 4. */
template <class D> PAGE_FN int row_of(const rows<D> &r, int column) { return r.run == 1 ? column : column & (r.n - 1); }

template <class D> PAGE_FN place_in_step start_unit(const decode_args &a, int item, rows<D> &r)
{
    int lane = threadIdx.x % 32, column = lane / 4, rep = a.heads / a.kv_heads;
    place_in_step p;
    p.u = unpack_unit(a.space.units[item / a.kv_heads]);
    p.seq = a.step.seqs[p.u.seq];
    p.kv_head = item % a.kv_heads;
    r.n = min(p.seq.n_tok * rep - p.u.tile * TILE_ROWS, (int)TILE_ROWS);
    r.run = D::pre ? (r.n == 1 ? 8 : r.n == 2 ? 4 : r.n == 4 ? 2 : 1) : 1;
    bool has_q = column < r.n * r.run;
    int row = p.u.tile * TILE_ROWS + (has_q ? row_of(r, column) : 0);
    p.tok = row / rep;
    p.head = p.kv_head * rep + row - p.tok * rep;
    uint32_t most = largest_query<D>(a, p), exponent = max(most >> 23, 16u);
    p.q_by = has_q ? __uint_as_float((263 - exponent) << 23) : 0.0f;
    float total = D::pre ? 0.0f : fill_queries(a, p, 0, r);
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
    total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
    /* Integers come as 2^-24 of themselves. A query of 1e28 counts as one whose scores overflow. */
    float c = __uint_as_float((exponent - 9) << 23) * a.scale * (D::integers && !D::pre ? 16777216.0f : 1.0f);
    c = most < 0x6E01B37Bu ? c : NAN;
    int limit = has_q ? p.seq.pos0 + p.tok + 1 : 0;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int of = 2 * (lane % 4) + j;
        r.c[j] = __shfl_sync(0xFFFFFFFFu, c, of * 4);
        r.cz[j] = r.c[j] * __shfl_sync(0xFFFFFFFFu, total, of * 4);
        r.max[j] = NOTHING_YET;
        r.sum[j] = r.zeros[j] = 0.0f;
        r.limit[j] = __shfl_sync(0xFFFFFFFFu, limit, of * 4);
        r.of_run[j] = r.run == 1 ? 0 : of >> (r.n / 2);
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

PAGE_FN size_t slot_of(const decode_args &a, const place_in_step &p, int split, int tok, int head)
{
    return ((size_t)p.u.seq * a.space.slots + split * p.seq.n_tok + tok) * a.heads + head;
}

PAGE_FN size_t out_at(const decode_args &a, const place_in_step &p, int tok, int head)
{
    return (size_t)(p.seq.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim);
}

template <class D> PAGE_FN void write_part(const decode_args &a, const place_in_step &p, const rows<D> &r)
{
    int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = 2 * (lane % 4) + j;
        int tok = __shfl_sync(0xFFFFFFFFu, p.tok, row * 4), head = __shfl_sync(0xFFFFFFFFu, p.head, row * 4);
        if (row >= r.n)
            continue;
        size_t slot = slot_of(a, p, p.u.split, tok, head);
        float *to = a.space.part + slot * D::wide + 2 * D::tiles * g;
#pragma unroll
        for (int t = 0; t < D::tiles; t += 2)
            *reinterpret_cast<float4 *>(to + 2 * t) =
                make_float4(r.o[t][j], r.o[t][2 + j], r.o[t + 1][j], r.o[t + 1][2 + j]);
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
        int tok = __shfl_sync(0xFFFFFFFFu, p.tok, row * 4), head = __shfl_sync(0xFFFFFFFFu, p.head, row * 4);
        if (row >= r.n)
            continue;
        float by = 1.0f / r.sum[j];
        size_t at = out_at(a, p, tok, head) + first;
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
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        before = arrive(arrived);
    if (__shfl_sync(0xFFFFFFFFu, before, 0) != p.u.n_splits - 1)
        return false;
    if (threadIdx.x % 32 == 0)
        *arrived = 0;
    fence_acquire();
    return true;
}

/* Splits of a row added in order, lane l channels 2l, 2l+1, and 64 further on. scratch: [head_dim]. */
template <class D> PAGE_FN void merge_row(const decode_args &a, const place_in_step &p, int row, float *scratch)
{
    constexpr int each = (D::wide + 63) / 64;
    int lane = threadIdx.x % 32, n = p.u.n_splits;
    int tok = __shfl_sync(0xFFFFFFFFu, p.tok, row * 4), head = __shfl_sync(0xFFFFFFFFu, p.head, row * 4);
    float2 o[each] = {};
    float top = NOTHING_YET, total = 0.0f;
    for (int s = lane; s < n; s += 32)
        top = fmaxf(top, __ldcg(&a.space.weight[slot_of(a, p, s, tok, head)]).x);
#pragma unroll
    for (int by = 1; by < 32; by *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, by));
    for (int from = 0; from < n; from += 32) {
        float2 w = make_float2(NOTHING_YET, 0.0f);
        if (from + lane < n)
            w = __ldcg(&a.space.weight[slot_of(a, p, from + lane, tok, head)]);
        float by = exp2_fast(w.x - top);
        total = fmaf(w.y, by, total);
#pragma unroll 8
        for (int s = from; s < min(n, from + 32); s++) {
            const float2 *part = (const float2 *)(a.space.part + slot_of(a, p, s, tok, head) * D::wide);
            float f = __shfl_sync(0xFFFFFFFFu, by, s - from);
#pragma unroll
            for (int k = 0; k < each; k++)
                if (lane + 32 * k < D::wide / 2) {
                    float2 x = __ldcg(part + lane + 32 * k);
                    o[k].x = fmaf(x.x, f, o[k].x);
                    o[k].y = fmaf(x.y, f, o[k].y);
                }
        }
    }
#pragma unroll
    for (int d = 1; d < 32; d *= 2)
        total += __shfl_xor_sync(0xFFFFFFFFu, total, d);
    total = 1.0f / total;
#pragma unroll
    for (int k = 0; k < each; k++) {
        o[k].x *= total, o[k].y *= total;
        if (a.undo_v && 2 * (lane + 32 * k) < a.head_dim)
            reinterpret_cast<float2 *>(scratch)[lane + 32 * k] = o[k];
    }
    if (a.undo_v)
        hadamard(scratch, a.hadamard, true);
    size_t at = out_at(a, p, tok, head);
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
            int page = p.u.first_page + i, u = i & (r.run - 1);
            if (D::pre && u == 0)
                fill_queries(a, p,
                             min(page + (r.run == 1 ? 0 : (int)(threadIdx.x % 32 / 4) >> (r.n / 2)),
                                 p.u.first_page + p.u.n_pages - 1),
                             r);
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
                     kv->wide == kv->head_dim && job->q_stride % 4 == 0 && (uintptr_t)job->q % 16 == 0,
                     (kv->rotate & ATOM_ROTATE_V) != 0,
                     hadamard_of(kv->head_dim)};
    return kv->wide == 64    ? launch_bits<64>(a, kv, s, err)
           : kv->wide == 96  ? launch_bits<96>(a, kv, s, err)
           : kv->wide == 128 ? launch_bits<128>(a, kv, s, err)
                             : launch_bits<256>(a, kv, s, err);
}
