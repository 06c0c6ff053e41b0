/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023)
 * with the groups, shared rows and outlier columns of docs/design.md, section 3. */
#ifndef ATOM_QUANT_GPTQ_H
#define ATOM_QUANT_GPTQ_H

#include "quant/hessian.h"
#include "quant/weights.h"

/* Quantizes w [n, k] (columns in stored order, as the Hessian's; unchanged). Rows run in parallel; the result does not
 * depend on the number of threads. A NaN or an infinity is an error naming the tensor. */
enum atom_status atom_gptq(const char *name, const float *w, int n, int k, const struct atom_weight_options *opt,
                           const struct atom_hessian *hessian, struct atom_qlinear **out, struct atom_error *err);

/* The same with errors passed on to later blocks every `block` columns (atom_gptq: 128): for tests. */
enum atom_status atom_gptq_blocked(const char *name, const float *w, int n, int k,
                                   const struct atom_weight_options *opt, const struct atom_hessian *hessian, int block,
                                   struct atom_qlinear **out, struct atom_error *err);

#endif
