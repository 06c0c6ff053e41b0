/* SPDX-License-Identifier: Apache-2.0 */
/* gnuplot reads its script from a file in memory and writes to another, so that no name has to be quoted and what it
 * drew is put in place as every other file is. */
#include "base/gnuplot.h"

#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

static enum atom_status file_in_memory(int *fd, struct atom_error *err)
{
    *fd = memfd_create("plot", MFD_CLOEXEC);
    return *fd < 0 ? atom_fail_errno(err, errno, "cannot make a file in memory") : ATOM_OK;
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
    enum atom_status st = lost ? atom_fail_nomem(err, n_bytes) : file_in_memory(fd, err);
    st = st ? st : atom_write_all(*fd, "plot", text, n_bytes, err);
    if (!st)
        lseek(*fd, 0, SEEK_SET);
    free(text);
    return st;
}

/* Whether a file could be put at `path`, before anybody computes what is in it. */
static enum atom_status try_place(const char *path, struct atom_error *err)
{
    struct stat st;
    char *temporary = NULL;
    int fd;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode))
        return atom_fail_errno(err, EISDIR, "cannot write %s", path);
    if (there && !S_ISREG(st.st_mode))
        return access(path, W_OK) ? atom_fail_errno(err, errno, "cannot write %s", path) : ATOM_OK;
    if (asprintf(&temporary, "%s.tmp", path) < 0)
        return atom_fail_nomem(err, strlen(path));
    enum atom_status status = atom_file_create(temporary, &fd, err);
    if (!status) {
        close(fd);
        unlink(temporary);
    }
    free(temporary);
    return status;
}

static enum atom_status put_drawing(int drawn, const char *path, struct atom_error *err)
{
    struct stat st;
    if (fstat(drawn, &st))
        return atom_fail_errno(err, errno, "cannot look at the drawing");
    if (st.st_size == 0)
        return atom_fail(err, ATOM_ERR_IO, "gnuplot drew nothing");
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, drawn, 0);
    if (data == MAP_FAILED)
        return atom_fail_errno(err, errno, "cannot map the drawing");
    enum atom_status status = atom_file_write(path, data, (size_t)st.st_size, err);
    munmap(data, (size_t)st.st_size);
    return status;
}

void atom_gnuplot_text(FILE *script, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < ' ' || strchr("'\\", *text) ? ' ' : *text, script);
}

enum atom_status atom_gnuplot(const struct atom_drawing *d, const char *path, struct atom_error *err)
{
    int script = -1, drawn = -1;
    enum atom_status st = script_file(d, &script, err);
    st = st ? st : file_in_memory(&drawn, err);
    st = st ? st : run_gnuplot(script, drawn, err);
    if (!st)
        st = d->n == 0 ? try_place(path, err) : put_drawing(drawn, path, err);
    if (script >= 0)
        close(script);
    if (drawn >= 0)
        close(drawn);
    return st;
}
