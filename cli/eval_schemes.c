/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval --schemes LIST MODEL TEXT...: quantizes a model by each scheme and measures what that costs. */
#include "eval_measures.h"
#include "execute.h"
#include "files.h"
#include "scheme_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_LIST "w8a8,w8a8-smooth,w4a16-rtn,w4a16-gptq,w4a16-awq,w4a8kv4,paper,w4a4kv4"

/* ---- schemes ----------------------------------------------------------------------------------------------------- */

struct atom_quantize_options scheme_options(struct scheme_run *run, int i, const char *dir)
{
    struct atom_quantize_options o = run->quantize;
    o.model = run->model;
    o.out = dir;
    o.scheme = run->schemes[i]->scheme;
    o.resume = o.fit = true;
    o.overwrite = run->found[i].out == ATOM_OUT_DAMAGED;
    o.progress = scheme_progress;
    o.user = run;
    return o;
}

/* A checkpoint at `dir`, unless a whole one is there. */
static enum atom_status make(struct scheme_run *run, int i, const char *dir, struct scheme_row *row,
                             struct atom_error *err)
{
    const struct atom_quantize_options o = scheme_options(run, i, dir);
    if (run->found[i].out == ATOM_OUT_WHOLE)
        return ATOM_OK;
    double started = cli_seconds();
    scheme_next_phase(run);
    enum atom_status st = atom_quantize(&o, err);
    row->quantize_seconds = cli_seconds() - started;
    cli_progress_end(&run->bar);
    return st;
}

static enum atom_status one_scheme(struct scheme_run *run, int i, struct atom_error *err)
{
    struct scheme_row row = {.name = run->schemes[i]->name};
    struct atom_model *m = NULL;
    struct atom_error why = {0};
    char dir[1100];
    snprintf(dir, sizeof dir, "%s/%s", run->work, row.name);
    run->name = row.name;
    enum atom_status st = make(run, i, dir, &row, &why);
    st = st ? st : atom_model_open(dir, &m, &why);
    st = st ? st : scheme_measure(run, dir, m, &row, &why);
    atom_model_close(m);
    if (st == ATOM_ERR_CANCELLED)
        return scheme_fail(err, st, "%s: stopped; %s", row.name,
                           run->keep ? "the same command goes on from there"
                                     : "with --keep DIR the same command would go on from there");
    if (st)
        return scheme_fail(err, st, "%s: %.850s", row.name, why.message);
    return run->keep ? ATOM_OK : cli_remove_tree(dir, err);
}

static enum atom_status all_schemes(struct scheme_run *run, struct atom_error *err)
{
    struct scheme_row row = {.name = "float"};
    run->name = row.name;
    enum atom_status st = scheme_check_inputs(run, err);
    if (st)
        return st;
    scheme_rows_head(&run->table);
    st = scheme_measure(run, run->model, run->exact, &row, err);
    for (int i = 0; i < run->n_schemes && !st; i++)
        st = one_scheme(run, i, err);
    return st;
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct scheme_run *run = user;
    struct atom_error ignored;
    (void)args;
    (void)n;
    enum atom_status st = cli_make_folder(run->keep, run->work, sizeof run->work, err);
    if (st)
        return st;
    st = run->keep ? cli_lock_folder(run->work, err) : ATOM_OK;
    st = st ? st : all_schemes(run, err);
    cli_progress_end(&run->bar);
    atom_model_close(run->exact);
    if (!run->keep && cli_remove_tree(run->work, st ? &ignored : err) && !st)
        st = err->code;
    for (int i = 0; i < CLI_MAX_TEXTS; i++) {
        free(run->texts[i].text);
        free(run->items[i].text);
    }
    return st;
}

/* ---- command line ------------------------------------------------------------------------------------------------ */

static const struct atom_named_scheme *find(const char *name)
{
    int n;
    const struct atom_named_scheme *all = atom_named_schemes(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(name, all[i].name) == 0 || (all[i].also && strcmp(name, all[i].also) == 0))
            return &all[i];
    return NULL;
}

