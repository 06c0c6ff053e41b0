/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that other programs quantized: GPTQ and compressed-tensors (docs/checkpoints.md).
 *
 * All of them mean w[n, k] = scale[n, g] * (code[n, k] - zero[n, g]), g the group of channel k. A linear takes the
 * narrowest of this engine's forms that holds its weights to the last bit: nibbles where code - zero lies in -8 to 7,
 * bytes in -128 to 127 (scales as F16, which must hold them exactly), else float32. */
#ifndef ATOM_MODEL_FOREIGN_H
#define ATOM_MODEL_FOREIGN_H

#include "base/error.h"

#include <jansson.h>

struct atom_codes;
struct atom_foreign;
struct atom_tensors;

/* One way to store a quantized linear. */
struct atom_foreign_format {
    const char *method; /* quant_method */
    const char *title;  /* in words */
    /* From the object at `place`, which messages name. How it runs goes to *scheme. */
    enum atom_status (*parse)(const char *place, const json_t *object, struct atom_foreign *out,
                              struct atom_scheme *scheme, struct atom_error *err);
    /* Whether a quantized linear P may have a tensor P.part. */
    bool (*has_part)(const struct atom_foreign *f, const char *part);
    /* Finds and checks the tensors of the linear that out->name, n and k say: names, dtypes, shapes. words stays NULL
     * where it is stored as floats (P.weight, which is not looked at). */
    enum atom_status (*open)(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *out,
                             struct atom_error *err);
};

/* What quantization_config says. */
struct atom_foreign {
    const struct atom_foreign_format *format; /* NULL: the checkpoint is float, or Atom's own */
    int bits;                                 /* of a code */
    int group;                                /* channels per scale; 0: a whole row */
    bool symmetric;                           /* the zero point is the middle of the codes */
    bool whole_scale;                         /* one scale for all of a linear */
    bool ordered;                             /* a tensor g_idx says which group a channel is in */
    bool bytes;                               /* codes lie in I8, not packed in words */
    int zero_offset;                          /* a stored zero point is less by this */
};

/* By quant_method; NULL: not known here. */
const struct atom_foreign_format *atom_foreign_find(const char *method);
/* A scheme of weights in `bits`, groups of `group`, and nothing else quantized. */
struct atom_scheme atom_foreign_scheme(int bits, int group);

extern const struct atom_foreign_format atom_foreign_gptq, atom_foreign_compressed;

#endif
