/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of one float type as another, gathered. */
#include "cuda/blas.h"
#include "cuda/check.cuh"
#include "cuda/floats.cuh"

/* A block a row; blocks take rows in turn. */
template <class From, class To> static __global__ void gather(const struct atom_cuda_floats j)
{
    for (int r = blockIdx.x; r < j.rows; r += gridDim.x) {
        const From *from = (const From *)j.from + (size_t)(j.row_order ? j.row_order[r] : r) * (size_t)j.columns;
        To *to = (To *)j.to + (size_t)r * (size_t)j.columns;
        for (int c = threadIdx.x; c < j.columns; c += blockDim.x)
            from_float(to_float(from[j.order ? j.order[c] : c]), to[c]);
    }
}

template <class From> static void launch(const struct atom_cuda_floats *j, atom_cuda_stream s)
{
    unsigned blocks = j->rows < 65535 ? (unsigned)j->rows : 65535u;
    if (j->to_type == ATOM_CUDA_F32)
        gather<From, float><<<blocks, 256, 0, s>>>(*j);
    else if (j->to_type == ATOM_CUDA_F16)
        gather<From, __half><<<blocks, 256, 0, s>>>(*j);
    else
        gather<From, __nv_bfloat16><<<blocks, 256, 0, s>>>(*j);
}

extern "C" enum atom_status atom_cuda_floats_run(const struct atom_cuda_floats *j, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    if (j->rows < 1 || j->columns < 1 || !j->from || !j->to)
        return atom_fail(err, ATOM_ERR_INVALID, "%d rows of %d weights to convert: expected 1 or more of each", j->rows,
                         j->columns);
    if (j->from_type == ATOM_CUDA_F32)
        launch<float>(j, s);
    else if (j->from_type == ATOM_CUDA_F16)
        launch<__half>(j, s);
    else
        launch<__nv_bfloat16>(j, s);
    return atom_cuda_launched("converting weights", err);
}
