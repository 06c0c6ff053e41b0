/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_MODEL_ROPE_CONFIG_H
#define ATOM_MODEL_ROPE_CONFIG_H

#include "model/config.h"

#include <jansson.h>

/* What config.json says of RoPE, in the older spelling (rope_theta, rope_scaling) or the newer (rope_parameters). */
struct atom_rope_source {
    double theta;                       /* top level; 0: not there */
    double partial;                     /* partial_rotary_factor there, which can only be 1 */
    const json_t *scaling, *parameters; /* NULL: not there */
};

enum atom_status atom_rope_parse(const struct atom_rope_source *source, struct atom_rope *out, struct atom_error *err);

#endif
