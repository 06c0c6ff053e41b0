/* SPDX-License-Identifier: Apache-2.0 */
/* Random tensors of a linear as a checkpoint has them, on the device, and each of their numbers on the host. */
#ifndef ATOM_BENCH_GPU_TENSORS_H
#define ATOM_BENCH_GPU_TENSORS_H

#include "cuda/ops.h"

/* Copies differ. Two rows share a scale. */
enum atom_status atom_gpu_tensors_make(const struct atom_cuda_site *site, int n, int copy,
                                       struct atom_cuda_tensors *out, struct atom_error *err);
void atom_gpu_tensors_drop(struct atom_cuda_tensors *t);

int atom_gpu_tensors_q(const struct atom_cuda_site *site, int copy, int row, int channel); /* normal ones */
int atom_gpu_tensors_outlier(const struct atom_cuda_site *site, int copy, int row, int outlier);
double atom_gpu_tensors_scale(const struct atom_cuda_site *site, int copy, int row, int scale); /* outliers last */

#endif
