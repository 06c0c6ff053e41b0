/* SPDX-License-Identifier: Apache-2.0 */
/* One decoder layer from float to quantized: orders, Hessians, linears, tensors. */
#ifndef ATOM_QUANT_LAYER_QUANT_H
#define ATOM_QUANT_LAYER_QUANT_H

#include "quant/calibrate.h"
#include "quant/pack.h"
#include "quant/partial.h"

struct atom_layer_quant_setup {
    const struct atom_config *cfg; /* of the float model */
    const struct atom_tensors *tensors;
    const struct atom_scheme *scheme;
    const struct atom_backend *backend;
    struct atom_calib *calib; /* its windows stand before the layer */
    void (*note)(void *user, const char *line);
    void *user;
};

struct atom_layer_quant {
    struct atom_pack pack;   /* all tensors of the layer */
    struct atom_layer layer; /* ready to run */
    struct atom_report_line report[ATOM_N_PROJ];
    char names[ATOM_N_PROJ][96];
    int n_report;
};

/* The float windows of `calib` pass the layer (or wait, see atom_layer_quant_keeps_exact), the quantized ones stay for
 * atom_calib_advance with out->layer. */
enum atom_status atom_layer_quantize(const struct atom_layer_quant_setup *setup, int index,
                                     struct atom_layer_quant *out, struct atom_error *err);
void atom_layer_quant_fini(struct atom_layer_quant *lq);

/* Passes over all windows that a layer takes, the last advance included: for progress. */
int atom_layer_quant_passes(const struct atom_scheme *scheme);
/* Whether cross sums are taken, for atom_calib_setup. */
bool atom_layer_quant_keeps_exact(const struct atom_scheme *scheme);

#endif
