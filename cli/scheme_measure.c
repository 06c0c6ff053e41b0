/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_measures.h"
#include "scheme_run.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMED_WINDOWS = 8 };

enum atom_status scheme_fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    return err->code = code;
}

/* What quantizing notes of each linear is left out. */
bool scheme_progress(void *user, const struct atom_progress *p)
{
    struct scheme_run *run = user;
    char phase[96];
    struct atom_progress q = *p;
    snprintf(phase, sizeof phase, "%s: %s", run->name, p->phase);
    q.phase = phase;
    q.note = NULL;
    return cli_progress_show(&run->bar, &q);
}

void scheme_next_phase(struct scheme_run *run)
{
    cli_progress_end(&run->bar);
    run->bar.started = 0;
}

bool scheme_go_on(void *user, const struct atom_progress *p)
{
    (void)user;
    (void)p;
    return !cli_stopped();
}

/* Once to warm up, then timed. */
static enum atom_status measure_speed(struct scheme_run *run, struct atom_model *m, struct scheme_row *row,
                                      struct atom_error *err)
{
    struct atom_ppl_options o = {.window = run->quantize.window, .max_windows = 1, .progress = scheme_go_on};
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

static enum atom_status measure_text(struct scheme_run *run, struct atom_model *m, int i, struct scheme_row *row,
                                     struct atom_error *err)
{
    const struct scheme_file *f = &run->texts[i];
    struct scheme_text *t = &row->texts[i];
    enum atom_status st;
    scheme_next_phase(run);
    if (m == run->exact) {
        const struct atom_ppl_options o = {run->quantize.window, 0, run->max_windows, scheme_progress, run};
        struct atom_ppl_result r;
        st = atom_eval_ppl(m, f->text, f->n_bytes, &o, &r, err);
        if (!st)
            *t = (struct scheme_text){r.ppl, 0, 0, 1, r.tokens};
    } else {
        const struct atom_kld_options o = {run->quantize.window, run->max_windows, scheme_progress, run};
        struct atom_kld_result r;
        st = atom_eval_kld(run->exact, m, f->text, f->n_bytes, &o, &r, err);
        if (!st)
            *t = (struct scheme_text){exp(r.nll_b), r.kl.mean, r.kl.standard_error, r.top1, r.tokens};
    }
    if (st)
        eval_name_file(err, run->table.texts[i]);
    return st;
}

static enum atom_status measure_task(struct scheme_run *run, struct atom_model *m, int i, struct scheme_row *row,
                                     struct atom_error *err)
{
    const struct atom_task_options o = {.limit = run->limit, .progress = scheme_progress, .user = run};
    struct atom_task_result r;
    scheme_next_phase(run);
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
    return row->bytes > 0 ? ATOM_OK : scheme_fail(err, ATOM_ERR_NOMEM, "out of memory while %.800s was looked at", dir);
}

enum atom_status scheme_measure(struct scheme_run *run, const char *dir, struct atom_model *m, struct scheme_row *row,
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
        st = scheme_fail(err, ATOM_ERR_FORMAT, "no JSON can name the files: one of the names is not UTF-8");
    return st;
}
