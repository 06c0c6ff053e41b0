/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum atom_status fail(struct atom_error *err, const char *path, int errnum)
{
    err->code = errnum == ENOMEM ? ATOM_ERR_NOMEM : ATOM_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: %s", path, strerror(errnum));
    return err->code;
}

enum atom_status cli_read_file(const char *path, char **data, size_t *n_bytes, struct atom_error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t n = 0, room = 1 << 16;
    char *buf = malloc(room);
    int bad = !f ? errno : !buf ? ENOMEM : 0;
    while (!bad) {
        size_t got = fread(buf + n, 1, room - n - 1, f);
        n += got;
        if (n + 1 < room) {
            bad = ferror(f) ? errno : 0;
            break;
        }
        char *more = realloc(buf, room *= 2);
        bad = more ? 0 : ENOMEM;
        buf = more ? more : buf;
    }
    if (f && f != stdin)
        fclose(f);
    if (bad) {
        free(buf);
        return fail(err, path, bad);
    }
    buf[n] = 0;
    *data = buf;
    *n_bytes = n;
    return ATOM_OK;
}

enum atom_status cli_check_files(const char *const *paths, int n, struct atom_error *err)
{
    struct stat st;
    for (int i = 0; i < n; i++) {
        if (!paths[i] || strcmp(paths[i], "-") == 0)
            continue;
        int bad = access(paths[i], R_OK) || stat(paths[i], &st) ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;
        if (bad)
            return fail(err, paths[i], bad);
    }
    return ATOM_OK;
}

enum atom_status cli_make_folder(const char *keep, char *path, size_t room, struct atom_error *err)
{
    const char *base = getenv("TMPDIR");
    int n = keep ? snprintf(path, room, "%s", keep)
                 : snprintf(path, room, "%s/atom-schemes-XXXXXX", base && *base ? base : "/tmp");
    if (n < 0 || (size_t)n >= room)
        return fail(err, keep ? keep : base, ENAMETOOLONG);
    if (keep ? mkdir(path, 0777) && errno != EEXIST : !mkdtemp(path))
        return fail(err, path, errno);
    return ATOM_OK;
}

enum atom_status cli_lock_folder(const char *path, struct atom_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || access(path, W_OK | X_OK)) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return fail(err, path, why);
    }
    if (!flock(fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK)
        return ATOM_OK; /* locked, or on a file system that has no locks */
    close(fd);
    snprintf(err->message, sizeof err->message, "another run is at work in %.900s", path);
    return err->code = ATOM_ERR_INVALID;
}

bool cli_same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return a && b && !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

bool cli_is_model_file(const char *path, const char *model)
{
    char folder[4096];
    if (!path)
        return false;
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    return dot && (strcmp(dot, ".json") == 0 || strcmp(dot, ".safetensors") == 0) && access(path, F_OK) == 0 &&
           cli_same_file(folder, model);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path) ? errno : 0;
}

enum atom_status cli_remove_tree(const char *path, struct atom_error *err)
{
    errno = 0;
    int bad = nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (bad == -1)
        bad = errno;
    return bad == 0 || bad == ENOENT ? ATOM_OK : fail(err, path, bad);
}
