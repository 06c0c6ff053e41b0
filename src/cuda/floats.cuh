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

static inline size_t float_bytes(enum atom_cuda_float t) { return t == ATOM_CUDA_F32 ? 4 : 2; }

#endif
