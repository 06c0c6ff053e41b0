/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel a linear's weights are packed for. The device decides; tests ask for what else it can run. */
#ifndef ATOM_CUDA_LINEAR_FORM_H
#define ATOM_CUDA_LINEAR_FORM_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum atom_cuda_form {
    ATOM_CUDA_FORM_AUTO,
    ATOM_CUDA_FORM_SM90,       /* wgmma: compute capability 9.0 alone */
    ATOM_CUDA_FORM_SM80,       /* mma.sync, INT4 products where activations have 4 bits: 8.x; elsewhere emulated */
    ATOM_CUDA_FORM_SM80_BYTES, /* the same weights, INT8 products alone: for what is newer than 9.0 */
};

/* AUTO: what the open device runs fastest. A form it cannot run is ATOM_ERR_UNSUPPORTED. */
enum atom_status atom_cuda_form_for_device(enum atom_cuda_form wish, enum atom_cuda_form *out, struct atom_error *err);

/* For weights created from now on; AUTO undoes it. */
void atom_cuda_force_form(enum atom_cuda_form form);

#ifdef __cplusplus
}
#endif

#endif
