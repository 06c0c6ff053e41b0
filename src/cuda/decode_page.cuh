/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention inside a warp: a page's integers as fragments of mma, scores, weights, weighted values.
 *
 * A nibble or a byte in a half's low bits is the number times 2^-24, a subnormal that tensor cores multiply exactly, so
 * that unpacking is a mask; a nibble four bits up is 16 times that, undone in the queries for keys and in the result
 * for values. Scales and zero points of keys are applied to scores; those of values to weights and, as a sum, to the
 * result. */
#ifndef ATOM_CUDA_DECODE_PAGE_CUH
#define ATOM_CUDA_DECODE_PAGE_CUH

#include "cuda/decode.cuh"
#include "cuda/mma.cuh"

#define PAGE_FN static __device__ __forceinline__

enum { MAX_STAGES = 3, QUEUE_BYTES = 256 };

template <int WIDE, int BITS, bool PRE> struct decode_dims {
    static constexpr int wide = WIDE, bits = BITS, pairs = WIDE / 8, tiles = WIDE / 16;
    static constexpr bool pre = PRE, integers = BITS != 16;
    static constexpr int key_n = key_words(WIDE, BITS), value_n = value_words(WIDE, BITS);
    static constexpr int half = half_bytes(WIDE, BITS), data = data_bytes(WIDE, BITS), page = 2 * half;
    /* a warp's ring: stages of a page, or of two that are computed together (more stages wait for each other in memory:
     * 2 to 4 % slower) */
    static constexpr bool two = page < 4500;
    static constexpr int step = two ? 2 : 1, stage = step * page;
    static constexpr int stages = two ? 2 : 3;
    static constexpr int turn_pages = TURN_PAGES / (BITS == 4 ? 1 : 2) / (WIDE > 128 ? 2 : 1);
    static constexpr int turn_bytes = PRE ? turn_pages * tiles * 512 : 0;
    static constexpr int chains = PRE || BITS != 4 ? 2 : 4; /* of products with queries, so that none waits long */
    /* in shared memory, of a warp: its next items, queries (before they are turned, those of an item; of few rows, in
     * the second half the next item's), angles to turn them by, pages, which copies and reads want at multiples of 128
     */
    static constexpr int asked_at = QUEUE_BYTES + (PRE ? WIDE * 8 : 0), angles_at = asked_at + WIDE * 8;
    static constexpr int ring_at = angles_at + (PRE ? WIDE * 4 : 0);
    static constexpr int warp_bytes = ring_at + stages * stage;
    /* of a block: where angles are shared or registers want 12 warps, as many as there is room for, here on Hopper */
    static constexpr bool alone = PRE || BITS == 4; /* a block a multiprocessor */
    static constexpr int most = WIDE > 128 ? 8 : 12, room = (220 * 1024 - turn_bytes) / warp_bytes;
    static constexpr int warps = alone ? (room < most ? room : most) : page > 8192 ? 1 : page > 4500 ? 2 : 4;
    /* of a multiprocessor */
    static constexpr int blocks = alone || WIDE > 128 ? 1 : BITS == 8 ? 3 : 4;
};

/* ---- unpacking --------------------------------------------------------------------------------------------------- */

template <int N> PAGE_FN void load_unit(uint32_t (&w)[N], const uint8_t *data, int unit, int n_units)
{
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        *reinterpret_cast<uint4 *>(&w[4 * i]) = reinterpret_cast<const uint4 *>(data)[i * n_units + unit];
#pragma unroll
    for (int i = N / 4 * 4; i < N; i++)
        w[i] = *reinterpret_cast<const uint32_t *>(data + word_offset(i, N, unit, n_units));
}

PAGE_FN uint32_t low_nibbles(uint32_t x) { return x & 0x000F000Fu; }
PAGE_FN uint32_t high_nibbles(uint32_t x) { return x & 0x00F000F0u; }

