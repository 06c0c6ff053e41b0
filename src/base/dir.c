/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of plain files: sync, delete, exchange. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum atom_status atom_dir_sync(const char *dir, struct atom_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return atom_fail_errno(err, errno, "cannot open the directory %s", dir);
    /* Some file systems cannot sync a directory; they say so with EINVAL. */
    int failed = fsync(fd) && errno != EINVAL && errno != EROFS ? errno : 0;
    close(fd);
    return failed ? atom_fail_errno(err, failed, "cannot sync the directory %s", dir) : ATOM_OK;
}

/* Calls visit for each entry but "." and "..". */
typedef enum atom_status visit_fn(int dir_fd, const char *dir, const char *name, struct atom_error *err);

static enum atom_status for_entries(const char *dir, visit_fn *visit, struct atom_error *err)
{
    enum atom_status status = ATOM_OK;
    DIR *stream = opendir(dir);
    if (!stream)
        return atom_fail_errno(err, errno, "cannot open the directory %s", dir);
    while (!status) {
        errno = 0;
        const struct dirent *entry = readdir(stream);
        if (!entry) {
            if (errno)
                status = atom_fail_errno(err, errno, "cannot read the directory %s", dir);
            break;
        }
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            status = visit(dirfd(stream), dir, entry->d_name, err);
    }
    closedir(stream);
    return status;
}

static enum atom_status refuse_directory(int dir_fd, const char *dir, const char *name, struct atom_error *err)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return atom_fail_errno(err, errno, "cannot look at %s/%s", dir, name);
    if (S_ISDIR(st.st_mode))
        return atom_fail(err, ATOM_ERR_IO, "%s holds a directory, %s, and is left as it is", dir, name);
    return ATOM_OK;
}

static enum atom_status delete_file(int dir_fd, const char *dir, const char *name, struct atom_error *err)
{
    if (unlinkat(dir_fd, name, 0) && errno != ENOENT)
        return atom_fail_errno(err, errno, "cannot delete %s/%s", dir, name);
    return ATOM_OK;
}

/* Whether dir is there; a link, a file or a directory with directories in it is an error. */
static enum atom_status look_at(const char *dir, bool *there, struct atom_error *err)
{
    struct stat st;
    *there = lstat(dir, &st) == 0;
    if (!*there)
        return errno == ENOENT ? ATOM_OK : atom_fail_errno(err, errno, "cannot look at %s", dir);
    if (S_ISLNK(st.st_mode))
        return atom_fail(err, ATOM_ERR_IO, "%s is a symbolic link; name the directory it points to", dir);
    if (!S_ISDIR(st.st_mode))
        return atom_fail(err, ATOM_ERR_IO, "%s is not a directory", dir);
    return for_entries(dir, refuse_directory, err);
}

enum atom_status atom_dir_delete(const char *dir, struct atom_error *err)
{
    bool there;
    enum atom_status status = look_at(dir, &there, err);
    if (status || !there)
        return status;
    status = for_entries(dir, delete_file, err);
    if (!status && rmdir(dir) && errno != ENOENT)
        status = atom_fail_errno(err, errno, "cannot delete the directory %s", dir);
    return status;
}

/* Without an exchange in one step: a crash between the renames leaves TO.old and `from`, both whole, and no `to`. */
static enum atom_status swap_by_renames(const char *from, const char *to, struct atom_error *err)
{
    size_t n = strlen(to), room = n + sizeof ".old";
    char *old = malloc(room);
    if (!old)
        return atom_fail_nomem(err, room);
    while (n > 1 && to[n - 1] == '/')
        n--;
    snprintf(old, room, "%.*s.old", (int)n, to);
    enum atom_status status = atom_dir_delete(old, err);
    if (!status && rename(to, old))
        status = atom_fail_errno(err, errno, "cannot rename %s to %s", to, old);
    else if (!status && rename(from, to)) {
        status = atom_fail_errno(err, errno, "cannot rename %s to %s", from, to);
        rename(old, to);
    }
    if (!status)
        status = atom_parent_sync(to, err);
    if (!status)
        status = atom_dir_delete(old, err);
    free(old);
    return status;
}

static enum atom_status exchange(const char *from, const char *to, struct atom_error *err)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE)) {
        if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP)
            return swap_by_renames(from, to, err);
        return atom_fail_errno(err, errno, "cannot exchange %s with %s", from, to);
    }
    /* On disk before the old content goes. */
    enum atom_status status = atom_parent_sync(to, err);
    return status ? status : atom_dir_delete(from, err);
}

enum atom_status atom_dir_replace(const char *from, const char *to, struct atom_error *err)
{
    bool there;
    enum atom_status status = look_at(from, &there, err);
    if (!status && !there)
        status = atom_fail(err, ATOM_ERR_IO, "%s is not there to be moved to %s", from, to);
    if (!status)
        status = atom_dir_sync(from, err);
    if (!status)
        status = look_at(to, &there, err);
    if (status)
        return status;
    if (there)
        status = exchange(from, to, err);
    else if (rename(from, to))
        status = atom_fail_errno(err, errno, "cannot rename %s to %s", from, to);
    return status ? status : atom_parent_sync(to, err);
}
