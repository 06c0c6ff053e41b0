/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the INT8 linear of Hopper: what a block has in shared memory, and how a tile's sums become results. */
#ifndef ATOM_CUDA_INT8_LINEAR_SM90_CUH
#define ATOM_CUDA_INT8_LINEAR_SM90_CUH

#include "cuda/int8_linear.cuh"
#include "cuda/lanes.cuh"
#include "cuda/ptx.cuh"

enum { CONSUMERS = 2, THREADS = 128 * (CONSUMERS + 1), FEW = 64 /* tokens */ };

/* Results of two bytes on their way out: 64 tokens by 32 a tile. */
enum { OUT_COLUMNS = 32, OUT_TILE_BYTES = 64 * OUT_COLUMNS * 2 };

template <int TOK, int ROWS, int CLUSTER> struct shape {
    enum {
        COLUMNS = TOK == FEW ? ROWS / 2 : ROWS,  /* of a warpgroup's wgmma: its rows; its lines are 64 tokens */
        SMEM_MAX = 226 * 1024 - 16 * ROWS - 512, /* scales and bias, barriers: where they are is fixed */
        ACT_BYTES = TOK * INT8_CHANNELS,
        STAGE_BYTES = ACT_BYTES + ROWS * INT8_CHANNELS,
        LEAST_OUT = TOK == FEW ? 0 : 3 * CONSUMERS * OUT_TILE_BYTES,
        FIT = (SMEM_MAX - LEAST_OUT) / STAGE_BYTES,
        STAGES = FIT < 16 ? FIT : 16,
        OUT_FIT = (SMEM_MAX - STAGES * STAGE_BYTES) / (CONSUMERS * OUT_TILE_BYTES),
        OUT_TILES = TOK == FEW                        ? 0
                    : OUT_FIT < COLUMNS / OUT_COLUMNS ? OUT_FIT
                                                      : COLUMNS / OUT_COLUMNS,
        SMEM_BYTES = STAGES * STAGE_BYTES + OUT_TILES * CONSUMERS * OUT_TILE_BYTES + 1024,
    };
};

struct args {
    struct int8_results r;
    enum atom_cuda_float type;
    bool silu, stored; /* stored: results leave by tensor copies */
    const int8_t *weights;
    int steps, n_padded;            /* stages of a tile; rows of a step's weights */
    int rows, row_tiles, tok_tiles; /* of a tile; tiles of clusters */
    uint32_t act_bytes;             /* that a stage's tokens take */
};

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* A warpgroup's part of a tile. Terms of its rows lie in shared memory: from global memory, every load would wait for
 * the store before it. */
struct part {
    int tok, row0, end;         /* this lane's first token, the other is 8 on; rows */
    float by[2];                /* the two tokens' scales */
    const float *scales, *bias; /* of the rows from row0 on; bias NULL: none */
};

/* A token's two neighbouring sums, scaled, with bias. */
static __device__ __forceinline__ float2 scaled(const struct part &p, int at, float s, int a, int b)
{
    float2 by = load2(p.scales + at), v = make_float2(scale_sum(a, s, by.x), scale_sum(b, s, by.y));
    if (p.bias) {
        float2 bias = load2(p.bias + at);
        v.x += bias.x;
        v.y += bias.y;
    }
    return v;
}

/* One of two neighbouring results, at a token's column. */
template <class T> static __device__ __forceinline__ void put_at(const struct int8_results &r, size_t at, float v)
{
    if (r.add)
        v += to_float(static_cast<const T *>(r.add)[at]);
    from_float(v, static_cast<T *>(r.y)[at]);
}

