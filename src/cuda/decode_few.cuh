/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: a row's few splits added up by a warp, in order; the same bits wherever it is done. */
#ifndef ATOM_CUDA_DECODE_FEW_CUH
#define ATOM_CUDA_DECODE_FEW_CUH

#include "cuda/decode.cuh"
#include "cuda/mma.cuh"

/* slot, step: where the first split's results are, and how far apart. put(d, x): channels d to d+3. */
template <class F>
static __device__ __forceinline__ void add_few_splits(const decode_space &space, size_t slot, size_t step, int n_splits,
                                                      int wide, F put)
{
    int lane = threadIdx.x % 32;
    float2 w = make_float2(-INFINITY, 0.0f);
    if (lane < n_splits)
        w = __ldcg(space.weight + slot + lane * step);
    float max = w.x, each[FEW_SPLITS], sum = 0.0f;
#pragma unroll
    for (int by = 1; by < FEW_SPLITS; by *= 2)
        max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFFu, max, by));
    float by = lane < n_splits ? exp2_fast(w.x - max) : 0.0f;
#pragma unroll
    for (int s = 0; s < FEW_SPLITS; s++) {
        each[s] = __shfl_sync(0xFFFFFFFFu, by, s);
        sum = fmaf(each[s], __shfl_sync(0xFFFFFFFFu, w.y, s), sum);
    }
    for (int d = 4 * lane; d < wide; d += 128) {
        float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f), x[FEW_SPLITS];
#pragma unroll
        for (int s = 0; s < FEW_SPLITS; s++)
            x[s] =
                s < n_splits ? __ldcg(reinterpret_cast<const float4 *>(space.part + (slot + s * step) * wide + d)) : o;
#pragma unroll
        for (int s = 0; s < FEW_SPLITS; s++)
            o = make_float4(fmaf(x[s].x, each[s], o.x), fmaf(x[s].y, each[s], o.y), fmaf(x[s].z, each[s], o.z),
                            fmaf(x[s].w, each[s], o.w));
        put(d, make_float4(o.x / sum, o.y / sum, o.z / sum, o.w / sum));
    }
}

#endif
