/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/ablate_dir.h"

#include "base/file.h"
#include "model/json_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_name[] = "ablation.json";
enum { FILE_LIMIT = 10000000 };

struct atom_ablate_dir {
    char *path;
    int fd; /* locked while the directory is open */
    bool temporary;
    json_t *root;
};

/* ---- open, close ------------------------------------------------------------------------------------------------- */

static enum atom_status make_temporary(struct atom_ablate_dir *d, struct atom_error *err)
{
    const char *tmp = getenv("TMPDIR");
    d->path = atom_path_join(tmp && *tmp ? tmp : "/tmp", "atom-ablate-XXXXXX");
    if (!d->path)
        return atom_fail_nomem(err, 64);
    if (!mkdtemp(d->path))
        return atom_fail_errno(err, errno, "cannot make the temporary directory %s", d->path);
    d->temporary = true;
    return ATOM_OK;
}

static enum atom_status make_named(struct atom_ablate_dir *d, const char *path, struct atom_error *err)
{
    if (mkdir(path, 0777) && errno != EEXIST)
        return atom_fail_errno(err, errno, "cannot make the directory %s", path);
    d->path = strdup(path);
    return d->path ? ATOM_OK : atom_fail_nomem(err, strlen(path));
}

static enum atom_status lock(struct atom_ablate_dir *d, struct atom_error *err)
{
    d->fd = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0)
        return atom_fail_errno(err, errno, "cannot open the directory %s", d->path);
    if (flock(d->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return atom_fail(err, ATOM_ERR_INVALID, "another run is at work in %s", d->path);
    return ATOM_OK;
}

static enum atom_status load(struct atom_ablate_dir *d, struct atom_error *err)
{
    enum atom_status st = atom_json_load(d->path, file_name, FILE_LIMIT, true, &d->root, err);
    if (st || d->root) {
        if (!st && !json_is_object(json_object_get(d->root, "rungs")))
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s/%s: 'rungs' is not an object", d->path, file_name);
        return st;
    }
    d->root = json_pack("{s:{}}", "rungs");
    return d->root ? ATOM_OK : atom_fail_nomem(err, 64);
}

enum atom_status atom_ablate_dir_open(const char *path, struct atom_ablate_dir **out, struct atom_error *err)
{
    struct atom_ablate_dir *d = calloc(1, sizeof *d);
    if (!d)
        return atom_fail_nomem(err, sizeof *d);
    d->fd = -1;
    enum atom_status st = path ? make_named(d, path, err) : make_temporary(d, err);
    st = st ? st : lock(d, err);
    st = st ? st : load(d, err);
    if (st)
        atom_ablate_dir_close(d);
    else
        *out = d;
    return st;
}

static void delete_at(const struct atom_ablate_dir *d, const char *name, const char *suffix)
{
    char full[96];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    char *path = atom_path_join(d->path, full);
    if (path)
        atom_dir_delete(path, NULL);
    free(path);
}

static void delete_all(struct atom_ablate_dir *d)
{
    const char *name;
    json_t *entry;
    json_object_foreach(json_object_get(d->root, "rungs"), name, entry)
    {
        delete_at(d, name, "");
        delete_at(d, name, ".partial");
    }
    atom_dir_delete(d->path, NULL);
}

void atom_ablate_dir_close(struct atom_ablate_dir *d)
{
    if (!d)
        return;
    if (d->temporary)
        delete_all(d);
    if (d->fd >= 0)
        close(d->fd);
    json_decref(d->root);
    free(d->path);
    free(d);
}

/* ---- what is remembered ------------------------------------------------------------------------------------------ */

static enum atom_status save(const struct atom_ablate_dir *d, struct atom_error *err)
{
    char *path = atom_path_join(d->path, file_name), *text = json_dumps(d->root, JSON_INDENT(1));
    enum atom_status st = path && text ? atom_file_write(path, text, strlen(text), err) : atom_fail_nomem(err, 4096);
    free(text);
    free(path);
    return st;
}

static bool is_text(const json_t *entry, const char *field, const char *want)
{
    const char *text = json_string_value(json_object_get(entry, field));
    return text && strcmp(text, want) == 0;
}

static json_t *entry_of(const struct atom_ablate_dir *d, const struct atom_ablate_key *key)
{
    return json_object_get(json_object_get(d->root, "rungs"), key->name);
}

/* A whole number: 0 when it is none. */
static int64_t whole(const json_t *o, const char *name) { return json_integer_value(json_object_get(o, name)); }
static double number(const json_t *o, const char *name) { return json_number_value(json_object_get(o, name)); }

bool atom_ablate_dir_recall(const struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                            struct atom_ablate_row *row)
{
    const json_t *entry = entry_of(d, key), *r = json_object_get(entry, "result");
    if (!is_text(entry, "made", key->made) || !is_text(entry, "scored", key->scored) || !(number(r, "ppl") >= 1))
        return false;
    row->ppl = (struct atom_ppl_result){.ppl = number(r, "ppl"),
                                        .nll = number(r, "nll"),
                                        .tokens = whole(r, "tokens"),
                                        .windows = whole(r, "windows"),
                                        .dropped = whole(r, "dropped"),
                                        .bytes = whole(r, "bytes"),
                                        .words = whole(r, "words"),
                                        .bits_per_byte = number(r, "bits_per_byte"),
                                        .byte_ppl = number(r, "byte_ppl"),
                                        .word_ppl = number(r, "word_ppl")};
    row->quantize_seconds = number(entry, "quantize_seconds");
    row->eval_seconds = number(entry, "eval_seconds");
    row->remembered = true;
    return true;
}

enum atom_status atom_ablate_dir_begin(struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                                       struct atom_ablate_place *out, struct atom_error *err)
{
    struct stat ignored;
    json_t *entry = entry_of(d, key);
    bool same = is_text(entry, "made", key->made);
    char *path = atom_path_join(d->path, key->name);
    if (!path)
        return atom_fail_nomem(err, strlen(d->path));
    bool finished = lstat(path, &ignored) == 0;
    enum atom_status st = ATOM_OK;
    if (finished && !same)
        st =
            atom_fail(err, ATOM_ERR_INVALID,
                      "%s was made from another model or calibration text, or otherwise; name another directory", path);
    if (!st && !same) {
        entry = json_pack("{s:s}", "made", key->made);
        st = json_object_set_new(json_object_get(d->root, "rungs"), key->name, entry) ? atom_fail_nomem(err, 64)
                                                                                      : save(d, err);
    }
    if (st)
        free(path);
    else
        *out = (struct atom_ablate_place){path, finished, same, number(entry, "quantize_seconds")};
    return st;
}

enum atom_status atom_ablate_dir_made(struct atom_ablate_dir *d, const struct atom_ablate_key *key, double seconds,
                                      struct atom_error *err)
{
    if (json_object_set_new(entry_of(d, key), "quantize_seconds", json_real(seconds)))
        return atom_fail_nomem(err, 64);
    return save(d, err);
}

/* JSON has no infinity; what is not finite is not asked for again. */
static json_t *finite(double x) { return x > -1e300 && x < 1e300 ? json_real(x) : json_null(); }

enum atom_status atom_ablate_dir_scored(struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                                        const struct atom_ablate_row *row, struct atom_error *err)
{
    const struct atom_ppl_result *p = &row->ppl;
    json_t *more =
        json_pack("{s:s, s:f, s:{s:o, s:f, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}}", "scored", key->scored,
                  "eval_seconds", row->eval_seconds, "result", "ppl", finite(p->ppl), "nll", p->nll, "tokens",
                  (json_int_t)p->tokens, "windows", (json_int_t)p->windows, "dropped", (json_int_t)p->dropped, "bytes",
                  (json_int_t)p->bytes, "words", (json_int_t)p->words, "bits_per_byte", finite(p->bits_per_byte),
                  "byte_ppl", finite(p->byte_ppl), "word_ppl", finite(p->word_ppl));
    bool failed = !more || json_object_update(entry_of(d, key), more);
    json_decref(more);
    return failed ? atom_fail_nomem(err, 512) : save(d, err);
}
