/* SPDX-License-Identifier: Apache-2.0 */
/* From page halves (kv_cache.h) to rows of f16 in tiles for tensor cores.
 *
 * A tile is ROWS positions: blocks of 64 channels, each [ROWS][8 units of 8 channels], where unit u of row p lies at
 * u ^ (p % 8), the swizzle of 128 bytes. Values keep their channels; of keys, channel i < H = head_dim/2 comes to i and
 * channel i + H to WIDE/2 + i, so that pairs of 8 lie whole whatever head_dim is. Channels past head_dim are finite. */
#ifndef ATOM_CUDA_ATTENTION_EXPAND_CUH
#define ATOM_CUDA_ATTENTION_EXPAND_CUH

#include "cuda/kv_pages.cuh"

/* Bytes of a tile's keys, or of its values. */
static __host__ __device__ constexpr int tile_bytes(int wide, int rows) { return (wide + 63) / 64 * rows * 128; }

/* Where unit u of row p is in its tile. */
template <int ROWS> static __host__ __device__ __forceinline__ constexpr int unit_at(int p, int u)
{
    return u / 8 * (ROWS * 128) + p * 128 + ((u ^ p) & 7) * 16;
}

/* Halves come from a page in chunks of 4 or 2 words of two. */
static __host__ __device__ constexpr int chunk_words(int wide) { return wide / 16 % 4 ? 2 : 4; }

static __device__ __forceinline__ __half2 as_half2(uint32_t w) { return *reinterpret_cast<__half2 *>(&w); }
static __device__ __forceinline__ uint32_t as_word(__half2 h) { return *reinterpret_cast<uint32_t *>(&h); }

template <int N>
static __device__ __forceinline__ void load_words(const uint8_t *half, int w, int n_words, int unit, int n_units,
                                                  uint32_t (&to)[N])
{
#pragma unroll
    for (int i = 0; i < N; i += N % 4 ? N % 2 ? 1 : 2 : 4) {
        const uint8_t *from = half + word_offset(w + i, n_words, unit, n_units);
        if constexpr (N % 4 == 0) {
            uint4 x = *reinterpret_cast<const uint4 *>(from);
            to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
        } else if constexpr (N % 2 == 0) {
            uint2 x = *reinterpret_cast<const uint2 *>(from);
            to[i] = x.x, to[i + 1] = x.y;
        } else {
            to[i] = *reinterpret_cast<const uint32_t *>(from);
        }
    }
}

/* 1024 + q of two nibbles or two bytes: an f16 whose exponent makes its low bits units. */
static __device__ __forceinline__ __half2 nibbles(uint32_t w, int shift)
{
    return as_half2(w >> shift & 0x000F000Fu | 0x64006400u);
}
static __device__ __forceinline__ __half2 bytes(uint32_t w, bool high)
{
    return as_half2(__byte_perm(w, 0x64646464u, high ? 0x4342 : 0x4140));
}

/* How two positions' integers are read back, or one's twice. */
struct reading {
    __half2 zero, scale; /* 1024 + zero point */
    bool wide;           /* products may be beyond F16 */
};
template <int WIDE, int BITS> static __device__ __forceinline__ reading reading_of(const uint8_t *half, int a, int b)
{
    if constexpr (BITS == 16)
        return {};
    uint32_t x = *reinterpret_cast<const uint32_t *>(half + tail_offset(WIDE, BITS, a));
    uint32_t y = *reinterpret_cast<const uint32_t *>(half + tail_offset(WIDE, BITS, b));
    reading r;
    r.scale = as_half2(__byte_perm(x, y, 0x5410));
    r.zero = as_half2(__byte_perm(x, y, 0x0602) & 0x00FF00FFu | 0x64006400u);
    r.wide = __hgt(__low2half(r.scale), __float2half(128.0f)) || __hgt(__high2half(r.scale), __float2half(128.0f));
    return r;
}

static __device__ __forceinline__ __half2 read_back(__half2 q, const reading &r)
{
    return __hmul2(__hsub2(q, r.zero), r.scale); /* the difference is exact */
}

/* Held to F16's finite numbers. */
static __device__ __forceinline__ uint32_t hold(uint32_t w)
{
    __half2 most = as_half2(0x7BFF7BFFu);
    return as_word(__hmax2(__hmin2(as_half2(w), most), __hneg2(most)));
}
template <int N> static __device__ __forceinline__ void hold_all(uint32_t (&w)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        w[i] = hold(w[i]);
        asm volatile("" : "+r"(w[i])); /* a branch, seldom taken, rather than selections */
    }
}

/* Words of halves to channels c.. of row p. */
template <int ROWS, int N>
static __device__ __forceinline__ void put_channels(uint8_t *tile, int p, int c, const uint32_t (&w)[N])
{
    uint8_t *to = tile + unit_at<ROWS>(p, c / 8);
    if constexpr (N == 4)
        *reinterpret_cast<uint4 *>(to) = make_uint4(w[0], w[1], w[2], w[3]);
    else
        *reinterpret_cast<uint2 *>(to + c % 8 * 2) = make_uint2(w[0], w[1]);
}

/* Rotates two pairs of channels. */
static __device__ __forceinline__ void turn_pairs(uint32_t &lo, uint32_t &hi, float2 t0, float2 t1)
{
    float2 a = __half22float2(as_half2(lo)), b = __half22float2(as_half2(hi));
    lo = as_word(__floats2half2_rn(a.x * t0.x - b.x * t0.y, a.y * t1.x - b.y * t1.y));
    hi = as_word(__floats2half2_rn(fmaf(b.x, t0.x, a.x * t0.y), fmaf(b.y, t1.x, a.y * t1.y)));
}

