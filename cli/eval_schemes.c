/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval --schemes LIST MODEL FILE...: quantizes a model by each scheme and measures what that costs. */
#include "eval_measures.h"
#include "files.h"
#include "progress.h"
#include "scheme_rows.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMED_WINDOWS = 8, ALL = 256 };

struct file {
    char *text;
    size_t n_bytes;
};

struct run {
    const char *model, *list, *keep;
    char work[1024]; /* the folder of all checkpoints */
    struct atom_quantize_options quantize;
    int max_windows, limit;
    struct cli_texts tasks;
    struct scheme_table table;
    struct cli_progress bar;
    const struct atom_named_scheme *schemes[ALL];
    int n_schemes;
    struct file texts[CLI_MAX_TEXTS], items[CLI_MAX_TEXTS];
    struct atom_model *exact;
    const char *name; /* of the scheme at work */
};

static enum atom_status fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static enum atom_status fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    return err->code = code;
}

/* Says which scheme is at work; what quantizing notes of each linear is left out. */
static bool show(void *user, const struct atom_progress *p)
{
    struct run *run = user;
    char phase[96];
    struct atom_progress q = *p;
    snprintf(phase, sizeof phase, "%s: %s", run->name, p->phase);
    q.phase = phase;
    q.note = NULL;
    return cli_progress_show(&run->bar, &q);
}

