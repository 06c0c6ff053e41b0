/* SPDX-License-Identifier: Apache-2.0 */
/* What a program built without nvcc has in place of src/cuda. */
#include "cuda/cuda.h"

enum atom_status atom_cuda_open(int index, struct atom_cuda_device *out, struct atom_error *err)
{
    (void)index;
    (void)out;
    return atom_fail(err, ATOM_ERR_UNSUPPORTED, "this program was built without CUDA: nvcc was not there");
}

const struct atom_cuda_device *atom_cuda_opened(void) { return NULL; }
void atom_cuda_close(void) {}
