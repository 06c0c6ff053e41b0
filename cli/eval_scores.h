/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of a task as JSON and as rows of a table. */
#ifndef ATOM_CLI_EVAL_SCORES_H
#define ATOM_CLI_EVAL_SCORES_H

#include "atom/atom.h"

#include <jansson.h>
#include <stdio.h>

/* A file of items and the name of its task: the file's without folders and what follows the last dot. */
struct eval_task_name {
    const char *file, *stem;
    int stem_bytes;
};
struct eval_task_name eval_name_task(const char *file);

/* NULL when memory is out or the name is not UTF-8. */
json_t *eval_score_json(const struct eval_task_name *name, const struct atom_task_score *s);

/* A line of its own, reals with that many digits; frees the object. false: some of it is lost. */
bool eval_put_line(FILE *out, json_t *o, int digits);

/* widest: characters of the first column. */
void eval_print_head(int widest);
void eval_print_row(const struct eval_task_name *name, int widest, const struct atom_task_score *s);

#endif
