/* SPDX-License-Identifier: Apache-2.0 */
/* gnuplot reads its script from a file in memory and writes to one that is ours, so that no name has to be quoted. */
#include "base/gnuplot.h"

#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static enum atom_status start(int script, int out, pid_t *pid, struct atom_error *err)
{
    char name[] = "gnuplot";
    char *argv[] = {name, NULL};
    posix_spawn_file_actions_t files;
    int failed = posix_spawn_file_actions_init(&files);
    if (!failed) {
        failed = posix_spawn_file_actions_adddup2(&files, script, STDIN_FILENO);
        failed = failed ? failed : posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
        failed = failed ? failed : posix_spawnp(pid, name, &files, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&files);
    }
    if (failed == ENOENT)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "a plot is drawn by gnuplot, which is not here; Debian's package is gnuplot-nox");
    return failed ? atom_fail_errno(err, failed, "cannot run gnuplot") : ATOM_OK;
}

static enum atom_status run_gnuplot(int script, int out, struct atom_error *err)
{
    pid_t pid;
    int status;
    enum atom_status st = start(script, out, &pid, err);
    if (st)
        return st;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return atom_fail_errno(err, errno, "cannot wait for gnuplot");
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return atom_fail(err, ATOM_ERR_IO, "gnuplot failed");
    return ATOM_OK;
}

/* A file in memory that holds the script, to be read from its beginning. */
static enum atom_status script_file(const struct atom_drawing *d, int *fd, struct atom_error *err)
{
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *f = open_memstream(&text, &n_bytes);
    if (!f)
        return atom_fail_nomem(err, BUFSIZ);
    if (d->n > 0)
        d->put(f, d->lines, d->n);
    bool lost = fclose(f) != 0;
    *fd = lost ? -1 : memfd_create("plot", MFD_CLOEXEC);
    enum atom_status st = lost      ? atom_fail_nomem(err, n_bytes)
                          : *fd < 0 ? atom_fail_errno(err, errno, "cannot make a file in memory")
                                    : atom_write_all(*fd, "plot", text, n_bytes, err);
    if (!st)
        lseek(*fd, 0, SEEK_SET);
    free(text);
    return st;
}

void atom_gnuplot_text(FILE *script, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || strchr("'\\", *text) ? ' ' : *text, script);
}

enum atom_status atom_gnuplot(const struct atom_drawing *d, const char *path, struct atom_error *err)
{
    int script = -1, out = -1;
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.tmp", path) < 0)
        return atom_fail_nomem(err, strlen(path));
    enum atom_status st = script_file(d, &script, err);
    st = st ? st : atom_file_create(temporary, &out, err);
    if (!st) {
        st = run_gnuplot(script, out, err);
        st = atom_file_finish(out, temporary, st, err);
    }
    if (!st && d->n == 0)
        unlink(temporary);
    else if (!st && rename(temporary, path)) {
        st = atom_fail_errno(err, errno, "cannot rename %s to %s", temporary, path);
        unlink(temporary);
    }
    if (script >= 0)
        close(script);
    free(temporary);
    return st;
}
