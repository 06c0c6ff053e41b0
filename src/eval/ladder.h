/* SPDX-License-Identifier: Apache-2.0 */
/* The schemes of the ablation's rungs. */
#ifndef ATOM_EVAL_LADDER_H
#define ATOM_EVAL_LADDER_H

#include "base/error.h"

/* The scheme of a rung, an index in atom_rungs. outliers: what takes the place of 128. */
void atom_rung_scheme(int rung, int bits, int outliers, struct atom_scheme *out);

#endif
