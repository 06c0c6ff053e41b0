/* SPDX-License-Identifier: Apache-2.0 */
/* Formats without a packed kernel on the CPU: activations are rounded and read back token by token, weights once, when
 * they are loaded; the product is that of a float linear, with its promise of the same bits. */
#include "backend/cpu.h"
#include "base/half.h"

#include <string.h>

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* Through the integers that the packed kernels would get; outliers stay. */
static bool round_integers(struct atom_work *w, const struct atom_site *site, int t, float *row)
{
    const struct atom_layout *lay = &site->lay;
    int8_t *q = w->q + (size_t)t * (size_t)lay->row_bytes;
    float *scales = w->scales + (size_t)t * (size_t)lay->n_scales;
    if (!atom_kern.quantize(row, lay, site->bits, site->clip, q, scales, w->sums + (size_t)t * (size_t)lay->n_runs))
        return false;
    for (int r = 0; r < lay->first_outlier_run; r++) {
        const struct atom_run *run = &lay->runs[r];
        for (int c = 0; c < run->len; c++)
            row[run->first + c] = (float)q[run->offset + c] * scales[run->scale];
    }
    return true;
}

bool atom_cpu_round_row(struct atom_work *w, const struct atom_site *site, int t, float *row)
{
    if (site->form.format == ATOM_FORMAT_INT)
        return round_integers(w, site, t, row);
    return atom_round_row(&site->form, &site->lay, site->clip, row);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static float half_at(const void *from, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)from + 2 * i, sizeof h);
    return atom_f16_float(h);
}

/* The scale of group i of a linear's groups, counted over all row sets. */
static float scale_at(const struct atom_site *site, const struct atom_linear_part *part, size_t i)
{
    enum atom_format format = site->form.format;
    if (format == ATOM_FORMAT_INT || format == ATOM_FORMAT_FP4)
        return half_at(part->scales, i);
    return atom_scale_float(format, ((const uint8_t *)part->scales)[i], part->tensor_scale);
}

static float value_at(const struct atom_site *site, const struct atom_linear_part *part, const uint8_t *row, int column)
{
    if (part->kind == ATOM_W_BYTE)
        return (float)(int8_t)row[column];
    int nibble = row[column / 2] >> (column % 2 * 4) & 15;
    return site->form.format == ATOM_FORMAT_INT ? (float)(nibble - 8) : atom_e2m1_float((unsigned)nibble);
}

static void read_outliers(const struct atom_site *site, const struct atom_linear_part *part, size_t row, float *out)
{
    int n = site->lay.outliers;
    size_t first = row * (size_t)n;
    for (int i = 0; i < n; i++) {
        if (site->form.outlier_bits == 16)
            out[i] = half_at(part->outlier_weight, first + (size_t)i);
        else
            out[i] =
                atom_e4m3_float((uint8_t)part->outlier_qweight[first + (size_t)i]) * half_at(part->outlier_scales, row);
    }
}

void atom_cpu_read_back(const struct atom_site *site, const struct atom_linear_part *part, size_t row, float *out)
{
    const struct atom_layout *lay = &site->lay;
    int normal = lay->k - lay->outliers, group = lay->group > 0 ? lay->group : normal;
    size_t row_bytes = (size_t)(part->kind == ATOM_W_BYTE ? normal : (normal + 1) / 2);
    const uint8_t *q = part->qweight + row * row_bytes;
    size_t scale = row / (size_t)part->rows_per_scale * (size_t)lay->n_groups;
    for (int first = 0; first < normal; scale++) {
        float s = scale_at(site, part, scale);
        int end = normal - first > group ? first + group : normal;
        for (; first < end; first++)
            out[first] = value_at(site, part, q, first) * s;
    }
    if (lay->outliers)
        read_outliers(site, part, row, out + normal);
}
