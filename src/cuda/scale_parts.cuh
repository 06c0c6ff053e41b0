/* SPDX-License-Identifier: Apache-2.0 */
/* A token's scale as three numbers that tf32 holds (ops.h). */
#ifndef ATOM_CUDA_SCALE_PARTS_CUH
#define ATOM_CUDA_SCALE_PARTS_CUH

static __device__ __forceinline__ float4 scale_parts(float s, bool outlier)
{
    float all = outlier ? s : s * 0.0625f;
    float high = __uint_as_float(__float_as_uint(all) & 0xFFFFE000u), rest = all - high;
    float mid = __uint_as_float(__float_as_uint(rest) & 0xFFFFE000u);
    return make_float4(high, mid, rest - mid, 0.0f);
}

#endif
