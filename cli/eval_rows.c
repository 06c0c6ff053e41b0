/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_rows.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct joined {
    char *text;
    size_t n_bytes;
};

typedef bool add_row_fn(struct joined *out, const char *line, size_t n_bytes); /* false: the line is no row */

static void add(struct joined *out, const char *text, size_t n_bytes)
{
    memcpy(out->text + out->n_bytes, text, n_bytes);
    out->n_bytes += n_bytes;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static size_t trim(const char **line, size_t n_bytes)
{
    while (n_bytes && is_space((*line)[n_bytes - 1]))
        n_bytes--;
    for (; n_bytes && is_space(**line); n_bytes--)
        ++*line;
    return n_bytes;
}

static bool add_line(struct joined *out, const char *line, size_t n_bytes)
{
    const char *inner = line;
    if (trim(&inner, n_bytes))
        add(out, line, n_bytes);
    return true;
}

static bool add_trimmed(struct joined *out, const char *line, size_t n_bytes)
{
    n_bytes = trim(&line, n_bytes);
    add(out, line, n_bytes);
    return true;
}

static bool add_json_text(struct joined *out, const char *line, size_t n_bytes)
{
    json_t *row = json_loadb(line, n_bytes, JSON_ALLOW_NUL, NULL), *text = json_object_get(row, "text");
    bool found = json_is_string(text);
    if (found)
        add(out, json_string_value(text), json_string_length(text));
    json_decref(row);
    return found;
}

static const struct {
    add_row_fn *add_row;
    const char *between;
    int max_rows, max_windows; /* 0: all */
} datasets[] = {
    {add_line, "\n\n", 0, 0}, {add_trimmed, "\n\n", 0, 0},     {add_trimmed, " ", 0, 0},
    {NULL, NULL, 0, 256},     {add_json_text, " ", 1100, 256},
};

bool eval_dataset_is_drawn(int dataset) { return !datasets[dataset].add_row; }

int eval_dataset_windows(int dataset) { return datasets[dataset].max_windows; }

enum atom_status eval_join_rows(int dataset, char **text, size_t *n_bytes, struct atom_error *err)
{
    const char *at = *text, *end = at + *n_bytes, *between = datasets[dataset].between;
    /* No row is longer than its line, and no separator than two bytes. */
    struct joined out = {.text = malloc(3 * *n_bytes + 3)};
    if (!out.text) {
        err->code = ATOM_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "no memory for %zu bytes of rows", 3 * *n_bytes + 3);
        return err->code;
    }
    for (int row = 0; at < end && (!datasets[dataset].max_rows || row < datasets[dataset].max_rows); row++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *next = newline ? newline + 1 : end;
        if (row)
            add(&out, between, strlen(between));
        if (!datasets[dataset].add_row(&out, at, (size_t)(next - at))) {
            free(out.text);
            err->code = ATOM_ERR_FORMAT;
            snprintf(err->message, sizeof err->message, "line %d is no JSON object with a string \"text\"", row + 1);
            return err->code;
        }
        at = next;
    }
    out.text[out.n_bytes] = 0;
    free(*text);
    *text = out.text;
    *n_bytes = out.n_bytes;
    return ATOM_OK;
}
