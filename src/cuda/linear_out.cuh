/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a linear: a warp's sums, through shared memory to rows of results of any type, 16 bytes at a time. */
#ifndef ATOM_CUDA_LINEAR_OUT_CUH
#define ATOM_CUDA_LINEAR_OUT_CUH

#include "cuda/ops.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct out {
    void *y;
    const void *add;
    const float *bias;
    size_t y_stride;
    int n, n_tok; /* n: rows of the weights */
    enum atom_cuda_float type;
    bool silu;
};

static __device__ __forceinline__ float float_of(float x) { return x; }
static __device__ __forceinline__ float float_of(__half x) { return __half2float(x); }
static __device__ __forceinline__ float float_of(__nv_bfloat16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void rounded(float x, float &y) { y = x; }
static __device__ __forceinline__ void rounded(float x, __half &y) { y = __float2half_rn(x); }
static __device__ __forceinline__ void rounded(float x, __nv_bfloat16 &y) { y = __float2bfloat16_rn(x); }

template <class T> union eight {
    uint4 words[sizeof(T) / 2];
    T e[8];
    __device__ eight() {}
};

/* Up to eight results of a token, from column r on, a multiple of 8. */
template <class T>
static __device__ __forceinline__ void put_eight(const struct out &o, int tok, int r, int columns, const float (&v)[8])
{
    size_t at = (size_t)tok * o.y_stride + (size_t)r;
    T *y = static_cast<T *>(o.y) + at;
    const T *add = static_cast<const T *>(o.add) + at;
    bool whole = r + 8 <= columns;
    union eight<T> x;
    if (o.add && whole)
        for (int i = 0; i < (int)sizeof(T) / 2; i++)
            x.words[i] = reinterpret_cast<const uint4 *>(add)[i];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (o.add && !whole && r + i < columns)
            x.e[i] = add[i];
        rounded(o.add ? v[i] + float_of(x.e[i]) : v[i], x.e[i]);
        if (!whole && r + i < columns)
            y[i] = x.e[i];
    }
    if (whole)
        for (int i = 0; i < (int)sizeof(T) / 2; i++)
            reinterpret_cast<uint4 *>(y)[i] = x.words[i];
}

static __device__ __forceinline__ float biased(const struct out &o, int row, float x)
{
    return o.bias && row < o.n ? x + o.bias[row] : x;
}

static __device__ __forceinline__ float silu_times(float g, float u) { return g / (1.0f + __expf(-g)) * u; }

/* From sums of 8 tokens and ROWS rows, token by token PITCH apart. */
template <class T, int ROWS, int PITCH>
static __device__ void put_plain(const struct out &o, const float *sums, int row0, int tok0)
{
    for (int u = threadIdx.x % 32; u < ROWS; u += 32) { /* 8 rows of a token */
        int tok = u / (ROWS / 8), r = u % (ROWS / 8) * 8;
        if (tok0 + tok >= o.n_tok || row0 + r >= o.n)
            continue;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = biased(o, row0 + r + i, sums[tok * PITCH + r + i]);
        put_eight<T>(o, tok0 + tok, row0 + r, o.n, v);
    }
}

/* Gate and up by turns, 8 rows each. */
template <class T, int ROWS, int PITCH>
static __device__ void put_silu(const struct out &o, const float *sums, int row0, int tok0)
{
    for (int u = threadIdx.x % 32; u < ROWS / 2; u += 32) {
        int tok = u / (ROWS / 16), r = u % (ROWS / 16) * 16;
        if (tok0 + tok >= o.n_tok || row0 + r >= o.n)
            continue;
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = silu_times(biased(o, row0 + r + i, sums[tok * PITCH + r + i]),
                              biased(o, row0 + r + 8 + i, sums[tok * PITCH + r + 8 + i]));
        put_eight<T>(o, tok0 + tok, (row0 + r) / 2, o.n / 2, v);
    }
}

template <class T, int ROWS, int PITCH>
static __device__ void put_sums(const struct out &o, const float *sums, int row0, int tok0)
{
    if (o.silu)
        put_silu<T, ROWS, PITCH>(o, sums, row0, tok0);
    else
        put_plain<T, ROWS, PITCH>(o, sums, row0, tok0);
}

/* y[(16-row block * NT + 8-token block) * 4 + i] are the sums of mma.sync for row 16m + l/4 + 8(i/2), token 8j + 2(l%4)
 * + i%2 of this warp. `stage` is its own: 8 * (16 MT + 4) floats; 4 more a token keep lanes in banks of their own. */
template <int MT, int NT>
static __device__ void put_warp(const struct out &o, float *stage, int row0, int tok0, const float (&y)[MT * NT * 4])
{
    enum { ROWS = 16 * MT, PITCH = ROWS + 4 };
    int lane = threadIdx.x % 32;
    for (int block = 0; block < NT; block++) { /* not unrolled: what it calls is long */
#pragma unroll
        for (int j = 0; j < NT; j++)
            if (j == block)
#pragma unroll
                for (int e = 0; e < MT * 4; e++)
                    stage[(lane % 4 * 2 + e % 2) * PITCH + e / 4 * 16 + e / 2 % 2 * 8 + lane / 4] =
                        y[(e / 4 * NT + j) * 4 + e % 4];
        __syncwarp();
        if (o.type == ATOM_CUDA_F32)
            put_sums<float, ROWS, PITCH>(o, stage, row0, tok0 + 8 * block);
        else if (o.type == ATOM_CUDA_F16)
            put_sums<__half, ROWS, PITCH>(o, stage, row0, tok0 + 8 * block);
        else
            put_sums<__nv_bfloat16, ROWS, PITCH>(o, stage, row0, tok0 + 8 * block);
        __syncwarp();
    }
}

#endif