/* Pairs 2m, 2m+1 of a unit: their first channels, their second ones. */
template <class D> PAGE_FN void key_halves(const uint32_t (&w)[D::key_n], int m, uint32_t &first, uint32_t &second)
{
    if (D::bits == 4) {
        uint32_t x = m % 2 ? w[m / 2] >> 8 : w[m / 2];
        first = low_nibbles(x), second = high_nibbles(x);
    } else if (D::bits == 8) {
        first = __byte_perm(w[m], 0, 0x4140), second = __byte_perm(w[m], 0, 0x4342);
    } else {
        first = w[2 * m], second = w[2 * m + 1];
    }
}

template <class D> PAGE_FN void value_tile(const uint32_t (&w)[D::value_n], int t, uint32_t (&a)[4])
{
    if (D::bits == 4) {
        a[0] = low_nibbles(w[t]), a[1] = high_nibbles(w[t]);
        a[2] = low_nibbles(w[t] >> 8), a[3] = high_nibbles(w[t] >> 8);
    } else if (D::bits == 8) {
        a[0] = __byte_perm(w[2 * t], 0, 0x4140), a[1] = __byte_perm(w[2 * t], 0, 0x4342);
        a[2] = __byte_perm(w[2 * t + 1], 0, 0x4140), a[3] = __byte_perm(w[2 * t + 1], 0, 0x4342);
    } else {
        a[0] = w[4 * t], a[1] = w[4 * t + 1], a[2] = w[4 * t + 2], a[3] = w[4 * t + 3];
    }
}

PAGE_FN __half2 as_half2(uint32_t x) { return *reinterpret_cast<__half2 *>(&x); }
PAGE_FN uint32_t as_bits(__half2 x) { return *reinterpret_cast<uint32_t *>(&x); }

/* (x & MASK) | bits, in one instruction: constants that are all immediates would make it two. */
template <uint32_t MASK> PAGE_FN uint32_t and_or(uint32_t x, uint32_t bits)
{
    uint32_t y;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(y) : "r"(x), "n"(MASK), "r"(bits));
    return y;
}

/* Zero points as halves that q - zero is found with, exactly: in the low bits of 1024 a number counts one, four bits up
 * in those of 64. */
struct key_zero {
    __half2 low, high;
};

template <class D> PAGE_FN key_zero key_zero_of(uint32_t tail)
{
    uint32_t low = __byte_perm(tail, 0x64, 0x4242), high = __byte_perm(tail >> 12 & 0xF0u, 0x54, 0x4040);
    return {as_half2(low), as_half2(D::bits == 4 ? high : low)};
}

/* q - zero of pairs 2m, 2m+1 of a unit. */
template <class D>
PAGE_FN void key_numbers(const uint32_t (&w)[D::key_n], int m, const key_zero &z, uint32_t &first, uint32_t &second)
{
    const uint32_t big = 0x64006400u;
    if (!D::integers) {
        key_halves<D>(w, m, first, second);
    } else if (D::bits == 4) {
        uint32_t x = m % 2 ? w[m / 2] >> 8 : w[m / 2];
        first = as_bits(__hsub2(as_half2(and_or<0x000F000Fu>(x, big)), z.low));
        second = as_bits(__hfma2(as_half2(and_or<0x00F000F0u>(x, big)), __float2half2_rn(0.0625f), __hneg2(z.high)));
    } else {
        first = as_bits(__hsub2(as_half2(__byte_perm(w[m], big, 0x7170)), z.low));
        second = as_bits(__hsub2(as_half2(__byte_perm(w[m], big, 0x7372)), z.low));
    }
}

PAGE_FN void rotate_pair(uint32_t &first, uint32_t &second, uint32_t cos, uint32_t sin)
{
    __half2 a = as_half2(first), b = as_half2(second), c = as_half2(cos), s = as_half2(sin);
    first = as_bits(__hfma2(__hneg2(b), s, __hmul2(a, c)));
    second = as_bits(__hfma2(a, s, __hmul2(b, c)));
}

/* ---- a unit's rows ----------------------------------------------------------------------------------------------- */

/* Columns of mma's B and C are query rows; a lane has its fragment of B for column lane/4 and sums for columns
 * 2(lane%4) and +1. Where there are four rows at most they lie there twice, 2^shift columns apart, for two pages that
 * share the arithmetic of scores. With PRE queries are turned back by the first position of some pages, so that keys
 * need turning by their place in these alone. */
