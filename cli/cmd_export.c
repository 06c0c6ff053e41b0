/* SPDX-License-Identifier: Apache-2.0 */
/* atom export MODEL -o OUT */
#include "commands.h"
#include "options.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>

static int export_to(struct atom_export_options *o, bool quiet)
{
    struct atom_error err = {0};
    struct cli_progress bar;
    cli_progress_init(&bar, quiet);
    cli_catch_interrupts();
    o->progress = cli_progress_show;
    o->user = &bar;
    double started = cli_seconds();
    enum atom_status st = atom_export(o, &err);
    cli_progress_end(&bar);
    if (st)
        return cli_fail(&err);
    if (!quiet)
        fprintf(stderr, "%s is made, in %.1f s\n", o->out, cli_seconds() - started);
    return 0;
}

int cmd_export(int argc, char **argv)
{
    struct atom_export_options o = {.format = "compressed-tensors"};
    bool quiet = false;
    int format = 0;
    const struct cli_option options[] = {
        {"output", 'o', CLI_TEXT, "OUT", &o.out, 0, 0, "directory to make", NULL},
        {"format", 0, CLI_WORD, "compressed-tensors", &format, 0, 0, "what other engines read (compressed-tensors)",
         NULL},
        {"overwrite", 0, CLI_FLAG, NULL, &o.overwrite, 0, 0, "replace OUT as a whole if it exists", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "export MODEL -o OUT [options]",
        "Writes a checkpoint of 4-bit weights and nothing else quantized in a form that transformers and vLLM read.\n"
        "MODEL was made by: atom quantize ... --abits 16 --kvbits 16 --outliers 0 --rows-per-scale 1. Weights are the\n"
        "same to the last bit.",
        options,
        1,
        1,
        "example: atom export /tmp/tiny-w4a16 -o /tmp/tiny-ct"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON && !o.out)
        rc = cli_usage(&cmd, "-o OUT is missing: the directory to make");
    if (rc == CLI_GO_ON) {
        o.model = args[0];
        rc = export_to(&o, quiet);
    }
    free(args);
    return rc;
}
