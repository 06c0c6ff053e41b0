/* SPDX-License-Identifier: Apache-2.0 */
#include "model/safetensors.h"

#include "base/file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static enum atom_status check_tensor(const struct atom_tensor *t, struct atom_error *err)
{
    size_t n_bytes = atom_dtype_bytes(t->dtype);
    bool fits = t->n_dims >= 0 && t->n_dims <= ATOM_MAX_DIMS;
    for (int i = 0; fits && i < t->n_dims; i++)
        fits = t->dims[i] >= 0 && !__builtin_mul_overflow(n_bytes, (size_t)t->dims[i], &n_bytes);
    if (!fits)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s' cannot be written: its shape is out of range", t->name);
    if (t->dtype == ATOM_OTHER ? !t->dtype_text[0] : n_bytes != t->n_bytes)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "tensor '%s' cannot be written: its shape and dtype ask for %zu bytes, "
                         "it has %zu",
                         t->name, n_bytes, t->n_bytes);
    if (!t->data && t->n_bytes)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s' cannot be written: it has no data", t->name);
    return ATOM_OK;
}

/* NULL when out of memory, or when the name is not UTF-8. */
static json_t *describe(const struct atom_tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer(t->dims[i]));
    const char *dtype = t->dtype == ATOM_OTHER ? t->dtype_text : atom_dtype_name(t->dtype);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + t->n_bytes));
}

static enum atom_status describe_all(const struct atom_tensor *tensors, int n, json_t *root, struct atom_error *err)
{
    size_t begin = 0;
    for (int i = 0; i < n; i++) {
        const char *name = tensors[i].name;
        enum atom_status status = check_tensor(&tensors[i], err);
        if (status)
            return status;
        if (json_object_get(root, name))
            return atom_fail(err, ATOM_ERR_INVALID, "two tensors to be written are called '%s'", name);
        if (json_object_set_new(root, name, describe(&tensors[i], begin)))
            return atom_fail(err, ATOM_ERR_NOMEM, "out of memory, or a tensor's name is not UTF-8");
        begin += tensors[i].n_bytes;
    }
    return ATOM_OK;
}

/* Length and JSON, filled with spaces so that the data begins at a multiple of 8; malloc'd. */
static enum atom_status make_header(const struct atom_tensor *tensors, int n, char **header, size_t *n_bytes,
                                    struct atom_error *err)
{
    char *text = NULL, *bytes = NULL;
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt"); /* transformers asks for it */
    if (!root)
        return atom_fail_nomem(err, 64);
    enum atom_status status = describe_all(tensors, n, root, err);
    if (status)
        goto done;
    text = json_dumps(root, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0, padded = (length + 7) / 8 * 8;
    bytes = text ? malloc(8 + padded) : NULL;
    if (!bytes) {
        status = atom_fail_nomem(err, 8 + padded);
        goto done;
    }
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(padded >> (8 * i));
    memset(bytes + 8, ' ', padded);
    memcpy(bytes + 8, text, length);
    *header = bytes;
    *n_bytes = 8 + padded;
done:
    free(text);
    json_decref(root);
    return status;
}

enum atom_status atom_safetensors_write(const char *path, const struct atom_tensor *tensors, int n,
                                        struct atom_error *err)
{
    int fd = -1;
    char *header = NULL;
    size_t n_bytes = 0;
    enum atom_status status = make_header(tensors, n, &header, &n_bytes, err);
    if (status)
        return status;
    status = atom_file_create(path, &fd, err);
    if (status)
        goto done;
    status = atom_write_all(fd, path, header, n_bytes, err);
    for (int i = 0; i < n && !status; i++)
        status = atom_write_all(fd, path, tensors[i].data, tensors[i].n_bytes, err);
    status = atom_file_finish(fd, path, status, err);
done:
    free(header);
    return status;
}
