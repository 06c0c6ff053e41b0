/* SPDX-License-Identifier: Apache-2.0 */
/* From foreign codes to the tensors of a part. */
#include "base/half.h"
#include "base/thread.h"
#include "model/foreign_layer.h"

#include <stdlib.h>
#include <string.h>

struct translator {
    const struct atom_codes *c;
    const int32_t *order;  /* stored channel -> channel; NULL: identity */
    const int32_t *place;  /* row -> stored row; NULL: identity */
    const int32_t *groups; /* [k] of channels */
    enum atom_code_form form;
    uint8_t *q;      /* [n, row_bytes] */
    float *w;        /* [n, k], natural */
    int16_t *blocks; /* [workers][k + n_groups, ATOM_CODE_ROWS]: codes by rows, then zero points by groups */
    size_t row_bytes;
};

static void put_nibbles(const struct translator *tr, const int16_t *codes, uint8_t *to)
{
    int k = tr->c->k;
    for (int i = 0; i < k; i += 2) {
        int low = codes[tr->order ? tr->order[i] : i], high = 0;
        if (i + 1 < k)
            high = codes[tr->order ? tr->order[i + 1] : i + 1];
        to[i / 2] = (uint8_t)((low + 8) | (high + 8) << 4);
    }
}

static void put_bytes(const struct translator *tr, const int16_t *codes, uint8_t *to)
{
    for (int i = 0; i < tr->c->k; i++)
        to[i] = (uint8_t)(int8_t)codes[tr->order ? tr->order[i] : i];
}

static void put_floats(const struct translator *tr, const int16_t *codes, int row, float *to)
{
    float scale = 0;
    for (int i = 0, group = -1; i < tr->c->k; i++) {
        if (tr->groups[i] != group) {
            group = tr->groups[i];
            scale = atom_codes_scale(tr->c, row, group);
        }
        to[i] = (float)codes[i] * scale;
    }
}

static void translate_block(void *ctx, int block, int worker)
{
    const struct translator *tr = ctx;
    const struct atom_codes *c = tr->c;
    int first = block * ATOM_CODE_ROWS, n = c->n - first < ATOM_CODE_ROWS ? c->n - first : ATOM_CODE_ROWS;
    int16_t *codes = tr->blocks + (size_t)worker * ATOM_CODE_ROWS * (size_t)(c->k + c->n_groups);
    atom_codes_read(c, tr->groups, first, n, codes + (size_t)c->k * ATOM_CODE_ROWS, codes);
    for (int r = 0; r < n; r++) {
        const int16_t *row = codes + (size_t)r * (size_t)c->k;
        size_t to = (size_t)(tr->place ? tr->place[first + r] : first + r);
        if (tr->form == ATOM_FORM_FLOAT)
            put_floats(tr, row, first + r, tr->w + (size_t)(first + r) * (size_t)c->k);
        else if (tr->form == ATOM_FORM_BYTE)
            put_bytes(tr, row, tr->q + to * tr->row_bytes);
        else
            put_nibbles(tr, row, tr->q + to * tr->row_bytes);
    }
}

/* row -> stored row, malloc'd; NULL for the identity. */
static enum atom_status invert(const int32_t *row_order, int n, int32_t **place, struct atom_error *err)
{
    *place = NULL;
    if (!row_order)
        return ATOM_OK;
    *place = malloc((size_t)n * sizeof **place);
    if (!*place)
        return atom_fail_nomem(err, (size_t)n * sizeof **place);
    for (int i = 0; i < n; i++)
        (*place)[row_order[i]] = i;
    return ATOM_OK;
}

