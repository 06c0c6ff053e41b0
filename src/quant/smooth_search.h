/* SPDX-License-Identifier: Apache-2.0 */
/* How far channel sizes of a site should move into its weights, by trying: channel j is divided by f_j and the columns
 * that read it are multiplied by f_j, with
 *
 *     ATOM_SMOOTH_PEAK    f_j = max|x_j|^a / max|w_j|^(1-a)   (Xiao et al., "SmoothQuant", ICML 2023)
 *     ATOM_SMOOTH_RMS     f_j = rms(x_j)^a                    (after Lin et al., "AWQ", MLSys 2024)
 *
 * and a, in 20ths of the scheme's `smooth`, the one with which rounded weights, fed the site's rounded activations,
 * come nearest to what float ones give. Leaving things as they are is among what is tried. */
#ifndef ATOM_QUANT_SMOOTH_SEARCH_H
#define ATOM_QUANT_SMOOTH_SEARCH_H

#include "model/layer.h"

enum { ATOM_SMOOTH_STEPS = 20, ATOM_SMOOTH_PARTS = 3 };

struct atom_smooth_site {
    const struct atom_scheme *scheme;
    const struct atom_layout *lay;
    const int32_t *order; /* [k], as every [k] here in natural channels otherwise */
    const double *energy; /* [k] */
    const float *peak;    /* [k] */
    const float *rows;    /* [n_rows, k]: tokens */
    int n_rows;
    const float
        *w; /* [sum of part_rows, k]: the linears that read the site; errors count relative to each one's size */
    int part_rows[ATOM_SMOOTH_PARTS], n_parts;
    int head_dim, heads_per_kv; /* above 0: channels of query heads that share a KV head share a factor */
};

/* f [k] of the best and, where not NULL, what it and none at all were off by: the sum over the parts of
 * ||Y - Yq||^2 / ||Y||^2. The result does not depend on the number of threads. */
struct atom_smooth_found {
    float strength;
    double error, error_before;
};
enum atom_status atom_smooth_find(const struct atom_smooth_site *site, float *f, struct atom_smooth_found *found,
                                  struct atom_error *err);

#endif