/* Four pairs, those of lane q at columns 8i + 2q, as 16-byte stores. */
template <class T> static __device__ __forceinline__ void store_32(T *to, bool there, const float2 (&v)[4])
{
    int q = threadIdx.x % 4;
    if constexpr (sizeof(T) == 4) {
        if (there)
#pragma unroll
            for (int i = 0; i < 4; i++)
                *reinterpret_cast<float2 *>(to + 8 * i + 2 * q) = v[i];
    } else {
        uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            words[i] = pack2(v[i].x, v[i].y, (T *)0);
        swap_quad(words, q);
        if (there)
            *reinterpret_cast<uint4 *>(to + 8 * q) = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* 32 results of a token from `column` on. */
template <class T>
static __device__ __forceinline__ void put_32(const struct int8_results &r, int tok, int column, float2 (&v)[4])
{
    int q = threadIdx.x % 4;
    size_t line = (size_t)tok * r.y_stride + (size_t)column;
    if (r.add && tok < r.n_tok)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 add = load2(static_cast<const T *>(r.add) + line + 8 * i + 2 * q);
            v[i].x += add.x;
            v[i].y += add.y;
        }
    store_32(static_cast<T *>(r.y) + line, tok < r.n_tok, v);
}

/* Results 8i + 2q and one more of token tok, i of four: of rows, or by turns of 16. */
template <bool SILU>
static __device__ __forceinline__ float2 result_of(const struct part &p, int at, float s, const int *sums, int i)
{
    if constexpr (!SILU)
        return scaled(p, at + 8 * i, s, sums[4 * i], sums[4 * i + 1]);
    float2 g = scaled(p, at + 16 * i, s, sums[8 * i], sums[8 * i + 1]);
    float2 u = scaled(p, at + 16 * i + 8, s, sums[8 * i + 4], sums[8 * i + 5]);
    return make_float2(silu(g.x, u.x), silu(g.y, u.y));
}

/* COUNT times eight results of this lane's tokens tok and tok + 8, from row0 + at on. */
template <class T, bool SILU, int COUNT>
static __device__ __forceinline__ void put_rows(const struct int8_results &r, const struct part &p, int at,
                                                const int *sums)
{
    enum { WIDTH = SILU ? 16 : 8 }; /* rows of eight results */
    int q2 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int tok = p.tok + 8 * h, column = SILU ? (p.row0 + at) / 2 : p.row0 + at;
        float2 v[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            v[i] = result_of<SILU>(p, at + q2, p.by[h], sums + 2 * h, i);
        if constexpr (COUNT == 4)
            if (p.row0 + at + 4 * WIDTH <= p.end) {
                put_32<T>(r, tok, column, v);
                continue;
            }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int row = p.row0 + at + WIDTH * i + q2;
            size_t to = (size_t)tok * r.y_stride + (size_t)(column + 8 * i + q2);
            if (tok < r.n_tok && row < p.end)
                put_at<T>(r, to, v[i].x);
            if (tok < r.n_tok && row + 1 < p.end)
                put_at<T>(r, to + 1, v[i].y);
        }
    }
}

/* A part within all edges, with nothing to add: without branches, so that one result's steps fill the gaps of
 * another's. */
template <int COLUMNS, class T, bool SILU>
static __device__ __forceinline__ void put_inner(const struct int8_results &r, const struct part &p,
                                                 const int (&sums)[COLUMNS / 2])
{
    enum { WIDE = SILU ? 64 : 32 };
    int q2 = threadIdx.x % 4 * 2;
    T *to[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        to[h] = static_cast<T *>(r.y) + (size_t)(p.tok + 8 * h) * r.y_stride + (SILU ? p.row0 / 2 : p.row0);
#pragma unroll
    for (int at = 0; at < COLUMNS; at += WIDE)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = result_of<SILU>(p, at + q2, p.by[h], sums + at / 2 + 2 * h, i);
            store_32(to[h] + (SILU ? at / 2 : at), p.tok + 8 * h < r.n_tok, v);
        }
}

template <int COLUMNS, class T, bool SILU>
static __device__ __forceinline__ void put_part(const struct int8_results &r, const struct part &p,
                                                const int (&sums)[COLUMNS / 2])
{
    enum { WIDE = SILU ? 64 : 32, NARROW = SILU ? 16 : 8, WHOLE = COLUMNS / WIDE * WIDE };
    if constexpr (COLUMNS >= 128 && COLUMNS % WIDE == 0)
        if (p.row0 + COLUMNS <= p.end && !r.add) {
            put_inner<COLUMNS, T, SILU>(r, p, sums);
            return;
        }
#pragma unroll
    for (int at = 0; at < WHOLE; at += WIDE)
        put_rows<T, SILU, 4>(r, p, at, sums + at / 2);
#pragma unroll
    for (int at = WHOLE; at < COLUMNS; at += NARROW)
        put_rows<T, SILU, 1>(r, p, at, sums + at / 2);
}

/* ---- results by tensor copies ------------------------------------------------------------------------------------ */

/* A warpgroup's: out tiles in turn, so that copies of some run while others are filled, and while the next tile is
 * being summed. */
template <int TILES> struct out {
    uint8_t *tiles;
    int next;
    const CUtensorMap *map;
};

static __device__ __forceinline__ bool speaks() { return threadIdx.x % 128 == 0; } /* for its warpgroup */

/* Four 8x8 tiles of a warp's 16 tokens, columns 8j to 8j + 15: where this lane's row of them lies, swizzled. */
static __device__ __forceinline__ uint32_t out_place(const uint8_t *tile, int j)
{
    int lane = threadIdx.x % 32, tok = threadIdx.x / 32 % 4 * 16 + lane % 16, unit = j + lane / 16;
    return smem_address(tile) + (uint32_t)(tok * OUT_COLUMNS * 2 + ((unit ^ tok / 2 % 4) * 16));
}

