/* SPDX-License-Identifier: Apache-2.0 */
/* The Hadamard rotation of a head vector by a warp, in shared memory: kernels/hadamard.c operation by operation. */
#ifndef ATOM_CUDA_HADAMARD_CUH
#define ATOM_CUDA_HADAMARD_CUH

#include "cuda/kv_cache.h"

#include <math.h>

struct hadamard_shape {
    int n, order; /* of the small matrix; 1: there is none */
    float by;
};

/* n is one that atom_hadamard_has. */
static inline hadamard_shape hadamard_of(int n)
{
    int order = n;
    while (order % 2 == 0)
        order /= 2;
    return {n, order == 1 ? 1 : 4 * order, 1.0f / sqrtf((float)n)};
}

/* Entry (i, j) of Paley's matrix. */
static __device__ inline float paley(int i, int j, int order)
{
    int q = order - 1, d = (i - j + q) % q;
    if (i == j || i == 0)
        return 1.0f;
    if (j == 0)
        return -1.0f;
    for (int r = 1; r <= q / 2; r++)
        if (r * r % q == d)
            return 1.0f;
    return -1.0f;
}

static __device__ inline void small_matrix(float *x, const hadamard_shape &s, bool undo)
{
    float y[ATOM_CUDA_MAX_HEAD / 32] = {};
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < ATOM_CUDA_MAX_HEAD / 32; k++) {
        int d = lane + 32 * k, i = d % s.order;
        for (int j = 0; j < s.order && d < s.n; j++)
            y[k] = __fadd_rn(y[k], __fmul_rn(undo ? paley(j, i, s.order) : paley(i, j, s.order), x[d - i + j]));
    }
    __syncwarp();
#pragma unroll
    for (int k = 0; k < ATOM_CUDA_MAX_HEAD / 32; k++)
        if (lane + 32 * k < s.n)
            x[lane + 32 * k] = y[k];
    __syncwarp();
}

/* The whole warp's, after what it wrote; it sees the result. */
static __device__ inline void hadamard(float *x, const hadamard_shape &s, bool undo)
{
    int lane = threadIdx.x % 32;
    __syncwarp();
    if (s.order > 1)
        small_matrix(x, s, undo);
    for (int h = s.order; h < s.n; h *= 2) {
        for (int i = lane; i < s.n / 2; i += 32) {
            float *a = x + i / h * 2 * h + i % h, u = a[0], w = a[h];
            a[0] = __fadd_rn(u, w);
            a[h] = __fsub_rn(u, w);
        }
        __syncwarp();
    }
    for (int i = lane; i < s.n; i += 32)
        x[i] = __fmul_rn(x[i], s.by);
    __syncwarp();
}

#endif
