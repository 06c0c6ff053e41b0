/* SPDX-License-Identifier: Apache-2.0 */
#include "model/foreign_codes.h"

#include "base/half.h"
#include "model/layer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 160 };

const struct atom_tensor *atom_codes_find(const struct atom_codes *c, const struct atom_tensors *t, const char *part)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", c->name, part);
    return atom_tensors_find(t, name);
}

enum atom_status atom_codes_need(const struct atom_codes *c, const struct atom_tensors *t, const char *part,
                                 unsigned dtypes, int64_t d0, int64_t d1, const struct atom_tensor **out,
                                 struct atom_error *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", c->name, part);
    return atom_tensors_need(t, name, dtypes, d0, d1, out, err);
}

float atom_codes_scale(const struct atom_codes *c, int row, int g)
{
    float x;
    atom_tensor_floats(c->scales, (size_t)row * c->scale_row + (size_t)g * c->scale_group, 1, &x);
    return x;
}

/* As it is stored. */
static int packed_zero(const struct atom_codes *c, int row, int g)
{
    size_t bit = (size_t)row * (size_t)c->bits;
    const uint8_t *p = c->zeros + (size_t)g * c->zero_group + bit / 32 * c->zero_word + bit % 32 / 8;
    return *p >> bit % 8 & ((1 << c->bits) - 1);
}

int atom_codes_zero(const struct atom_codes *c, int row, int g)
{
    return c->zeros ? packed_zero(c, row, g) + c->zero : c->zero;
}

enum atom_status atom_codes_groups(const struct atom_codes *c, int32_t **groups, struct atom_error *err)
{
    int32_t *g = malloc((size_t)c->k * sizeof *g);
    enum atom_status st = ATOM_OK;
    if (!g)
        return atom_fail_nomem(err, (size_t)c->k * sizeof *g);
    if (c->g_idx)
        memcpy(g, c->g_idx->data, (size_t)c->k * sizeof *g);
    for (int i = 0; i < c->k && !st; i++) {
        if (!c->g_idx)
            g[i] = i / c->group;
        else if (g[i] < 0 || g[i] >= c->n_groups)
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' has no group %d, as entry %d says, but %d of them",
                           c->g_idx->file, c->g_idx->name, g[i], i, c->n_groups);
    }
    if (st)
        free(g);
    else
        *groups = g;
    return st;
}

/* Codes of a word, which a row of bytes may not fill at its end. */
static uint32_t load_word(const struct atom_codes *c, int row, int i)
{
    int per = 32 / c->bits, left = c->k - i * per;
    uint32_t word = 0;
    memcpy(&word, c->words + (size_t)row * c->row_step + (size_t)i * c->word_step, c->flip && left < 4 ? left : 4);
    return word ^ c->flip * 0x01010101u;
}

/* Whether channels [first, end) are of one group. */
static bool of_one_group(const int32_t *groups, int first, int end)
{
    for (int i = first + 1; i < end; i++)
        if (groups[i] != groups[first])
            return false;
    return true;
}

void atom_codes_read(const struct atom_codes *c, const int32_t *groups, int first, int n_rows, int16_t *zeros,
                     int16_t *out)
{
    const int per = 32 / c->bits;
    const uint32_t mask = (1u << c->bits) - 1;
    assert(n_rows <= ATOM_CODE_ROWS && first + n_rows <= c->n);
    for (int g = 0; g < c->n_groups; g++)
        for (int r = 0; r < n_rows; r++)
            zeros[g * ATOM_CODE_ROWS + r] = (int16_t)atom_codes_zero(c, first + r, g);
    for (int i = 0; i < c->k; i += per) {
        const int end = i + per < c->k ? i + per : c->k;
        const bool alike = of_one_group(groups, i, end);
        for (int r = 0; r < n_rows; r++) {
            uint32_t word = load_word(c, first + r, i / per);
            int16_t *to = out + (size_t)r * (size_t)c->k;
            int16_t zero = zeros[groups[i] * ATOM_CODE_ROWS + r];
            for (int j = i; j < end; j++, word >>= c->bits)
                to[j] = (int16_t)((int)(word & mask) - (alike ? zero : zeros[groups[j] * ATOM_CODE_ROWS + r]));
        }
    }
}

/* ---- form -------------------------------------------------------------------------------------------------------- */

static enum atom_status zero_range(const struct atom_codes *c, int *least, int *most, struct atom_error *err)
{
    const int largest = (1 << c->bits) - 1, middle = 1 << (c->bits - 1);
    *least = *most = atom_codes_zero(c, 0, 0);
    for (int g = 0; g < c->n_groups && c->zeros; g++)
        for (int row = 0; row < c->n; row++) {
            int zero = atom_codes_zero(c, row, g);
            /* Less one, a zero point of 0 becomes the largest code; some readers then take 0 and others 2^bits. */
            if (c->zero && zero - c->zero == largest)
                return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                                 "%s.qzeros: the zero point of row %d, group %d is stored as %d, which readers of this "
                                 "format take for 0 or for %d; checkpoint_format \"gptq_v2\" leaves no doubt",
                                 c->name, row, g, largest, largest + 1);
            if (c->symmetric && zero != middle)
                return atom_fail(err, ATOM_ERR_FORMAT,
                                 "%s: the zero point of row %d, group %d is %d, but the weights are said to be "
                                 "symmetric, which means %d (checkpoint_format may be wrong)",
                                 c->name, row, g, zero, middle);
            *least = zero < *least ? zero : *least;
            *most = zero > *most ? zero : *most;
        }
    return ATOM_OK;
}

static bool halves_hold(const struct atom_tensor *scales)
{
    size_t n = scales->n_bytes / atom_dtype_bytes(scales->dtype);
    bool exact = true;
    for (size_t i = 0; i < n && exact && scales->dtype != ATOM_F16; i++) {
        float x;
        atom_tensor_floats(scales, i, 1, &x);
        exact = atom_f16_float(atom_float_f16(x)) == x;
    }
    return exact;
}

enum atom_status atom_codes_form(const struct atom_codes *c, enum atom_code_form *form, const char **why,
                                 struct atom_error *err)
{
    int least, most;
    enum atom_status st = atom_tensor_finite(c->scales, err);
    st = st ? st : zero_range(c, &least, &most, err);
    if (st)
        return st;
    int low = -most, high = (1 << c->bits) - 1 - least;
    enum atom_code_form f = low >= -8 && high <= 7       ? ATOM_FORM_NIBBLE
                            : low >= -128 && high <= 127 ? ATOM_FORM_BYTE
                                                         : ATOM_FORM_FLOAT;
    const char *reason = (c->bits <= 4 ? f > ATOM_FORM_NIBBLE : f > ATOM_FORM_BYTE) ? "zero points" : NULL;
    if (!halves_hold(c->scales)) {
        f = ATOM_FORM_FLOAT;
        reason = "scales that are no halves";
    }
    *form = f;
    if (why)
        *why = reason;
    return ATOM_OK;
}
