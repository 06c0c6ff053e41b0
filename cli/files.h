/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_CLI_FILES_H
#define ATOM_CLI_FILES_H

#include "atom/atom.h"

/* A whole file ("-": standard input), malloc'd with a NUL after its end. */
enum atom_status cli_read_file(const char *path, char **data, size_t *n_bytes, struct atom_error *err);

#endif
