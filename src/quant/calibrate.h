/* SPDX-License-Identifier: Apache-2.0 */
/* Calibration: the windows as they stand before a layer, in the float network and in the network quantized so far, and
 * what a layer's sites are fed by them. Memory: the activations of all windows twice, and one layer's work. */
#ifndef ATOM_QUANT_CALIBRATE_H
#define ATOM_QUANT_CALIBRATE_H

#include "model/layer.h"

struct atom_calib;

/* Called after each window; false stops the pass with ATOM_ERR_CANCELLED. */
typedef bool atom_calib_tick_fn(void *user);

struct atom_calib_setup {
    const struct atom_config *cfg; /* of the float model */
    const struct atom_tensors *tensors;
    const struct atom_scheme *scheme; /* of the quantized one */
    const struct atom_backend *backend;
    const int32_t *ids; /* [windows, window], borrowed for create */
    int windows, window;
    bool keep_exact; /* cross sums will be asked for: the float windows wait before the layer till the others follow */
    atom_calib_tick_fn *tick;
    void *user;
};

enum atom_status atom_calib_create(const struct atom_calib_setup *setup, struct atom_calib **out,
                                   struct atom_error *err);
void atom_calib_free(struct atom_calib *c);
int64_t atom_calib_tokens(const struct atom_calib *c); /* of all windows */

/* What the float windows are at each site, channels in natural order; a pointer that is NULL is not wanted. Energies
 * and peaks are added to what is there. */
struct atom_calib_seen {
    double *energy[ATOM_N_SITES]; /* [k]: sum_t x[t,k]^2 */
    float *peak[ATOM_N_SITES];    /* [k]: max_t |x[t,k]| */
    float *rows[ATOM_N_SITES];    /* [n_rows, k]: tokens, spread evenly over all windows */
    int n_rows;                   /* at most all tokens */
};

/* A layer is: float, any number of sums, advance.
 * Takes the float windows through float layer `index`; `seen` may be NULL. */
enum atom_status atom_calib_float(struct atom_calib *c, int index, const struct atom_calib_seen *seen,
                                  struct atom_error *err);

/* Runs the quantized windows through `layer` and adds sum_t x x' of what each site is fed, read back, to
 * the upper triangle of sum[site] [k, k]. With `cross`, the float windows run beside them through `exact` and
 * cross[site] gets sum_t (xf - xq) xq'. The windows stay before the layer. */
struct atom_calib_sums {
    float *sum[ATOM_N_SITES];
    float *cross[ATOM_N_SITES];
    const struct atom_layer *exact; /* the float layer with the same orders; NULL: no cross sums */
};
enum atom_status atom_calib_sums(struct atom_calib *c, int index, const struct atom_layer *layer,
                                 const struct atom_calib_sums *sums, struct atom_error *err);

/* Takes the quantized windows through a layer. */
enum atom_status atom_calib_advance(struct atom_calib *c, int index, const struct atom_layer *layer,
                                    struct atom_error *err);

#endif
