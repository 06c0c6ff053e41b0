/* SPDX-License-Identifier: Apache-2.0 */
/* atom sample-calib MODEL -o FILE */
#include "commands.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum atom_status fail(struct atom_error *err, const char *path, int errnum)
{
    err->code = errnum == ENOSPC ? ATOM_ERR_NOSPACE : errnum == ENOMEM ? ATOM_ERR_NOMEM : ATOM_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: %s", path, strerror(errnum));
    return err->code;
}

static void print_window(FILE *f, const int32_t *ids, int n)
{
    fputs("{\"ids\": [", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s%d", i ? ", " : "", ids[i]);
    fputs("]}\n", f);
}

/* PATH.tmp, synced, then a rename: PATH is the old file or the whole new one. */
static enum atom_status write_windows(const char *path, const int32_t *ids, const struct atom_windows_options *o,
                                      struct atom_error *err)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.tmp", path) < 0)
        return fail(err, path, ENOMEM);
    FILE *f = fopen(temporary, "w");
    int bad = f ? 0 : errno;
    for (int i = 0; f && i < o->samples && !ferror(f); i++)
        print_window(f, ids + (size_t)i * (size_t)o->window, o->window);
    if (f && (ferror(f) || fflush(f) || fsync(fileno(f))))
        bad = errno ? errno : EIO;
    if (f && fclose(f) && !bad)
        bad = errno;
    if (!bad && rename(temporary, path))
        bad = errno;
    if (bad && f)
        unlink(temporary);
    free(temporary);
    return bad ? fail(err, path, bad) : ATOM_OK;
}

static int sample(const char *dir, const char *path, struct atom_windows_options *o, bool quiet)
{
    struct atom_error err = {0};
    struct atom_model *model = NULL;
    struct cli_progress bar;
    size_t n_bytes = (size_t)o->samples * (size_t)o->window * sizeof(int32_t);
    int32_t *ids = malloc(n_bytes);
    cli_progress_init(&bar, quiet);
    cli_catch_interrupts();
    o->progress = cli_progress_show;
    o->user = &bar;
    double started = cli_seconds();
    enum atom_status st = ids ? atom_model_open(dir, &model, &err) : fail(&err, "windows", ENOMEM);
    st = st ? st : atom_sample_windows(model, o, ids, &err);
    cli_progress_end(&bar);
    st = st ? st : write_windows(path, ids, o, &err);
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
        options, 1, 1, "example: atom sample-calib models/tiny --samples 32 --window 256 --seed 1 -o /tmp/calib.jsonl"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON && !path)
        rc = cli_usage(&cmd, "-o FILE is missing: the file to make");
    if (rc == CLI_GO_ON)
        rc = sample(args[0], path, &o, quiet);
    free(args);
    return rc;
}
