/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval ppl MODEL FILE... */
#include "eval_measures.h"
#include "eval_rows.h"
#include "files.h"
#include "options.h"
#include "progress.h"

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
    bool json;
};

/* JSON knows no infinity: a text may have no word that begins where it is scored. */
static json_t *finite_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static void print_json(const char *file, const struct atom_ppl_result *r, const struct atom_ppl_options *opt,
                       double seconds)
{
    json_t *o = json_pack("{s:s%, s:I, s:f, s:f, s:i, s:i, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f}", "file", file,
                          strlen(file), "tokens", (json_int_t)r->tokens, "ppl", r->ppl, "nll", r->nll, "window",
                          opt->window, "stride", opt->stride ? opt->stride : opt->window, "windows",
                          (json_int_t)r->windows, "dropped", (json_int_t)r->dropped, "bytes", (json_int_t)r->bytes,
                          "words", (json_int_t)r->words, "bits_per_byte", finite_or_null(r->bits_per_byte), "byte_ppl",
                          finite_or_null(r->byte_ppl), "word_ppl", finite_or_null(r->word_ppl), "seconds", seconds);
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(12)) : NULL;
    puts(text ? text : "{\"file\": null}");
    free(text);
    json_decref(o);
}

static void print_result(const char *file, const struct atom_ppl_result *r, const struct atom_ppl_options *opt,
                         double seconds)
{
    printf("%s: perplexity %.4f over %lld tokens (%lld windows of %d, %lld tokens dropped), %.1f s\n", file, r->ppl,
           (long long)r->tokens, (long long)r->windows, opt->window, (long long)r->dropped, seconds);
    printf("    %.4f over %lld words, %.4f over %lld bytes: %.4f bits a byte\n", r->word_ppl, (long long)r->words,
           r->byte_ppl, (long long)r->bytes, r->bits_per_byte);
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

static enum atom_status score_text(struct ppl_run *run, char **text, size_t n_bytes, struct atom_ppl_result *r,
                                   struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    if (run->dataset >= 0 && eval_dataset_is_drawn(run->dataset))
        return score_drawn(run, *text, n_bytes, r, err);
    if (run->dataset >= 0)
        st = eval_join_rows(run->dataset, text, &n_bytes, err);
    return st ? st : atom_eval_ppl(run->model, *text, n_bytes, &run->opt, r, err);
}

static enum atom_status one_file(struct ppl_run *run, const char *file, struct atom_error *err)
{
    struct atom_ppl_result r;
    char *text;
    size_t n_bytes;
    enum atom_status st = cli_read_file(file, &text, &n_bytes, err);
    if (st)
        return st;
    double started = cli_seconds();
    run->bar.started = 0;
    st = score_text(run, &text, n_bytes, &r, err);
    cli_progress_end(&run->bar);
    free(text);
    if (!st) {
        (run->json ? print_json : print_result)(file, &r, &run->opt, cli_seconds() - started);
        fflush(stdout);
    } else {
        eval_name_file(err, file);
    }
    return st;
}

static void limit_windows(struct ppl_run *run)
{
    int most = run->dataset >= 0 ? eval_dataset_windows(run->dataset) : 0;
    if (most && (!run->opt.max_windows || run->opt.max_windows > most))
        run->opt.max_windows = most;
}

int eval_ppl(int argc, char **argv)
{
    struct ppl_run run = {.opt = {.window = 1024}, .dataset = -1};
    bool quiet = false;
    const struct cli_option options[] = {
        {"window", 'w', CLI_INT, "T", &run.opt.window, 2, 1 << 20, "tokens a window (1024)", NULL},
        {"stride", 0, CLI_INT, "T", &run.opt.stride, 1, 1 << 20, "tokens from window to window (the window)", NULL},
        {"max-windows", 0, CLI_INT, "N", &run.opt.max_windows, 0, 1 << 30, "stop after N windows (0: all)", NULL},
        {"dataset", 0, CLI_WORD, EVAL_DATASETS, &run.dataset, 0, 0,
         "FILE holds this data set's rows: take them as GPTQ does", NULL},
        {"json", 0, CLI_FLAG, NULL, &run.json, 0, 0, "one JSON line a file", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "eval ppl [options] MODEL FILE...",
        "Perplexity of a float or quantized model, by tokens, words and bytes. Each file is one string with one BOS,\n"
        "cut into windows that do not overlap (--stride: that do, each scoring what none before it did); the first\n"
        "token of a window is not scored, a short last window is dropped.",
        options,
        2,
        -1,
        "example: atom eval ppl models/tiny --window 256 models/tiny/eval.txt"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    struct atom_error err = {0};
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON) {
        cli_progress_init(&run.bar, quiet);
        cli_catch_interrupts();
        limit_windows(&run);
        run.opt.progress = cli_progress_show;
        run.opt.user = &run.bar;
        enum atom_status st = atom_model_open(args[0], &run.model, &err);
        for (int i = 1; i < n && !st; i++)
            st = one_file(&run, args[i], &err);
        rc = cli_finish(st ? cli_fail(&err) : 0);
    }
    atom_model_close(run.model);
    free(args);
    return rc;
}
