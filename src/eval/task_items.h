/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines as items of a task, and an item as rows of tokens. */
#ifndef ATOM_EVAL_TASK_ITEMS_H
#define ATOM_EVAL_TASK_ITEMS_H

#include "base/error.h"

#include <jansson.h>

struct atom_task_source {
    int line, n, gold;
    const char *subtask; /* NULL: none */
    json_t *root;        /* owns the strings */
};

struct atom_task_items {
    enum atom_task_kind kind;
    int n;
    struct atom_task_source *at;
};

/* Every line is an item of the same kind, or the error names the line. */
enum atom_status atom_task_items_parse(const char *text, size_t n_bytes, struct atom_task_items *out,
                                       struct atom_error *err);
void atom_task_items_fini(struct atom_task_items *items);

/* Row i of an item, i in [0, n): the strings are the item's. */
const char *atom_task_context(const struct atom_task_source *item, int i);
const char *atom_task_continuation(const struct atom_task_source *item, int i);

/* Characters of a choice without its first space. */
int atom_task_characters(const char *choice);

/* Tokens of context and continuation, BOS first; those from `start` on (at least 1) are the continuation's. */
struct atom_task_row {
    struct atom_ids ids;
    int start;
};

/* White space that ends the context belongs to the continuation. `prefix` stands in front (-1: nothing does). */
enum atom_status atom_task_row_encode(const struct atom_tokenizer *tok, int prefix, const char *context,
                                      const char *continuation, struct atom_task_row *out, struct atom_error *err);

#endif
