/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_CLI_FILES_H
#define ATOM_CLI_FILES_H

#include "atom/atom.h"

/* A whole file ("-": standard input), malloc'd with a NUL after its end. */
enum atom_status cli_read_file(const char *path, char **data, size_t *n_bytes, struct atom_error *err);

/* A sentence about the first name that is no file, or none that may be read; before hours go by. Names may be NULL, or
 * "-". */
enum atom_status cli_check_files(const char *const *paths, int n, struct atom_error *err);

/* A folder to work in: `keep`, made if it is not there, or, where that is NULL, a new one under TMPDIR or /tmp. */
enum atom_status cli_make_folder(const char *keep, char *path, size_t room, struct atom_error *err);
/* Keeps a second run out of a folder, which must be one to write in, until this process ends. */
enum atom_status cli_lock_folder(const char *path, struct atom_error *err);
/* Whether both names lead to one file that is there; false where one is NULL. */
bool cli_same_file(const char *a, const char *b);
/* Whether it is there, in the folder of a model, and one of its files by name. */
bool cli_is_model_file(const char *path, const char *model);
/* A folder with all that is in it; links are not followed. One that is not there is fine. */
enum atom_status cli_remove_tree(const char *path, struct atom_error *err);

#endif
