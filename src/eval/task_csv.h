/* SPDX-License-Identifier: Apache-2.0 */
/* MMLU's own files: CSV without a head, question, four choices, the letter of the right one (RFC 4180). */
#ifndef ATOM_EVAL_TASK_CSV_H
#define ATOM_EVAL_TASK_CSV_H

#include "base/error.h"

#include <jansson.h>

/* Takes the record that begins at *at and moves *at past it; a quoted field may hold ends of lines.
 * *record: {"question", "choices": [4], "answer"}; the sentence does not name the line. */
enum atom_status atom_task_csv_record(const char **at, const char *end, json_t **record, struct atom_error *err);

#endif
