/* SPDX-License-Identifier: Apache-2.0 */
#include "model/safetensors.h"

#include "base/file.h"
#include "base/half.h"
#include "model/json_read.h"
#include "model/safetensors_header.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INDEX_LIMIT = 100000000, MAX_SHARDS = 1000 };

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE  "model.safetensors.index.json"

struct shard {
    char *file;
    struct atom_map map;
};

struct atom_tensors {
    struct shard *shards;
    size_t n_shards;
    struct atom_tensor_list list; /* sorted by name once open */
};

/* ---- open -------------------------------------------------------------------------------------------------------- */

static enum atom_status add_shard(struct atom_tensors *t, const char *file, struct atom_error *err)
{
    struct shard *shards = realloc(t->shards, (t->n_shards + 1) * sizeof *shards);
    if (!shards)
        return atom_fail_nomem(err, (t->n_shards + 1) * sizeof *shards);
    t->shards = shards;
    char *copy = strdup(file);
    if (!copy)
        return atom_fail_nomem(err, strlen(file));
    shards[t->n_shards++] = (struct shard){.file = copy};
    return ATOM_OK;
}

static enum atom_status open_shard(struct atom_tensors *t, struct shard *shard, const char *dir, struct atom_error *err)
{
    char *path = atom_path_join(dir, shard->file);
    if (!path)
        return atom_fail_nomem(err, strlen(dir));
    enum atom_status status = atom_map_open(path, &shard->map, err);
    free(path);
    if (!status)
        status = atom_safetensors_parse(shard->map.data, shard->map.n_bytes, shard->file, &t->list, err);
    if (!status && !atom_map_is_whole(&shard->map))
        status = atom_fail(err, ATOM_ERR_IO, "%s was cut short while it was read", shard->file);
    return status;
}

static bool is_plain_name(const char *file)
{
    return *file && !strchr(file, '/') && strcmp(file, ".") && strcmp(file, "..");
}

static int by_file(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->file, ((const struct shard *)b)->file);
}

static bool has_shard(const struct atom_tensors *t, const char *file)
{
    for (size_t i = 0; i < t->n_shards; i++) {
        if (strcmp(t->shards[i].file, file) == 0)
            return true;
    }
    return false;
}

static enum atom_status list_shards(struct atom_tensors *t, json_t *weight_map, struct atom_error *err)
{
    const char *name, *file;
    json_t *value;
    json_object_foreach(weight_map, name, value)
    {
        file = json_string_value(value);
        if (!file || !is_plain_name(file))
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' is not given a plain file name", INDEX_FILE, name);
        if (has_shard(t, file))
            continue;
        if (t->n_shards == MAX_SHARDS)
            return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s names more than %d files", INDEX_FILE, MAX_SHARDS);
        enum atom_status status = add_shard(t, file, err);
        if (status)
            return status;
    }
    if (t->n_shards)
        qsort(t->shards, t->n_shards, sizeof *t->shards, by_file);
    return ATOM_OK;
}

static enum atom_status compare_index(const struct atom_tensors *t, json_t *weight_map, struct atom_error *err)
{
    const char *name;
    json_t *value;
    for (size_t i = 0; i < t->list.n; i++) {
        const struct atom_tensor *tensor = &t->list.at[i];
        const char *file = json_string_value(json_object_get(weight_map, tensor->name));
        if (!file)
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' is not in %s", tensor->file, tensor->name,
                             INDEX_FILE);
        if (strcmp(file, tensor->file))
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' belongs into %s by the index", tensor->file,
                             tensor->name, file);
    }
    json_object_foreach(weight_map, name, value)
    {
        if (!atom_tensors_find(t, name))
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s', which %s promises, is missing",
                             json_string_value(value), name, INDEX_FILE);
    }
    return ATOM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct atom_tensor *)a)->name, ((const struct atom_tensor *)b)->name);
}

