/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of a data set's own file as the one text that GPTQ and those after it score. */
#ifndef ATOM_CLI_EVAL_ROWS_H
#define ATOM_CLI_EVAL_ROWS_H

#include "atom/atom.h"

/* What --dataset takes; the index of the word is the data set's number. */
#define EVAL_DATASETS "wikitext2|ptb|ptb-new|c4|c4-new"

/* Puts the joined text in the place of *text [n_bytes], which is malloc'd before and after; on failure it is as it was.
 *
 *     wikitext2   a row is a line with its end, or nothing where it is blank; blank lines between rows
 *     ptb         a row is a line without white space at its ends; blank lines between rows
 *     ptb-new     the same, a space between rows
 *     c4-new      a row is the "text" of a line of JSON; the first 1100 rows, a space between them
 *
 * c4 has no such text (eval_dataset_is_drawn, atom_draw_windows). */
enum atom_status eval_join_rows(int dataset, char **text, size_t *n_bytes, struct atom_error *err);

/* Whether windows are drawn from the rows one by one. */
bool eval_dataset_is_drawn(int dataset);

/* Most windows that are scored; 0: all. */
int eval_dataset_windows(int dataset);

#endif
