/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a site: its channels by calibration energy, so that the last ones are the outliers. */
#ifndef ATOM_QUANT_ORDER_H
#define ATOM_QUANT_ORDER_H

#include "base/error.h"

/* Outlier channels at a site of k channels when the scheme asks for `requested`: at most k, at least 0. This is what
 * the arithmetic and the checkpoint's shapes use, for every scheme. */
int atom_outliers_of(int requested, int k);

/* The default's cap, a quarter of k, for whoever fills scheme.outliers (the smallest k of the model's sites). */
int atom_outliers_quarter(int requested, int k);

/* order[i] is the channel stored at place i: energy [k] ascending, ties by index; 0, 1, 2 ... when outliers is 0.
 * A negative or non-finite energy is an error naming `site`. */
enum atom_status atom_order_rank(const char *site, const double *energy, int k, int outliers, int32_t *order,
                                 struct atom_error *err);

/* out[r, i] = w[r, order[i]] for w, out [n, k]: a linear's input channels into stored order. */
void atom_order_columns(const float *w, int n, int k, const int32_t *order, float *out);
/* out[i, :] = w[order[i], :] for w, out [n, k]: gate and up rows into the order of down_in (biases: k = 1). */
void atom_order_rows(const float *w, int n, int k, const int32_t *order, float *out);

#endif
