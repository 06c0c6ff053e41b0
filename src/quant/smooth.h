/* SPDX-License-Identifier: Apache-2.0 */
/* Migration of channel sizes into the weights: channel j of a site is divided by f_j and the weight columns that read
 * it are multiplied by f_j, so that small channels, whose scale the large ones set, get more levels.
 *
 * Without a search, inside each group, f_j = (r_j / geometric mean of r over its group)^strength with r the root mean
 * square on the calibration text; o_in stays. With one (smooth_search.h), all four sites by what measured best.
 *
 * The division is folded into what makes the channel: the norm before attn_in and mlp_in, v_proj's rows before o_in,
 * up_proj's rows before down_in, their biases too. The float function of the layer does not change; arithmetic and file
 * format know nothing of it. */
#ifndef ATOM_QUANT_SMOOTH_H
#define ATOM_QUANT_SMOOTH_H

#include "quant/calibrate.h"

struct atom_smoothed; /* a layer's tensors, some of them changed */

struct atom_smooth_input {
    const struct atom_config *cfg;
    const struct atom_tensors *tensors; /* must outlive the result */
    const struct atom_scheme *scheme;
    int layer;
    const struct atom_calib_seen *seen; /* of all sites: energies, and for a search peaks and rows */
    const int32_t *const *orders;       /* [site] [k] */
    void (*note)(void *user, const char *line);
    void *user;
};

/* What a search found is told through `note`, a line a site; NULL: nobody listens. */
enum atom_status atom_smooth(const struct atom_smooth_input *in, struct atom_smoothed **out, struct atom_error *err);
void atom_smoothed_free(struct atom_smoothed *s);
const struct atom_tensors *atom_smoothed_tensors(const struct atom_smoothed *s);

/* f [k] in natural order; dead channels (energy under 1e-12 of their group's largest) get 1. */
void atom_smooth_factors(const struct atom_layout *lay, const int32_t *order, const double *energy, float strength,
                         float *f);

#endif
