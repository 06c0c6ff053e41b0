/* SPDX-License-Identifier: Apache-2.0 */
/* atom sample-calib MODEL -o FILE */
#include "commands.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum atom_status fail(struct atom_error *err, const char *path, int errnum)
{
    err->code = errnum == ENOSPC ? ATOM_ERR_NOSPACE : errnum == ENOMEM ? ATOM_ERR_NOMEM : ATOM_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: %s", path, strerror(errnum));
    return err->code;
}

/* PATH.tmp while it is written, PATH once all is there. A device or a link keeps being one: it is written itself. */
struct output {
    const char *path;
    char *written;
    bool in_place;
    FILE *f;
};

static enum atom_status open_output(const char *path, struct output *out, struct atom_error *err)
{
    struct stat st;
    *out = (struct output){.path = path, .in_place = !lstat(path, &st) && !S_ISREG(st.st_mode)};
    if (asprintf(&out->written, "%s%s", path, out->in_place ? "" : ".tmp") < 0) {
        out->written = NULL;
        return fail(err, path, ENOMEM);
    }
    out->f = fopen(out->written, "w");
    return out->f ? ATOM_OK : fail(err, out->written, errno);
}

static enum atom_status print_window(const struct output *out, const int32_t *ids, int n, struct atom_error *err)
{
    errno = 0;
    fputs("{\"ids\": [", out->f);
    for (int i = 0; i < n; i++)
        fprintf(out->f, "%s%d", i ? ", " : "", ids[i]);
    fputs("]}\n", out->f);
    return ferror(out->f) ? fail(err, out->written, errno ? errno : EIO) : ATOM_OK;
}

/* Puts what was written in its place, or, after a failure, takes it away. */
static enum atom_status close_output(struct output *out, enum atom_status st, struct atom_error *err)
{
    if (out->f) {
        errno = 0;
        /* What is no file, a terminal say, may know no fsync. */
        bool bad = ferror(out->f) || fflush(out->f) || (fsync(fileno(out->f)) && errno != EINVAL && errno != EROFS);
        int why = errno;
        bad |= fclose(out->f) != 0;
        if (!st && bad)
            st = fail(err, out->written, why ? why : EIO);
        if (!st && !out->in_place && rename(out->written, out->path))
            st = fail(err, out->path, errno);
        if (st && !out->in_place)
            unlink(out->written);
    }
    free(out->written);
    return st;
}

static int sample(const char *dir, const char *path, struct atom_windows_options *o, bool quiet)
{
    struct atom_error err = {0};
    struct atom_model *model = NULL;
    struct output out;
    struct cli_progress bar;
    size_t n_bytes = (size_t)o->samples * (size_t)o->window * sizeof(int32_t);
    int32_t *ids = malloc(n_bytes);
    cli_progress_init(&bar, quiet);
    cli_catch_interrupts();
    o->progress = cli_progress_show;
    o->user = &bar;
    double started = cli_seconds();
    enum atom_status st = open_output(path, &out, &err);
    if (!st && !ids)
        st = fail(&err, "windows", ENOMEM);
    st = st ? st : atom_model_open(dir, &model, &err);
    st = st ? st : atom_sample_windows(model, o, ids, &err);
    cli_progress_end(&bar);
    for (int i = 0; i < o->samples && !st; i++)
        st = print_window(&out, ids + (size_t)i * (size_t)o->window, o->window, &err);
    st = close_output(&out, st, &err);
    if (!st && !quiet)
        fprintf(stderr, "%s holds %d windows of %d ids after %.1f s\n", path, o->samples, o->window,
                cli_seconds() - started);
    atom_model_close(model);
    free(ids);
    return st ? cli_fail(&err) : 0;
}

int cmd_sample_calib(int argc, char **argv)
{
    struct atom_windows_options o = {.samples = 64, .window = 1024, .sampling = {.temperature = 1}};
    const char *path = NULL;
    bool quiet = false;
    const struct cli_option options[] = {
        {"output", 'o', CLI_TEXT, "FILE", &path, 0, 0, "JSON lines {\"ids\": [...]}, a window each", NULL},
        {"samples", 0, CLI_INT, "N", &o.samples, 1, 1 << 20, "windows to write (64)", NULL},
        {"window", 'w', CLI_INT, "T", &o.window, 2, 1 << 20, "ids a window (1024)", NULL},
        {"seed", 's', CLI_SIZE, "S", &o.sampling.seed, 0, 0, "same seed, same windows (0)", NULL},
        {"temperature", 't', CLI_FLOAT, "X", &o.sampling.temperature, 0, 100, "0: the likeliest token each time (1)",
         NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "sample-calib MODEL -o FILE [options]",
        "Lets a model write its own calibration windows, each from BOS on; after an end-of-text token another text\n"
        "begins. 'atom quantize --calib-ids FILE' reads them.",
        options,
        1,
        1,
        "example: atom sample-calib models/tiny --samples 32 --window 256 --seed 1 -o /tmp/calib.jsonl"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON && !path)
        rc = cli_usage(&cmd, "-o FILE is missing: the file to make");
    if (rc == CLI_GO_ON && cli_is_model_file(path, args[0]))
        rc = cli_usage(&cmd, "-o %s would overwrite a file of the model", path);
    if (rc == CLI_GO_ON)
        rc = sample(args[0], path, &o, quiet);
    free(args);
    return rc;
}
