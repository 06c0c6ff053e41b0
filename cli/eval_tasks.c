/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval tasks MODEL FILE... */
#include "eval_measures.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct atom_model *model;
    struct atom_task_options opt;
    struct cli_progress bar;
    bool json, by_subtask;
    FILE *log;      /* NULL: none */
    bool log_short; /* lines are missing */
    const char *log_name;
    int widest; /* name of the table's first column */
    const char *file, *stem;
    int stem_bytes;
};

/* FILE without its folders and what follows the last dot. */
static void name_task(struct run *run, const char *file)
{
    const char *slash = strrchr(file, '/');
    run->file = file;
    run->stem = slash ? slash + 1 : file;
    const char *dot = strrchr(run->stem, '.');
    run->stem_bytes = dot && dot > run->stem ? (int)(dot - run->stem) : (int)strlen(run->stem);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static json_t *number(double x) { return isnan(x) ? json_null() : json_real(x); }

/* A line of its own; frees the object. */
static bool put_line(FILE *out, json_t *o)
{
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(12)) : NULL;
    bool ok = text && fprintf(out, "%s\n", text) >= 0;
    free(text);
    json_decref(o);
    return ok;
}

static json_t *score_json(const struct run *run, const struct atom_task_score *s)
{
    json_t *o = json_pack("{s:s%, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "task", run->stem, (size_t)run->stem_bytes,
                          "file", run->file, "n", (json_int_t)s->n, "acc", number(s->acc), "acc_stderr",
                          number(s->acc_stderr), "acc_norm", number(s->acc_norm), "acc_norm_stderr",
                          number(s->acc_norm_stderr), "ppl", number(s->ppl), "ppl_stderr", number(s->ppl_stderr));
    if (s->subtask && json_object_set_new(o, "subtask", json_string(s->subtask))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void log_item(void *user, const struct atom_task_item *item)
{
    struct run *run = user;
    json_t *lls = json_array(), *tokens = json_array();
    for (int i = 0; i < item->n; i++) {
        json_array_append_new(lls, json_real(item->loglikelihoods[i]));
        json_array_append_new(tokens, json_integer(item->n_tokens[i]));
    }
    json_t *o = json_pack("{s:s%, s:i, s:o, s:o, s:b}", "task", run->stem, (size_t)run->stem_bytes, "line", item->line,
                          "loglikelihoods", lls, "tokens", tokens, "right", item->right);
    if (item->subtask)
        json_object_set_new(o, "subtask", json_string(item->subtask));
    if (item->gold >= 0) {
        json_object_set_new(o, "gold", json_integer(item->gold));
        json_object_set_new(o, "best", json_integer(item->best));
    }
    if (item->best_norm >= 0) {
        json_object_set_new(o, "best_norm", json_integer(item->best_norm));
        json_object_set_new(o, "right_norm", json_boolean(item->right_norm));
    }
    run->log_short |= !put_line(run->log, o);
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

static const char *spell(double value, double error, char text[64])
{
    if (isnan(value))
        return "-";
    if (isnan(error))
        snprintf(text, 64, "%.2f", value);
    else
        snprintf(text, 64, "%.2f +- %.2f", value, error);
    return text;
}

static void print_row(const struct run *run, const struct atom_task_score *s)
{
    char acc[64], acc_norm[64], ppl[64];
    if (s->subtask)
        printf("  %-*s", run->widest - 2, s->subtask);
    else
        printf("%-*.*s", run->widest, run->stem_bytes, run->stem);
    printf("  %7lld  %16s  %16s  %s\n", (long long)s->n, spell(100 * s->acc, 100 * s->acc_stderr, acc),
           spell(100 * s->acc_norm, 100 * s->acc_norm_stderr, acc_norm), spell(s->ppl, s->ppl_stderr, ppl));
}

static void print_head(const struct run *run)
{
    printf("%-*s  %7s  %16s  %16s  %s\n", run->widest, "task", "items", "acc %", "acc_norm %", "ppl");
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* Seconds go to the line of all items alone. */
static enum atom_status print_score(const struct run *run, const struct atom_task_score *s, double seconds,
                                    struct atom_error *err)
{
    if (!run->json) {
        print_row(run, s);
        return ATOM_OK;
    }
    json_t *o = score_json(run, s);
    if (o && !s->subtask)
        json_object_set_new(o, "seconds", json_real(seconds));
    if (o) {
        put_line(stdout, o); /* cli_finish sees what is lost */
        return ATOM_OK;
    }
    err->code = ATOM_ERR_FORMAT;
    snprintf(err->message, sizeof err->message, "%.900s: no JSON can name it: it is not UTF-8", run->file);
    return err->code;
}

static enum atom_status print_result(const struct run *run, const struct atom_task_result *r, double seconds,
                                     struct atom_error *err)
{
    enum atom_status st = print_score(run, &r->all, seconds, err);
    for (int i = 0; run->by_subtask && i < r->n_subtasks && !st; i++)
        st = print_score(run, &r->subtasks[i], seconds, err);
    fflush(stdout);
    return st;
}

static enum atom_status lost_log(const struct run *run, struct atom_error *err)
{
    err->code = ATOM_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: %s", run->log_name,
             errno ? strerror(errno) : "some of it could not be written");
    return err->code;
}

static enum atom_status one_file(struct run *run, const char *file, struct atom_error *err)
{
    struct atom_task_result r;
    char *text;
    size_t n_bytes;
    enum atom_status st = cli_read_file(file, &text, &n_bytes, err);
    if (st)
        return st;
    double started = cli_seconds();
    run->bar.started = 0;
    name_task(run, file);
    st = atom_eval_task(run->model, text, n_bytes, &run->opt, &r, err);
    cli_progress_end(&run->bar);
    free(text);
    if (st) {
        eval_name_file(err, file);
        return st;
    }
    st = print_result(run, &r, cli_seconds() - started, err);
    atom_task_result_free(&r);
    errno = 0;
    if (!st && run->log && (fflush(run->log) || ferror(run->log) || run->log_short))
        st = lost_log(run, err);
    return st;
}

static enum atom_status all_files(struct run *run, const char **args, int n, struct atom_error *err)
{
    run->opt.progress = cli_progress_show;
    run->opt.user = &run->bar;
    run->widest = run->by_subtask ? 50 : 20;
    if (run->log_name) {
        run->opt.on_item = log_item;
        run->opt.item_user = run;
        run->log = fopen(run->log_name, "w");
        if (!run->log)
            return lost_log(run, err);
    }
    enum atom_status st = atom_model_open(args[0], &run->model, err);
    if (!st && !run->json)
        print_head(run);
    for (int i = 1; i < n && !st; i++)
        st = one_file(run, args[i], err);
    errno = 0;
    if (run->log && fclose(run->log) && !st)
        st = lost_log(run, err);
    return st;
}

int eval_tasks(int argc, char **argv)
{
    struct run run = {0};
    bool quiet = false;
    const struct cli_option options[] = {
        {"limit", 0, CLI_INT, "N", &run.opt.limit, 0, 1 << 30, "score the first N items of a file (0: all)", NULL},
        {"by-subtask", 0, CLI_FLAG, NULL, &run.by_subtask, 0, 0, "a line for each \"task\" that items name too", NULL},
        {"log", 0, CLI_TEXT, "FILE", &run.log_name, 0, 0, "one JSON line an item: log-likelihoods and what they chose",
         NULL},
        {"json", 0, CLI_FLAG, NULL, &run.json, 0, 0, "one JSON line a file", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "eval tasks [options] MODEL FILE...",
        "Multiple choice, scored as lm-evaluation-harness does. Each file holds JSON lines of one of these forms:\n"
        "  {\"context\": TEXT, \"choices\": [TEXT, ...], \"gold\": INDEX}\n"
        "  {\"contexts\": [TEXT, ...], \"continuation\": TEXT, \"gold\": INDEX}\n"
        "  {\"context\": TEXT, \"continuation\": TEXT}",
        options,
        2,
        -1,
        "example: atom eval tasks MODEL --json piqa.jsonl winogrande.jsonl"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    struct atom_error err = {0};
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON) {
        cli_progress_init(&run.bar, quiet);
        cli_catch_interrupts();
        rc = cli_finish(all_files(&run, args, n, &err) ? cli_fail(&err) : 0);
    }
    atom_model_close(run.model);
    free(args);
    return rc;
}
