/* SPDX-License-Identifier: Apache-2.0 */
/* Registers that change places within a warp. */
#ifndef ATOM_CUDA_LANES_CUH
#define ATOM_CUDA_LANES_CUH

#include <stdint.h>

/* Of four lanes, lane q gives v[i] and gets lane i's v[q]. */
static __device__ __forceinline__ void swap_quad(uint32_t (&v)[4], int q)
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(i & bit)) {
                uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, q & bit ? v[i] : v[i | bit], bit);
                v[i] = q & bit ? other : v[i];
                v[i | bit] = q & bit ? v[i | bit] : other;
            }
}

#endif
