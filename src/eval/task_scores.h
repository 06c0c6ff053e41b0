/* SPDX-License-Identifier: Apache-2.0 */
/* From log-likelihoods to shares, perplexity and their standard errors. */
#ifndef ATOM_EVAL_TASK_SCORES_H
#define ATOM_EVAL_TASK_SCORES_H

#include "eval/task_items.h"

/* What of an item counts. */
struct atom_task_verdict {
    bool right, right_norm, cut;
    double loglikelihood; /* ATOM_TASK_CONTINUATION */
};

/* Fills best, best_norm, right and right_norm from the rest; greedy: every token of row 0 is the likeliest. */
void atom_task_judge(enum atom_task_kind kind, const struct atom_task_source *source, bool greedy,
                     struct atom_task_item *item);

/* The scores of the first n items, of all and by subtask. */
enum atom_status atom_task_sum_up(const struct atom_task_items *items, const struct atom_task_verdict *verdicts, int n,
                                  struct atom_task_result *out, struct atom_error *err);

#endif
