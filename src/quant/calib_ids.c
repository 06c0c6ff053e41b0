/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/calib_ids.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

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

enum atom_status atom_calib_ids_read(const char *path, int samples, int window, int vocab, struct atom_windows *out,
                                     struct atom_error *err)
{
    size_t n = (size_t)samples * (size_t)window, room = 0;
    char *line = NULL;
    FILE *f = fopen(path, "rb");
    if (!f)
        return atom_fail_errno(err, errno, "%s", path);
    int32_t *ids = malloc(n * sizeof *ids);
    enum atom_status st = ids ? ATOM_OK : atom_fail_nomem(err, n * sizeof *ids);
    for (int i = 0; i < samples && !st; i++) {
        ssize_t got = getline(&line, &room, f);
        if (got < 0)
            st = ferror(f) ? atom_fail_errno(err, errno, "%s", path)
                           : atom_fail(err, ATOM_ERR_INVALID, "%s holds %d windows, %d samples were asked for", path, i,
                                       samples);
        else
            st = take_line(path, i + 1, line, (size_t)got, window, vocab, ids + (size_t)i * (size_t)window, err);
    }
    free(line);
    fclose(f);
    if (st)
        free(ids);
    else
        *out = (struct atom_windows){.ids = {ids, n}, .window = window, .n = samples};
    return st;
}
