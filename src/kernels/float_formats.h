/* SPDX-License-Identifier: Apache-2.0 */
/* Formats that have no packed kernel: rounded and read back at once, as floats (docs/formats.md). */
#ifndef ATOM_KERNELS_FLOAT_FORMATS_H
#define ATOM_KERNELS_FLOAT_FORMATS_H

#include "base/minifloat.h"
#include "kernels/layout.h"

/* What the numbers of a site's activations, or of a linear's weights, are rounded to. */
struct atom_number_form {
    enum atom_format format;
    int outlier_bits; /* 16: outliers stay as they are; else E4M3, or INT8 beside ATOM_FORMAT_INT */
};

/* "int", "fp4", ...; NULL for none of the formats. And back: false if no format has that name. */
const char *atom_format_name(enum atom_format format);
bool atom_format_of(const char *name, enum atom_format *out);
/* Channels of a group, which the standard fixes; 0: any. */
int atom_format_group(enum atom_format format);

/* ---- scales of FP4, NVFP4 and MXFP4 ------------------------------------------------------------------------------ */

/* NVFP4's scale of a whole tensor, from its largest magnitude: blocks then have scales up to 448. 1 for the others, and
 * where there is next to nothing to scale. */
float atom_tensor_scale(enum atom_format format, float max);

/* The scale of a group whose largest magnitude (clipped) is max, as stored: F16 bits, an E4M3 or an E8M0 code. */
uint16_t atom_scale_code(enum atom_format format, float max, float tensor_scale);
float atom_scale_float(enum atom_format format, uint16_t code, float tensor_scale);

/* x / s as a number of E2M1; 0 where the scale is. */
static inline float atom_e2m1_over(float x, float s) { return s > 0 ? atom_e2m1_round(x / s) : 0.0f; }

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* One token's channels in stored order, rounded and read back in place: groups by the format (not INT), outliers by
 * outlier_bits. Scales are the token's own; FP4's, and those of E4M3 outliers, are float32. False, and nothing done,
 * when a number is not finite. */
bool atom_round_row(const struct atom_number_form *form, const struct atom_layout *lay, float clip, float *x);

#endif
