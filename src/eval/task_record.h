/* SPDX-License-Identifier: Apache-2.0 */
/* A record of a data set, read field by field. */
#ifndef ATOM_EVAL_TASK_RECORD_H
#define ATOM_EVAL_TASK_RECORD_H

#include "base/error.h"

#include <jansson.h>

/* The first field that is not as expected leaves its sentence in err and its status here; those after it say nothing
 * more, and what the functions then return ("", 0) has no meaning. So a reader of records looks at status once, at its
 * end.
 *
 * A path names members and entries, with dots between: "question.stem", "choices.0.text". */
struct atom_task_record {
    const json_t *json;
    int line;
    const char *subject; /* what the record does not say itself; may be NULL */
    json_t *kept;        /* an array of strings made on the way */
    enum atom_status status;
    struct atom_error *err;
};

/* NULL: not there. */
const json_t *atom_record_find(const struct atom_task_record *in, const char *path);

/* A string, which may be empty; a choice may not, nor be a single space. */
const char *atom_record_text(struct atom_task_record *in, const char *path);
const char *atom_record_choice(struct atom_task_record *in, const char *path);

/* A whole number from `first` on, one of n, or such a number written as a string. Returned less `first`. */
int atom_record_index(struct atom_task_record *in, const char *path, int first, int n);

/* Entries of a list of two or more. */
int atom_record_entries(struct atom_task_record *in, const char *path);

/* Takes malloc'd text (NULL: memory is out); what is returned lives as long as `kept`. */
const char *atom_record_keep(struct atom_task_record *in, char *text);

/* "line N: " and the sentence. */
void atom_record_refuse(struct atom_task_record *in, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Characters (code points) of a choice without its first space. */
int atom_task_characters(const char *choice);

#endif
