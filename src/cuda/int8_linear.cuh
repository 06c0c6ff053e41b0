/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the INT8 linears: packed weights, what a result goes through, and the kernel of Hopper. */
#ifndef ATOM_CUDA_INT8_LINEAR_CUH
#define ATOM_CUDA_INT8_LINEAR_CUH

#include "cuda/check.cuh"
#include "cuda/floats.cuh"
#include "cuda/int8_linear.h"

/* For each 128 channels all stacked rows, 128 bytes of each one after the other, as s8 wgmma wants them in shared
 * memory: the 16-byte unit u of row r lies at u ^ (r % 8). Past n and k are zeros. */
enum { INT8_CHANNELS = 128, INT8_EDGE = 64 /* n_padded is a multiple */ };

struct atom_cuda_int8_weights {
    struct atom_cuda_site site;
    int n, n_padded;
    bool by_turns;
    int8_t *q;     /* [k_padded / 128][n_padded][128] */
    float *scales; /* [n] */
};

/* Where row r, channel c lies. */
static __device__ __forceinline__ size_t int8_at(int n_padded, int r, int c)
{
    int unit = c % INT8_CHANNELS / 16 ^ r % 8;
    return ((size_t)(c / INT8_CHANNELS) * (size_t)n_padded + (size_t)r) * INT8_CHANNELS + (size_t)(unit * 16 + c % 16);
}

/* Where results go. */
struct int8_results {
    const float *tok_scales, *row_scales, *bias;
    void *y;
    const void *add;
    size_t y_stride;
    int n, n_tok;
};

static inline struct int8_results int8_results_of(const struct atom_cuda_int8_linear *j)
{
    const struct int8_results r = {j->a->scales, j->w->scales, j->bias, j->y,
                                   j->add,       j->y_stride,  j->w->n, j->a->n_tok};
    return r;
}

/* Rounded as it is written: a product that became part of a later addition's fma would round otherwise. */
static __device__ __forceinline__ float scale_sum(int sum, float s_tok, float s_row)
{
    return __fmul_rn((float)sum, __fmul_rn(s_tok, s_row));
}

/* Element (tok, row), scaled, with all that may come with it; written where it lies within bounds. */
template <class T>
static __device__ __forceinline__ void put_one(const struct int8_results &r, int tok, int row, int sum)
{
    if (tok >= r.n_tok || row >= r.n)
        return;
    float v = scale_sum(sum, r.tok_scales[tok], r.row_scales[row]);
    if (r.bias)
        v += r.bias[row];
    size_t at = (size_t)tok * r.y_stride + (size_t)row;
    if (r.add)
        v += to_float(static_cast<const T *>(r.add)[at]);
    from_float(v, static_cast<T *>(r.y)[at]);
}

/* The same of a gate's row, whose up lies eight rows on. */
template <class T>
static __device__ __forceinline__ void put_one_silu(const struct int8_results &r, int tok, int row, int gate, int up)
{
    if (tok >= r.n_tok || row + 8 >= r.n)
        return;
    float g = scale_sum(gate, r.tok_scales[tok], r.row_scales[row]);
    float u = scale_sum(up, r.tok_scales[tok], r.row_scales[row + 8]);
    if (r.bias) {
        g += r.bias[row];
        u += r.bias[row + 8];
    }
    from_float(silu(g, u), static_cast<T *>(r.y)[(size_t)tok * r.y_stride + (size_t)(row / 16 * 8 + row % 8)]);
}

enum atom_status atom_cuda_int8_linear_sm90(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                            struct atom_error *err);

#endif
