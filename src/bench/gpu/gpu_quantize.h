/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizing the activations of a linear by itself, as none of the kernels around it would: what a linear costs more
 * where no norm, order or silu takes it along. */
#ifndef ATOM_BENCH_GPU_QUANTIZE_H
#define ATOM_BENCH_GPU_QUANTIZE_H

#include "cuda/ops.h"

struct atom_gpu_quantize; /* one set of rows: what a linear takes was written just before */
enum atom_status atom_gpu_quantize_create(const struct atom_cuda_site *site, int bits, int max_tok,
                                          struct atom_gpu_quantize **out, struct atom_error *err);
void atom_gpu_quantize_free(struct atom_gpu_quantize *q); /* takes NULL */
enum atom_status atom_gpu_quantize_put(const struct atom_gpu_quantize *q, int n_tok, atom_cuda_stream s,
                                       struct atom_error *err);

#endif
