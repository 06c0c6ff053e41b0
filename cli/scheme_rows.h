/* SPDX-License-Identifier: Apache-2.0 */
/* What schemes came to, as a table or as JSON lines. */
#ifndef ATOM_CLI_SCHEME_ROWS_H
#define ATOM_CLI_SCHEME_ROWS_H

#include "options.h"

/* On one text. */
struct scheme_text {
    double ppl;
    double kl, kl_standard_error, top1; /* of the float model against this one */
    int64_t tokens;
};

struct scheme_row {
    const char *name;
    struct atom_scheme scheme;
    double bytes;              /* of all tensors */
    double bits_per_weight;    /* of the linears */
    double kv_bytes_per_token; /* keys and values of all layers */
    double quantize_seconds;   /* 0: it was there already, or nothing was to do */
    double tokens_a_second;    /* prefill, a window at a time, logits of every position included */
    struct scheme_text texts[CLI_MAX_TEXTS];
    struct atom_task_score tasks[CLI_MAX_TEXTS];
};

/* What the rows are about. */
struct scheme_table {
    const char *const *texts; /* [n_texts] file names, as tasks are */
    int n_texts;
    const struct cli_texts *tasks;
    bool json;
};

void scheme_rows_head(const struct scheme_table *t);
/* False: a file's name is no UTF-8, which no JSON can hold. */
bool scheme_rows_print(const struct scheme_table *t, const struct scheme_row *row);

#endif
