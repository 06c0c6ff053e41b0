/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_rows.h"

#include "eval/python_text.h"
#include "model/windows.h"

#include <stdlib.h>
#include <string.h>

struct encoder {
    const struct atom_tokenizer *tok;
    int prefix;
    struct atom_ids context; /* without the white space at its end */
};

static enum atom_status encode(const struct encoder *e, const char *text, size_t n_bytes, struct atom_ids *out,
                               struct atom_error *err)
{
    enum atom_status st = atom_tokenizer_encode(e->tok, text, n_bytes, ATOM_ENCODE_POST, out, err);
    return st ? st : atom_ids_put_bos(out, e->prefix, err);
}

/* text: context and continuation, the context in its first n_context bytes. */
static enum atom_status encode_row(const struct encoder *e, const char *text, struct atom_task_row *out,
                                   struct atom_error *err)
{
    struct atom_ids all = {0};
    enum atom_status st = encode(e, text, strlen(text), &all, err);
    if (!st && all.n <= e->context.n)
        st = atom_fail(err, ATOM_ERR_FORMAT, "the continuation adds no token to the %zu of its context", e->context.n);
    if (st)
        atom_ids_free(&all);
    else
        *out = (struct atom_task_row){all, (int)e->context.n};
    return st;
}

static enum atom_status encode_context(struct encoder *e, const char *text, size_t n_bytes, struct atom_error *err)
{
    atom_ids_free(&e->context);
    e->context = (struct atom_ids){0};
    enum atom_status st = encode(e, text, atom_python_rstrip(text, n_bytes), &e->context, err);
    if (!st && e->context.n == 0)
        st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "an empty context, and the model has no token to put in front");
    return st;
}

enum atom_status atom_task_rows_encode(const struct atom_tokenizer *tok, int prefix,
                                       const struct atom_task_source *item, struct atom_task_row *rows,
                                       struct atom_error *err)
{
    struct encoder e = {.tok = tok, .prefix = prefix};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < item->n && !st; i++) {
        const char *front = item->front ? item->front : "", *context = atom_task_context(item, i);
        const char *continuation = atom_task_continuation(item, i);
        size_t n_front = strlen(front), n_context = n_front + strlen(context);
        char *text = malloc(n_context + strlen(continuation) + 1);
        if (!text) {
            st = atom_fail_nomem(err, n_context + strlen(continuation) + 1);
            break;
        }
        strcpy(text, front);
        strcpy(text + n_front, context);
        strcpy(text + n_context, continuation);
        /* Choices share their context. */
        if (i == 0 || context != atom_task_context(item, 0))
            st = encode_context(&e, text, n_context, err);
        st = st ? st : encode_row(&e, text, &rows[i], err);
        free(text);
    }
    atom_ids_free(&e.context);
    return st;
}
