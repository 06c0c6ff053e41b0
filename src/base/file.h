/* SPDX-License-Identifier: Apache-2.0 */
/* Files: read whole, map, write with checks, move into place. */
#ifndef ATOM_BASE_FILE_H
#define ATOM_BASE_FILE_H

#include "base/error.h"

/* A read-only mapping. If the file is cut short while mapped, reads of the lost part give zeros and
 * atom_map_is_whole turns false, instead of SIGBUS ending the process (opening
 * a map installs a handler, unless it is there, that passes every other fault on to the one before it). */
struct atom_map {
    const uint8_t *data;
    size_t n_bytes;
    int slot;
};

/* Maps a regular file; an empty file gives n_bytes 0 and data NULL. */
enum atom_status atom_map_open(const char *path, struct atom_map *out, struct atom_error *err);
void atom_map_close(struct atom_map *map);
bool atom_map_is_whole(const struct atom_map *map);
/* What was read so far no longer counts as this process's memory; read again, it comes from the file again. May be
 * called while others read. */
void atom_map_release(const struct atom_map *map);

/* *data is malloc'd with a NUL after the last byte. Files over max_bytes are refused. */
enum atom_status atom_file_read(const char *path, size_t max_bytes, char **data, size_t *n_bytes,
                                struct atom_error *err);

/* dir + "/" + name, malloc'd; NULL when out of memory. */
char *atom_path_join(const char *dir, const char *name);

/* Opens a new or emptied file for writing; finish syncs and closes it, and removes what a failed `status` (or sync)
 * left behind. Returns the first failure. */
enum atom_status atom_file_create(const char *path, int *fd, struct atom_error *err);
enum atom_status atom_file_finish(int fd, const char *path, enum atom_status status, struct atom_error *err);

/* Creates or replaces the file in one step (PATH.tmp, then a rename), synced to disk. What is there and no regular
 * file is written in place. */
enum atom_status atom_file_write(const char *path, const void *data, size_t n_bytes, struct atom_error *err);
enum atom_status atom_file_copy(const char *from, const char *to, struct atom_error *err);

/* Writes all n bytes at the file's position, going on after short writes and EINTR. */
enum atom_status atom_write_all(int fd, const char *path, const void *data, size_t n_bytes, struct atom_error *err);
enum atom_status atom_dir_sync(const char *dir, struct atom_error *err);
enum atom_status atom_parent_sync(const char *path, struct atom_error *err); /* the directory that holds path */

/* Puts directory `from` in the place of `to` in one step; if `to` exists it is exchanged whole and the old content is
 * then deleted. Refused before anything moves when `to` is a file, a link or holds directories. On a file system
 * without an exchange it is two renames through TO.old. */
enum atom_status atom_dir_replace(const char *from, const char *to, struct atom_error *err);
/* Deletes a directory of plain files (one level). Nothing there: fine. */
enum atom_status atom_dir_delete(const char *dir, struct atom_error *err);

#endif
