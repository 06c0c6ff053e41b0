/* SPDX-License-Identifier: Apache-2.0 */
/* What every .cu shares on the host side: errors of the CUDA runtime as ours. */
#ifndef ATOM_CUDA_CHECK_CUH
#define ATOM_CUDA_CHECK_CUH

#include "cuda/cuda.h"

#include <cuda_runtime.h>

/* ATOM_OK, or a sentence of what failed and why; a memory shortage is ATOM_ERR_NOMEM. */
enum atom_status atom_cuda_status(cudaError_t e, const char *what, struct atom_error *err);

/* After a launch: whether it could start. What goes wrong while it runs shows when its stream is waited for. */
static inline enum atom_status atom_cuda_launched(const char *what, struct atom_error *err)
{
    return atom_cuda_status(cudaGetLastError(), what, err);
}

#endif
