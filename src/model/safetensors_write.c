/* SPDX-License-Identifier: Apache-2.0 */
#include "model/safetensors.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

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

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool is_utf8(const char *text)
{
    utf8proc_int32_t point;
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text), n = 0;
    while (left > 0 && (n = utf8proc_iterate(at, left, &point)) > 0) {
        at += n;
        left -= n;
    }
    return left == 0;
}

static enum atom_status check_names(const struct atom_tensor *tensors, int n, struct atom_error *err)
{
    size_t n_bytes = ((size_t)n + 1) * sizeof(char *);
    const char **names = malloc(n_bytes);
    if (!names)
        return atom_fail_nomem(err, n_bytes);
    names[0] = "__metadata__"; /* not a tensor's to have */
    for (int i = 0; i < n; i++)
        names[i + 1] = tensors[i].name;
    qsort(names, (size_t)n + 1, sizeof *names, by_text);
    enum atom_status status = ATOM_OK;
    for (int i = 0; i <= n && !status; i++) {
        if (!is_utf8(names[i]))
            status = atom_fail(err, ATOM_ERR_INVALID, "a tensor's name is not UTF-8");
        else if (i && strcmp(names[i - 1], names[i]) == 0)
            status = atom_fail(err, ATOM_ERR_INVALID, "two tensors to be written are called '%s'", names[i]);
    }
    free(names);
    return status;
}

/* Appends a JSON string; a byte takes at most six. */
static char *put_string(char *out, const char *text)
{
    *out++ = '"';
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20)
            out += sprintf(out, "\\u%04x", (unsigned)*text);
        else if (*text == '"' || *text == '\\')
            out += sprintf(out, "\\%c", *text);
        else
            *out++ = *text;
    }
    *out++ = '"';
    return out;
}

enum { FRAME_BYTES = 160, DIM_BYTES = 21 };

static char *put_tensor(char *out, const struct atom_tensor *t, size_t begin)
{
    out = put_string(out, t->name);
    out += sprintf(out, ":{\"dtype\":");
    out = put_string(out, t->dtype == ATOM_OTHER ? t->dtype_text : atom_dtype_name(t->dtype));
    out += sprintf(out, ",\"shape\":[");
    for (int i = 0; i < t->n_dims; i++)
        out += sprintf(out, "%s%" PRId64, i ? "," : "", t->dims[i]);
    return out + sprintf(out, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->n_bytes);
}

/* Length and JSON, filled with spaces so that the data begins at a multiple of 8; malloc'd. */
static enum atom_status make_header(const struct atom_tensor *tensors, int n, char **header, size_t *n_bytes,
                                    struct atom_error *err)
{
    static const char start[] = "{\"__metadata__\":{\"format\":\"pt\"}"; /* transformers asks for it */
    size_t room = 8 + sizeof start + 9, begin = 0;
    for (int i = 0; i < n; i++)
        room += FRAME_BYTES + ATOM_MAX_DIMS * DIM_BYTES + 6 * strlen(tensors[i].name);
    char *bytes = malloc(room);
    if (!bytes)
        return atom_fail_nomem(err, room);
    char *out = bytes + 8 + sprintf(bytes + 8, "%s", start);
    for (int i = 0; i < n; i++) {
        *out++ = ',';
        out = put_tensor(out, &tensors[i], begin);
        begin += tensors[i].n_bytes;
    }
    *out++ = '}';
    while ((out - bytes) % 8)
        *out++ = ' ';
    size_t length = (size_t)(out - bytes) - 8;
    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(length >> (8 * i));
    *header = bytes;
    *n_bytes = 8 + length;
    return ATOM_OK;
}

enum atom_status atom_safetensors_write(const char *path, const struct atom_tensor *tensors, int n,
                                        struct atom_error *err)
{
    int fd = -1;
    char *header = NULL;
    size_t n_bytes = 0;
    enum atom_status status = check_names(tensors, n, err);
    for (int i = 0; i < n && !status; i++)
        status = check_tensor(&tensors[i], err);
    if (!status)
        status = make_header(tensors, n, &header, &n_bytes, err);
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
