/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized activations of a linear, random, in as many copies as a rotation takes; and quantizing as many from floats
 * by itself: what a linear costs more where no norm, order or silu before it takes that along. */
#ifndef ATOM_BENCH_GPU_ACTS_H
#define ATOM_BENCH_GPU_ACTS_H

#include "bench/gpu/gpu_random.h"
#include "cuda/ops.h"

struct atom_gpu_acts {
    struct atom_cuda_site site;
    int bits;
    void *q, *scales, *parts; /* pools; parts NULL: a site with one scale */
    void *x, *made_q, *made_scales,
        *made_parts; /* one set of rows, as if written just before, and what they are quantized to */
    int n_tok, tok_stride;
    size_t q_bytes, scale_count; /* of one launch */
};

/* bits 4 or 8. */
enum atom_status atom_gpu_acts_open(const struct atom_cuda_site *site, int bits, int max_tok, struct atom_gpu_acts *out,
                                    struct atom_error *err);
void atom_gpu_acts_close(struct atom_gpu_acts *a);
size_t atom_gpu_acts_bytes(const struct atom_cuda_site *site, int n_tok); /* of one launch */

enum atom_status atom_gpu_acts_set(struct atom_gpu_acts *a, int n_tok, int copies, struct atom_error *err);
struct atom_cuda_acts atom_gpu_acts_copy(const struct atom_gpu_acts *a, int copy);
enum atom_status atom_gpu_acts_quantize(const struct atom_gpu_acts *a, atom_cuda_stream s, struct atom_error *err);

/* As the host knows them; channels as they lie, run after run. */
int atom_gpu_acts_q(const struct atom_gpu_acts *a, int copy, int tok, size_t channel);
double atom_gpu_acts_scale(const struct atom_gpu_acts *a, int copy, int tok, int scale);

#endif
