/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/partial_state.h"

#include "base/file.h"
#include "model/json_read.h"
#include "quant/checksums.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_LIMIT = 100000000 };

json_t *atom_state_new(const char *model_hash, const char *calib_hash, const char *options, int layers)
{
    return json_pack("{s:i, s:s, s:s, s:s, s:i, s:[]}", "version", 1, "model", model_hash, "calibration", calib_hash,
                     "options", options, "layers", layers, "done");
}

static bool is_shard(const json_t *shard)
{
    const json_t *names = json_object_get(shard, "tensors"), *report = json_object_get(shard, "report"), *item;
    size_t i;
    if (!json_is_string(json_object_get(shard, "file")) || !json_is_integer(json_object_get(shard, "bytes")) ||
        !json_is_integer(json_object_get(shard, "tensor_bytes")) || !json_is_array(names) || !json_is_array(report))
        return false;
    if (strchr(json_string_value(json_object_get(shard, "file")), '/'))
        return false;
    json_array_foreach(names, i, item) if (!json_is_string(item)) return false;
    return true;
}

static bool is_state(const json_t *state)
{
    const json_t *done = json_object_get(state, "done"), *shard;
    size_t i;
    if (json_integer_value(json_object_get(state, "version")) != 1 || !json_is_array(done) ||
        !json_is_string(json_object_get(state, "model")) || !json_is_string(json_object_get(state, "calibration")) ||
        !json_is_string(json_object_get(state, "options")) || !json_is_integer(json_object_get(state, "layers")) ||
        (json_int_t)json_array_size(done) > json_integer_value(json_object_get(state, "layers")))
        return false;
    json_array_foreach(done, i, shard) if (!is_shard(shard)) return false;
    return true;
}

enum atom_status atom_state_load(const char *dir, json_t **out, struct atom_error *err)
{
    json_t *state = NULL;
    enum atom_status st = atom_json_load(dir, ATOM_STATE_FILE, STATE_LIMIT, true, &state, err);
    if (st)
        return st;
    if (state && !is_state(state)) {
        json_decref(state);
        return atom_fail(err, ATOM_ERR_FORMAT, "%s/%s is not the state of an unfinished run; delete %s to start anew",
                         dir, ATOM_STATE_FILE, dir);
    }
    *out = state;
    return ATOM_OK;
}

static enum atom_status write_json(const char *dir, const char *name, const json_t *root, struct atom_error *err)
{
    char *path = atom_path_join(dir, name), *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    enum atom_status st = path && text ? atom_file_write(path, text, strlen(text), err) : atom_fail_nomem(err, 4096);
    free(text);
    free(path);
    return st;
}

enum atom_status atom_state_save(const char *dir, const json_t *state, struct atom_error *err)
{
    return write_json(dir, ATOM_STATE_FILE, state, err);
}

void atom_state_differences(const json_t *then, const json_t *now, char text[1200])
{
    const bool model = json_equal(json_object_get(then, "model"), json_object_get(now, "model")) &&
                       json_equal(json_object_get(then, "layers"), json_object_get(now, "layers"));
    const bool calib = json_equal(json_object_get(then, "calibration"), json_object_get(now, "calibration"));
    const char *had = json_string_value(json_object_get(then, "options"));
    const char *has = json_string_value(json_object_get(now, "options"));
    const bool options = had && has && !strcmp(had, has);
    int n = snprintf(text, 1200, "%s%s%s", model ? "" : ", another model", calib ? "" : ", another calibration text",
                     options ? "" : ", other options");
    if (!options)
        snprintf(text + n, 1200 - (size_t)n, " (\"%.500s\", now \"%.500s\")", had ? had : "", has ? has : "");
    memmove(text, text + (n ? 2 : 0), strlen(text + (n ? 2 : 0)) + 1);
}

enum atom_status atom_state_compare(const char *dir, const json_t *then, const json_t *now, struct atom_error *err)
{
    char text[1200];
    atom_state_differences(then, now, text);
    return *text ? atom_fail(err, ATOM_ERR_INVALID, "%s cannot be resumed: it was begun with %s", dir, text) : ATOM_OK;
}

enum atom_status atom_state_drop_damaged(const char *dir, json_t *state, struct atom_error *err)
{
    json_t *done = json_object_get(state, "done");
    for (size_t i = 0; i < json_array_size(done); i++) {
        char why[200];
        enum atom_status st = atom_checksum_check(dir, json_array_get(done, i), why, err);
        if (st)
            return st;
        while (*why && json_array_size(done) > i)
            json_array_remove(done, json_array_size(done) - 1);
    }
    return ATOM_OK;
}

