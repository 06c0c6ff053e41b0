/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_measures.h"
#include "files.h"
#include "scheme_run.h"

#include <stdio.h>
#include <string.h>

static enum atom_status read_files(struct scheme_run *run, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->table.n_texts && !st; i++)
        st = cli_read_file(run->table.texts[i], &run->texts[i].text, &run->texts[i].n_bytes, err);
    for (int i = 0; i < run->tasks.n && !st; i++)
        st = cli_read_file(run->tasks.at[i], &run->items[i].text, &run->items[i].n_bytes, err);
    return st;
}

/* Every item counts as scored: files are looked through and nothing is computed. */
static bool know_all(void *user, int line, int n, double *loglikelihoods, bool *right)
{
    (void)user;
    (void)line;
    memset(loglikelihoods, 0, (size_t)n * sizeof *loglikelihoods);
    *right = false;
    return true;
}

static enum atom_status check_texts(struct scheme_run *run, struct atom_error *err)
{
    const struct atom_ppl_options o = {.window = run->quantize.window, .max_windows = 1, .progress = scheme_go_on};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->table.n_texts && !st; i++) {
        struct atom_ppl_result ignored;
        st = atom_eval_ppl(run->exact, run->texts[i].text, run->texts[i].n_bytes, &o, &ignored, err);
        if (st)
            eval_name_file(err, run->table.texts[i]);
    }
    return st;
}

static enum atom_status check_tasks(struct scheme_run *run, struct atom_error *err)
{
    const struct atom_task_options o = {.limit = run->limit, .recall = know_all, .progress = scheme_go_on};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->tasks.n && !st; i++) {
        const struct atom_task_file file = {.records = {run->tasks.at[i], run->items[i].text, run->items[i].n_bytes}};
        struct atom_task_result ignored;
        st = atom_eval_task(run->exact, &file, &o, &ignored, err);
        if (st)
            eval_name_file(err, run->tasks.at[i]);
        else
            atom_task_result_free(&ignored);
    }
    return st;
}

static enum atom_status check_schemes(struct scheme_run *run, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->n_schemes && !st; i++) {
        char dir[1100];
        struct atom_error why = {0};
        snprintf(dir, sizeof dir, "%s/%s", run->work, run->schemes[i]->name);
        const struct atom_quantize_options o = scheme_options(run, i, dir);
        st = atom_quantize_check(&o, &run->found[i], &why);
        if (st)
            scheme_fail(err, st, "%s: %.850s", run->schemes[i]->name, why.message);
        else if (run->found[i].out == ATOM_OUT_DAMAGED)
            fprintf(stderr, "atom: %s; it is made anew\n", run->found[i].damage);
    }
    return st;
}

enum atom_status scheme_check_inputs(struct scheme_run *run, struct atom_error *err)
{
    enum atom_status st = read_files(run, err);
    st = st ? st : atom_model_open(run->model, &run->exact, err);
    if (!st && atom_model_info(run->exact)->quantized)
        st = scheme_fail(err, ATOM_ERR_INVALID, "%.800s is quantized already", run->model);
    st = st ? st : check_schemes(run, err);
    st = st ? st : check_texts(run, err);
    return st ? st : check_tasks(run, err);
}
