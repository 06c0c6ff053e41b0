/* SPDX-License-Identifier: Apache-2.0 */
/* Mean, its standard error and percentiles of many numbers. */
#ifndef ATOM_EVAL_SPREAD_H
#define ATOM_EVAL_SPREAD_H

#include "atom/atom.h"

/* x [n], n >= 1, none of them NaN; left in ascending order. */
struct atom_spread atom_spread_of(double *x, int64_t n);

#endif
