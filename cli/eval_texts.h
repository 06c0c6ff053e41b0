/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that are measured one after the other. */
#ifndef ATOM_CLI_EVAL_TEXTS_H
#define ATOM_CLI_EVAL_TEXTS_H

#include "progress.h"

struct eval_text {
    const char *file;
    char *text; /* [n_bytes], malloc'd; may be exchanged */
    size_t n_bytes;
    double started; /* cli_seconds when it had been read */
};

struct eval_texts {
    const char *const *files;
    int n;
    struct cli_progress *bar; /* begins anew with each */
    enum atom_status (*measure)(void *run, struct eval_text *text, struct atom_error *err);
    bool (*print)(void *run, const struct eval_text *text); /* what was measured; false: no JSON can name the file */
    void *run;
};

/* Sentences about a text begin with its name. */
enum atom_status eval_each_text(const struct eval_texts *texts, struct atom_error *err);

#endif
