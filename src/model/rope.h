/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_MODEL_ROPE_H
#define ATOM_MODEL_ROPE_H

#include "model/config.h"

/* inv_freq [head_dim/2]: radians per position of each rotated pair, with the model's scaling applied. */
void atom_rope_frequencies(const struct atom_rope *rope, int head_dim, double *inv_freq);

#endif