static enum atom_status open_shards(struct atom_tensors *t, const char *dir, struct atom_error *err)
{
    struct atom_tensor_list *list = &t->list;
    for (size_t i = 0; i < t->n_shards; i++) {
        enum atom_status status = open_shard(t, &t->shards[i], dir, err);
        if (status)
            return status;
    }
    if (list->n)
        qsort(list->at, list->n, sizeof *list->at, by_name);
    for (size_t i = 1; i < list->n; i++) {
        if (strcmp(list->at[i - 1].name, list->at[i].name) == 0)
            return atom_fail(err, ATOM_ERR_FORMAT, "tensor '%s' is in %s and in %s", list->at[i].name,
                             list->at[i - 1].file, list->at[i].file);
    }
    return ATOM_OK;
}

static enum atom_status open_index(struct atom_tensors *t, const char *dir, struct atom_error *err)
{
    json_t *index = NULL;
    enum atom_status status = atom_json_load(dir, INDEX_FILE, INDEX_LIMIT, false, &index, err);
    if (status)
        return status;
    json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map) || !json_object_size(weight_map))
        status = atom_fail(err, ATOM_ERR_FORMAT, "%s: there is no weight_map", INDEX_FILE);
    if (!status)
        status = list_shards(t, weight_map, err);
    if (!status)
        status = open_shards(t, dir, err);
    if (!status)
        status = compare_index(t, weight_map, err);
    json_decref(index);
    return status;
}

/* Whether DIR/NAME is there, whatever it is. */
static enum atom_status is_there(const char *dir, const char *name, bool *there, struct atom_error *err)
{
    char *path = atom_path_join(dir, name);
    if (!path)
        return atom_fail_nomem(err, strlen(dir));
    *there = access(path, F_OK) == 0 || errno != ENOENT;
    free(path);
    return ATOM_OK;
}

static enum atom_status open_any(struct atom_tensors *t, const char *dir, struct atom_error *err)
{
    bool single = false, index = false;
    enum atom_status status = is_there(dir, SINGLE_FILE, &single, err);
    if (!status)
        status = is_there(dir, INDEX_FILE, &index, err);
    if (status)
        return status;
    if (!single && index)
        return open_index(t, dir, err);
    if (!single)
        return atom_fail(err, ATOM_ERR_IO, "%s holds neither %s nor %s", dir, SINGLE_FILE, INDEX_FILE);
    status = add_shard(t, SINGLE_FILE, err);
    return status ? status : open_shards(t, dir, err);
}

enum atom_status atom_tensors_open(const char *dir, struct atom_tensors **out, struct atom_error *err)
{
    struct atom_tensors *t = calloc(1, sizeof *t);
    if (!t)
        return atom_fail_nomem(err, sizeof *t);
    enum atom_status status = open_any(t, dir, err);
    if (status)
        atom_tensors_close(t);
    else
        *out = t;
    return status;
}

void atom_tensors_close(struct atom_tensors *t)
{
    if (!t)
        return;
    atom_tensor_list_fini(&t->list);
    for (size_t i = 0; i < t->n_shards; i++) {
        atom_map_close(&t->shards[i].map);
        free(t->shards[i].file);
    }
    free(t->shards);
    free(t);
}

enum atom_status atom_tensors_wrap(const struct atom_tensor *list, size_t n, struct atom_tensors **out,
                                   struct atom_error *err)
{
    struct atom_tensors *t = calloc(1, sizeof *t);
    if (!t || !(t->list.at = calloc(n ? n : 1, sizeof *t->list.at))) {
        free(t);
        return atom_fail_nomem(err, n * sizeof *list);
    }
    t->list.capacity = n;
    for (; t->list.n < n; t->list.n++) {
        t->list.at[t->list.n] = list[t->list.n];
        t->list.at[t->list.n].name = strdup(list[t->list.n].name);
        if (!t->list.at[t->list.n].name) {
            size_t n_bytes = strlen(list[t->list.n].name);
            atom_tensors_close(t);
            return atom_fail_nomem(err, n_bytes);
        }
    }
    qsort(t->list.at, n, sizeof *t->list.at, by_name);
    *out = t;
    return ATOM_OK;
}

