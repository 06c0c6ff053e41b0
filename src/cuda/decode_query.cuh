/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: an item's queries as fragments of mma. */
#ifndef ATOM_CUDA_DECODE_QUERY_CUH
#define ATOM_CUDA_DECODE_QUERY_CUH

#include "cuda/decode_fetch.cuh"

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
    return make_float4(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xFFFF0000u), __uint_as_float(w.y << 16),
                       __uint_as_float(w.y & 0xFFFF0000u));
}

/* What a warp knows of the item it is at. */
struct place_in_step {
    const unit *u;
    int tok, head; /* of this lane's query: column lane/4 */
    size_t at;     /* where it starts */
    float q_by;    /* power of two that makes its halves neither large nor tiny; 0: there is no query */
};

/* Channels i .. i+3, from an i that is a multiple of 4, and the same of the other half of the head. Those past the end
 * are 0. */
PAGE_FN void four_pairs(const decode_args &a, const place_in_step &p, int i, float (&lo)[4], float (&hi)[4])
{
    int half = a.head_dim / 2;
    if (a.whole && a.type != ATOM_CUDA_F16) {
        *reinterpret_cast<float4 *>(lo) = read_four(a.type, a.q, p.at + i);
        *reinterpret_cast<float4 *>(hi) = read_four(a.type, a.q, p.at + i + half);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        int d = min(i + j, half - 1);
        float x = read_one(a.type, a.q, p.at + d), y = read_one(a.type, a.q, p.at + d + half);
        lo[j] = i + j < half ? x : 0.0f;
        hi[j] = i + j < half ? y : 0.0f;
    }
}

/* Nibbles of second channels lie four bits up. */
template <class D> static constexpr float second_by = D::bits == 4 && !D::pre ? 0.0625f : 1.0f;

/* The halves of this lane's queries. */
template <class D> static __device__ void fill_any(const decode_args &a, const place_in_step &p, rows<D> &r)
{
    const float lo_by = p.q_by, hi_by = p.q_by * second_by<D>;
#pragma unroll
    for (int k = 0; k < D::pairs; k += 4) {
        float lo[4], hi[4];
        four_pairs(a, p, (int)(threadIdx.x % 4) * D::pairs + k, lo, hi);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            r.q[k + j] = as_bits(__floats2half2_rn(lo[j] * lo_by, lo[j + 1] * lo_by));
            r.q[k + j + 1] = as_bits(__floats2half2_rn(hi[j] * hi_by, hi[j + 1] * hi_by));
        }
    }
}

/* Bits of the largest magnitude in a quarter of a query. */
template <class D> static __device__ uint32_t largest_any(const decode_args &a, const place_in_step &p)
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
    return most;
}

/* The same of whole rows of F16, which need little: the words as they are, by powers of two. */
template <class D> PAGE_FN void read_halves(const decode_args &a, const place_in_step &p, rows<D> &r)
{
    const uint16_t *lo = (const uint16_t *)a.q + p.at + threadIdx.x % 4 * D::pairs, *hi = lo + D::wide / 2;
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        uint2 x = reinterpret_cast<const uint2 *>(lo)[k], y = reinterpret_cast<const uint2 *>(hi)[k];
        r.q[4 * k] = x.x, r.q[4 * k + 1] = y.x, r.q[4 * k + 2] = x.y, r.q[4 * k + 3] = y.y;
    }
}

template <class D> PAGE_FN uint32_t largest_half(const decode_args &a, const place_in_step &p, rows<D> &r)
{
    uint32_t most = 0;
    read_halves(a, p, r);
#pragma unroll
    for (int k = 0; k < D::pairs; k++)
        most = __vmaxu2(most, r.q[k] & 0x7FFF7FFFu);
    most = max(most & 0xFFFFu, most >> 16);
    /* Below 2^-6 the power of two stays where halves can hold it. */
    return max(__float_as_uint(__half2float(__ushort_as_half((unsigned short)most))), 121u << 23);
}

template <class D> PAGE_FN void fill_half(const place_in_step &p, rows<D> &r)
{
    const __half2 lo_by = __float2half2_rn(p.q_by), hi_by = __float2half2_rn(p.q_by * second_by<D>);
#pragma unroll
    for (int k = 0; k < D::pairs; k += 2) {
        r.q[k] = as_bits(__hmul2(as_half2(r.q[k]), lo_by));
        r.q[k + 1] = as_bits(__hmul2(as_half2(r.q[k + 1]), hi_by));
    }
}

