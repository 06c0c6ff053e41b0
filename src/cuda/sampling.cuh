/* SPDX-License-Identifier: Apache-2.0 */
/* Inside sampling: the order of tokens as integers, and a row's way through a block. */
#ifndef ATOM_CUDA_SAMPLING_CUH
#define ATOM_CUDA_SAMPLING_CUH

#include "cuda/check.cuh"
#include "cuda/sampling.h"

/* A row's best token so far; then, of the whole row, the greatest logit and its token or -1. */
struct sample_row {
    unsigned long long best;
    unsigned arrived;
    int32_t token;
    float top;
};

/* A token's place in the order of choice: greater is earlier. Logit first, ties to the smaller id; a logit that is not
 * finite comes before all. */
typedef unsigned long long rank;
enum : uint32_t { NOT_FINITE = 0xFFFFFFFFu };

static __device__ __forceinline__ uint32_t logit_key(float x)
{
    uint32_t bits = __float_as_uint(x + 0.0f); /* -0 becomes 0: they are equal */
    uint32_t key = bits ^ (static_cast<int32_t>(bits) < 0 ? 0xFFFFFFFFu : 0x80000000u);
    return fabsf(x) < INFINITY ? key : NOT_FINITE;
}
static __device__ __forceinline__ float key_logit(uint32_t key)
{
    return __uint_as_float(key ^ (key & 0x80000000u ? 0x80000000u : 0xFFFFFFFFu));
}
static __device__ __forceinline__ rank rank_of(float logit, int id)
{
    return (rank)logit_key(logit) << 32 | (0xFFFFFFFFu - (uint32_t)id);
}
static __device__ __forceinline__ int rank_id(rank r) { return (int)(0xFFFFFFFFu - (uint32_t)r); }
static __device__ __forceinline__ float rank_logit(rank r) { return key_logit((uint32_t)(r >> 32)); }

/* Calls take(logit, id, whether there is one) for ids [first, end), whole warps at a time, sixteen a thread. */
template <class F> static __device__ __forceinline__ void each_logit(const float *row, int first, int end, F take)
{
    const int STEPS = 4;
    bool aligned = reinterpret_cast<uintptr_t>(row + first) % 16 == 0;
    for (int base = first; base < end; base += 4 * STEPS * blockDim.x) {
        float x[STEPS][4];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            int id = base + 4 * (s * blockDim.x + threadIdx.x);
            if (aligned && id + 4 <= end) {
                *reinterpret_cast<float4 *>(x[s]) = *reinterpret_cast<const float4 *>(row + id);
                continue;
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
                x[s][j] = id + j < end ? row[id + j] : 0.0f;
        }
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            int id = base + 4 * (s * blockDim.x + threadIdx.x);
            if (base + 4 * s * (int)blockDim.x < end) {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    take(x[s][j], id + j, id + j < end);
            }
        }
    }
}

enum { DRAW_THREADS = 1024 };

void atom_cuda_draw(const struct atom_cuda_sample *job, atom_cuda_stream s);

#endif
