/* SPDX-License-Identifier: Apache-2.0 */
/* What each tensor of a checkpoint is, by its name (docs/design.md, section 4). */
#ifndef ATOM_MODEL_TENSOR_NAMES_H
#define ATOM_MODEL_TENSOR_NAMES_H

#include "model/config.h"
#include "model/safetensors.h"

enum atom_tensor_kind {
    ATOM_TENSOR_UNKNOWN,
    ATOM_TENSOR_UNUSED, /* known and not read: inv_freq, the head of a tied model */
    ATOM_TENSOR_EMBEDDING,
    ATOM_TENSOR_HEAD,
    ATOM_TENSOR_NORM,
    ATOM_TENSOR_LINEAR, /* weights and their scales */
    ATOM_TENSOR_BIAS,
    ATOM_TENSOR_ORDER
};

struct atom_tensor_place {
    enum atom_tensor_kind kind;
    int layer; /* of NORM (-1: the last), LINEAR, BIAS, ORDER */
    int proj;  /* of LINEAR and BIAS: an index of atom_projs */
};

struct atom_tensor_place atom_tensor_place(const struct atom_config *cfg, const char *name);

/* ATOM_ERR_UNSUPPORTED naming a tensor that nothing would read: the model then is another than this engine computes. */
enum atom_status atom_tensors_known(const struct atom_config *cfg, const struct atom_tensors *t,
                                    struct atom_error *err);

#endif
