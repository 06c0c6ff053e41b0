/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *atom_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    char *path = malloc(n + strlen(name) + 2);
    if (path)
        sprintf(path, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return path;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static enum atom_status open_for_reading(const char *path, int *fd, size_t *size_hint, struct atom_error *err)
{
    struct stat st;
    enum atom_status status = ATOM_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return atom_fail_errno(err, errno, "cannot open %s", path);
    if (fstat(*fd, &st))
        status = atom_fail_errno(err, errno, "cannot read the size of %s", path);
    else if (S_ISDIR(st.st_mode))
        status = atom_fail(err, ATOM_ERR_IO, "%s is a directory, not a file", path);
    /* A pipe whose writer is slow is waited for; one that nobody writes to ends at once. */
    else if (!S_ISREG(st.st_mode) && fcntl(*fd, F_SETFL, 0) < 0)
        status = atom_fail_errno(err, errno, "cannot read %s", path);
    else
        *size_hint = S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
    if (status)
        close(*fd);
    return status;
}

/* Room for at least one byte more, and for the NUL. */
static enum atom_status grow(char **data, size_t *capacity, size_t want, struct atom_error *err)
{
    char *bigger = realloc(*data, want + 1);
    if (!bigger)
        return atom_fail_nomem(err, want + 1);
    *data = bigger;
    *capacity = want;
    return ATOM_OK;
}

static enum atom_status read_all(int fd, const char *path, size_t max_bytes, char **data, size_t *n_bytes,
                                 size_t capacity, struct atom_error *err)
{
    enum atom_status status = grow(data, &capacity, capacity, err);
    while (!status) {
        if (*n_bytes > max_bytes)
            return atom_fail(err, ATOM_ERR_FORMAT, "%s holds more than %zu bytes", path, max_bytes);
        if (*n_bytes == capacity)
            status = grow(data, &capacity, capacity * 2, err);
        if (status)
            break;
        ssize_t got = read(fd, *data + *n_bytes, capacity - *n_bytes);
        if (got < 0 && errno != EINTR)
            return atom_fail_errno(err, errno, "cannot read %s", path);
        if (got == 0)
            return ATOM_OK;
        if (got > 0)
            *n_bytes += (size_t)got;
    }
    return status;
}

enum atom_status atom_file_read(const char *path, size_t max_bytes, char **data, size_t *n_bytes,
                                struct atom_error *err)
{
    int fd = -1;
    char *bytes = NULL;
    size_t n = 0, hint = 0;
    enum atom_status status = open_for_reading(path, &fd, &hint, err);
    if (status)
        return status;
    if (hint > max_bytes)
        status = atom_fail(err, ATOM_ERR_FORMAT, "%s has %zu bytes, more than the %zu allowed", path, hint, max_bytes);
    else /* one spare byte, so that the end is met without growing */
        status = read_all(fd, path, max_bytes, &bytes, &n, hint ? hint + 1 : 65536, err);
    close(fd);
    if (status) {
        free(bytes);
        return status;
    }
    bytes[n] = 0;
    *data = bytes;
    *n_bytes = n;
    return ATOM_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

enum atom_status atom_write_all(int fd, const char *path, const void *data, size_t n_bytes, struct atom_error *err)
{
    const char *p = data;
    while (n_bytes) {
        ssize_t put = write(fd, p, n_bytes);
        if (put < 0 && errno != EINTR)
            return atom_fail_errno(err, errno, "cannot write %s", path);
        if (put == 0)
            return atom_fail(err, ATOM_ERR_IO, "cannot write %s: the system takes no more bytes", path);
        if (put > 0) {
            p += put;
            n_bytes -= (size_t)put;
        }
    }
    return ATOM_OK;
}

enum atom_status atom_file_create(const char *path, int *fd, struct atom_error *err)
{
    int opened = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (opened < 0)
        return atom_fail_errno(err, errno, "cannot create %s", path);
    *fd = opened;
    return ATOM_OK;
}

enum atom_status atom_file_finish(int fd, const char *path, enum atom_status status, struct atom_error *err)
{
    struct stat st;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    /* Devices and pipes have nothing to sync. */
    if (!status && fsync(fd) && errno != EINVAL && errno != EROFS)
        status = atom_fail_errno(err, errno, "cannot sync %s", path);
    if (close(fd) && !status)
        status = atom_fail_errno(err, errno, "cannot close %s", path);
    if (status && regular)
        unlink(path);
    return status;
}

static enum atom_status write_in_place(const char *path, const void *data, size_t n_bytes, struct atom_error *err)
{
    int fd = -1;
    enum atom_status status = atom_file_create(path, &fd, err);
    if (status)
        return status;
    return atom_file_finish(fd, path, atom_write_all(fd, path, data, n_bytes, err), err);
}

/* The part of the path before the last name, malloc'd: "." when there is none. */
static char *parent_of(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    return n ? strndup(path, n) : strdup(".");
}

enum atom_status atom_parent_sync(const char *path, struct atom_error *err)
{
    char *parent = parent_of(path);
    if (!parent)
        return atom_fail_nomem(err, strlen(path));
    enum atom_status status = atom_dir_sync(parent, err);
    free(parent);
    return status;
}

enum atom_status atom_file_write(const char *path, const void *data, size_t n_bytes, struct atom_error *err)
{
    struct stat st;
    /* A device or a link keeps being one. */
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return write_in_place(path, data, n_bytes, err);
    size_t room = strlen(path) + sizeof ".tmp";
    char *temporary = malloc(room);
    if (!temporary)
        return atom_fail_nomem(err, room);
    snprintf(temporary, room, "%s.tmp", path);
    enum atom_status status = write_in_place(temporary, data, n_bytes, err);
    if (!status && rename(temporary, path)) {
        status = atom_fail_errno(err, errno, "cannot rename %s to %s", temporary, path);
        unlink(temporary);
    }
    free(temporary);
    return status ? status : atom_parent_sync(path, err);
}

enum atom_status atom_file_copy(const char *from, const char *to, struct atom_error *err)
{
    enum { CHUNK_BYTES = 1 << 20 };
    int in = -1, out = -1;
    size_t unused = 0;
    char *chunk = malloc(CHUNK_BYTES);
    if (!chunk)
        return atom_fail_nomem(err, CHUNK_BYTES);
    enum atom_status status = open_for_reading(from, &in, &unused, err);
    if (status)
        goto free_chunk;
    status = atom_file_create(to, &out, err);
    if (status)
        goto close_in;
    for (ssize_t got = 1; got && !status;) {
        got = read(in, chunk, CHUNK_BYTES);
        if (got > 0)
            status = atom_write_all(out, to, chunk, (size_t)got, err);
        else if (got < 0 && errno != EINTR)
            status = atom_fail_errno(err, errno, "cannot read %s", from);
    }
    status = atom_file_finish(out, to, status, err);
close_in:
    close(in);
free_chunk:
    free(chunk);
    return status;
}
