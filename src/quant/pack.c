/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void atom_pack_fini(struct atom_pack *p)
{
    for (int i = 0; i < p->n_owned; i++)
        free(p->owned[i]);
    free(p->owned);
    free(p->at);
    *p = (struct atom_pack){0};
}

/* Takes block, which is freed on failure. */
static enum atom_status own(struct atom_pack *p, void *block, size_t n_bytes, struct atom_error *err)
{
    void **owned = block ? realloc(p->owned, (size_t)(p->n_owned + 1) * sizeof *owned) : NULL;
    if (!owned) {
        free(block);
        return atom_fail_nomem(err, n_bytes);
    }
    p->owned = owned;
    owned[p->n_owned++] = block;
    return ATOM_OK;
}

/* linear.part as a name the list owns. */
static enum atom_status make_name(struct atom_pack *p, const char *linear, const char *part, const char **name,
                                  struct atom_error *err)
{
    size_t room = strlen(linear) + strlen(part) + 2;
    char *text = malloc(room);
    if (text)
        snprintf(text, room, "%s%s%s", linear, *part ? "." : "", part);
    enum atom_status st = own(p, text, room, err);
    if (!st)
        *name = text;
    return st;
}

static enum atom_status append(struct atom_pack *p, const struct atom_tensor *t, struct atom_error *err)
{
    size_t n_bytes = (size_t)(p->n + 1) * sizeof *p->at;
    struct atom_tensor *at = realloc(p->at, n_bytes);
    if (!at)
        return atom_fail_nomem(err, n_bytes);
    p->at = at;
    at[p->n++] = *t;
    return ATOM_OK;
}

/* A new tensor linear.part of shape [d0] or [d0, d1], its data copied from `data` or, if that is NULL, for the caller
 * to fill through *room. */
static enum atom_status add(struct atom_pack *p, const char *linear, const char *part, enum atom_dtype dtype,
                            const int64_t dims[2], const void *data, void **room, struct atom_error *err)
{
    struct atom_tensor t = {.dtype = dtype, .n_dims = dims[1] < 0 ? 1 : 2, .dims = {dims[0], dims[1]}, .file = ""};
    t.n_bytes = (size_t)dims[0] * (size_t)(dims[1] < 0 ? 1 : dims[1]) * atom_dtype_bytes(dtype);
    snprintf(t.dtype_text, sizeof t.dtype_text, "%s", atom_dtype_name(dtype));
    if (dims[1] < 0)
        t.dims[1] = 0;
    enum atom_status st = make_name(p, linear, part, &t.name, err);
    if (st)
        return st;
    void *copy = malloc(t.n_bytes ? t.n_bytes : 1);
    st = own(p, copy, t.n_bytes, err);
    if (st)
        return st;
    if (data && t.n_bytes)
        memcpy(copy, data, t.n_bytes);
    if (room)
        *room = copy;
    t.data = copy;
    return append(p, &t, err);
}

static unsigned nibble_of(enum atom_format format, int q)
{
    return format == ATOM_FORMAT_INT ? (unsigned)(q + 8) : atom_e2m1_of_halves(q);
}

static void pack_nibbles(const struct atom_qlinear *l, uint8_t *out)
{
    const int columns = l->k - l->outliers;
    const int8_t *q = l->q;
    for (int r = 0; r < l->n; r++, q += columns)
        for (int j = 0; j < columns; j += 2) {
            unsigned high = nibble_of(l->form.format, j + 1 < columns ? q[j + 1] : 0);
            *out++ = (uint8_t)(nibble_of(l->form.format, q[j]) | high << 4);
        }
}

static enum atom_status pack_scales(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                    struct atom_error *err)
{
    const int64_t dims[2] = {(q->n - 1) / q->rows_per_scale + 1, q->groups};
    void *bytes = NULL;
    if (q->form.format != ATOM_FORMAT_NVFP4 && q->form.format != ATOM_FORMAT_MXFP4)
        return add(p, linear, "scales", ATOM_F16, dims, q->scales, NULL, err);
    enum atom_status st = add(p, linear, "scales", ATOM_U8, dims, NULL, &bytes, err);
    for (int64_t i = 0; !st && i < dims[0] * dims[1]; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)q->scales[i];
    if (!st && q->form.format == ATOM_FORMAT_NVFP4)
        st = add(p, linear, "tensor_scale", ATOM_F32, (int64_t[2]){1, -1}, &q->tensor_scale, NULL, err);
    return st;
}

static enum atom_status pack_outliers(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                      struct atom_error *err)
{
    const int64_t dims[2] = {q->n, q->outliers};
    if (q->outlier_halves)
        return add(p, linear, "outlier_weight", ATOM_F16, dims, q->outlier_halves, NULL, err);
    enum atom_dtype dtype = q->form.format == ATOM_FORMAT_INT ? ATOM_I8 : ATOM_U8;
    enum atom_status st = add(p, linear, "outlier_qweight", dtype, dims, q->outlier_q, NULL, err);
    return st ? st : add(p, linear, "outlier_scales", ATOM_F16, (int64_t[2]){q->n, -1}, q->outlier_scales, NULL, err);
}

enum atom_status atom_pack_linear(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                  struct atom_error *err)
{
    const int main = q->k - q->outliers;
    const int64_t n = q->n;
    enum atom_status st;
    if (q->bits == 8) {
        st = add(p, linear, "qweight", ATOM_I8, (int64_t[2]){n, main}, q->q, NULL, err);
    } else {
        void *bytes = NULL;
        st = add(p, linear, "qweight", ATOM_U8, (int64_t[2]){n, (main + 1) / 2}, NULL, &bytes, err);
        if (!st)
            pack_nibbles(q, bytes);
    }
    st = st ? st : pack_scales(p, linear, q, err);
    return st || !q->outliers ? st : pack_outliers(p, linear, q, err);
}

enum atom_status atom_pack_head(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                struct atom_error *err)
{
    if (q->bits != 8 || q->groups != 1 || q->rows_per_scale != 1 || q->outliers)
        return atom_fail(err, ATOM_ERR_INVALID, "'%s': a head is 8 bits with a scale a row and no outliers", linear);
    enum atom_status st = add(p, linear, "qweight", ATOM_I8, (int64_t[2]){q->n, q->k}, q->q, NULL, err);
    if (!st)
        st = add(p, linear, "scales", ATOM_F16, (int64_t[2]){q->n, -1}, q->scales, NULL, err);
    return st;
}

enum atom_status atom_pack_order(struct atom_pack *p, const char *site, const int32_t *order, int k,
                                 struct atom_error *err)
{
    return add(p, site, "order", ATOM_I32, (int64_t[2]){k, -1}, order, NULL, err);
}

enum atom_status atom_pack_tensor(struct atom_pack *p, const struct atom_tensor *t, const char *name,
                                  struct atom_error *err)
{
    struct atom_tensor copy = *t;
    enum atom_status st = make_name(p, name ? name : t->name, "", &copy.name, err);
    return st ? st : append(p, &copy, err);
}

enum atom_status atom_pack_copy(struct atom_pack *p, const struct atom_tensor *t, struct atom_error *err)
{
    struct atom_tensor copy = *t;
    void *data = malloc(t->n_bytes ? t->n_bytes : 1);
    enum atom_status st = own(p, data, t->n_bytes, err);
    if (st)
        return st;
    if (t->n_bytes)
        memcpy(data, t->data, t->n_bytes);
    copy.data = data;
    return atom_pack_tensor(p, &copy, NULL, err);
}
