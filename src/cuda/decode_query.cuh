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
    float2 a, b;
    if (type == ATOM_CUDA_F16) {
        a = __half22float2(as_half2(w.x)), b = __half22float2(as_half2(w.y));
    } else {
        a = make_float2(__uint_as_float(w.x << 16), __uint_as_float(w.x & 0xFFFF0000u));
        b = make_float2(__uint_as_float(w.y << 16), __uint_as_float(w.y & 0xFFFF0000u));
    }
    return make_float4(a.x, a.y, b.x, b.y);
}

/* What a warp knows of the item it is at. */
struct place_in_step {
    const unit *u;
    int tok, head; /* of this lane's query: column lane/4 */
    float q_by;    /* power of two that makes its halves neither large nor tiny; 0: there is no query */
};

/* Channels i .. i+3, from an i that is a multiple of 4, and the same of the other half of the head. Those past the end
 * are 0. */
PAGE_FN void four_pairs(const decode_args &a, const place_in_step &p, int i, float (&lo)[4], float (&hi)[4])
{
    int half = a.head_dim / 2;
    size_t at = (size_t)(p.u->first_tok + p.tok) * a.q_stride + (size_t)(p.head * a.head_dim);
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

/* The halves of this lane's queries, for PRE turned back by the first position of a page. */
template <class D> PAGE_FN void fill_queries(const decode_args &a, const place_in_step &p, int page, rows<D> &r)
{
    constexpr float high = D::bits == 4 && !D::pre ? 16.0f : 1.0f; /* times what it is in a nibble */
    int first = (int)(threadIdx.x % 4) * D::pairs;
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        float lo[4], hi[4];
        four_pairs(a, p, first + 4 * k, lo, hi);
        if (D::pre)
            turn_back(a, page, first + 4 * k, lo, hi);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            r.q[4 * k + j] = as_bits(__floats2half2_rn(lo[j] * p.q_by, lo[j + 1] * p.q_by));
            r.q[4 * k + j + 1] = as_bits(__floats2half2_rn(hi[j] * p.q_by / high, hi[j + 1] * p.q_by / high));
        }
    }
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

template <class D> PAGE_FN place_in_step start_item(const decode_args &a, const unit &u, rows<D> &r)
{
    int lane = threadIdx.x % 32, column = lane / 4, rep = a.heads / a.kv_heads;
    place_in_step p;
    p.u = &u;
    r.n = min(u.n_tok * rep - u.tile * TILE_ROWS, (int)TILE_ROWS);
    r.run = D::pre ? (r.n == 1 ? 8 : r.n == 2 ? 4 : r.n == 4 ? 2 : 1) : 1;
    bool has_q = column < r.n * r.run;
    int row = u.tile * TILE_ROWS + (has_q ? row_of(r, column) : 0);
    p.tok = row / rep;
    p.head = u.kv_head * rep + row - p.tok * rep;
    uint32_t most = largest_query<D>(a, p), exponent = max(most >> 23, 16u);
    p.q_by = has_q ? __uint_as_float((263 - exponent) << 23) : 0.0f;
    float total[2] = {0.0f, 0.0f};
    if (!D::pre) {
        fill_queries(a, p, 0, r);
        if (D::integers)
            sum_queries(r, total);
    }
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
        r.of_run[j] = r.run == 1 ? 0 : of >> (r.n / 2);
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            r.o[t][j] = r.o[t][2 + j] = 0.0f;
    }
    return p;
}

#endif
