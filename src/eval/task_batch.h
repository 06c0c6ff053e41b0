/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of many items through the model, together.
 *
 * An item has a sequence. Its rows take turns there: each forgets what it does not share with the one before, so a
 * context with four choices is computed once; rows that are the same but for their last token are computed once
 * altogether. The next batch's items take over sequences as they are, so that examples which stand in front of item
 * after item are computed once for all. A batch is items whose longest rows fit a step together. */
#ifndef ATOM_EVAL_TASK_BATCH_H
#define ATOM_EVAL_TASK_BATCH_H

#include "eval/task_rows.h"

/* An item's rows and what the model says of them. Zeroed at first; fini frees it at any time. */
struct atom_task_work {
    struct atom_task_row *rows; /* [n] */
    double *loglikelihoods;     /* [n] */
    int *n_tokens;              /* [n] of the continuations */
    int n, longest;             /* tokens of the longest row that are fed: all but its last */
    bool greedy;                /* every token of every row so far was the likeliest */
    int next;                   /* row that is scored next */
};

/* Encodes all rows. One longer than the model's positions is ATOM_ERR_CAPACITY or, with `cut`, loses its first tokens
 * and *is_cut becomes true. After a failure fini still frees what is there. */
enum atom_status atom_task_work_init(struct atom_task_work *work, const struct atom_model *model,
                                     const struct atom_task_source *item, bool cut, bool *is_cut,
                                     struct atom_error *err);
void atom_task_work_fini(struct atom_task_work *work);

struct atom_task_batch;

/* longest: tokens of the longest row of all that will come. */
enum atom_status atom_task_batch_create(struct atom_model *model, int longest, struct atom_task_batch **out,
                                        struct atom_error *err);
void atom_task_batch_free(struct atom_task_batch *b);

/* Scores the first of n >= 1 items, as many as one batch holds: *n_done. Their rows are gone then. */
enum atom_status atom_task_batch_score(struct atom_task_batch *b, struct atom_task_work *const *items, int n,
                                       int *n_done, struct atom_error *err);

#endif
