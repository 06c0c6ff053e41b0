/* SPDX-License-Identifier: Apache-2.0 */
/* An 8-byte little-endian length, a JSON object of that length, then the tensors' bytes, all of them in use. */
#include "model/safetensors_header.h"

#include "model/json_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_LIMIT = 100000000 };

static const struct {
    const char *name;
    enum atom_dtype dtype;
    unsigned bits;
} dtypes[] = {
    {"F32", ATOM_F32, 32},   {"F16", ATOM_F16, 16},      {"BF16", ATOM_BF16, 16},    {"I8", ATOM_I8, 8},
    {"U8", ATOM_U8, 8},      {"I32", ATOM_I32, 32},      {"F64", ATOM_OTHER, 64},    {"I64", ATOM_OTHER, 64},
    {"U64", ATOM_OTHER, 64}, {"U32", ATOM_OTHER, 32},    {"I16", ATOM_OTHER, 16},    {"U16", ATOM_OTHER, 16},
    {"BOOL", ATOM_OTHER, 8}, {"F8_E4M3", ATOM_OTHER, 8}, {"F8_E5M2", ATOM_OTHER, 8}, {"F8_E8M0", ATOM_OTHER, 8},
    {"F4", ATOM_OTHER, 4},   {"F6_E2M3", ATOM_OTHER, 6}, {"F6_E3M2", ATOM_OTHER, 6}, {"C64", ATOM_OTHER, 64},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* The first ones stand in the enum's order. */
size_t atom_dtype_bytes(enum atom_dtype t) { return t < ATOM_OTHER ? dtypes[t].bits / 8 : 0; }
const char *atom_dtype_name(enum atom_dtype t) { return t < ATOM_OTHER ? dtypes[t].name : "other"; }

/* What a reader of one file carries along. */
struct reader {
    const char *file;
    const uint8_t *data; /* behind the header */
    size_t n_bytes;
    struct atom_error *err;
};

#define BAD(r, ...) atom_fail((r)->err, ATOM_ERR_FORMAT, __VA_ARGS__)

static enum atom_status read_size(const struct reader *r, const char *tensor, const json_t *value, int64_t *out)
{
    char text[64];
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return BAD(r, "%s: tensor '%s' has %s where a size belongs", r->file, tensor, atom_json_spell(value, text));
    *out = json_integer_value(value);
    return ATOM_OK;
}

static enum atom_status read_shape(const struct reader *r, const json_t *shape, struct atom_tensor *t)
{
    if (!json_is_array(shape))
        return BAD(r, "%s: tensor '%s' has no shape", r->file, t->name);
    size_t n = json_array_size(shape);
    if (n > ATOM_MAX_DIMS)
        return atom_fail(r->err, ATOM_ERR_UNSUPPORTED, "%s: tensor '%s' has %zu dimensions, more than %d", r->file,
                         t->name, n, ATOM_MAX_DIMS);
    t->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        enum atom_status status = read_size(r, t->name, json_array_get(shape, i), &t->dims[i]);
        if (status)
            return status;
    }
    return ATOM_OK;
}

/* *bits stays 0 for a dtype nobody here has heard of. */
static enum atom_status read_dtype(const struct reader *r, const json_t *value, struct atom_tensor *t, unsigned *bits)
{
    const char *name = json_string_value(value);
    if (!name)
        return BAD(r, "%s: tensor '%s' has no dtype", r->file, t->name);
    t->dtype = ATOM_OTHER;
    snprintf(t->dtype_text, sizeof t->dtype_text, "%.7s", name);
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].dtype;
            *bits = dtypes[i].bits;
        }
    }
    return ATOM_OK;
}

static enum atom_status check_length(const struct reader *r, const struct atom_tensor *t, unsigned bits)
{
    size_t n_bits = bits;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0)
            n_bits = 0;
    }
    for (int i = 0; i < t->n_dims && n_bits; i++) {
        if (__builtin_mul_overflow(n_bits, (size_t)t->dims[i], &n_bits))
            return BAD(r, "%s: the shape of tensor '%s' overflows", r->file, t->name);
    }
    if (n_bits % 8 || n_bits / 8 != t->n_bytes)
        return BAD(r, "%s: tensor '%s' has %zu bytes, its shape and dtype ask for %zu", r->file, t->name, t->n_bytes,
                   n_bits / 8 + (n_bits % 8 != 0));
    return ATOM_OK;
}