static int add_scheme(const struct cli_command *cmd, struct scheme_run *run, const char *name)
{
    const struct atom_named_scheme *s = find(name);
    struct atom_scheme ignored;
    struct atom_error err = {0};
    if (!s) {
        atom_scheme_named(name, &ignored, &err);
        return cli_usage(cmd, "--schemes: %s", err.message);
    }
    for (int i = 0; i < run->n_schemes; i++)
        if (run->schemes[i] == s)
            return cli_usage(cmd, "--schemes: '%s'%s%s%s is named twice", s->name, s->also ? " (or '" : "",
                             s->also ? s->also : "", s->also ? "')" : "");
    run->schemes[run->n_schemes++] = s;
    return CLI_GO_ON;
}

/* Commas stand between names. */
static int find_schemes(const struct cli_command *cmd, struct scheme_run *run)
{
    for (const char *at = run->list; *at; at += *at == ',') {
        char name[64];
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), at);
        int rc = add_scheme(cmd, run, name);
        if (rc != CLI_GO_ON)
            return rc;
        at += n;
    }
    return run->n_schemes ? CLI_GO_ON : cli_usage(cmd, "--schemes names none");
}

static int check(const struct cli_command *cmd, void *user, const char **args, int n)
{
    struct scheme_run *run = user;
    if (!run->quantize.calib == !run->quantize.calib_ids)
        return cli_usage(cmd, run->quantize.calib ? "--calib and --calib-ids exclude each other"
                                                  : "--calib FILE is missing: the text to calibrate on");
    if (n < 2 || n - 1 > CLI_MAX_TEXTS)
        return cli_usage(cmd, n < 2 ? "a TEXT is missing: the file to measure on" : "more than %d texts",
                         CLI_MAX_TEXTS);
    run->model = args[0];
    run->table.texts = args + 1;
    run->table.n_texts = n - 1;
    run->table.tasks = &run->tasks;
    return find_schemes(cmd, run);
}

static struct scheme_run run = {.list = DEFAULT_LIST, .quantize = {.samples = 64, .window = 1024}};

static const struct cli_option options[] = {
    {"schemes", 's', CLI_TEXT, "LIST", &run.list, 0, 0,
     "names with commas between; 'atom quantize --scheme list' shows them", NULL},
    {"calib", 0, CLI_TEXT, "FILE", &run.quantize.calib, 0, 0, "calibration text", NULL},
    {"calib-ids", 0, CLI_TEXT, "FILE", &run.quantize.calib_ids, 0, 0, "instead: JSON lines {\"ids\": [...]}", NULL},
    {"samples", 0, CLI_INT, "N", &run.quantize.samples, 1, 1 << 20, "windows to calibrate on (64)", NULL},
    {"window", 'w', CLI_INT, "T", &run.quantize.window, 2, 1 << 20,
     "tokens a window, of calibration and of TEXT (1024)", NULL},
    {"max-windows", 0, CLI_INT, "N", &run.max_windows, 0, 1 << 30, "stop after N windows of a TEXT (0: all)", NULL},
    {"tasks", 't', CLI_TEXTS, "FILE", &run.tasks, 0, 0, "items as in 'eval tasks'; may be given again", NULL},
    {"limit", 0, CLI_INT, "N", &run.limit, 0, 1 << 30, "score the first N items of a file (0: all)", NULL},
    {"keep", 'k', CLI_TEXT, "DIR", &run.keep, 0, 0,
     "keep checkpoints in DIR/SCHEME, and take those that are there from an earlier run", NULL},
    {"json", 0, CLI_FLAG, NULL, &run.table.json, 0, 0, "one JSON line a scheme", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &run.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

static const struct cli_command cmd = {
    "eval schemes --calib FILE [options] MODEL TEXT...",
    "Quantizes MODEL by each scheme and measures, beside the float model: size, speed, perplexity of each TEXT,\n"
    "KL divergence from the float model (nats a position), share of items that are right. 'atom eval --schemes\n"
    "LIST ...' is the same. With --keep, a run that was stopped goes on where it was.",
    options,
    1,
    -1,
    "without --schemes: " DEFAULT_LIST "\n\n"
    "example: atom eval --schemes w8a8,w4a4kv4 models/tiny --calib models/tiny/eval.txt --samples 8 --window 256 "
    "\\\n"
    "             models/tiny/eval.txt"};

int eval_schemes(int argc, char **argv)
{
    const struct cli_work work = {&cmd, check, execute, &run, &run.bar, &run.quiet};
    return cli_execute(&work, argc, argv);
}
