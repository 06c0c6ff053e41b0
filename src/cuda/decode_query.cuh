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
    int row;    /* this lane's query, column lane/4, counted within its token and KV head: token * 2^16 + head */
    size_t at;  /* where it starts */
    float q_by; /* power of two that makes its halves neither large nor tiny; 0: there is no query */
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

/* The halves of this lane's queries, two first channels and two second ones by turns. */
template <class D>
static __device__ void fill_any(const decode_args &a, const place_in_step &p, uint32_t (&w)[D::pairs])
{
    const float lo_by = p.q_by, hi_by = p.q_by * second_by<D>;
#pragma unroll
    for (int k = 0; k < D::pairs; k += 4) {
        float lo[4], hi[4];
        four_pairs(a, p, (int)(threadIdx.x % 4) * D::pairs + k, lo, hi);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            w[k + j] = as_bits(__floats2half2_rn(lo[j] * lo_by, lo[j + 1] * lo_by));
            w[k + j + 1] = as_bits(__floats2half2_rn(hi[j] * hi_by, hi[j + 1] * hi_by));
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
template <class D> PAGE_FN void read_halves(const decode_args &a, const place_in_step &p, uint32_t (&w)[D::pairs])
{
    const uint16_t *lo = (const uint16_t *)a.q + p.at + threadIdx.x % 4 * D::pairs, *hi = lo + D::wide / 2;
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        uint2 x = reinterpret_cast<const uint2 *>(lo)[k], y = reinterpret_cast<const uint2 *>(hi)[k];
        w[4 * k] = x.x, w[4 * k + 1] = y.x, w[4 * k + 2] = x.y, w[4 * k + 3] = y.y;
    }
}

/* And of those that were brought: [row][wide]. */
template <class D> PAGE_FN void read_asked(const uint8_t *asked, int row, uint32_t (&w)[D::pairs])
{
    const uint2 *lo = reinterpret_cast<const uint2 *>(asked + row * D::wide * 2 + threadIdx.x % 4 * D::pairs * 2);
#pragma unroll
    for (int k = 0; k < D::pairs / 4; k++) {
        uint2 x = lo[k], y = lo[k + D::wide / 8];
        w[4 * k] = x.x, w[4 * k + 1] = y.x, w[4 * k + 2] = x.y, w[4 * k + 3] = y.y;
    }
}

template <class D> PAGE_FN uint32_t largest_half(const uint32_t (&w)[D::pairs])
{
    uint32_t most = 0;
#pragma unroll
    for (int k = 0; k < D::pairs; k++)
        most = __vmaxu2(most, w[k] & 0x7FFF7FFFu);
    most = max(most & 0xFFFFu, most >> 16);
    /* Below 2^-6 the power of two stays where halves can hold it. */
    return max(__float_as_uint(__half2float(__ushort_as_half((unsigned short)most))), 121u << 23);
}

template <class D> PAGE_FN void fill_half(const place_in_step &p, uint32_t (&w)[D::pairs])
{
    const __half2 lo_by = __float2half2_rn(p.q_by), hi_by = __float2half2_rn(p.q_by * second_by<D>);
#pragma unroll
    for (int k = 0; k < D::pairs; k += 2) {
        w[k] = as_bits(__hmul2(as_half2(w[k]), lo_by));
        w[k + 1] = as_bits(__hmul2(as_half2(w[k + 1]), hi_by));
    }
}

PAGE_FN uint64_t both(uint32_t first, uint32_t second) { return first | (uint64_t)second << 32; }

/* What turns queries, of a warp: themselves as they were read, a lane's words `apart`; cos and sin of the first
 * position of the pages that come next, asked for early. */
struct turner {
    uint2 *unturned; /* this lane's */
    float2 *angles;
    int apart, lane; /* lane: counted within them */
};

template <class D> PAGE_FN void ask_angles(const decode_args &a, int page, const turner &t)
{
    int lane = threadIdx.x % 32, half = a.head_dim / 2;
    const float2 *from = a.turns + (size_t)page * PAGE * half;
    if (a.whole_turns)
        for (int i = 2 * lane; i < D::wide / 2; i += 64)
            copy_16(shared_address(t.angles + i), from + i);
    else
        for (int i = lane; i < D::wide / 2; i += 32)
            t.angles[i] = from[min(i, half - 1)];
    copies_commit();
}

/* Queries turned back. */
template <class D> PAGE_FN void turn_queries(const turner &t, rows<D> &r)
{
    const float4 *angles = reinterpret_cast<const float4 *>(t.angles) + threadIdx.x % 4 * D::tiles;
#pragma unroll
    for (int m = 0; m < D::tiles; m++) {
        uint2 w = t.unturned[m * t.apart];
        float2 u = __half22float2(as_half2(w.x)), v = __half22float2(as_half2(w.y));
        float4 by = angles[m];
        r.q[m] = both(as_bits(__floats2half2_rn(fmaf(u.x, by.x, v.x * by.y), fmaf(u.y, by.z, v.y * by.w))),
                      as_bits(__floats2half2_rn(fmaf(v.x, by.x, -u.x * by.y), fmaf(v.y, by.z, -u.y * by.w))));
    }
}

/* Sums of a query's halves for this lane's columns, as mma finds them: a row of ones. */
template <class D> PAGE_FN void sum_queries(const rows<D> &r, float (&total)[2])
{
    const uint32_t high = D::bits == 4 ? 0x4C004C00u : 0x3C003C00u; /* 16: seconds lie four bits up */
    const uint32_t ones[4] = {0x3C003C00u, 0x3C003C00u, high, high};
    float c[2][4] = {};
#pragma unroll
    for (int m = 0; m < D::tiles; m++)
        mma(c[m % 2], ones, r.q[m]);
    total[0] = c[0][0] + c[1][0], total[1] = c[0][1] + c[1][1];
}

PAGE_FN int rows_of(const decode_args &a, const unit &u)
{
    return min(u.n_tok * a.rep - u.tile * TILE_ROWS, (int)TILE_ROWS);
}

/* Where a row of a unit's queries starts; its token and head are put in `which`. */
PAGE_FN size_t query_at(const decode_args &a, const unit &u, int row, int &which)
{
    int tok = u.n_tok == 1 ? 0 : row / a.rep, head = row - tok * a.rep;
    which = tok << 16 | head;
    return (size_t)(u.first_tok + tok) * a.q_stride + (size_t)((u.kv_head * a.rep + head) * a.head_dim);
}

/* Brings the next item's queries, if they are few and there is room for them beside those of this one; a group of
 * copies in either case. */
template <class D> PAGE_FN bool ask_queries(const decode_args &a, const unit &u, bool room, uint8_t *asked)
{
    const int pieces = D::wide / 8, n = u.n_pages ? rows_of(a, u) : 0;
    bool can = a.ask && n <= ASKED_ROWS && room;
    for (int i = threadIdx.x % 32, which; i < n * pieces && can; i += 32)
        copy_16(shared_address(asked) + i * 16,
                (const uint16_t *)a.q + query_at(a, u, u.tile * TILE_ROWS + i / pieces, which) + i % pieces * 8);
    copies_commit();
    return can;
}

/* This lane's quarter of its query as words of halves, and bits of the query's largest magnitude. */
template <class D>
PAGE_FN uint32_t read_query(const decode_args &a, const place_in_step &p, int row, const uint8_t *asked,
                            uint32_t (&w)[D::pairs])
{
    uint32_t most;
    if (asked) {
        copies_wait<0>();
        __syncwarp();
        read_asked<D>(asked, row, w);
        most = largest_half<D>(w);
    } else if (a.whole && a.type == ATOM_CUDA_F16) {
        read_halves<D>(a, p, w);
        most = largest_half<D>(w);
    } else {
        most = largest_any<D>(a, p);
    }
    most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 1));
    return max(most, __shfl_xor_sync(0xFFFFFFFFu, most, 2));
}