static void next_phase(struct run *run)
{
    cli_progress_end(&run->bar);
    run->bar.started = 0;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* Once to warm up, then timed. */
static enum atom_status measure_speed(struct run *run, struct atom_model *m, struct scheme_row *row,
                                      struct atom_error *err)
{
    struct atom_ppl_options o = {.window = run->quantize.window, .max_windows = 1};
    struct atom_ppl_result r;
    enum atom_status st = atom_eval_ppl(m, run->texts[0].text, run->texts[0].n_bytes, &o, &r, err);
    double started = cli_seconds();
    o.max_windows = TIMED_WINDOWS;
    st = st ? st : atom_eval_ppl(m, run->texts[0].text, run->texts[0].n_bytes, &o, &r, err);
    if (st)
        eval_name_file(err, run->table.texts[0]);
    else
        row->tokens_a_second = (double)(r.windows * o.window) / (cli_seconds() - started);
    return st;
}

static enum atom_status measure_text(struct run *run, struct atom_model *m, int i, struct scheme_row *row,
                                     struct atom_error *err)
{
    const struct file *f = &run->texts[i];
    struct scheme_text *t = &row->texts[i];
    enum atom_status st;
    next_phase(run);
    if (m == run->exact) {
        const struct atom_ppl_options o = {run->quantize.window, 0, run->max_windows, show, run};
        struct atom_ppl_result r;
        st = atom_eval_ppl(m, f->text, f->n_bytes, &o, &r, err);
        if (!st)
            *t = (struct scheme_text){r.ppl, 0, 0, 1, r.tokens};
    } else {
        const struct atom_kld_options o = {run->quantize.window, run->max_windows, show, run};
        struct atom_kld_result r;
        st = atom_eval_kld(run->exact, m, f->text, f->n_bytes, &o, &r, err);
        if (!st)
            *t = (struct scheme_text){exp(r.nll_b), r.kl.mean, r.kl.standard_error, r.top1, r.tokens};
    }
    if (st)
        eval_name_file(err, run->table.texts[i]);
    return st;
}

static enum atom_status measure_task(struct run *run, struct atom_model *m, int i, struct scheme_row *row,
                                     struct atom_error *err)
{
    const struct atom_task_options o = {.limit = run->limit, .progress = show, .user = run};
    struct atom_task_result r;
    next_phase(run);
    const struct atom_task_file file = {.records = {run->tasks.at[i], run->items[i].text, run->items[i].n_bytes}};
    enum atom_status st = atom_eval_task(m, &file, &o, &r, err);
    if (st) {
        eval_name_file(err, run->tasks.at[i]);
        return st;
    }
    row->tasks[i] = r.all;
    row->tasks[i].subtask = NULL;
    atom_task_result_free(&r);
    return ATOM_OK;
}

static enum atom_status measure_size(const char *dir, struct scheme_row *row, struct atom_error *err)
{
    char *text;
    enum atom_status st = atom_inspect(dir, &text, err);
    if (st)
        return st;
    json_t *o = json_loads(text, 0, NULL);
    row->bytes = json_number_value(json_object_get(json_object_get(o, "bytes"), "total"));
    row->bits_per_weight = json_number_value(json_object_get(o, "bits_per_weight"));
    row->kv_bytes_per_token = json_number_value(json_object_get(o, "kv_bytes_per_token"));
    free(text);
    json_decref(o);
    return row->bytes > 0 ? ATOM_OK : fail(err, ATOM_ERR_NOMEM, "out of memory while %.800s was looked at", dir);
}

static enum atom_status measure(struct run *run, const char *dir, struct atom_model *m, struct scheme_row *row,
                                struct atom_error *err)
{
    row->scheme = atom_model_info(m)->scheme;
    enum atom_status st = measure_size(dir, row, err);
    st = st ? st : measure_speed(run, m, row, err);
    for (int i = 0; i < run->table.n_texts && !st; i++)
        st = measure_text(run, m, i, row, err);
    for (int i = 0; i < run->tasks.n && !st; i++)
        st = measure_task(run, m, i, row, err);
    cli_progress_end(&run->bar);
    if (!st && !scheme_rows_print(&run->table, row))
        st = fail(err, ATOM_ERR_FORMAT, "no JSON can name the files: one of the names is not UTF-8");
    return st;
}

/* ---- schemes ----------------------------------------------------------------------------------------------------- */

static enum atom_status one_scheme(struct run *run, const struct atom_named_scheme *s, struct atom_error *err)
{
    struct scheme_row row = {.name = s->name};
    struct atom_quantize_options o = run->quantize;
    struct atom_model *m = NULL;
    char dir[1100], why[sizeof err->message];
    snprintf(dir, sizeof dir, "%s/%s", run->work, s->name);
    run->name = s->name;
    o.model = run->model;
    o.out = dir;
    o.scheme = s->scheme;
    o.resume = true;
    o.progress = show;
    o.user = run;
    next_phase(run);
    bool there = cli_exists(dir);
    double started = cli_seconds();
    enum atom_status st = atom_quantize(&o, err);
    row.quantize_seconds = there ? 0 : cli_seconds() - started;
    cli_progress_end(&run->bar);
    st = st ? st : atom_model_open(dir, &m, err);
    st = st ? st : measure(run, dir, m, &row, err);
    atom_model_close(m);
    if (st == ATOM_ERR_CANCELLED) {
        fail(err, st, "%s: stopped; %s", s->name,
             run->keep ? "the same command goes on from there"
                       : "with --keep DIR the same command would go on from there");
    } else if (st) {
        memcpy(why, err->message, sizeof why);
        fail(err, st, "%s: %.850s", s->name, why);
    } else if (!run->keep) {
        st = cli_remove_tree(dir, err);
    }
    return st;
}

static enum atom_status float_row(struct run *run, struct atom_error *err)
{
    struct scheme_row row = {.name = "float"};
    run->name = row.name;
    enum atom_status st = atom_model_open(run->model, &run->exact, err);
    if (!st && atom_model_info(run->exact)->quantized)
        st = fail(err, ATOM_ERR_INVALID, "%.800s is quantized already", run->model);
    if (st)
        return st;
    scheme_rows_head(&run->table);
    return measure(run, run->model, run->exact, &row, err);
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

/* Commas stand between names. */
static int find_schemes(const struct cli_command *cmd, struct run *run)
{
    int n_all;
    const struct atom_named_scheme *all = atom_named_schemes(&n_all);
    for (const char *at = run->list; *at; at += *at == ',') {
        char name[64];
        struct atom_scheme found;
        struct atom_error err = {0};
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), at);
        if (run->n_schemes == ALL || atom_scheme_named(name, &found, &err))
            return cli_usage(cmd, "--schemes: %s", err.message[0] ? err.message : "too many names");
        for (int i = 0; i < n_all; i++)
            if (strcmp(name, all[i].name) == 0 || (all[i].also && strcmp(name, all[i].also) == 0))
                run->schemes[run->n_schemes++] = &all[i];
        at += n;
    }
    return run->n_schemes ? CLI_GO_ON : cli_usage(cmd, "--schemes names none");
}

static enum atom_status read_files(struct run *run, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->table.n_texts && !st; i++)
        st = cli_read_file(run->table.texts[i], &run->texts[i].text, &run->texts[i].n_bytes, err);
    for (int i = 0; i < run->tasks.n && !st; i++)
        st = cli_read_file(run->tasks.at[i], &run->items[i].text, &run->items[i].n_bytes, err);
    return st;
}