/* JSON has no infinity. */
static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

enum atom_status atom_state_shard(const char *dir, const char *file, const struct atom_tensor *tensors, int n,
                                  const struct atom_report_line *report, int n_report, json_t **out,
                                  struct atom_error *err)
{
    json_int_t tensor_bytes = 0;
    json_t *names = json_array(), *lines = json_array(), *shard = NULL;
    enum atom_status st = atom_checksum_of(dir, file, &shard, err);
    int failed = !names || !lines;
    for (int i = 0; i < n && !failed; i++) {
        failed = json_array_append_new(names, json_string(tensors[i].name));
        tensor_bytes += (json_int_t)tensors[i].n_bytes;
    }
    for (int i = 0; i < n_report && !failed; i++)
        failed = json_array_append_new(lines, json_pack("{s:s, s:o, s:o, s:o}", "name", report[i].name, "error",
                                                        number(report[i].error), "bits", number(report[i].bits),
                                                        "seconds", number(report[i].seconds)));
    failed |= json_object_set_new(shard, "tensor_bytes", json_integer(tensor_bytes));
    failed |= json_object_set(shard, "tensors", names) | json_object_set(shard, "report", lines);
    json_decref(names);
    json_decref(lines);
    if (!st && failed)
        st = atom_fail(err, ATOM_ERR_NOMEM, "out of memory, or a name is not UTF-8, in %s/%s", dir, file);
    if (st)
        json_decref(shard);
    else
        *out = shard;
    return st;
}

enum atom_status atom_state_write_index(const char *dir, const json_t *shards, struct atom_error *err)
{
    json_int_t total = 0;
    json_t *map = json_object();
    const json_t *shard, *name;
    size_t i, j;
    int failed = !map;
    json_array_foreach(shards, i, shard)
    {
        json_t *file = json_object_get(shard, "file");
        total += json_integer_value(json_object_get(shard, "tensor_bytes"));
        json_array_foreach(json_object_get(shard, "tensors"), j, name) failed |=
            json_object_set(map, json_string_value(name), file);
    }
    json_t *root = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map);
    enum atom_status st =
        failed ? atom_fail_nomem(err, 4096) : write_json(dir, "model.safetensors.index.json", root, err);
    json_decref(root);
    return st;
}

/* Of what decides what the checkpoint computes. */
static enum atom_status list_checksums(const char *dir, const json_t *shards, json_t *files, struct atom_error *err)
{
    static const char *const others[] = {"model.safetensors.index.json", "config.json", "tokenizer.json"};
    const json_t *shard;
    size_t i;
    int failed = 0;
    json_array_foreach(shards, i, shard)
    {
        json_t *file = json_object_get(shard, "file"), *bytes = json_object_get(shard, "bytes");
        json_t *hash = json_object_get(shard, "hash");
        failed |=
            json_array_append_new(files, json_pack("{s:O, s:O, s:O*}", "file", file, "bytes", bytes, "hash", hash));
    }
    enum atom_status st = failed ? atom_fail_nomem(err, 4096) : ATOM_OK;
    for (i = 0; i < sizeof others / sizeof *others && !st; i++) {
        json_t *entry = NULL;
        st = atom_checksum_of(dir, others[i], &entry, err);
        if (!st && entry && json_array_append_new(files, entry))
            st = atom_fail_nomem(err, 256);
    }
    return st;
}

enum atom_status atom_state_write_report(const char *dir, const json_t *state, const json_t *shards,
                                         struct atom_error *err)
{
    static const char *const inputs[] = {"model", "calibration", "options", "layers"};
    json_t *lines = json_array(), *made = json_object(), *files = json_array();
    const json_t *shard;
    size_t i;
    int failed = !lines || !made || !files;
    json_array_foreach(shards, i, shard) failed |= json_array_extend(lines, json_object_get(shard, "report"));
    for (i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        failed |= json_object_set(made, inputs[i], json_object_get(state, inputs[i]));
    enum atom_status st = failed ? atom_fail_nomem(err, 4096) : list_checksums(dir, shards, files, err);
    json_t *root = json_pack("{s:o, s:o, s:o}", "inputs", made, "files", files, "linears", lines);
    st = st ? st : write_json(dir, ATOM_REPORT_FILE, root, err);
    json_decref(root);
    return st;
}