/* Queries turned back by the first position of a page. */
template <class D> PAGE_FN void turn_queries(const decode_args &a, int page, rows<D> &r)
{
    int half = a.head_dim / 2, first = (int)(threadIdx.x % 4) * D::pairs;
    const float2 *turns = a.turns + (size_t)page * PAGE * half;
#pragma unroll
    for (int k = 0; k < D::pairs; k += 2) {
        float2 u = __half22float2(as_half2(r.unturned[k])), v = __half22float2(as_half2(r.unturned[k + 1]));
        float2 s = turns[min(first + k, half - 1)], t = turns[min(first + k + 1, half - 1)];
        r.q[k] = as_bits(__floats2half2_rn(fmaf(u.x, s.x, v.x * s.y), fmaf(u.y, t.x, v.y * t.y)));
        r.q[k + 1] = as_bits(__floats2half2_rn(fmaf(v.x, s.x, -u.x * s.y), fmaf(v.y, t.x, -u.y * t.y)));
    }
}

/* Sums of a query's halves for this lane's columns, as mma finds them: a row of ones. */
template <class D> PAGE_FN void sum_queries(const rows<D> &r, float (&total)[2])
{
    const uint32_t high = D::bits == 4 ? 0x4C004C00u : 0x3C003C00u; /* 16: seconds lie four bits up */
    const uint32_t ones[4] = {0x3C003C00u, 0x3C003C00u, high, high};
    float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int m = 0; m < D::tiles; m++)
        mma(c, ones, r.q[2 * m], r.q[2 * m + 1]);
    total[0] = c[0], total[1] = c[1];
}

/* How an item's rows lie in columns. */
template <class D> PAGE_FN void arrange_rows(rows<D> &r, int n)
{
    r.n = n;
    r.shift = D::pre && n == 1 ? 0 : n <= 2 ? 1 : n <= 4 ? 2 : 3; /* two pages at a time want a lane's columns in one */
    r.run = TILE_ROWS >> r.shift;
    if (!D::pre)
        r.run = D::two ? min(r.run, 2) : 1;
    r.mine = (int)(threadIdx.x % 4) * 2 >> r.shift;
}

template <class D> PAGE_FN place_in_step start_item(const decode_args &a, const unit &u, rows<D> &r)
{
    int lane = threadIdx.x % 32, column = lane / 4, rep = a.heads / a.kv_heads;
    place_in_step p;
    p.u = &u;
    arrange_rows(r, min(u.n_tok * rep - u.tile * TILE_ROWS, (int)TILE_ROWS));
    int row = column & ((1 << r.shift) - 1);
    bool has_q = row < r.n && column >> r.shift < r.run;
    row = u.tile * TILE_ROWS + (has_q ? row : 0);
    p.tok = row / rep;
    p.head = u.kv_head * rep + row - p.tok * rep;
    p.at = (size_t)(u.first_tok + p.tok) * a.q_stride + (size_t)(p.head * a.head_dim);
    uint32_t most = a.whole && a.type == ATOM_CUDA_F16 ? largest_half(a, p, r) : largest_any<D>(a, p);
    most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
    uint32_t exponent = max(most >> 23, 16u);
    p.q_by = has_q ? __uint_as_float((263 - exponent) << 23) : 0.0f;
    float total[2] = {0.0f, 0.0f};
    if (a.whole && a.type == ATOM_CUDA_F16)
        fill_half(p, r);
    else
        fill_any(a, p, r);
    if (D::integers && !D::pre)
        sum_queries(r, total);
#pragma unroll
    for (int k = 0; k < D::pairs && D::pre; k++)
        r.unturned[k] = r.q[k];
    /* Integers come as 2^-24 of themselves. A query of 1e28 counts as one whose scores overflow. */
    float c = __uint_as_float((exponent - 9) << 23) * a.scale * (D::integers && !D::pre ? 16777216.0f : 1.0f);
    c = most < 0x6E01B37Bu ? c : NAN;
    int limit = has_q ? u.pos0 + p.tok + 1 : 0;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int of = 2 * (lane % 4) + j;
        r.c[j] = __shfl_sync(0xFFFFFFFFu, c, of * 4);
        r.cz[j] = r.c[j] * total[j];
        r.max[j] = NOTHING_YET;
        r.sum[j] = r.zeros[j] = 0.0f;
        r.limit[j] = __shfl_sync(0xFFFFFFFFu, limit, of * 4);
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            r.o[t][j] = r.o[t][2 + j] = 0.0f;
    }
    return p;
}

#endif
