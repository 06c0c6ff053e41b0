/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/partial.h"

#include "base/file.h"
#include "model/config.h"
#include "model/json_read.h"
#include "quant/checksums.h"
#include "quant/fingerprint.h"
#include "quant/partial_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct atom_partial {
    char *model, *out, *dir;
    char *config; /* config.json's text, or NULL */
    int layers;
    bool overwrite;
    int lock; /* the directory, held by flock */
    json_t *state;
};

/* ---- what is there -------------------------------------------------------------------------------------------------
 */

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static bool is_temporary(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && !strcmp(name + n - 4, ".tmp");
}

/* A directory as two questions need it. */
struct listing {
    int n; /* entries that are not temporary */
    bool config, state, directories;
};

static enum atom_status list_directory(const char *dir, struct listing *out, struct atom_error *err)
{
    DIR *stream = opendir(dir);
    const struct dirent *entry;
    struct stat st;
    *out = (struct listing){0};
    if (!stream)
        return atom_fail_errno(err, errno, "cannot open the directory %s", dir);
    while ((entry = readdir(stream))) {
        if (is_dot(entry->d_name))
            continue;
        out->n += !is_temporary(entry->d_name);
        out->config |= !strcmp(entry->d_name, "config.json");
        out->state |= !strcmp(entry->d_name, ATOM_STATE_FILE);
        out->directories |= !fstatat(dirfd(stream), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode);
    }
    closedir(stream);
    return ATOM_OK;
}

/* Nothing else is deleted when OUT is exchanged than a directory that looks like a model and is not the one read. */
static enum atom_status check_out(const struct atom_partial *p, struct atom_error *err)
{
    struct stat out, model;
    struct listing list;
    if (lstat(p->out, &out))
        return errno == ENOENT ? ATOM_OK : atom_fail_errno(err, errno, "cannot look at %s", p->out);
    if (!p->overwrite)
        return atom_fail(err, ATOM_ERR_INVALID, "%s is there already; it is exchanged only when told to overwrite",
                         p->out);
    if (!S_ISDIR(out.st_mode))
        return atom_fail(err, ATOM_ERR_INVALID, "%s is not a directory and is not overwritten", p->out);
    if (!stat(p->model, &model) && model.st_dev == out.st_dev && model.st_ino == out.st_ino)
        return atom_fail(err, ATOM_ERR_INVALID, "%s is the model itself and is not overwritten", p->out);
    enum atom_status st = list_directory(p->out, &list, err);
    if (!st && (list.directories || (list.n && !list.config)))
        st = atom_fail(err, ATOM_ERR_INVALID, "%s is not a model's directory of plain files and is not overwritten",
                       p->out);
    return st;
}

/* ---- inputs and state ----------------------------------------------------------------------------------------------
 */

static enum atom_status init_paths(struct atom_partial *p, const struct atom_partial_run *run, struct atom_error *err)
{
    size_t n = strlen(run->out);
    while (n > 1 && run->out[n - 1] == '/')
        n--;
    if (n == 0)
        return atom_fail(err, ATOM_ERR_INVALID, "the directory to make has no name");
    p->layers = run->layers;
    p->overwrite = run->overwrite;
    p->model = strdup(run->model);
    p->out = strndup(run->out, n);
    p->dir = malloc(n + sizeof ".partial");
    p->config = run->config ? strdup(run->config) : NULL;
    if (!p->model || !p->out || !p->dir || (run->config && !p->config))
        return atom_fail_nomem(err, n);
    snprintf(p->dir, n + sizeof ".partial", "%s.partial", p->out);
    return ATOM_OK;
}

static void fini_paths(struct atom_partial *p)
{
    free(p->model);
    free(p->out);
    free(p->dir);
    free(p->config);
}

