/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval ppl MODEL FILE... */
#include "eval_measures.h"
#include "eval_rows.h"
#include "eval_texts.h"
#include "execute.h"
#include "files.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ppl_run {
    struct atom_model *model;
    struct atom_ppl_options opt;
    struct cli_progress bar;
    int dataset; /* -1: the file is the text */
    bool json, quiet;
    struct atom_ppl_result result;
};

/* JSON knows no infinity: a text may have no word that begins where it is scored. */
static json_t *finite_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static bool print_json(const char *file, const struct atom_ppl_result *r, const struct atom_ppl_options *opt,
                       double seconds)
{
    json_t *o =
        json_pack("{s:s%, s:I, s:o, s:o, s:i, s:i, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f}", "file", file, strlen(file),
                  "tokens", (json_int_t)r->tokens, "ppl", finite_or_null(r->ppl), "nll", finite_or_null(r->nll),
                  "window", opt->window, "stride", opt->stride ? opt->stride : opt->window, "windows",
                  (json_int_t)r->windows, "dropped", (json_int_t)r->dropped, "bytes", (json_int_t)r->bytes, "words",
                  (json_int_t)r->words, "bits_per_byte", finite_or_null(r->bits_per_byte), "byte_ppl",
                  finite_or_null(r->byte_ppl), "word_ppl", finite_or_null(r->word_ppl), "seconds", seconds);
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(12)) : NULL;
    bool named = text;
    if (named)
        puts(text);
    free(text);
    json_decref(o);
    return named;
}

static bool print_result(const char *file, const struct atom_ppl_result *r, const struct atom_ppl_options *opt,
                         double seconds)
{
    printf("%s: perplexity %.4f over %lld tokens (%lld windows of %d; %lld tokens at the end fill none), %.1f s\n",
           file, r->ppl, (long long)r->tokens, (long long)r->windows, opt->window, (long long)r->dropped, seconds);
    printf("    %.4f over %lld words, %.4f over %lld bytes: %.4f bits a byte\n", r->word_ppl, (long long)r->words,
           r->byte_ppl, (long long)r->bytes, r->bits_per_byte);
    return true;
}

static enum atom_status score_drawn(struct ppl_run *run, const char *text, size_t n_bytes, struct atom_ppl_result *r,
                                    struct atom_error *err)
{
    struct atom_ids ids = {0};
    enum atom_status st = atom_draw_windows(atom_model_tokenizer(run->model), text, n_bytes,
                                            eval_dataset_windows(run->dataset), run->opt.window, &ids, err);
    if (!st)
        st = atom_eval_ppl_ids(run->model, ids.ids, ids.n, &run->opt, r, err);
    atom_ids_free(&ids);
    return st;
}

static enum atom_status measure(void *user, struct eval_text *t, struct atom_error *err)
{
    struct ppl_run *run = user;
    enum atom_status st = ATOM_OK;
    if (run->dataset >= 0 && eval_dataset_is_drawn(run->dataset))
        return score_drawn(run, t->text, t->n_bytes, &run->result, err);
    if (run->dataset >= 0)
        st = eval_join_rows(run->dataset, &t->text, &t->n_bytes, err);
    return st ? st : atom_eval_ppl(run->model, t->text, t->n_bytes, &run->opt, &run->result, err);
}

static bool print(void *user, const struct eval_text *t)
{
    struct ppl_run *run = user;
    return (run->json ? print_json : print_result)(t->file, &run->result, &run->opt, cli_seconds() - t->started);
}

static void limit_windows(struct ppl_run *run)
{
    int most = run->dataset >= 0 ? eval_dataset_windows(run->dataset) : 0;
    if (most && (!run->opt.max_windows || run->opt.max_windows > most))
        run->opt.max_windows = most;
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct ppl_run *run = user;
    const struct eval_texts texts = {args + 1, n - 1, &run->bar, measure, print, run};
    limit_windows(run);
    run->opt.progress = cli_progress_show;
    run->opt.user = &run->bar;
    enum atom_status st = cli_check_files(texts.files, texts.n, err);
    st = st ? st : atom_model_open(args[0], &run->model, err);
    st = st ? st : eval_each_text(&texts, err);
    atom_model_close(run->model);
    return st;
}

static struct ppl_run run = {.opt = {.window = 1024}, .dataset = -1};

static const struct cli_option options[] = {
    {"window", 'w', CLI_INT, "T", &run.opt.window, 2, 1 << 20, "tokens a window (1024)", NULL},
    {"stride", 0, CLI_INT, "T", &run.opt.stride, 1, 1 << 20, "tokens from window to window (the window)", NULL},
    {"max-windows", 0, CLI_INT, "N", &run.opt.max_windows, 0, 1 << 30, "stop after N windows (0: all)", NULL},
    {"dataset", 0, CLI_WORD, EVAL_DATASETS, &run.dataset, 0, 0,
     "FILE holds this data set's rows: take them as GPTQ does", NULL},
    {"json", 0, CLI_FLAG, NULL, &run.json, 0, 0, "one JSON line a file", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &run.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

static const struct cli_command cmd = {
    "eval ppl [options] MODEL FILE...",
    "Perplexity of a float or quantized model, by tokens, words and bytes. Each file is one string with one BOS,\n"
    "cut into windows that do not overlap (--stride: that do, each scoring what none before it did); the first\n"
    "token of a window is not scored, tokens at the end that fill no window are dropped (\"dropped\" of --json:\n"
    "they alone, not what --max-windows leaves out).",
    options,
    2,
    -1,
    "example: atom eval ppl models/tiny --window 256 models/tiny/eval.txt"};

int eval_ppl(int argc, char **argv)
{
    const struct cli_work work = {&cmd, NULL, execute, &run, &run.bar, &run.quiet};
    return cli_execute(&work, argc, argv);
}
