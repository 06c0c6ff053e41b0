/* SPDX-License-Identifier: Apache-2.0 */
/* struct atom_scheme as quantization_config says it. */
#ifndef ATOM_MODEL_SCHEME_H
#define ATOM_MODEL_SCHEME_H

#include "base/error.h"

#include <jansson.h>

/* The scheme of a float model. */
extern const struct atom_scheme atom_scheme_float;

enum atom_status atom_scheme_parse(const json_t *quantization_config, int head_dim, struct atom_scheme *out,
                                   struct atom_error *err);

/* A new object; NULL when out of memory. Print it with JSON_REAL_PRECISION(9). */
json_t *atom_scheme_json(const struct atom_scheme *scheme);

#endif
