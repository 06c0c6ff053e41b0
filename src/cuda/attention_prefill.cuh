/* SPDX-License-Identifier: Apache-2.0 */
/* Inside prefill attention: what its kernels share, rows of queries and results. */
#ifndef ATOM_CUDA_ATTENTION_PREFILL_CUH
#define ATOM_CUDA_ATTENTION_PREFILL_CUH

#include "cuda/attention_expand.cuh"
#include "cuda/attention_prefill.h"
#include "cuda/check.cuh"

/* A row of queries: with `group` query heads for each KV head, row r of a sequence and a KV head is token r / group,
 * head r % group of the KV head's. */
struct prefill_args {
    struct atom_cuda_step step;
    const uint8_t *pages;
    size_t page_bytes, half_bytes;
    const float2 *turns; /* [n_turns, pairs]; NULL: keys are not rotated when read */
    int n_turns;
    int kv_heads, head_dim, group;
    enum atom_cuda_float type;
    const void *q;
    void *out;
    size_t q_stride, out_stride;
    float scale; /* of a score, times log2(e): softmax is in powers of 2 */
};

enum atom_status atom_cuda_prefill_sm90(const struct atom_cuda_attend *job, const struct prefill_args *a,
                                        atom_cuda_stream s, struct atom_error *err);
enum atom_status atom_cuda_prefill_mma(const struct prefill_args *a, int wide, int bits, atom_cuda_stream s,
                                       struct atom_error *err);

static __device__ __forceinline__ uint32_t halves(float a, float b) { return as_word(__floats2half2_rn(a, b)); }

/* Eight channels of a query, in the order of keys (attention_expand.cuh): unit u of a row of head_dim numbers. */
template <int WIDE, class T> static __device__ __forceinline__ uint4 query_unit(const T *row, int u, int head_dim)
{
    struct alignas(16) {
        T e[8];
    } x;
    if (head_dim == WIDE) {
        memcpy(&x, __builtin_assume_aligned(row + u * 8, 16), sizeof x);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int at = u * 8 + i, c = at % (WIDE / 2);
            x.e[i] = c < head_dim / 2 ? row[at < WIDE / 2 ? c : c + head_dim / 2] : from_float<T>(0.0f);
        }
    }
    return make_uint4(halves(to_float(x.e[0]), to_float(x.e[1])), halves(to_float(x.e[2]), to_float(x.e[3])),
                      halves(to_float(x.e[4]), to_float(x.e[5])), halves(to_float(x.e[6]), to_float(x.e[7])));
}

static __device__ __forceinline__ void put2(float *to, float a, float b)
{
    *reinterpret_cast<float2 *>(to) = make_float2(a, b);
}
static __device__ __forceinline__ void put2(__half *to, float a, float b)
{
    *reinterpret_cast<__half2 *>(to) = __floats2half2_rn(a, b);
}
static __device__ __forceinline__ void put2(__nv_bfloat16 *to, float a, float b)
{
    *reinterpret_cast<__nv_bfloat162 *>(to) = __floats2bfloat162_rn(a, b);
}

#endif
