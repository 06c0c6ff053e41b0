/* SPDX-License-Identifier: Apache-2.0 */
/* Some consecutive numbers of a row at a time, of any float type and at any address: 16-byte accesses where the address
 * allows. N is 8 or 16. */
#ifndef ATOM_CUDA_FLOAT_ROWS_CUH
#define ATOM_CUDA_FLOAT_ROWS_CUH

#include "cuda/ops.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* As they lie in memory. */
template <class T, int N> struct piece {
    uint4 words[N * sizeof(T) / 16];
};

static __device__ __forceinline__ float as_float(float x) { return x; }
static __device__ __forceinline__ float as_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float as_float(__nv_bfloat16 x) { return __bfloat162float(x); }

static __device__ __forceinline__ void from_float(float x, float &to) { to = x; }
static __device__ __forceinline__ void from_float(float x, __half &to) { to = __float2half_rn(x); }
static __device__ __forceinline__ void from_float(float x, __nv_bfloat16 &to) { to = __float2bfloat16_rn(x); }

/* The first n of N numbers from p on, zeros after them. EVEN: n is 0 or N, and p at a 16-byte address. */
template <bool EVEN, class T, int N>
static __device__ __forceinline__ void load_piece(const T *p, int n, piece<T, N> &x)
{
#pragma unroll
    for (unsigned i = 0; i < sizeof x.words / 16; i++)
        x.words[i] = make_uint4(0, 0, 0, 0);
    if (EVEN ? n > 0 : n == N && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
#pragma unroll
        for (unsigned i = 0; i < sizeof x.words / 16; i++)
            x.words[i] = reinterpret_cast<const uint4 *>(p)[i];
        return;
    }
    T *to = reinterpret_cast<T *>(&x);
#pragma unroll
    for (int i = 0; i < N && !EVEN; i++)
        if (i < n)
            to[i] = p[i];
}

template <class T, int N> static __device__ __forceinline__ void piece_floats(const piece<T, N> &from, float (&v)[N])
{
    const T *x = reinterpret_cast<const T *>(&from);
#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = as_float(x[i]);
}

template <class T, int N> static __device__ __forceinline__ void store_piece(T *p, const float (&v)[N], int n)
{
    piece<T, N> r;
    T *x = reinterpret_cast<T *>(&r);
#pragma unroll
    for (int i = 0; i < N; i++)
        from_float(v[i], x[i]);
    if (n == N && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
#pragma unroll
        for (unsigned i = 0; i < sizeof r.words / 16; i++)
            reinterpret_cast<uint4 *>(p)[i] = r.words[i];
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i < n)
            p[i] = x[i];
}

/* Element `at` of rows whose type shows when the kernel runs. */
template <int N>
static __device__ __forceinline__ void store_floats(enum atom_cuda_float type, void *y, size_t at, const float (&v)[N],
                                                    int n)
{
    if (type == ATOM_CUDA_F32)
        store_piece(static_cast<float *>(y) + at, v, n);
    else if (type == ATOM_CUDA_F16)
        store_piece(static_cast<__half *>(y) + at, v, n);
    else
        store_piece(static_cast<__nv_bfloat16 *>(y) + at, v, n);
}

#endif