static enum atom_status make_and_lock(struct atom_partial *p, struct atom_error *err)
{
    if (mkdir(p->dir, 0777) && errno != EEXIST)
        return atom_fail_errno(err, errno, "cannot make the directory %s", p->dir);
    p->lock = open(p->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (p->lock < 0)
        return atom_fail_errno(err, errno, "cannot open the directory %s", p->dir);
    if (flock(p->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return atom_fail(err, ATOM_ERR_INVALID, "another process is at work on %s", p->dir);
    return ATOM_OK;
}

/* A state without finished layers for the inputs as they are now. */
static enum atom_status hash_inputs(const struct atom_partial_run *run, json_t **out, struct atom_error *err)
{
    uint64_t model, calib = 0;
    char model_text[24], calib_text[24];
    enum atom_status st = atom_fingerprint_model(run->model, &model, err);
    if (!st && run->calib)
        st = atom_fingerprint_file(run->calib, &calib, err);
    if (st)
        return st;
    snprintf(model_text, sizeof model_text, "%016" PRIx64, model);
    snprintf(calib_text, sizeof calib_text, "%016" PRIx64, calib);
    *out = atom_state_new(model_text, calib_text, run->options, run->layers);
    return *out ? ATOM_OK : atom_fail_nomem(err, 1024);
}

static bool is_done(const json_t *state, const char *file)
{
    const json_t *shard;
    size_t i;
    json_array_foreach(json_object_get(state, "done"), i,
                       shard) if (!strcmp(json_string_value(json_object_get(shard, "file")), file)) return true;
    return false;
}

/* Deletes all but the state and the shards it counts as finished. */
static enum atom_status sweep(const struct atom_partial *p, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    const struct dirent *entry;
    DIR *stream = opendir(p->dir);
    if (!stream)
        return atom_fail_errno(err, errno, "cannot open the directory %s", p->dir);
    while (!st && (entry = readdir(stream))) {
        const char *name = entry->d_name;
        if (is_dot(name) || !strcmp(name, ATOM_STATE_FILE) || is_done(p->state, name))
            continue;
        if (unlinkat(dirfd(stream), name, 0) && errno != ENOENT)
            st = atom_fail_errno(err, errno, "cannot delete %s/%s", p->dir, name);
    }
    closedir(stream);
    return st;
}

/* Takes over the unfinished run's state, if there is one. */
static enum atom_status go_on(struct atom_partial *p, struct atom_error *err)
{
    json_t *then = NULL;
    enum atom_status st = atom_state_load(p->dir, &then, err);
    if (st || !then)
        return st;
    st = atom_state_compare(p->dir, then, p->state, err);
    st = st ? st : atom_state_drop_damaged(p->dir, then, err);
    if (st) {
        json_decref(then);
        return st;
    }
    json_decref(p->state);
    p->state = then;
    return ATOM_OK;
}

/* OUT.partial is empty, or an unfinished run's. */
static enum atom_status check_partial(const struct atom_partial *p, struct atom_error *err)
{
    struct listing list;
    enum atom_status st = list_directory(p->dir, &list, err);
    if (!st && (list.directories || (list.n && !list.state)))
        st = atom_fail(err, ATOM_ERR_INVALID,
                       "%s is there and is not an unfinished run (perhaps what %s held "
                       "before it was exchanged); it must be moved away first",
                       p->dir, p->out);
    return st;
}

static enum atom_status prepare(struct atom_partial *p, const struct atom_partial_run *run, struct atom_error *err)
{
    enum atom_status st = check_partial(p, err);
    if (!st)
        st = hash_inputs(run, &p->state, err);
    if (!st && run->resume)
        st = go_on(p, err);
    /* The state first: a crash in the sweep then never leaves it counting files that are gone. */
    if (!st)
        st = atom_state_save(p->dir, p->state, err);
    if (!st)
        st = sweep(p, err);
    if (!st && atom_partial_next(p) > 0)
        st = atom_state_write_index(p->dir, json_object_get(p->state, "done"), err);
    return st ? st : atom_parent_sync(p->dir, err);
}

/* ---- before a run --------------------------------------------------------------------------------------------------
 */

static enum atom_status look_at_out(const struct atom_partial_run *run, const json_t *now,
                                    struct atom_quantize_found *out, struct atom_error *err)
{
    json_t *report = NULL;
    char text[1200] = "";
    enum atom_status st = atom_json_load(run->out, ATOM_REPORT_FILE, ATOM_REPORT_LIMIT, true, &report, err);
    const json_t *then = json_object_get(report, "inputs");
    if (!st && !json_is_object(then))
        st = atom_fail(err, ATOM_ERR_INVALID, "%s does not say what it was made of; it must be moved away first",
                       run->out);
    if (!st)
        atom_state_differences(then, now, text);
    if (*text)
        st = atom_fail(err, ATOM_ERR_INVALID, "%s is there already and was made with %s", run->out, text);
    json_decref(report);
    st = st ? st : atom_checksums_check(run->out, out->damage, err);
    if (!st)
        out->out = *out->damage ? ATOM_OUT_DAMAGED : ATOM_OUT_WHOLE;
    return st;
}

static enum atom_status look_at_partial(const char *dir, const json_t *now, struct atom_error *err)
{
    json_t *then = NULL;
    enum atom_status st = atom_state_load(dir, &then, err);
    if (!st && then)
        st = atom_state_compare(dir, then, now, err);
    json_decref(then);
    return st;
}

enum atom_status atom_partial_look(const struct atom_partial_run *run, struct atom_quantize_found *out,
                                   struct atom_error *err)
{
    struct atom_partial names = {.lock = -1};
    struct atom_quantize_found found = {ATOM_OUT_ABSENT, ""};
    json_t *now = NULL;
    enum atom_status st = init_paths(&names, run, err);
    struct stat ignored;
    bool there = !st && !lstat(names.out, &ignored), begun = !st && !there && !lstat(names.dir, &ignored);
    if (!st && begun)
        st = check_partial(&names, err);
    if (!st && (there || (begun && run->resume)))
        st = hash_inputs(run, &now, err);
    if (!st && there)
        st = look_at_out(run, now, &found, err);
    if (!st && begun && run->resume)
        st = look_at_partial(names.dir, now, err);
    json_decref(now);
    fini_paths(&names);
    if (!st)
        *out = found;
    return st;
}

/* ---- open and close ------------------------------------------------------------------------------------------------
 */

enum atom_status atom_partial_open(const struct atom_partial_run *run, struct atom_partial **out,
                                   struct atom_error *err)
{
    struct atom_partial *p = calloc(1, sizeof *p);
    if (!p)
        return atom_fail_nomem(err, sizeof *p);
    p->lock = -1;
    enum atom_status st = init_paths(p, run, err);
    if (!st)
        st = check_out(p, err);
    if (!st)
        st = make_and_lock(p, err);
    if (!st)
        st = prepare(p, run, err);
    if (st) {
        atom_partial_close(p);
        return st;
    }
    *out = p;
    return ATOM_OK;
}

void atom_partial_close(struct atom_partial *p)
{
    if (!p)
        return;
    if (p->lock >= 0)
        close(p->lock);
    json_decref(p->state);
    fini_paths(p);
    free(p);
}

int atom_partial_next(const struct atom_partial *p) { return (int)json_array_size(json_object_get(p->state, "done")); }

const char *atom_partial_dir(const struct atom_partial *p) { return p->dir; }

/* ---- layers --------------------------------------------------------------------------------------------------------
 */

struct shard {
    char file[64];
    char *path;
    json_t *entry;
};

/* Writes shard number i, counted from 0, and makes its entry; on failure no file is left. */
static enum atom_status write_shard(const struct atom_partial *p, int i, const struct atom_tensor *tensors, int n,
                                    const struct atom_report_line *report, int n_report, struct shard *out,
                                    struct atom_error *err)
{
    struct shard s = {0};
    snprintf(s.file, sizeof s.file, "model-%05d-of-%05d.safetensors", i + 1, p->layers + 1);
    char *temporary = NULL;
    s.path = atom_path_join(p->dir, s.file);
    if (!s.path || asprintf(&temporary, "%s.tmp", s.path) < 0) {
        free(s.path);
        return atom_fail_nomem(err, sizeof s.file);
    }
    enum atom_status st = atom_safetensors_write(temporary, tensors, n, err);
    if (!st && rename(temporary, s.path))
        st = atom_fail_errno(err, errno, "cannot rename %s to %s", temporary, s.path);
    if (!st)
        st = atom_dir_sync(p->dir, err);
    if (!st)
        st = atom_state_shard(p->dir, s.file, tensors, n, report, n_report, &s.entry, err);
    if (st) {
        unlink(temporary);
        unlink(s.path);
        free(s.path);
        s.path = NULL;
    }
    free(temporary);
    *out = s;
    return st;
}

enum atom_status atom_partial_put_layer(struct atom_partial *p, int layer, const struct atom_tensor *tensors, int n,
                                        const struct atom_report_line *report, int n_report, struct atom_error *err)
{
    struct shard s;
    if (layer != atom_partial_next(p) || layer >= p->layers)
        return atom_fail(err, ATOM_ERR_INVALID, "layer %d is not the next of %s, which is %d of %d", layer, p->dir,
                         atom_partial_next(p), p->layers);
    enum atom_status st = write_shard(p, layer, tensors, n, report, n_report, &s, err);
    if (st)
        return st;
    json_t *done = json_object_get(p->state, "done");
    if (json_array_append_new(done, s.entry))
        st = atom_fail_nomem(err, 64);
    else if ((st = atom_state_save(p->dir, p->state, err)))
        json_array_remove(done, json_array_size(done) - 1);
    /* A state that could not be synced may be in place all the same: then the missing file makes resume drop it. */
    if (st)
        unlink(s.path);
    free(s.path);
    return st;
}

/* ---- the end -------------------------------------------------------------------------------------------------------
 */

static enum atom_status write_config(const struct atom_partial *p, const struct atom_scheme *scheme,
                                     struct atom_error *err)
{
    char *text = NULL, *path = atom_path_join(p->dir, "config.json");
    if (!path)
        return atom_fail_nomem(err, strlen(p->dir));
    enum atom_status st = p->config ? ATOM_OK : atom_config_quantized_text(p->model, scheme, &text, err);
    const char *config = p->config ? p->config : text;
    if (!st)
        st = atom_file_write(path, config, strlen(config), err);
    free(text);
    free(path);
    return st;
}

static enum atom_status copy_if_there(const struct atom_partial *p, const char *name, struct atom_error *err)
{
    char *from = atom_path_join(p->model, name), *to = atom_path_join(p->dir, name);
    enum atom_status st = ATOM_OK;
    if (!from || !to)
        st = atom_fail_nomem(err, strlen(name));
    else if (!access(from, F_OK))
        st = atom_file_copy(from, to, err);
    free(from);
    free(to);
    return st;
}

static enum atom_status complete(struct atom_partial *p, const struct atom_scheme *scheme, const json_t *shards,
                                 struct atom_error *err)
{
    static const char *const copied[] = {"tokenizer.json",  "tokenizer_config.json",  "special_tokens_map.json",
                                         "tokenizer.model", "generation_config.json", "chat_template.jinja"};
    enum atom_status st = atom_state_write_index(p->dir, shards, err);
    for (size_t i = 0; i < sizeof copied / sizeof *copied && !st; i++)
        st = copy_if_there(p, copied[i], err);
    if (!st)
        st = write_config(p, scheme, err);
    if (!st && !p->config)
        st = atom_state_write_report(p->dir, p->state, shards, err);
    return st ? st : atom_dir_sync(p->dir, err);
}

/* The state leaves last, so that a crash before finds OUT.partial whole and one after only a file nobody reads. */
static void delete_state(const struct atom_partial *p)
{
    char *path = atom_path_join(p->out, ATOM_STATE_FILE);
    if (path)
        unlink(path);
    free(path);
}

enum atom_status atom_partial_finish(struct atom_partial *p, const struct atom_scheme *scheme,
                                     const struct atom_tensor *rest, int n, const struct atom_report_line *report,
                                     int n_report, struct atom_error *err)
{
    struct shard s;
    if (atom_partial_next(p) != p->layers)
        return atom_fail(err, ATOM_ERR_INVALID, "%s has %d of %d layers", p->dir, atom_partial_next(p), p->layers);
    enum atom_status st = write_shard(p, p->layers, rest, n, report, n_report, &s, err);
    if (st)
        return st;
    json_t *shards = json_copy(json_object_get(p->state, "done"));
    if (json_array_append_new(shards, s.entry)) /* releases the entry also when shards is NULL */
        st = atom_fail_nomem(err, 64);
    if (!st)
        st = complete(p, scheme, shards, err);
    if (!st)
        st = check_out(p, err);
    if (!st) {
        st = atom_dir_replace(p->dir, p->out, err);
        delete_state(p); /* also when only a sync failed after the move */
    }
    json_decref(shards);
    free(s.path);
    return st;
}
