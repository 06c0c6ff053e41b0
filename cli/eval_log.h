/* SPDX-License-Identifier: Apache-2.0 */
/* The log of items that `eval tasks` writes, and goes on with after it was stopped.
 *
 *     {"log": 1, "task", "file", "run": {signature}}     a file begins
 *     {"task", "line", "loglikelihoods", ...}            an item, in the order of the file
 *     {"task", "file", "n", "acc", ...}                  it has ended: its scores
 *
 * Reals have 17 digits, so that reading a log gives back the numbers that were written. */
#ifndef ATOM_CLI_EVAL_LOG_H
#define ATOM_CLI_EVAL_LOG_H

#include "eval_scores.h"

struct eval_log {
    const char *name; /* of the log; NULL: there is none, and no function does anything */
    FILE *out;
    bool lost; /* lines could not be written */
    bool bad;  /* what was there is not what the items ask for */
    struct eval_task_name task;
    json_t *lines; /* an array of what an earlier run wrote */
    size_t at;     /* the first of them that has not been used */
};

/* What becomes of a log that is there. */
enum eval_log_mode {
    EVAL_LOG_NEW,      /* it is refused, unless it is empty */
    EVAL_LOG_RESUME,   /* it is read, and gone on with; a last line without its end is cut off */
    EVAL_LOG_OVERWRITE /* it is emptied; a file that is no log is refused */
};
/* One run at a time has the log. */
enum atom_status eval_log_open(struct eval_log *log, const char *name, enum eval_log_mode mode, struct atom_error *err);

/* Before and after each file. ATOM_ERR_INVALID when the log was begun with something else than this signature. */
enum atom_status eval_log_begin(struct eval_log *log, const struct eval_task_name *task, const char *signature,
                                struct atom_error *err);
enum atom_status eval_log_end(struct eval_log *log, const struct atom_task_score *score, struct atom_error *err);

/* For struct atom_task_options; user: struct eval_log. */
bool eval_log_recall(void *user, int line, int n, double *loglikelihoods, bool *right);
void eval_log_item(void *user, const struct atom_task_item *item);

/* What was logged so far is in the file, whatever becomes of the process. false: nothing more can be logged. */
bool eval_log_flush(struct eval_log *log);

enum atom_status eval_log_close(struct eval_log *log, struct atom_error *err);

#endif
