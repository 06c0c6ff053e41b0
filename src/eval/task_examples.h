/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in front of an item: its description, and solved examples. */
#ifndef ATOM_EVAL_TASK_EXAMPLES_H
#define ATOM_EVAL_TASK_EXAMPLES_H

#include "eval/task_items.h"

enum { ATOM_TASK_EXAMPLES_MOST = 255 };

struct atom_task_examples {
    const struct atom_task_format *format;
    const struct atom_task_items *from; /* of the same kind as the items; may be the items themselves */
    int n;                              /* in front of each item; 0: the description alone */
    uint32_t seed;
};

/* Fills `front` of the first n items. Examples have the item's "task", where it has one; each "task" draws its own from
 * the seed on, item after item. An example is context and right choice and two ends of lines. */
enum atom_status atom_task_put_fronts(struct atom_task_items *items, int n, const struct atom_task_examples *examples,
                                      struct atom_error *err);

#endif
