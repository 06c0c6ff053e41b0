/* SPDX-License-Identifier: Apache-2.0 */
/* atom ablate MODEL --calib FILE TEXT */
#include "ablate_rows.h"
#include "commands.h"
#include "execute.h"
#include "files.h"

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

static int check(const struct cli_command *cmd, void *user, const char **args, int n)
{
    struct ablation *a = user;
    (void)n;
    if (!a->opt.calib)
        return cli_usage(cmd, "--calib FILE is missing: the text to calibrate on");
    if (cli_same_file(a->plot, args[1]) || cli_same_file(a->plot, a->opt.calib))
        return cli_usage(cmd, "--plot %s would overwrite a text", a->plot);
    if (cli_is_model_file(a->plot, args[0]))
        return cli_usage(cmd, "--plot %s would overwrite a file of the model", a->plot);
    if (a->keep && a->work)
        return cli_usage(cmd, "--keep and --work exclude each other");
    return a->only && !(a->opt.rungs = rungs_of(cmd, a->only)) ? CLI_USAGE : CLI_GO_ON;
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct ablation *a = user;
    (void)n;
    a->text = args[1];
    a->opt.model = args[0];
    a->opt.dir = a->keep ? a->keep : a->work;
    a->opt.keep = a->keep != NULL;
    a->opt.on_row = on_row;
    a->opt.progress = show;
    a->opt.row_user = a->opt.user = a;
    a->rows = (struct ablate_rows){.model = args[0], .text = args[1], .opt = &a->opt, .json = a->json};
    enum atom_status st = climb(a, err);
    free(a->rows.at);
    return st;
}

static struct ablation ablation = {.opt = {.samples = 64, .window = 1024}};

static const struct cli_option options[] = {
    {"calib", 0, CLI_TEXT, "FILE", &ablation.opt.calib, 0, 0, "calibration text", NULL},
    {"bits", 0, CLI_WORD, "4|3|both", &ablation.bits, 0, 0, "of weights, activations and KV cache (4)", NULL},
    {"only", 0, CLI_TEXT, "NAMES", &ablation.only, 0, 0, "these rungs alone, with commas between", NULL},
    {"samples", 0, CLI_INT, "N", &ablation.opt.samples, 1, 1 << 20, "windows to calibrate on, the file's first (64)",
     NULL},
    {"window", 'w', CLI_INT, "T", &ablation.opt.window, 2, 1 << 20, "tokens a window, of both texts (1024)", NULL},
    {"max-windows", 0, CLI_INT, "N", &ablation.opt.max_windows, 0, 1 << 30, "score N windows (0: all)", NULL},
    {"keep", 0, CLI_TEXT, "DIR", &ablation.keep, 0, 0, "keep checkpoints and results in DIR; go on with what is there",
     NULL},
    {"work", 0, CLI_TEXT, "DIR", &ablation.work, 0, 0, "keep results in DIR, but one checkpoint at a time", NULL},
    {"plot", 0, CLI_TEXT, "FILE", &ablation.plot, 0, 0, "draw the ladder into FILE, an SVG", NULL},
    {"json", 0, CLI_FLAG, NULL, &ablation.json, 0, 0, "one JSON line a rung", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &ablation.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

int cmd_ablate(int argc, char **argv)
{
    char rungs[512] = "rungs:";
    int n;
    const struct atom_rung *list = atom_rungs(&n);
    for (int i = 0; i < n; i++)
        snprintf(rungs + strlen(rungs), sizeof rungs - strlen(rungs), "%s%s", i % 8 ? " " : "\n  ", list[i].name);
    const struct cli_command cmd = {
        "ablate --calib FILE [options] MODEL TEXT",
        "What each ingredient gives: quantizes a float model rung by rung, from rounding to nearest over the paper's\n"
        "recipe to the default one, and measures the perplexity of TEXT after each.",
        options,
        2,
        2,
        rungs};
    const struct cli_work work = {&cmd, check, execute, &ablation, &ablation.bar, &ablation.quiet};
    return cli_execute(&work, argc, argv);
}
