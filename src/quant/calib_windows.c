/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/calib_windows.h"

#include "base/file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- ids ------------------------------------------------------------------------------------------------------- */

static enum atom_status take_line(const char *path, int line, const char *text, size_t n_bytes, int window, int vocab,
                                  int32_t *ids, struct atom_error *err)
{
    json_error_t why;
    json_t *o = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &why);
    const json_t *a = json_object_get(o, "ids");
    enum atom_status st = ATOM_OK;
    if (!o)
        st = atom_fail(err, ATOM_ERR_FORMAT, "%s: line %d is not JSON: %s", path, line, why.text);
    else if (!json_is_array(a) || json_array_size(a) < (size_t)window)
        st = atom_fail(err, ATOM_ERR_FORMAT, "%s: line %d: \"ids\" should be an array of at least %d ids, it has %zu",
                       path, line, window, json_array_size(a));
    for (int i = 0; i < window && !st; i++) {
        const json_t *id = json_array_get(a, (size_t)i);
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || v >= vocab)
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s: line %d: entry %d is no id under %d", path, line, i, vocab);
        else
            ids[i] = (int32_t)v;
    }
    json_decref(o);
    return st;
}

static enum atom_status read_ids(const struct atom_calib_file *file, struct atom_windows *out, struct atom_error *err)
{
    const char *path = file->ids;
    size_t window = (size_t)file->window, n = (size_t)file->samples * window, room = 0;
    char *line = NULL;
    FILE *f = fopen(path, "rb");
    if (!f)
        return atom_fail_errno(err, errno, "%s", path);
    int32_t *ids = malloc(n * sizeof *ids);
    enum atom_status st = ids ? ATOM_OK : atom_fail_nomem(err, n * sizeof *ids);
    for (int i = 0; i < file->samples && !st; i++) {
        ssize_t got = getline(&line, &room, f);
        if (got < 0)
            st = ferror(f) ? atom_fail_errno(err, errno, "%s", path)
                           : atom_fail(err, ATOM_ERR_INVALID, "%s holds %d windows, %d samples were asked for", path, i,
                                       file->samples);
        else
            st = take_line(path, i + 1, line, (size_t)got, file->window, file->cfg->vocab, ids + (size_t)i * window,
                           err);
    }
    free(line);
    fclose(f);
    if (st)
        free(ids);
    else
        *out = (struct atom_windows){.ids = {ids, n}, .window = file->window, .n = file->samples};
    return st;
}

/* ---- a text ------------------------------------------------------------------------------------------------------ */

static enum atom_status cut_text(const struct atom_calib_file *file, const struct atom_tokenizer *tok, const char *text,
                                 size_t n_bytes, struct atom_windows *out, struct atom_error *err)
{
    struct atom_error why = {0};
    struct atom_windows w = {0};
    enum atom_status st = atom_windows_of_text(tok, file->cfg->bos, text, n_bytes, file->window, &w, &why);
    if (st)
        return atom_fail(err, st, "%.300s: %s", file->text, why.message);
    if (w.n < file->samples && !file->or_fewer)
        st = atom_fail(err, ATOM_ERR_INVALID, "%s holds %lld windows of %d tokens, %d samples were asked for",
                       file->text, (long long)w.n, file->window, file->samples);
    for (size_t i = 0; !st && i < w.ids.n; i++)
        if (w.ids.ids[i] >= file->cfg->vocab)
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s: the tokenizer gives id %d, the model's vocabulary has %d",
                           file->model, w.ids.ids[i], file->cfg->vocab);
    if (st) {
        atom_windows_fini(&w);
        return st;
    }
    w.n = w.n < file->samples ? w.n : file->samples;
    *out = w;
    return ATOM_OK;
}

static enum atom_status read_text(const struct atom_calib_file *file, struct atom_windows *out, struct atom_error *err)
{
    struct atom_tokenizer *tok = NULL;
    char *text = NULL;
    size_t n_bytes;
    enum atom_status st = atom_file_read(file->text, (size_t)1 << 34, &text, &n_bytes, err);
    st = st ? st : atom_tokenizer_open(file->model, &tok, err);
    st = st ? st : cut_text(file, tok, text, n_bytes, out, err);
    atom_tokenizer_close(tok);
    free(text);
    return st;
}

enum atom_status atom_calib_windows(const struct atom_calib_file *file, struct atom_windows *out,
                                    struct atom_error *err)
{
    if (file->window > file->cfg->max_position)
        return atom_fail(err, ATOM_ERR_INVALID, "windows of %d tokens: the model takes %d positions at most",
                         file->window, file->cfg->max_position);
    return file->ids ? read_ids(file, out, err) : read_text(file, out, err);
}
