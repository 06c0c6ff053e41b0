/* SPDX-License-Identifier: Apache-2.0 */
/* atom ablate MODEL --calib FILE TEXT */
#include "ablate_rows.h"
#include "commands.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BOTH = 2 }; /* of --bits */

struct ablation {
    struct atom_ablate_options opt;
    int bits; /* index of the word */
    const char *only, *plot, *keep, *work;
    const char *text; /* the file's name */
    bool json, quiet;
    struct cli_progress bar;
    char phase[96]; /* the bar's */
    struct ablate_rows rows;
};

static bool show(void *user, const struct atom_progress *p)
{
    struct ablation *a = user;
    if (strcmp(a->phase, p->phase) != 0) {
        snprintf(a->phase, sizeof a->phase, "%s", p->phase);
        a->bar.started = 0;
    }
    return cli_progress_show(&a->bar, p);
}

static void on_row(void *user, const struct atom_ablate_row *row)
{
    struct ablation *a = user;
    cli_progress_end(&a->bar);
    ablate_rows_add(&a->rows, row);
    fflush(stdout);
}

/* "rtn,groups" as bits; 0 after a usage error. */
static unsigned rungs_of(const struct cli_command *cmd, const char *names)
{
    unsigned found = 0;
    int n;
    const struct atom_rung *rungs = atom_rungs(&n);
    for (const char *at = names;; at++) {
        int len = (int)strcspn(at, ","), i = 0;
        while (i < n && (strncmp(rungs[i].name, at, (size_t)len) != 0 || rungs[i].name[len]))
            i++;
        if (i == n) {
            cli_usage(cmd, "--only: there is no rung '%.*s'; --help lists them", len, at);
            return 0;
        }
        found |= 1u << i;
        at += len;
        if (!*at)
            return found;
    }
}

static enum atom_status climb(struct ablation *a, struct atom_error *err)
{
    char *text = NULL;
    enum atom_status st = a->plot ? atom_ablate_plot(NULL, 0, "", a->plot, err) : ATOM_OK;
    st = st ? st : cli_read_file(a->text, &text, &a->opt.n_bytes, err);
    a->opt.text = text;
    a->opt.text_name = a->text;
    for (int bits = 4; bits >= 3 && !st; bits--) {
        if (a->bits != BOTH && a->bits != 4 - bits)
            continue;
        a->opt.bits = bits;
        a->rows.begins_ladder = true;
        st = atom_ablate(&a->opt, err);
        cli_progress_end(&a->bar);
    }
    free(text);
    if (!st && !a->json)
        ablate_rows_end(&a->rows);
    if (!st && a->plot) {
        char title[256];
        ablate_rows_title(&a->rows, title, sizeof title);
        st = atom_ablate_plot(a->rows.at, a->rows.n, title, a->plot, err);
    }
    return st;
}

static int run(const struct cli_command *cmd, struct ablation *a, const char *model, const char *text)
{
    struct atom_error err = {0};
    if (!a->opt.calib)
        return cli_usage(cmd, "--calib FILE is missing");
    if (cli_same_file(a->plot, text) || cli_same_file(a->plot, a->opt.calib))
        return cli_usage(cmd, "--plot %s would overwrite a text", a->plot);
    if (a->keep && a->work)
        return cli_usage(cmd, "--keep and --work exclude each other");
    if (a->only && !(a->opt.rungs = rungs_of(cmd, a->only)))
        return CLI_USAGE;
    a->text = text;
    a->opt.model = model;
    a->opt.dir = a->keep ? a->keep : a->work;
    a->opt.keep = a->keep != NULL;
    a->opt.on_row = on_row;
    a->opt.progress = show;
    a->opt.row_user = a->opt.user = a;
    a->rows = (struct ablate_rows){.model = model, .text = text, .opt = &a->opt, .json = a->json};
    cli_progress_init(&a->bar, a->quiet);
    cli_catch_interrupts();
    return cli_finish(climb(a, &err) ? cli_fail(&err) : 0);
}

int cmd_ablate(int argc, char **argv)
{
    struct ablation a = {.opt = {.samples = 64, .window = 1024}};
    char rungs[512] = "rungs:";
    int n_rungs;
    const struct atom_rung *list = atom_rungs(&n_rungs);
    for (int i = 0; i < n_rungs; i++)
        snprintf(rungs + strlen(rungs), sizeof rungs - strlen(rungs), "%s%s", i % 8 ? " " : "\n  ", list[i].name);
    const struct cli_option options[] = {
        {"calib", 0, CLI_TEXT, "FILE", &a.opt.calib, 0, 0, "calibration text", NULL},
        {"bits", 0, CLI_WORD, "4|3|both", &a.bits, 0, 0, "of weights, activations and KV cache (4)", NULL},
        {"only", 0, CLI_TEXT, "NAMES", &a.only, 0, 0, "these rungs alone, with commas between", NULL},
        {"samples", 0, CLI_INT, "N", &a.opt.samples, 1, 1 << 20, "windows to calibrate on, the file's first (64)",
         NULL},
        {"window", 'w', CLI_INT, "T", &a.opt.window, 2, 1 << 20, "tokens a window, of both texts (1024)", NULL},
        {"max-windows", 0, CLI_INT, "N", &a.opt.max_windows, 0, 1 << 30, "score N windows (0: all)", NULL},
        {"keep", 0, CLI_TEXT, "DIR", &a.keep, 0, 0, "keep checkpoints and results in DIR; go on with what is there",
         NULL},
        {"work", 0, CLI_TEXT, "DIR", &a.work, 0, 0, "keep results in DIR, but one checkpoint at a time", NULL},
        {"plot", 0, CLI_TEXT, "FILE", &a.plot, 0, 0, "draw the ladder into FILE, an SVG", NULL},
        {"json", 0, CLI_FLAG, NULL, &a.json, 0, 0, "one JSON line a rung", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &a.quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "ablate [options] MODEL TEXT",
        "What each ingredient gives: quantizes a float model rung by rung, from rounding to nearest over the paper's\n"
        "recipe to the default one, and measures the perplexity of TEXT after each.",
        options,
        2,
        2,
        rungs};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = run(&cmd, &a, args[0], args[1]);
    free(a.rows.at);
    free(args);
    return rc;
}
