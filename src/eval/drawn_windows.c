/* SPDX-License-Identifier: Apache-2.0 */
/* Windows at random places of random rows. */
#include "base/error.h"
#include "base/python_random.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct rows {
    const char **at; /* [n + 1]: where lines begin, and the end */
    int n;
    bool *tried; /* [n]: was tokenized and is shorter than a window */
    int n_tried;
};

static void rows_fini(struct rows *rows)
{
    free(rows->at);
    free(rows->tried);
}

static enum atom_status rows_init(struct rows *rows, const char *text, size_t n_bytes, struct atom_error *err)
{
    const char *end = text + n_bytes;
    int n = 0;
    for (const char *at = text; at < end; n++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        at = newline ? newline + 1 : end;
    }
    rows->at = malloc(((size_t)n + 1) * sizeof *rows->at);
    rows->tried = calloc((size_t)n + 1, sizeof *rows->tried);
    if (!rows->at || !rows->tried)
        return atom_fail_nomem(err, (size_t)n * sizeof *rows->at);
    for (const char *at = text; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        rows->at[rows->n++] = at;
        at = newline ? newline + 1 : end;
    }
    rows->at[rows->n] = end;
    return ATOM_OK;
}

/* The row's ids with BOS in front, as the model's tokenizer gives them when called on it alone. */
static enum atom_status row_ids(const struct atom_tokenizer *tok, const struct rows *rows, int row,
                                struct atom_ids *out, struct atom_error *err)
{
    json_t *line = json_loadb(rows->at[row], (size_t)(rows->at[row + 1] - rows->at[row]), JSON_ALLOW_NUL, NULL);
    json_t *text = json_object_get(line, "text");
    enum atom_status st;
    if (json_is_string(text))
        st = atom_tokenizer_encode(tok, json_string_value(text), json_string_length(text), ATOM_ENCODE_POST, out, err);
    else
        st = atom_fail(err, ATOM_ERR_FORMAT, "line %d is no JSON object with a string \"text\"", row + 1);
    json_decref(line);
    return st;
}

/* Draws until a row has a window's tokens. */
static enum atom_status draw_row(const struct atom_tokenizer *tok, struct rows *rows, struct atom_python_random *random,
                                 size_t window, struct atom_ids *out, struct atom_error *err)
{
    while (rows->n_tried < rows->n) {
        int row = atom_python_randint(random, rows->n - 1);
        if (rows->tried[row])
            continue;
        enum atom_status st = row_ids(tok, rows, row, out, err);
        if (st || out->n > window)
            return st;
        if (out->n == window) {
            atom_ids_free(out);
            return atom_fail(
                err, ATOM_ERR_INVALID,
                "line %d has exactly %d tokens, a window: the published draw needs one more and fails there", row + 1,
                (int)window);
        }
        atom_ids_free(out);
        rows->tried[row] = true;
        rows->n_tried++;
    }
    return atom_fail(err, ATOM_ERR_INVALID, "none of the %d rows has more than a window, %d tokens", rows->n,
                     (int)window);
}

enum atom_status atom_draw_windows(const struct atom_tokenizer *tok, const char *text, size_t n_bytes, int n,
                                   int window, struct atom_ids *out, struct atom_error *err)
{
    struct rows rows = {0};
    struct atom_python_random random;
    size_t width = (size_t)window;
    int32_t *ids = malloc((size_t)n * width * sizeof *ids);
    enum atom_status st = ids ? ATOM_OK : atom_fail_nomem(err, (size_t)n * width * sizeof *ids);
    if (!st)
        st = rows_init(&rows, text, n_bytes, err);
    atom_python_random_seed(&random, 0);
    for (int i = 0; i < n && !st; i++) {
        struct atom_ids row = {0};
        st = draw_row(tok, &rows, &random, width, &row, err);
        if (st)
            break;
        int place = atom_python_randint(&random, (int)(row.n - width - 1));
        memcpy(ids + (size_t)i * width, row.ids + place, width * sizeof *ids);
        atom_ids_free(&row);
    }
    rows_fini(&rows);
    if (st) {
        free(ids);
        return st;
    }
    *out = (struct atom_ids){ids, (size_t)n * width};
    return ATOM_OK;
}
