/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom eval` measures: each gets argv with its own name first and returns the exit status. */
#ifndef ATOM_CLI_EVAL_MEASURES_H
#define ATOM_CLI_EVAL_MEASURES_H

#include "atom/atom.h"

int eval_ppl(int argc, char **argv);
int eval_kld(int argc, char **argv);
int eval_tasks(int argc, char **argv);
int eval_schemes(int argc, char **argv);

/* Puts the file's name in front of a sentence that does not begin with it. */
void eval_name_file(struct atom_error *err, const char *file);

#endif
