/* SPDX-License-Identifier: Apache-2.0 */
/* The records of a data set as items of a task. */
#ifndef ATOM_EVAL_TASK_ITEMS_H
#define ATOM_EVAL_TASK_ITEMS_H

#include "eval/task_formats.h"

struct atom_task_source {
    int line, n, gold;
    const char *subtask;     /* NULL: none */
    const char *description; /* what its format puts in front of all; NULL: nothing */
    char *front;             /* description and examples, or NULL: none yet */
    json_t *record;          /* as the file has it */
    json_t *root;            /* the item that the record is; owns the strings */
};

struct atom_task_items {
    enum atom_task_kind kind;
    int n;
    struct atom_task_source *at;
};

/* Every record is an item of the same kind, or the error names file (where it has a name) and line. */
enum atom_status atom_task_items_parse(const struct atom_task_file *file, const struct atom_task_format *format,
                                       struct atom_task_items *out, struct atom_error *err);
void atom_task_items_fini(struct atom_task_items *items);

/* Row i of an item, i in [0, n): the strings are the item's. */
const char *atom_task_context(const struct atom_task_source *item, int i);
const char *atom_task_continuation(const struct atom_task_source *item, int i);

#endif