static enum atom_status all_schemes(struct run *run, struct atom_error *err)
{
    enum atom_status st = read_files(run, err);
    st = st ? st : cli_make_folder(run->keep, run->work, sizeof run->work, err);
    if (st)
        return st;
    st = float_row(run, err);
    for (int i = 0; i < run->n_schemes && !st; i++)
        st = one_scheme(run, run->schemes[i], err);
    cli_progress_end(&run->bar);
    struct atom_error ignored;
    if (!run->keep)
        cli_remove_tree(run->work, st ? &ignored : err);
    return st;
}

static int settle(const struct cli_command *cmd, struct run *run, const char **args, int n)
{
    if (!run->quantize.calib == !run->quantize.calib_ids)
        return cli_usage(cmd, run->quantize.calib ? "--calib and --calib-ids exclude each other"
                                                  : "--calib FILE is missing: the text to calibrate on");
    if (n < 2 || n - 1 > CLI_MAX_TEXTS)
        return cli_usage(cmd, n < 2 ? "a FILE is missing: the text to measure on" : "more than %d texts",
                         CLI_MAX_TEXTS);
    run->model = args[0];
    run->table.texts = args + 1;
    run->table.n_texts = n - 1;
    run->table.tasks = &run->tasks;
    return find_schemes(cmd, run);
}

int eval_schemes(int argc, char **argv)
{
    static struct run run = {.list = "w8a8,w8a8-smooth,w4a16-rtn,w4a16-gptq,w4a16-awq,w4a8kv4,paper,w4a4kv4",
                             .quantize = {.samples = 64, .window = 1024}};
    bool quiet = false;
    const struct cli_option options[] = {
        {"schemes", 's', CLI_TEXT, "LIST", &run.list, 0, 0,
         "names with commas between; 'atom quantize --scheme list' shows them", NULL},
        {"calib", 0, CLI_TEXT, "FILE", &run.quantize.calib, 0, 0, "calibration text", NULL},
        {"calib-ids", 0, CLI_TEXT, "FILE", &run.quantize.calib_ids, 0, 0, "instead: JSON lines {\"ids\": [...]}", NULL},
        {"samples", 0, CLI_INT, "N", &run.quantize.samples, 1, 1 << 20, "windows to calibrate on (64)", NULL},
        {"window", 'w', CLI_INT, "T", &run.quantize.window, 2, 1 << 20,
         "tokens a window, of calibration and of FILE (1024)", NULL},
        {"max-windows", 0, CLI_INT, "N", &run.max_windows, 0, 1 << 30, "stop after N windows of a FILE (0: all)", NULL},
        {"tasks", 't', CLI_TEXTS, "FILE", &run.tasks, 0, 0, "items as in 'eval tasks'; may be given again", NULL},
        {"limit", 0, CLI_INT, "N", &run.limit, 0, 1 << 30, "score the first N items of a file (0: all)", NULL},
        {"keep", 'k', CLI_TEXT, "DIR", &run.keep, 0, 0,
         "keep checkpoints in DIR/SCHEME, and take those that are there from an earlier run", NULL},
        {"json", 0, CLI_FLAG, NULL, &run.table.json, 0, 0, "one JSON line a scheme", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "eval schemes [options] MODEL FILE...",
        "Quantizes MODEL by each scheme and measures, beside the float model: size, speed, perplexity of each FILE,\n"
        "KL divergence from the float model (nats a position), share of items that are right. 'atom eval --schemes\n"
        "LIST ...' is the same. With --keep, a run that was stopped goes on where it was.",
        options,
        1,
        -1,
        "example: atom eval --schemes w8a8,w4a4kv4 models/tiny --calib models/tiny/eval.txt --samples 8 --window 256 "
        "\\\n"
        "             models/tiny/eval.txt"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    struct atom_error err = {0};
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = settle(&cmd, &run, args, n);
    if (rc == CLI_GO_ON) {
        cli_progress_init(&run.bar, quiet);
        cli_catch_interrupts();
        rc = cli_finish(all_schemes(&run, &err) ? cli_fail(&err) : 0);
    }
    for (int i = 0; i < CLI_MAX_TEXTS; i++) {
        free(run.texts[i].text);
        free(run.items[i].text);
    }
    atom_model_close(run.exact);
    free(args);
    return rc;
}
