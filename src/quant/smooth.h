/* SPDX-License-Identifier: Apache-2.0 */
/* Migration of channel sizes into the weights (after Xiao et al., "SmoothQuant", ICML 2023), inside each group.
 *
 * A group's scale is set by its largest channel, so the small ones get few levels. Channel j of a site is divided by
 * f_j = (r_j / geometric mean of r over its group)^strength, r its root mean square on the calibration text, and the
 * weight columns that read it are multiplied by f_j. The division is folded into what makes the channel: the norm
 * before attn_in and mlp_in, up_proj's rows before down_in (which a bias would spoil: models with one keep theirs).
 * o_in stays. The float function of the layer does not change; arithmetic and file format know nothing of it. */
#ifndef ATOM_QUANT_SMOOTH_H
#define ATOM_QUANT_SMOOTH_H

#include "model/layer.h"

struct atom_smoothed; /* a layer's tensors, some of them changed */

struct atom_smooth_input {
    const struct atom_config *cfg;
    const struct atom_tensors *tensors; /* must outlive the result */
    const struct atom_scheme *scheme;
    int layer;
    const double *const *energy;  /* [site] [k], natural order */
    const int32_t *const *orders; /* [site] [k] */
};

enum atom_status atom_smooth(const struct atom_smooth_input *in, struct atom_smoothed **out, struct atom_error *err);
void atom_smoothed_free(struct atom_smoothed *s);
const struct atom_tensors *atom_smoothed_tensors(const struct atom_smoothed *s);

/* f [k] in natural order; dead channels (energy under 1e-12 of their group's largest) get 1. */
void atom_smooth_factors(const struct atom_layout *lay, const int32_t *order, const double *energy, float strength,
                         float *f);

#endif
