/* SPDX-License-Identifier: Apache-2.0 */
/* The windows to calibrate on, from a text or from ids. */
#ifndef ATOM_QUANT_CALIB_WINDOWS_H
#define ATOM_QUANT_CALIB_WINDOWS_H

#include "model/config.h"
#include "model/windows.h"

struct atom_calib_file {
    const char *model;             /* directory that has the tokenizer */
    const struct atom_config *cfg; /* of that model */
    const char *text;              /* a text file; NULL when ids is set */
    const char *ids; /* JSON lines {"ids": [...]}, each at least a window long (what is over is dropped) */
    int samples;     /* the first of its windows */
    int window;      /* tokens */
    bool or_fewer;   /* a text that has fewer windows will do */
};

/* out->n is samples, or what there is. Windows longer than the model's positions are refused; sentences about the file
 * begin with its name. */
enum atom_status atom_calib_windows(const struct atom_calib_file *file, struct atom_windows *out,
                                    struct atom_error *err);

#endif