template <class D> struct rows {
    uint64_t q[D::tiles]; /* of two pairs each: first channels, second ones */
    float c[2], cz[2];    /* a score is key scale * (c * sum - key zero * cz) */
    float max[2];         /* scores count from here; weights stay below TOO_MUCH */
    float sum[2], zeros[2];
    int limit[2]; /* positions that are seen */
    float o[D::tiles][4];
    int shift;
    int mine; /* page of two that this lane's sums are for */
};

static constexpr float TOO_MUCH = 1024.0f, NOTHING_YET = -1e30f;

/* Scale, zero point * 2^-24 of positions g and g+8. */
struct page_scales {
    float s[2], z[2];
};

template <class D> PAGE_FN page_scales load_scales(const uint8_t *half, int g)
{
    page_scales r = {{1.0f, 1.0f}, {0.0f, 0.0f}};
    if (D::integers) {
        uint2 t = reinterpret_cast<const uint2 *>(half + D::data)[g];
        float2 a = __half22float2(as_half2(t.x)), b = __half22float2(as_half2(t.y));
        r = {{a.x, b.x}, {a.y, b.y}};
    }
    return r;
}

/* Products of a page's integers with queries. turns: this lane's cos and sin of positions g and g+8, for PRE. */
template <class D>
PAGE_FN void page_products(float (&sum)[4], const uint8_t *keys, const rows<D> &r, const uint4 *turns)
{
    int lane = threadIdx.x % 32;
    uint32_t w0[D::key_n], w1[D::key_n];
    key_zero zero0 = {}, zero1 = {};
    load_unit(w0, keys, lane, KEY_UNITS);
    load_unit(w1, keys, lane + 32, KEY_UNITS);
    if (D::pre && D::integers) {
        uint2 t = reinterpret_cast<const uint2 *>(keys + D::data)[lane / 4];
        zero0 = key_zero_of<D>(t.x);
        zero1 = key_zero_of<D>(t.y);
    }
    float part[D::chains][4] = {};
#pragma unroll
    for (int m = 0; m < D::tiles; m++) {
        uint32_t a[4];
        if (!D::pre) {
            key_halves<D>(w0, m, a[0], a[2]);
            key_halves<D>(w1, m, a[1], a[3]);
        } else {
            uint4 t = turns[m * 32];
            key_numbers<D>(w0, m, zero0, a[0], a[2]);
            key_numbers<D>(w1, m, zero1, a[1], a[3]);
            rotate_pair(a[0], a[2], t.x, t.y);
            rotate_pair(a[1], a[3], t.z, t.w);
        }
        mma(part[m % D::chains], a, r.q[m]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum[i] = D::chains == 2 ? part[0][i] + part[1][i]
                                : (part[0][i] + part[1][i]) + (part[D::chains / 2][i] + part[D::chains - 1][i]);
}

/* Sums to scores of a page whose first position is first_pos, for lanes that see it. */
template <class D>
PAGE_FN void page_scores(float (&score)[4], const uint8_t *keys, int first_pos, bool sees, const rows<D> &r)
{
    int g = threadIdx.x % 32 / 4;
    page_scales k = load_scales<D>(keys, g);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float x = score[i] * r.c[i % 2];
        if (D::integers && !D::pre)
            x = fmaf(-k.z[i / 2], r.cz[i % 2], x);
        score[i] = sees && first_pos + g + i / 2 * 8 < r.limit[i % 2] ? x * k.s[i / 2] : -INFINITY;
    }
}

/* The largest score of a column, counted with its value's scale, over the warp's positions and the columns of a row. */
PAGE_FN void column_max(float (&top)[2], int shift)
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int by = 4; by < 32; by *= 2)
            top[j] = fmaxf(top[j], __shfl_xor_sync(0xFFFFFFFFu, top[j], by));
        if (shift <= 1)
            top[j] = fmaxf(top[j], __shfl_xor_sync(0xFFFFFFFFu, top[j], 1));
        if (shift <= 2)
            top[j] = fmaxf(top[j], __shfl_xor_sync(0xFFFFFFFFu, top[j], 2));
    }
}

