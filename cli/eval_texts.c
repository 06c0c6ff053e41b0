/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_texts.h"

#include "eval_measures.h"
#include "files.h"

#include <stdio.h>
#include <stdlib.h>

static enum atom_status one_text(const struct eval_texts *t, const char *file, struct atom_error *err)
{
    struct eval_text text = {.file = file};
    enum atom_status st = cli_read_file(file, &text.text, &text.n_bytes, err);
    if (st)
        return st;
    text.started = cli_seconds();
    t->bar->started = 0;
    st = t->measure(t->run, &text, err);
    cli_progress_end(t->bar);
    free(text.text);
    if (st) {
        eval_name_file(err, file);
    } else if (!t->print(t->run, &text)) {
        snprintf(err->message, sizeof err->message, "%.900s: no JSON can name it: it is not UTF-8", file);
        st = err->code = ATOM_ERR_FORMAT;
    }
    fflush(stdout);
    return st;
}

enum atom_status eval_each_text(const struct eval_texts *t, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < t->n && !st; i++)
        st = one_text(t, t->files[i], err);
    return st;
}
