/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void atom_task_judge(enum atom_task_kind kind, const struct atom_task_source *source, bool greedy,
                     struct atom_task_item *item)
{
    double norm = 0, best_norm = 0;
    item->best = 0;
    item->best_norm = kind == ATOM_TASK_CHOICES ? 0 : -1;
    for (int i = 0; i < item->n; i++) {
        if (item->loglikelihoods[i] > item->loglikelihoods[item->best])
            item->best = i;
        if (kind != ATOM_TASK_CHOICES)
            continue;
        norm = item->loglikelihoods[i] / atom_task_characters(atom_task_continuation(source, i));
        if (i == 0 || norm > best_norm) {
            item->best_norm = i;
            best_norm = norm;
        }
    }
    item->right = kind == ATOM_TASK_CONTINUATION ? greedy : item->best == item->gold;
    item->right_norm = kind == ATOM_TASK_CHOICES && item->best_norm == item->gold;
}

/* ---- means ------------------------------------------------------------------------------------------------------- */

static double stderr_of_share(double share, int64_t n)
{
    return n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : NAN;
}

/* Of the first n items those of a subtask; NULL: all. */
static struct atom_task_score add_up(const struct atom_task_items *items, const struct atom_task_verdict *verdicts,
                                     int n, char *subtask)
{
    struct atom_task_score s = {.subtask = subtask, .acc_norm = NAN, .acc_norm_stderr = NAN, .ppl = NAN};
    double right = 0, right_norm = 0, sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        if (subtask && strcmp(items->at[i].subtask, subtask) != 0)
            continue;
        s.n++;
        right += verdicts[i].right;
        right_norm += verdicts[i].right_norm;
        s.cut += verdicts[i].cut;
        /* Welford's mean and sum of squares: differences, so nothing cancels. */
        double step = verdicts[i].loglikelihood - sum;
        sum += step / (double)s.n;
        squares += step * (verdicts[i].loglikelihood - sum);
    }
    s.acc = right / (double)s.n;
    s.acc_stderr = stderr_of_share(s.acc, s.n);
    s.ppl_stderr = NAN;
    if (items->kind == ATOM_TASK_CHOICES) {
        s.acc_norm = right_norm / (double)s.n;
        s.acc_norm_stderr = stderr_of_share(s.acc_norm, s.n);
    }
    if (items->kind == ATOM_TASK_CONTINUATION) {
        s.ppl = exp(-sum);
        if (s.n > 1) /* the delta method: d exp(-x) = -exp(-x) dx */
            s.ppl_stderr = s.ppl * sqrt(squares / (double)(s.n - 1) / (double)s.n);
    }
    return s;
}

static bool seen(const struct atom_task_result *r, const char *subtask)
{
    for (int i = r->n_subtasks - 1; i >= 0; i--)
        if (strcmp(r->subtasks[i].subtask, subtask) == 0)
            return true;
    return false;
}

enum atom_status atom_task_sum_up(const struct atom_task_items *items, const struct atom_task_verdict *verdicts, int n,
                                  struct atom_task_result *out, struct atom_error *err)
{
    struct atom_task_result r = {.kind = items->kind, .all = add_up(items, verdicts, n, NULL)};
    for (int i = 0; i < n && items->at[i].subtask; i++) {
        const char *name = items->at[i].subtask;
        if (seen(&r, name))
            continue;
        size_t n_bytes = ((size_t)r.n_subtasks + 1) * sizeof *r.subtasks;
        struct atom_task_score *more = realloc(r.subtasks, n_bytes);
        char *copy = more ? strdup(name) : NULL;
        r.subtasks = more ? more : r.subtasks;
        if (!copy) {
            atom_task_result_free(&r);
            return atom_fail_nomem(err, n_bytes);
        }
        r.subtasks[r.n_subtasks++] = add_up(items, verdicts, n, copy);
    }
    *out = r;
    return ATOM_OK;
}

void atom_task_result_free(struct atom_task_result *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n_subtasks; i++)
        free(r->subtasks[i].subtask);
    free(r->subtasks);
    r->subtasks = NULL;
    r->n_subtasks = 0;
}
