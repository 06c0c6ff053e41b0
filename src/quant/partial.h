/* SPDX-License-Identifier: Apache-2.0 */
/* OUT.partial: where a quantized checkpoint grows layer by layer, so that a run that ends early can go on.
 *
 *     model-00001-of-000NN.safetensors    a finished layer; the last file holds what is no layer's
 *     model.safetensors.index.json        on resume and at the end: DIR opens as a checkpoint of the finished layers
 *     atom_state.json                     hashes of the inputs, finished layers, their tensors' names and reports
 *     NAME.tmp                            being written; deleted on resume
 *
 * A layer counts once atom_state.json says so; both files are synced and renamed into place in that order, so that a
 * crash, or a full disk, at any moment leaves a directory to go on from. */
#ifndef ATOM_QUANT_PARTIAL_H
#define ATOM_QUANT_PARTIAL_H

#include "model/safetensors.h"

struct atom_partial;

struct atom_partial_run {
    const char *model;   /* directory */
    const char *calib;   /* file; NULL: none is used */
    const char *out;     /* directory to make */
    const char *options; /* every option that changes the result, as text (atom_fingerprint_options) */
    int layers;
    bool resume, overwrite;
    const char *config; /* config.json's text, and no atom_report.json; NULL: the model's with the scheme, and one */
};

/* What atom_report.json says of a linear. */
struct atom_report_line {
    const char *name;
    double error; /* relative, of its outputs on the calibration text */
    double bits;  /* a weight, scales included */
    double seconds;
};

/* What lies in OUT's place. Where that, or with `resume` OUT.partial, was made of other inputs than this run's, or does
 * not say of what: ATOM_ERR_INVALID. Reads the whole model once where either is there, and all of OUT. */
enum atom_status atom_partial_look(const struct atom_partial_run *run, struct atom_quantize_found *out,
                                   struct atom_error *err);

/* Refuses an OUT that is there (with `overwrite`: one that is no model directory of plain files, or the model itself),
 * then makes OUT.partial, or goes on from it. What a run without `resume` finds there is deleted, if it is an
 * unfinished run's. With `resume`, other inputs than those of the unfinished run are refused by a sentence that says
 * which differ. Another process at work on the same OUT is refused. Reads the whole model once. */
enum atom_status atom_partial_open(const struct atom_partial_run *run, struct atom_partial **out,
                                   struct atom_error *err);
/* Closes; an unfinished directory stays. */
void atom_partial_close(struct atom_partial *p);

/* The first layer that is not finished; == layers when only the end is missing. When above 0 after open,
 * atom_tensors_open(atom_partial_dir()) gives the tensors of all layers before it. */
int atom_partial_next(const struct atom_partial *p);
const char *atom_partial_dir(const struct atom_partial *p);

/* Finishes layer atom_partial_next(). On failure (ATOM_ERR_NOSPACE names the path) the layer is not finished, no part
 * of it is left, and the call may be made again. */
enum atom_status atom_partial_put_layer(struct atom_partial *p, int layer, const struct atom_tensor *tensors, int n,
                                        const struct atom_report_line *report, int n_report, struct atom_error *err);

/* After the last layer: writes what is no layer's (embeddings, norm, head) with `report` lines of its own (a head's),
 * index, config.json with the scheme, tokenizer files and atom_report.json, then puts the directory in OUT's place.
 * On failure it stays OUT.partial and the call may be made again. */
enum atom_status atom_partial_finish(struct atom_partial *p, const struct atom_scheme *scheme,
                                     const struct atom_tensor *rest, int n, const struct atom_report_line *report,
                                     int n_report, struct atom_error *err);

#endif