static enum atom_status translate(struct translator *tr, const int32_t *row_order, struct atom_error *err)
{
    size_t n_bytes =
        (size_t)atom_pool_size() * ATOM_CODE_ROWS * (size_t)(tr->c->k + tr->c->n_groups) * sizeof *tr->blocks;
    int32_t *groups = NULL, *place = NULL;
    enum atom_status st = atom_codes_groups(tr->c, &groups, err);
    st = st ? st : invert(row_order, tr->c->n, &place, err);
    tr->groups = groups;
    tr->place = place;
    if (!st && !(tr->blocks = malloc(n_bytes)))
        st = atom_fail_nomem(err, n_bytes);
    if (!st)
        atom_parallel((tr->c->n + ATOM_CODE_ROWS - 1) / ATOM_CODE_ROWS, translate_block, tr);
    free(tr->blocks);
    free(place);
    free(groups);
    return st;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

/* Codes that lie as docs/design.md section 4 has them. A form as narrow as the codes says that the zero point is the
 * middle. */
static bool is_ours(const struct atom_codes *c, enum atom_code_form form)
{
    size_t k = (size_t)c->k;
    if (c->word_step != 4)
        return false;
    return form == ATOM_FORM_NIBBLE ? c->bits == 4 && c->row_step == k / 2 && k % 8 == 0
                                    : c->bits == 8 && c->row_step == k && c->flip;
}

/* F16 [n, n_groups] in stored row order. */
static void put_scales(const struct atom_codes *c, const int32_t *row_order, uint8_t *to)
{
    for (int r = 0; r < c->n; r++)
        for (int g = 0; g < c->n_groups; g++, to += 2) {
            uint16_t h = atom_float_f16(atom_codes_scale(c, row_order ? row_order[r] : r, g));
            memcpy(to, &h, sizeof h);
        }
}

static enum atom_status integer_part(const struct atom_foreign_linear *lin, const int32_t *order,
                                     struct atom_linear_part *part, void **memory, struct atom_error *err)
{
    const struct atom_codes *c = &lin->codes;
    bool nibbles = lin->form == ATOM_FORM_NIBBLE, ours = !order && !part->row_order && is_ours(c, lin->form);
    size_t row_bytes = nibbles ? ((size_t)c->k + 1) / 2 : (size_t)c->k;
    size_t q_bytes = ours ? 0 : (size_t)c->n * row_bytes, scale_bytes = (size_t)c->n * (size_t)c->n_groups * 2;
    uint8_t *made = malloc(q_bytes + scale_bytes);
    if (!made)
        return atom_fail_nomem(err, q_bytes + scale_bytes);
    struct translator tr = {.c = c, .order = order, .form = lin->form, .q = made, .row_bytes = row_bytes};
    enum atom_status st = ours ? ATOM_OK : translate(&tr, part->row_order, err);
    put_scales(c, part->row_order, made + q_bytes);
    part->kind = nibbles ? ATOM_W_NIBBLE : ATOM_W_BYTE;
    part->qweight = ours ? c->words : made;
    part->scales = made + q_bytes;
    part->rows_per_scale = 1;
    *memory = made;
    return st;
}

/* Natural rows and columns: the backend applies the orders. */
static enum atom_status float_part(const struct atom_foreign_linear *lin, struct atom_linear_part *part, void **memory,
                                   struct atom_error *err)
{
    size_t n = (size_t)lin->codes.n * (size_t)lin->codes.k;
    float *w = malloc(n * sizeof *w);
    if (!w)
        return atom_fail_nomem(err, n * sizeof *w);
    struct translator tr = {.c = &lin->codes, .form = ATOM_FORM_FLOAT, .w = w};
    part->kind = ATOM_W_F32;
    part->weight = w;
    *memory = w;
    return translate(&tr, NULL, err);
}

/* P.weight: as it is where its neighbours have the same dtype, else float32. */
static enum atom_status stored_part(const struct atom_tensor *t, bool alike, struct atom_linear_part *part,
                                    void **memory, struct atom_error *err)
{
    enum atom_status st = atom_tensor_finite(t, err);
    part->kind = alike ? atom_float_kind(t->dtype) : ATOM_W_F32;
    part->weight = t->data;
    if (st || alike || t->dtype == ATOM_F32)
        return st;
    size_t n = t->n_bytes / atom_dtype_bytes(t->dtype);
    float *w = malloc(n * sizeof *w);
    if (!w)
        return atom_fail_nomem(err, n * sizeof *w);
    atom_tensor_floats(t, 0, n, w);
    part->weight = *memory = w;
    return ATOM_OK;
}

bool atom_foreign_keeps(const struct atom_foreign_layer *l, int proj)
{
    bool alike = true;
    for (int p = 0; p < ATOM_N_PROJ; p++)
        if (atom_projs[p].linear == atom_projs[proj].linear)
            alike = alike && l->linears[p].weight && l->linears[p].weight->dtype == l->linears[proj].weight->dtype;
    return alike;
}

enum atom_status atom_foreign_part(const struct atom_foreign_layer *l, int proj, struct atom_linear_part *part,
                                   void **memory, struct atom_error *err)
{
    const struct atom_foreign_linear *lin = &l->linears[proj];
    *memory = NULL;
    if (lin->weight)
        return stored_part(lin->weight, atom_foreign_keeps(l, proj), part, memory, err);
    if (lin->form == ATOM_FORM_FLOAT)
        return float_part(lin, part, memory, err);
    return integer_part(lin, l->orders[atom_projs[proj].site], part, memory, err);
}
