/* SPDX-License-Identifier: Apache-2.0 */
/* An item as rows of tokens. */
#ifndef ATOM_EVAL_TASK_ROWS_H
#define ATOM_EVAL_TASK_ROWS_H

#include "eval/task_items.h"

/* Tokens of context and continuation, BOS first; those from `start` on (at least 1) are the continuation's. */
struct atom_task_row {
    struct atom_ids ids;
    int start;
};

/* Fills rows [item->n]. What stands in front of the item belongs to each context; white space that ends a context
 * belongs to the continuation. `prefix` is the token in front of all (-1: there is none). After a failure the rows that
 * were made are the caller's to free, as after success. */
enum atom_status atom_task_rows_encode(const struct atom_tokenizer *tok, int prefix,
                                       const struct atom_task_source *item, struct atom_task_row *rows,
                                       struct atom_error *err);

#endif
