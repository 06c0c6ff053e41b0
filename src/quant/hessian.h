/* SPDX-License-Identifier: Apache-2.0 */
/* The Hessian of a site, shared by all linears it feeds: H = (2/n) sum_t x_t x_t', and what GPTQ needs of its inverse.
 */
#ifndef ATOM_QUANT_HESSIAN_H
#define ATOM_QUANT_HESSIAN_H

#include "base/error.h"

struct atom_hessian {
    int k;
    float *h;   /* [k, k], whole and symmetric, undamped: the caller's buffer */
    float *u;   /* [k, k], upper, zeros below: inverse(H + damping) = U'U, with 1 for zero diagonals of H */
    int n_dead; /* zero diagonals: channels that were never anything but 0 */
    float damp; /* the share of the mean diagonal that was added: 0.01 unless Cholesky failed with that */
};

/* `sum` [k, k] holds sum_t x_t x_t' in its upper triangle (row-major, columns in stored order; what lies below is not
 * read) and becomes H in place; it must outlive the result. Takes k*k floats more. `site` is for messages. */
enum atom_status atom_hessian_create(const char *site, float *sum, int k, int64_t n_tokens, struct atom_hessian **out,
                                     struct atom_error *err);
void atom_hessian_free(struct atom_hessian *hs);
/* The diagonal of H [k], malloc'd; NULL when out of memory. */
float *atom_hessian_diagonal(const struct atom_hessian *hs);

/* Moves w [n, k] in place to where, fed what the quantized network computes (Xq, whose Hessian this is), it best gives
 * what the float network gives (Xf): W += alpha * W D (H + damping)^-1, the minimum of ||W Xf - W' Xq||^2 + damping
 * ||W' - W||^2 at alpha 1 (after Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration",
 * 2025). cross [k, k] holds sum_t (xf_t - xq_t) xq_t' over the same n_tokens, unscaled. */
enum atom_status atom_retarget(const struct atom_hessian *hs, const float *cross, int64_t n_tokens, float alpha,
                               float *w, int n, struct atom_error *err);

/* tr(A H A') of a [rows, k]; scratch holds rows * k floats. One thread. */
double atom_hessian_norm(const struct atom_hessian *hs, const float *a, int rows, float *scratch);

/* Sets BLAS to n threads and returns how many it had: 1 inside tasks of the pool. */
int atom_blas_threads(int n);

#endif
