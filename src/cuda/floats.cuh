/* SPDX-License-Identifier: Apache-2.0 */
/* The three float types of rows on the device. */
#ifndef ATOM_CUDA_FLOATS_CUH
#define ATOM_CUDA_FLOATS_CUH

#include "cuda/ops.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
static __device__ __forceinline__ void from_float(float x, float &y) { y = x; }
static __device__ __forceinline__ void from_float(float x, __half &y) { y = __float2half_rn(x); }
static __device__ __forceinline__ void from_float(float x, __nv_bfloat16 &y) { y = __float2bfloat16_rn(x); }

/* Two neighbours, rounded; the pointer only says of which type. */
static __device__ __forceinline__ uint32_t pack2(float a, float b, __half *)
{
    __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}
static __device__ __forceinline__ uint32_t pack2(float a, float b, __nv_bfloat16 *)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}
static __device__ __forceinline__ float2 load2(const float *p) { return *reinterpret_cast<const float2 *>(p); }
static __device__ __forceinline__ float2 load2(const __half *p)
{
    return __half22float2(*reinterpret_cast<const __half2 *>(p));
}
static __device__ __forceinline__ float2 load2(const __nv_bfloat16 *p)
{
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(p));
}

static __device__ __forceinline__ float silu(float g, float u) { return g / (1.0f + __expf(-g)) * u; }

#endif