/* Counts scores from a larger one from now on. */
template <class D> PAGE_FN void raise_max(rows<D> &r, const float (&score)[4], const float (&s)[2])
{
    float top[2];
#pragma unroll
    for (int j = 0; j < 2; j++)
        top[j] = fmaxf(score[j] + __log2f(s[0]), score[2 + j] + __log2f(s[1]));
    column_max(top, r.shift);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        float m = fmaxf(r.max[j], top[j]), by = exp2_fast(r.max[j] - m);
        r.max[j] = m;
        r.sum[j] *= by;
        r.zeros[j] *= by;
#pragma unroll
        for (int t = 0; t < D::tiles; t++)
            r.o[t][j] *= by, r.o[t][2 + j] *= by;
    }
}

/* Scores to weights: fragments b of mma, the weights times their values' scales. */
template <class D>
PAGE_FN void page_weights(const float (&score)[4], const page_scales &v, rows<D> &r, uint32_t (&b)[2])
{
    float e[4], p[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        e[i] = exp2_fast(score[i] - r.max[i % 2]);
        p[i] = e[i] * v.s[i / 2];
    }
    bool fine = p[0] <= TOO_MUCH && p[1] <= TOO_MUCH && p[2] <= TOO_MUCH && p[3] <= TOO_MUCH;
    if (__builtin_expect(!__all_sync(0xFFFFFFFFu, fine), 0)) {
        raise_max(r, score, v.s);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            e[i] = exp2_fast(score[i] - r.max[i % 2]);
            p[i] = e[i] * v.s[i / 2];
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        __half2 h = __floats2half2_rn(p[2 * i], p[2 * i + 1]);
        float2 back = __half22float2(h);
        r.sum[0] += e[2 * i];
        r.sum[1] += e[2 * i + 1];
        if (D::integers) {
            r.zeros[0] = fmaf(back.x, v.z[i], r.zeros[0]);
            r.zeros[1] = fmaf(back.y, v.z[i], r.zeros[1]);
        }
        b[i] = transpose(as_bits(h));
    }
}

template <class D> PAGE_FN void page_values(const uint8_t *values, rows<D> &r, uint32_t b0, uint32_t b1)
{
    uint32_t w[D::value_n];
    load_unit(w, values, (int)(threadIdx.x % 32), VALUE_UNITS);
#pragma unroll
    for (int t = 0; t < D::tiles; t++) {
        uint32_t a[4];
        value_tile<D>(w, t, a);
        mma(r.o[t], a, b0, b1);
    }
}

/* A page, from first_pos on; turns: the angles of its places. */
template <class D> PAGE_FN void attend_page(const uint8_t *page, int first_pos, rows<D> &r, const uint4 *turns)
{
    float score[4];
    uint32_t b[2];
    page_products(score, page, r, turns);
    page_scores(score, page, first_pos, r.mine == 0, r);
    page_weights(score, load_scales<D>(page + D::half, (int)(threadIdx.x % 32 / 4)), r, b);
    page_values(page + D::half, r, b[0], b[1]);
}

/* Two of a sequence, or one that is alone. */
template <class D>
PAGE_FN void attend_two(const uint8_t *page, int n_pages, int first_pos, rows<D> &r, const uint4 *turns)
{
    int lane = threadIdx.x % 32;
    const uint8_t *next = n_pages == 2 ? page + D::page : page;
    bool second = r.mine == 1, gives_second = lane / 4 >> r.shift == 1;
    const uint8_t *my_page = second ? next : page;
    float score[4], other[4];
    uint32_t b[2];
    page_products(score, page, r, turns);
    page_products(other, next, r, turns + D::tiles * 32);
#pragma unroll
    for (int i = 0; i < 4; i++)
        score[i] = second ? other[i] : score[i];
    page_scores(score, my_page, second ? first_pos + PAGE : first_pos, r.mine < n_pages, r);
    page_weights(score, load_scales<D>(my_page + D::half, lane / 4), r, b);
    page_values(page + D::half, r, gives_second ? 0 : b[0], gives_second ? 0 : b[1]);
    page_values(next + D::half, r, gives_second ? b[0] : 0, gives_second ? b[1] : 0);
}

#endif
