/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval kld A B FILE... */
#include "eval_measures.h"
#include "eval_texts.h"
#include "execute.h"
#include "files.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kld_run {
    struct atom_model *a, *b;
    struct atom_kld_options opt;
    struct cli_progress bar;
    bool json, quiet;
    struct atom_kld_result result;
};

static json_t *spread_json(const struct atom_spread *s)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "mean", s->mean, "standard_error",
                     s->standard_error, "min", s->min, "p0.1", s->p0_1, "p1", s->p1, "p10", s->p10, "median", s->median,
                     "p90", s->p90, "p99", s->p99, "p99.9", s->p99_9, "max", s->max);
}

static bool print_json(const char *file, const struct atom_kld_result *r, int window, double seconds)
{
    json_t *o = json_pack("{s:s%, s:I, s:o, s:o, s:f, s:f, s:f, s:i, s:I, s:I, s:f}", "file", file, strlen(file),
                          "tokens", (json_int_t)r->tokens, "kl", spread_json(&r->kl), "change", spread_json(&r->change),
                          "top1", r->top1, "ppl_a", exp(r->nll_a), "ppl_b", exp(r->nll_b), "window", window, "windows",
                          (json_int_t)r->windows, "dropped", (json_int_t)r->dropped, "seconds", seconds);
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(12)) : NULL;
    bool named = text;
    if (named)
        puts(text);
    free(text);
    json_decref(o);
    return named;
}

static bool print_table(const char *file, const struct atom_kld_result *r, int window, double seconds)
{
    const struct atom_spread *k = &r->kl, *c = &r->change;
    const struct {
        const char *name;
        double kl, change;
    } rows[] = {{"mean", k->mean, c->mean},
                {"standard error", k->standard_error, c->standard_error},
                {"least", k->min, c->min},
                {"0.1 %", k->p0_1, c->p0_1},
                {"1 %", k->p1, c->p1},
                {"10 %", k->p10, c->p10},
                {"median", k->median, c->median},
                {"90 %", k->p90, c->p90},
                {"99 %", k->p99, c->p99},
                {"99.9 %", k->p99_9, c->p99_9},
                {"largest", k->max, c->max}};
    printf("%s: %lld tokens (%lld windows of %d; %lld tokens at the end fill none), %.1f s\n", file,
           (long long)r->tokens, (long long)r->windows, window, (long long)r->dropped, seconds);
    printf("%-16s%14s%18s\n", "", "KL(A || B)", "change of log p");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        printf("%-16s%14.6f%18.6f\n", rows[i].name, rows[i].kl, rows[i].change);
    printf("same top token %.3f %%; perplexity %.4f (A), %.4f (B)\n", 100 * r->top1, exp(r->nll_a), exp(r->nll_b));
    return true;
}

static enum atom_status measure(void *user, struct eval_text *t, struct atom_error *err)
{
    struct kld_run *run = user;
    return atom_eval_kld(run->a, run->b, t->text, t->n_bytes, &run->opt, &run->result, err);
}

static bool print(void *user, const struct eval_text *t)
{
    struct kld_run *run = user;
    return (run->json ? print_json : print_table)(t->file, &run->result, run->opt.window, cli_seconds() - t->started);
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct kld_run *run = user;
    const struct eval_texts texts = {args + 2, n - 2, &run->bar, measure, print, run};
    run->opt.progress = cli_progress_show;
    run->opt.user = &run->bar;
    enum atom_status st = cli_check_files(texts.files, texts.n, err);
    st = st ? st : atom_model_open(args[0], &run->a, err);
    st = st ? st : atom_model_open(args[1], &run->b, err);
    st = st ? st : eval_each_text(&texts, err);
    atom_model_close(run->b);
    atom_model_close(run->a);
    return st;
}

static struct kld_run run = {.opt = {.window = 1024}};

static const struct cli_option options[] = {
    {"window", 'w', CLI_INT, "T", &run.opt.window, 2, 1 << 20, "tokens a window (1024)", NULL},
    {"max-windows", 0, CLI_INT, "N", &run.opt.max_windows, 0, 1 << 30, "stop after N windows (0: all)", NULL},
    {"json", 0, CLI_FLAG, NULL, &run.json, 0, 0, "one JSON line a file", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &run.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

static const struct cli_command cmd = {
    "eval kld [options] A B FILE...",
    "How far model B (quantized) is from model A (its float original): at each position the divergence KL(A || B)\n"
    "of what they expect next, in nats, and by how much the log-probability of the token that follows changes;\n"
    "and how often both put the same token first. Windows as in 'eval ppl'; the vocabularies must be the same.",
    options,
    3,
    -1,
    "example: atom eval kld models/tiny build/tiny-w4a4 --window 256 models/tiny/eval.txt"};

int eval_kld(int argc, char **argv)
{
    const struct cli_work work = {&cmd, NULL, execute, &run, &run.bar, &run.quiet};
    return cli_execute(&work, argc, argv);
}
