/* SPDX-License-Identifier: Apache-2.0 */
/* What a picture of a checkpoint shows: errors, orders, channel sizes. */
#ifndef ATOM_EVAL_PORTRAIT_H
#define ATOM_EVAL_PORTRAIT_H

#include "model/layer.h"

#include <stdio.h>

/* One site of one layer. */
struct atom_site_portrait {
    int k, outliers;
    int32_t *order;       /* [k] stored place -> channel, outliers last; NULL: none */
    double *rms;          /* [k] of each channel on the calibration text, natural order; NULL: not measured */
    double outlier_share; /* of the energy; NAN when not measured */
};

struct atom_portrait {
    const char *name; /* of the directory, without those above it */
    struct atom_config cfg;
    struct atom_site_portrait *sites; /* [layers, ATOM_N_SITES] */
    double *errors;                   /* [layers, ATOM_N_PROJ], NAN: not known; NULL: no linear's is */
    char text[160];                   /* which text was measured; "" */
    bool measured;                    /* rms is there everywhere */
    bool ordered;                     /* order is there everywhere, and outliers above 0 */
};

enum atom_status atom_portrait_create(const struct atom_inspect_plot_options *opt, struct atom_portrait *out,
                                      struct atom_error *err);
void atom_portrait_fini(struct atom_portrait *p); /* also one of zeros */

/* A gnuplot script that draws it; `portrait` is a struct atom_portrait, as struct atom_drawing wants it. */
void atom_portrait_put(FILE *script, const void *portrait, int n);

#endif
