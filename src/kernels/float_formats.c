/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/float_formats.h"

#include "base/finite.h"

#include <string.h>

static const struct {
    const char *name;
    int group;
} formats[] = {[ATOM_FORMAT_INT] = {"int", 0},
               [ATOM_FORMAT_FP4] = {"fp4", 0},
               [ATOM_FORMAT_NVFP4] = {"nvfp4", 16},
               [ATOM_FORMAT_MXFP4] = {"mxfp4", 32}};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

/* Below this a scale would not tell anything from nothing: the integers' limit (kernels/rows.h). */
static const float next_to_nothing = 0x1p-100f;

const char *atom_format_name(enum atom_format format)
{
    return (unsigned)format < N_FORMATS ? formats[format].name : NULL;
}

bool atom_format_of(const char *name, enum atom_format *out)
{
    for (int i = 0; i < N_FORMATS; i++)
        if (strcmp(name, formats[i].name) == 0) {
            *out = (enum atom_format)i;
            return true;
        }
    return false;
}

int atom_format_group(enum atom_format format) { return formats[format].group; }

/* ---- scales ------------------------------------------------------------------------------------------------------ */

float atom_tensor_scale(enum atom_format format, float max)
{
    if (format != ATOM_FORMAT_NVFP4 || max < next_to_nothing)
        return 1.0f;
    return max / (ATOM_E2M1_MAX * ATOM_E4M3_MAX);
}

uint16_t atom_scale_code(enum atom_format format, float max, float tensor_scale)
{
    if (format == ATOM_FORMAT_NVFP4)
        return atom_float_e4m3(max / ATOM_E2M1_MAX / tensor_scale);
    if (format == ATOM_FORMAT_MXFP4) /* E2M1's largest exponent is 2 */
        return atom_e8m0_below(max * 0.25f);
    uint16_t half = atom_float_f16(max / ATOM_E2M1_MAX);
    return half == 0 ? 1 : half < 0x7bff ? half : 0x7bff;
}

float atom_scale_float(enum atom_format format, uint16_t code, float tensor_scale)
{
    if (format == ATOM_FORMAT_NVFP4)
        return atom_e4m3_float((uint8_t)code) * tensor_scale;
    if (format == ATOM_FORMAT_MXFP4)
        return atom_e8m0_float((uint8_t)code);
    return atom_f16_float(code);
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static float largest(const float *x, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        max = a > max ? a : max;
    }
    return max;
}

static void round_group(enum atom_format format, float max, float tensor_scale, float *x, int n)
{
    float s = max < next_to_nothing ? 1.0f : max / ATOM_E2M1_MAX;
    if (format != ATOM_FORMAT_FP4)
        s = atom_scale_float(format, atom_scale_code(format, max, tensor_scale), tensor_scale);
    for (int i = 0; i < n; i++)
        x[i] = atom_e2m1_over(x[i], s) * s;
}

static void round_outliers(float *x, int n)
{
    float max = largest(x, n), s = max < next_to_nothing ? 1.0f : max / ATOM_E4M3_MAX;
    for (int i = 0; i < n; i++)
        x[i] = atom_e4m3_float(atom_float_e4m3(x[i] / s)) * s;
}

bool atom_round_row(const struct atom_number_form *form, const struct atom_layout *lay, float clip, float *x)
{
    int normal = lay->k - lay->outliers, group = lay->group > 0 ? lay->group : normal;
    if (!atom_all_finite(x, (size_t)lay->k))
        return false;
    float tensor_scale = atom_tensor_scale(form->format, largest(x, normal));
    for (int first = 0; first < normal; first += group) {
        int n = normal - first < group ? normal - first : group;
        round_group(form->format, clip * largest(x + first, n), tensor_scale, x + first, n);
    }
    if (form->outlier_bits != 16)
        round_outliers(x + normal, lay->outliers);
    return true;
}
