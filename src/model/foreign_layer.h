/* SPDX-License-Identifier: Apache-2.0 */
/* How the linears of one layer of a foreign checkpoint run here, and their parts. */
#ifndef ATOM_MODEL_FOREIGN_LAYER_H
#define ATOM_MODEL_FOREIGN_LAYER_H

#include "model/foreign_codes.h"
#include "model/layer.h"

struct atom_foreign_linear {
    const struct atom_tensor *weight; /* P.weight where it is stored as floats; else NULL */
    enum atom_code_form form;         /* the same for all that read one site, which are one linear of the engine */
    const char *why;                  /* a few words where the form is wider than the codes; else NULL */
    struct atom_codes codes;
    char name[96];
};

struct atom_foreign_layer {
    struct atom_foreign_linear linears[ATOM_N_PROJ];
    int32_t *orders[ATOM_N_SITES]; /* sorts channels by group; NULL: they are */
};

/* Finds, checks and plans; reads scales, zero points and g_idx, no codes. fini also takes one of zeros. */
enum atom_status atom_foreign_layer_open(const struct atom_config *cfg, const struct atom_tensors *tensors, int index,
                                         struct atom_foreign_layer *out, struct atom_error *err);
void atom_foreign_layer_fini(struct atom_foreign_layer *l);

/* Whether P.weight is kept as it is: all that reads its site is stored as floats of the same dtype. */
bool atom_foreign_keeps(const struct atom_foreign_layer *l, int proj);

/* atom_layer_load of a foreign checkpoint's layer, run as cfg->scheme says. */
enum atom_status atom_foreign_layer_load(const struct atom_backend *b, const struct atom_config *cfg,
                                         const struct atom_tensors *tensors, int index, struct atom_layer *out,
                                         struct atom_error *err);

/* Fills kind and tensors of a part whose n and row_order are set. *memory holds what had to be made until linear_create
 * has returned; the caller frees it, on failure too. */
enum atom_status atom_foreign_part(const struct atom_foreign_layer *l, int proj, struct atom_linear_part *part,
                                   void **memory, struct atom_error *err);

#endif