/* ---- use --------------------------------------------------------------------------------------------------------- */

size_t atom_tensors_count(const struct atom_tensors *t) { return t->list.n; }

const struct atom_tensor *atom_tensors_at(const struct atom_tensors *t, size_t i)
{
    return i < t->list.n ? &t->list.at[i] : NULL;
}

const struct atom_tensor *atom_tensors_find(const struct atom_tensors *t, const char *name)
{
    struct atom_tensor key = {.name = name};
    return t->list.n ? bsearch(&key, t->list.at, t->list.n, sizeof key, by_name) : NULL;
}

/* "[3, 4]"; cut when there is no room. */
static void spell_shape(const int64_t *dims, int n_dims, char *text, size_t room)
{
    size_t n = (size_t)snprintf(text, room, "[");
    for (int i = 0; i < n_dims && n < room; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%" PRId64, i ? ", " : "", dims[i]);
    if (n < room)
        snprintf(text + n, room - n, "]");
}

static void spell_dtypes(unsigned dtypes, char *text, size_t room)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < ATOM_OTHER && n < room; i++) {
        if (dtypes & (1u << i))
            n += (size_t)snprintf(text + n, room - n, "%s%s", n ? " or " : "", atom_dtype_name((enum atom_dtype)i));
    }
}

enum atom_status atom_tensors_need(const struct atom_tensors *t, const char *name, unsigned dtypes, int64_t d0,
                                   int64_t d1, const struct atom_tensor **out, struct atom_error *err)
{
    char has[200], wants[200];
    const int64_t dims[2] = {d0, d1};
    int n_dims = d1 < 0 ? 1 : 2;
    const struct atom_tensor *tensor = atom_tensors_find(t, name);
    if (!tensor)
        return atom_fail(err, ATOM_ERR_FORMAT, "tensor '%s' is missing", name);
    if (!(dtypes & (1u << tensor->dtype))) {
        spell_dtypes(dtypes, wants, sizeof wants);
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' has dtype %s, %s is needed", tensor->file, name,
                         tensor->dtype_text, wants);
    }
    if (tensor->n_dims != n_dims || memcmp(tensor->dims, dims, (size_t)n_dims * sizeof *dims)) {
        spell_shape(tensor->dims, tensor->n_dims, has, sizeof has);
        spell_shape(dims, n_dims, wants, sizeof wants);
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' has shape %s, %s is needed", tensor->file, name, has,
                         wants);
    }
    *out = tensor;
    return ATOM_OK;
}

enum atom_status atom_tensors_check(const struct atom_tensors *t, struct atom_error *err)
{
    for (size_t i = 0; i < t->n_shards; i++) {
        if (!atom_map_is_whole(&t->shards[i].map))
            return atom_fail(err, ATOM_ERR_IO, "%s was cut short, or could not be read, since it was opened",
                             t->shards[i].file);
    }
    return ATOM_OK;
}

void atom_tensors_release(const struct atom_tensors *t)
{
    for (size_t i = 0; i < t->n_shards; i++)
        atom_map_release(&t->shards[i].map);
}

void atom_tensor_floats(const struct atom_tensor *t, size_t first, size_t n, float *out)
{
    const uint8_t *p = (const uint8_t *)t->data + first * atom_dtype_bytes(t->dtype);
    uint16_t bits;
    assert(t->dtype == ATOM_F32 || t->dtype == ATOM_F16 || t->dtype == ATOM_BF16);
    assert((first + n) * atom_dtype_bytes(t->dtype) <= t->n_bytes);
    if (t->dtype == ATOM_F32 && n)
        memcpy(out, p, n * sizeof *out);
    if (t->dtype == ATOM_F16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&bits, p + 2 * i, sizeof bits);
            out[i] = atom_f16_float(bits);
        }
    }
    if (t->dtype == ATOM_BF16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&bits, p + 2 * i, sizeof bits);
            out[i] = atom_bf16_float(bits);
        }
    }
}
