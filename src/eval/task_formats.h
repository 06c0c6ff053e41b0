/* SPDX-License-Identifier: Apache-2.0 */
/* The data sets whose own files are read. */
#ifndef ATOM_EVAL_TASK_FORMATS_H
#define ATOM_EVAL_TASK_FORMATS_H

#include "eval/task_record.h"

/* Which examples the harness puts in front of an item. */
enum atom_task_draw { ATOM_DRAW_RANDOM, ATOM_DRAW_FIRST, ATOM_DRAW_NONE };

struct atom_task_format {
    const char *name;
    /* A new item {"context" or "contexts", "choices" or "continuation", "gold", "task", "description"}; NULL after a
     * failure. The function is NULL where records are items. */
    json_t *(*read)(struct atom_task_record *record);
    const char *label; /* the field that a file of labels fills; NULL: records have theirs */
    bool csv;          /* records may be lines of CSV without a head: question, four choices, a letter */
    enum atom_task_draw draw;
    int more;        /* examples that are drawn and not used unless one of them is the item itself */
    const char *gap; /* between an example's context and its answer; NULL: nothing */
};

/* One for each word of ATOM_TASK_FORMATS, in their order; NULL past the last. */
const struct atom_task_format *atom_task_format(int i);

json_t *atom_hellaswag_read(struct atom_task_record *record);

#endif