static enum atom_status read_offsets(const struct reader *r, const json_t *offsets, struct atom_tensor *t)
{
    int64_t begin = 0, end = 0;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return BAD(r, "%s: tensor '%s' has no data_offsets", r->file, t->name);
    enum atom_status status = read_size(r, t->name, json_array_get(offsets, 0), &begin);
    if (!status)
        status = read_size(r, t->name, json_array_get(offsets, 1), &end);
    if (status)
        return status;
    if (begin > end)
        return BAD(r, "%s: tensor '%s' begins at byte %" PRId64 " and ends before it, at %" PRId64, r->file, t->name,
                   begin, end);
    if ((uint64_t)end > r->n_bytes)
        return BAD(r, "%s: tensor '%s' ends at byte %" PRId64 " of the data, which has %zu", r->file, t->name, end,
                   r->n_bytes);
    t->data = r->data + begin;
    t->n_bytes = (size_t)(end - begin);
    return ATOM_OK;
}

static enum atom_status read_tensor(const struct reader *r, const json_t *entry, struct atom_tensor *t)
{
    const char *key;
    json_t *value;
    unsigned bits = 0;
    if (!json_is_object(entry))
        return BAD(r, "%s: tensor '%s' is not described by an object", r->file, t->name);
    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
            return BAD(r, "%s: tensor '%s' has an unknown field '%s'", r->file, t->name, key);
    }
    enum atom_status status = read_dtype(r, json_object_get(entry, "dtype"), t, &bits);
    if (!status)
        status = read_shape(r, json_object_get(entry, "shape"), t);
    if (!status)
        status = read_offsets(r, json_object_get(entry, "data_offsets"), t);
    if (!status && bits)
        status = check_length(r, t, bits);
    return status;
}

static enum atom_status check_metadata(const struct reader *r, const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return BAD(r, "%s: __metadata__ is not an object", r->file);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return BAD(r, "%s: '%s' in __metadata__ is not a string", r->file, key);
    }
    return ATOM_OK;
}

/* A new tensor at the list's end with nothing but its name and file. */
static enum atom_status append(struct atom_tensor_list *list, const char *name, const char *file,
                               struct atom_error *err)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        struct atom_tensor *at = realloc(list->at, capacity * sizeof *at);
        if (!at)
            return atom_fail_nomem(err, capacity * sizeof *at);
        list->at = at;
        list->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy)
        return atom_fail_nomem(err, strlen(name));
    list->at[list->n++] = (struct atom_tensor){.name = copy, .file = file};
    return ATOM_OK;
}

static enum atom_status read_entries(const struct reader *r, json_t *root, struct atom_tensor_list *list)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        enum atom_status status;
        if (strcmp(key, "__metadata__") == 0) {
            status = check_metadata(r, value);
        } else {
            status = append(list, key, r->file, r->err);
            if (!status)
                status = read_tensor(r, value, &list->at[list->n - 1]);
        }
        if (status)
            return status;
    }
    return ATOM_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct atom_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static enum atom_status check_places(const struct reader *r, struct atom_tensor *tensors, size_t n)
{
    size_t end = 0;
    if (n)
        qsort(tensors, n, sizeof *tensors, by_place);
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)((const uint8_t *)tensors[i].data - r->data);
        if (begin < end)
            return BAD(r, "%s: tensor '%s' begins at byte %zu, inside tensor '%s'", r->file, tensors[i].name, begin,
                       tensors[i - 1].name);
        if (begin > end)
            return BAD(r, "%s: nothing accounts for the bytes %zu to %zu in front of tensor '%s'", r->file, end, begin,
                       tensors[i].name);
        end += tensors[i].n_bytes;
    }
    if (end != r->n_bytes)
        return BAD(r, "%s: the tensors end at byte %zu of the data, which has %zu", r->file, end, r->n_bytes);
    return ATOM_OK;
}

enum atom_status atom_safetensors_parse(const uint8_t *data, size_t n_bytes, const char *file,
                                        struct atom_tensor_list *list, struct atom_error *err)
{
    uint64_t length = 0;
    json_t *root = NULL;
    size_t first = list->n;
    if (n_bytes < 8)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", file, n_bytes);
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)data[i] << (8 * i);
    if (length > HEADER_LIMIT)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: a header of %" PRIu64 " bytes is announced, more than %d", file,
                         length, HEADER_LIMIT);
    if (length > n_bytes - 8)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: a header of %" PRIu64 " bytes is announced, the file has %zu", file,
                         length, n_bytes);
    if (!length || data[8] != '{')
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: the header does not begin with '{'", file);
    enum atom_status status = atom_json_parse(file, (const char *)data + 8, (size_t)length, &root, err);
    if (status)
        return status;
    struct reader r = {file, data + 8 + length, n_bytes - 8 - (size_t)length, err};
    status = read_entries(&r, root, list);
    json_decref(root);
    return status ? status : check_places(&r, list->at + first, list->n - first);
}

void atom_tensor_list_fini(struct atom_tensor_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free((char *)(uintptr_t)list->at[i].name);
    free(list->at);
    *list = (struct atom_tensor_list){0};
}