/* asked: where the item's queries were brought, or NULL. */
template <class D>
PAGE_FN place_in_step start_item(const decode_args &a, const unit &u, const uint8_t *asked, turner &t, rows<D> &r)
{
    int lane = threadIdx.x % 32, column = lane / 4, n = rows_of(a, u);
    place_in_step p;
    p.u = &u;
    r.shift = n <= 2 ? 1 : n <= 4 ? 2 : 3;
    r.mine = lane % 4 * 2 >> r.shift;
    int row = column & ((1 << r.shift) - 1);
    bool has_q = row < n && column >> r.shift < (D::two ? 2 : 1);
    row = has_q ? row : 0;
    p.at = query_at(a, u, u.tile * TILE_ROWS + row, p.row);
    uint32_t w[D::pairs], most = read_query<D>(a, p, row, asked, w);
    uint32_t exponent = max(most >> 23, 16u);
    p.q_by = has_q ? __uint_as_float((263 - exponent) << 23) : 0.0f;
    float total[2] = {0.0f, 0.0f};
    if (a.whole && a.type == ATOM_CUDA_F16)
        fill_half<D>(p, w);
    else
        fill_any<D>(a, p, w);
    /* Columns of few rows repeat every 16 lanes; the others' do not count. */
    t.apart = r.shift < 3 ? 16 : 32;
    t.unturned += lane % t.apart - t.lane;
    t.lane = lane % t.apart;
#pragma unroll
    for (int m = 0; m < D::tiles && D::pre; m++)
        if (lane < t.apart)
            t.unturned[m * t.apart] = make_uint2(w[2 * m], w[2 * m + 1]);
#pragma unroll
    for (int m = 0; m < D::tiles && !D::pre; m++)
        r.q[m] = both(w[2 * m], w[2 * m + 1]);
    if (D::integers && !D::pre)
        sum_queries(r, total);
    /* Integers come as 2^-24 of themselves. A query of 1e28 counts as one whose scores overflow. */
    float c = __uint_as_float((exponent - 9) << 23) * a.scale * (D::integers && !D::pre ? 16777216.0f : 1.0f);
    c = most < 0x6E01B37Bu ? c : NAN;
    int limit = has_q ? u.pos0 + (p.row >> 16) + 1 : 0;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int of = 2 * (lane % 4) + j;
        r.c[j] = __shfl_sync(0xFFFFFFFFu, c, of * 4);
        r.cz[j] = total[j];
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