/* The same for integers, with cos and sin rounded to F16, and scaled. */
static __device__ __forceinline__ void turn_integers(uint32_t &lo, uint32_t &hi, float2 t0, float2 t1, __half2 by)
{
    __half2 a = as_half2(lo), b = as_half2(hi), c = __floats2half2_rn(t0.x, t1.x), s = __floats2half2_rn(t0.y, t1.y);
    lo = as_word(__hmul2(__hfma2(__hneg2(b), s, __hmul2(a, c)), by));
    hi = as_word(__hmul2(__hfma2(b, c, __hmul2(a, s)), by));
}

/* Where the cos and sin of a unit's pairs r and r+1 (r even, counted from its first) come from. */
struct no_turns {
    enum { ANY = 0 };
    __device__ __forceinline__ void find(int, float2 &, float2 &) const {}
};
struct table_turns {
    enum { ANY = 1 };
    const float2 *row; /* of the position */
    int first, pairs;  /* of the unit, of the head */
    __device__ __forceinline__ void find(int r, float2 &t0, float2 &t1) const
    {
        t0 = __ldg(row + min(first + r, pairs - 1));
        t1 = __ldg(row + min(first + r + 1, pairs - 1));
    }
};

/* What is turned is scaled after it. */
template <bool TURNED> static __device__ __forceinline__ __half2 key_value(__half2 q, const reading &r)
{
    return TURNED ? __hsub2(q, r.zero) : read_back(q, r);
}

/* Unit 4p + c of a page's keys to row `row` of the tile. */
template <int WIDE, int BITS, int ROWS, class TURNS>
static __device__ __forceinline__ void expand_key_unit(const uint8_t *half, int unit, const TURNS &turns, uint8_t *tile,
                                                       int row)
{
    enum { N = chunk_words(WIDE), WORDS = N * BITS / 8, P = WIDE / 8 };
    const reading r = reading_of<WIDE, BITS>(half, unit / 4, unit / 4);
#pragma unroll
    for (int j = 0; j < P / 2 / N; j++) {
        uint32_t w[WORDS], lo[N], hi[N];
        int first = unit % 4 * P + j * 2 * N;
        load_words(half, j * WORDS, key_words(WIDE, BITS), unit, KEY_UNITS, w);
#pragma unroll
        for (int i = 0; i < N; i++) {
            if constexpr (BITS == 4) {
                lo[i] = as_word(key_value<TURNS::ANY>(nibbles(w[i / 2], i % 2 * 8), r));
                hi[i] = as_word(key_value<TURNS::ANY>(nibbles(w[i / 2], i % 2 * 8 + 4), r));
            } else if constexpr (BITS == 8) {
                lo[i] = as_word(key_value<TURNS::ANY>(bytes(w[i], false), r));
                hi[i] = as_word(key_value<TURNS::ANY>(bytes(w[i], true), r));
            } else {
                lo[i] = w[2 * i], hi[i] = w[2 * i + 1];
            }
            if constexpr (TURNS::ANY) {
                float2 t0, t1;
                turns.find(2 * (j * N + i), t0, t1);
                if constexpr (BITS == 16)
                    turn_pairs(lo[i], hi[i], t0, t1);
                else
                    turn_integers(lo[i], hi[i], t0, t1, r.scale);
            }
        }
        if (BITS == 16 ? (int)TURNS::ANY : r.wide) {
            hold_all(lo);
            hold_all(hi);
        }
        put_channels<ROWS>(tile, row, first, lo);
        put_channels<ROWS>(tile, row, WIDE / 2 + first, hi);
    }
}

/* Words t of values, as (a, b) pairs of channels d and e of positions 2c, 2c+1, and of those 8 further. */
template <int BITS>
static __device__ __forceinline__ void value_pairs(const uint32_t *w, const reading (&r)[2], uint32_t (&x)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        if constexpr (BITS == 4)
            x[i] = as_word(read_back(nibbles(w[0], 4 * i), r[i / 2]));
        else if constexpr (BITS == 8)
            x[i] = as_word(read_back(bytes(w[i / 2], i % 2), r[i / 2]));
        else
            x[i] = w[i];
}

/* Unit 4g + c of a page's values; the page's positions come to rows row0.. */
template <int WIDE, int BITS, int ROWS>
static __device__ __forceinline__ void expand_value_unit(const uint8_t *half, int unit, uint8_t *tile, int row0)
{
    enum { N = chunk_words(WIDE), EACH = BITS / 4, WORDS = N * EACH, T = WIDE / 16 };
    int a = unit % 4 * 2;
    const reading r[2] = {reading_of<WIDE, BITS>(half, a, a + 1), reading_of<WIDE, BITS>(half, a + 8, a + 9)};
#pragma unroll
    for (int j = 0; j < T / N; j++) {
        uint32_t w[WORDS], rows[4][N];
        load_words(half, j * WORDS, value_words(WIDE, BITS), unit, VALUE_UNITS, w);
#pragma unroll
        for (int i = 0; i < N; i++) {
            uint32_t x[4];
            value_pairs<BITS>(w + i * EACH, r, x);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                rows[2 * h][i] = __byte_perm(x[2 * h], x[2 * h + 1], 0x5410);
                rows[2 * h + 1][i] = __byte_perm(x[2 * h], x[2 * h + 1], 0x7632);
            }
        }
#pragma unroll
        for (int h = 0; h < 4; h++) {
            if (BITS != 16 && r[h / 2].wide)
                hold_all(rows[h]);
            put_channels<ROWS>(tile, row0 + a + h % 2 + h / 2 * 8, unit / 4 * (2 * T) + j * 2 * N, rows[h]);
        }
    }
}

#endif
