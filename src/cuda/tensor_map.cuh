/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices as the tensor copies of sm_90 see them. */
#ifndef ATOM_CUDA_TENSOR_MAP_CUH
#define ATOM_CUDA_TENSOR_MAP_CUH

#include "cuda/check.cuh"

#include <cuda.h>

/* [rows, columns] of a type, from which boxes of 128 bytes by box_rows are copied, swizzled by 128 (narrow: boxes of 64
 * bytes, by 64), or to which; what lies past its edges is read as zeros and not written. `at` and stride_bytes are
 * multiples of 16. */
struct tensor_matrix {
    CUtensorMapDataType type;
    const void *at;
    int columns, rows;
    size_t stride_bytes;
    int box_columns, box_rows;
    bool narrow;
};

typedef CUresult tensor_encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                  const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                  CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function, found without linking with the driver. */
static inline tensor_encode_fn *tensor_encode(void)
{
    static tensor_encode_fn *fn;
    cudaDriverEntryPointQueryResult found;
    void *p = NULL;
    if (!fn &&
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000, cudaEnableDefault, &found) ==
            cudaSuccess &&
        found == cudaDriverEntryPointSuccess)
        fn = (tensor_encode_fn *)p;
    return fn;
}

static inline enum atom_status tensor_map(const struct tensor_matrix *m, CUtensorMap *map, struct atom_error *err)
{
    tensor_encode_fn *encode = tensor_encode();
    if (!encode)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "the CUDA driver has no cuTensorMapEncodeTiled: it is older than CUDA 12");
    const cuuint64_t dims[2] = {(cuuint64_t)m->columns, (cuuint64_t)m->rows}, strides[1] = {m->stride_bytes};
    const cuuint32_t box[2] = {(cuuint32_t)m->box_columns, (cuuint32_t)m->box_rows}, step[2] = {1, 1};
    CUresult e =
        encode(map, m->type, 2, (void *)(uintptr_t)m->at, dims, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
               m->narrow ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return e == CUDA_SUCCESS ? ATOM_OK : atom_fail(err, ATOM_ERR_DEVICE, "CUDA, describing a matrix: error %d", (int)e);
}

#endif
