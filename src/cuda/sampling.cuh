/* SPDX-License-Identifier: Apache-2.0 */
/* Inside sampling: the order of tokens as integers, and a row's way through a block. */
#ifndef ATOM_CUDA_SAMPLING_CUH
#define ATOM_CUDA_SAMPLING_CUH

#include "cuda/early.cuh"
#include "cuda/sampling.h"

typedef unsigned long long mass;

enum { MAX_SHARES = 64 /* of a row, when its weights are summed */, BINS = 2048, UNIT = 42, DRAW_THREADS = 1024 };

/* What the kernels leave each other of a row. */
struct sample_row {
    unsigned long long best; /* so far; 0 between runs, as the two after it */
    unsigned arrived;
    unsigned counts[BINS]; /* tokens by depth, of a row that is drawn from in order */
    int32_t token;         /* the best, or -1 */
    float top;             /* its logit */
    mass shares[MAX_SHARES];
};

/* How a row's logits are cut: share i is [i * share, (i + 1) * share). */
struct sample_cut {
    int share, n_shares;
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

/* ---- weights: integers in units of 2^-42 of the greatest, so that sums come out the same in any order ---- */

struct weigher {
    float top, inv_temperature;
};

/* How far a logit lies under the top, in temperatures; it only grows as logits fall. */
static __device__ __forceinline__ float depth_of(const weigher &w, float logit)
{
    float below = fminf(__fsub_rn(w.top, logit), 3.4028234e38f);
    return below > 0 ? __fmul_rn(below, w.inv_temperature) : 0.0f;
}

static __device__ __forceinline__ mass weight_of(float depth)
{
    float x;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(__fmul_rn(depth, -1.44269504f)));
    uint32_t bits = __float_as_uint(x);
    mass all = (mass)((bits & 0x7FFFFFu) | 0x800000u) << (UNIT - 23);
    return all >> min(63u, 127u - (bits >> 23));
}

/* Bins of even depth, finer than weights are. */
static __device__ __forceinline__ int depth_bin(float depth) { return (int)fminf(depth * (BINS / 32), BINS - 1.0f); }

static __device__ __forceinline__ bool draws(const struct atom_cuda_sampling &how) { return how.temperature > 0; }

/* Whether tokens come by weight; otherwise they come by id. */
static __device__ __forceinline__ bool draws_in_order(const struct atom_cuda_sampling &how, int vocab)
{
    return (how.top_k > 0 && how.top_k < vocab) || (how.top_p > 0 && how.top_p < 1);
}

/* ---- rows ---- */

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

void atom_cuda_weigh(const struct atom_cuda_sample *job, struct sample_cut cut, atom_cuda_stream s);
void atom_cuda_draw(const struct atom_cuda_sample *job, struct sample_cut cut, atom_cuda_stream s);

#endif