/* `tok0` is the warpgroup's first token. Columns and tokens past the last are not written. */
template <int COLUMNS, class T, bool SILU, int TILES>
static __device__ __forceinline__ void store_part(const struct part &p, int tok0, struct out<TILES> &o,
                                                  const int (&sums)[COLUMNS / 2])
{
    enum { ROWS = SILU ? 2 * OUT_COLUMNS : OUT_COLUMNS };
    int q2 = threadIdx.x % 4 * 2, group = threadIdx.x / 128 - 1, column = SILU ? p.row0 / 2 : p.row0;
#pragma unroll
    for (int at = 0; at < COLUMNS / ROWS * ROWS; at += ROWS, column += OUT_COLUMNS) {
        uint32_t words[OUT_COLUMNS / 8][2];
#pragma unroll
        for (int i = 0; i < OUT_COLUMNS / 8; i++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float2 v = result_of<SILU>(p, at + q2, p.by[h], sums + at / 2 + 2 * h, i);
                words[i][h] = pack2(v.x, v.y, (T *)0);
            }
        uint8_t *tile = o.tiles + o.next * OUT_TILE_BYTES;
        o.next = o.next == TILES - 1 ? 0 : o.next + 1;
        if (speaks())
            tensor_store_wait_read<TILES - 1>();
        warpgroup_sync(1 + group);
#pragma unroll
        for (int i = 0; i < OUT_COLUMNS / 8; i += 2)
            store_4x8x8(out_place(tile, i), words[i][0], words[i][1], words[i + 1][0], words[i + 1][1]);
        shared_to_tensor_cores();
        warpgroup_sync(1 + group);
        if (speaks())
            tensor_store(o.map, column, tok0, tile);
    }
}

template <int COLUMNS, class T, int TILES>
static __device__ __forceinline__ void put_part(const struct args &a, const struct part &p, struct out<TILES> &o,
                                                const int (&sums)[COLUMNS / 2])
{
    if constexpr (sizeof(T) == 2 && COLUMNS >= 128)
        if (a.stored) {
            int tok0 = p.tok - threadIdx.x % 128 / 32 * 16 - threadIdx.x % 32 / 4;
            if (a.silu)
                store_part<COLUMNS, T, true>(p, tok0, o, sums);
            else
                store_part<COLUMNS, T, false>(p, tok0, o, sums);
            return;
        }
    if constexpr (COLUMNS > 256)
        return; /* always stored: registers do not suffice otherwise */
    else if (a.silu)
        put_part<COLUMNS, T, true>(a.r, p, sums);
    else
        put_part<COLUMNS, T, false>(a.r, p, sums);
}

/* What scales a tile, brought while it is being summed: a thread's rows, and its two tokens. */
template <int COLUMNS> struct terms {
    enum { EACH = (COLUMNS + 127) / 128 };
    float scales[EACH], bias[EACH], by[2];
};

template <int COLUMNS>
static __device__ __forceinline__ void bring_terms(const struct int8_results &r, int tok, int row0,
                                                   struct terms<COLUMNS> &t)
{
#pragma unroll
    for (int i = 0; i < terms<COLUMNS>::EACH; i++) {
        int row = row0 + i * 128 + threadIdx.x % 128;
        t.scales[i] = row < r.n ? r.row_scales[row] : 0.0f;
        t.bias[i] = r.bias && row < r.n ? r.bias[row] : 0.0f;
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
        t.by[h] = tok + 8 * h < r.n_tok ? r.tok_scales[tok + 8 * h] : 0.0f;
}

template <int COLUMNS, int TILES>
static __device__ __forceinline__ void put_tile(const struct args &a, int tok, int row0, int end,
                                                const struct terms<COLUMNS> &t, struct out<TILES> &o,
                                                const int (&sums)[COLUMNS / 2])
{
    __shared__ __align__(8) float scales[CONSUMERS][COLUMNS], bias[CONSUMERS][COLUMNS];
    int group = threadIdx.x / 128 - 1;
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); /* the tile before is done with them */
#pragma unroll
    for (int i = 0; i < terms<COLUMNS>::EACH; i++) {
        int at = i * 128 + threadIdx.x % 128;
        if (at < COLUMNS) {
            scales[group][at] = t.scales[i];
            bias[group][at] = t.bias[i];
        }
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    const struct part p = {
        tok, row0, end < a.r.n ? end : a.r.n, {t.by[0], t.by[1]}, scales[group], a.r.bias ? bias[group] : NULL};
    if (a.type == ATOM_CUDA_F16)
        put_part<COLUMNS, __half>(a, p, o, sums);
    else if (a.type == ATOM_CUDA_BF16)
        put_part<COLUMNS, __nv_bfloat16>(a, p, o, sums);
    else
        put_part<COLUMNS, float>(a, p, o, sums);
}

#endif
