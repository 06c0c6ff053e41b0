/* SPDX-License-Identifier: Apache-2.0 */
/* atom bench cpu */
#include "bench_devices.h"
#include "options.h"
#include "progress.h"

#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>

struct output {
    struct cli_progress bar;
    bool json, lost;
    struct atom_bench_line before; /* the line told last */
    bool any;
    struct atom_bench_line *models; /* for the plot */
    int n_models;
};

static bool show(void *user, const struct atom_progress *p)
{
    struct output *out = user;
    return cli_progress_show(&out->bar, p);
}

static void keep(struct output *out, const struct atom_bench_line *line)
{
    struct atom_bench_line *more = realloc(out->models, ((size_t)out->n_models + 1) * sizeof *more);
    out->lost |= !more;
    if (!more)
        return;
    more[out->n_models++] = *line;
    out->models = more;
}

static void print_line(void *user, const struct atom_bench_line *line)
{
    struct output *out = user;
    char *text = out->json ? atom_bench_json(line) : atom_bench_text(line, out->any ? &out->before : NULL);
    cli_progress_end(&out->bar);
    out->lost |= !text;
    if (text)
        fputs(text, stdout);
    if (out->json)
        putchar('\n');
    fflush(stdout);
    free(text);
    out->before = *line;
    out->any = true;
    if (line->what == ATOM_BENCH_MODEL)
        keep(out, line);
}

/* What the command line says, before it is understood. */
struct words {
    struct cli_texts shapes;
    const char *prefill, *decode, *depth, *batch;
    const char *write, *load, *plot;
    int only, abits, kv, head;
    bool only_given;
};

static int read_lists(const struct cli_command *cmd, const struct words *w, struct atom_bench_plan *plan)
{
    enum { MOST = 1 << 17 };
    const struct {
        const char *text;
        struct atom_bench_range range;
        struct atom_bench_list *out;
    } lists[] = {{w->prefill, {"--prefill", 0, MOST}, &plan->prefill},
                 {w->decode, {"--decode", 0, MOST}, &plan->decode},
                 {w->depth, {"--depth", 0, MOST}, &plan->depth},
                 {w->batch, {"--batch", 1, 512}, &plan->batch}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct atom_error err = {0};
        if (lists[i].text && atom_bench_parse_list(&lists[i].range, lists[i].text, lists[i].out, &err))
            return cli_usage(cmd, "%s", err.message);
    }
    return CLI_GO_ON;
}

static bool says_none(const struct atom_bench_list *list) { return list->n == 1 && list->at[0] == 0; }

static int settle(const struct cli_command *cmd, const struct words *w, struct atom_bench_options *opt)
{
    static const char *const usual[] = {"1.1b"};
    static const int abits[] = {4, 8}, kvs[] = {4, 8, 16}, heads[] = {8, 16};
    int rc = read_lists(cmd, w, &opt->plan);
    if (rc == CLI_GO_ON && (w->write != NULL) + (w->load != NULL) + (w->plot != NULL) > 1)
        rc = cli_usage(cmd, "--write, --load and --plot exclude each other");
    if (rc == CLI_GO_ON && w->write && w->shapes.n > 1)
        rc = cli_usage(cmd, "--write takes one --shape");
    if (rc == CLI_GO_ON && w->plot && w->only_given && w->only != 2)
        rc = cli_usage(cmd, "--plot draws whole models, which --only leaves out");
    if (rc == CLI_GO_ON && w->plot && says_none(&opt->plan.prefill) && says_none(&opt->plan.decode))
        rc = cli_usage(cmd, "--plot has nothing to draw: --prefill and --decode are both 0");
    opt->shapes = w->shapes.n ? w->shapes.at : usual;
    opt->n_shapes = w->shapes.n ? w->shapes.n : 1;
    opt->ceilings = !w->only_given || w->only == 0;
    opt->kernels = w->only_given ? w->only == 1 : !w->shapes.n;
    opt->models = !w->only_given || w->only == 2;
    opt->abits = abits[w->abits];
    opt->kvbits = kvs[w->kv];
    opt->head_bits = heads[w->head];
    return rc;
}

static enum atom_status run(const struct words *w, const struct atom_bench_options *opt, struct output *out,
                            struct atom_error *err)
{
    if (w->write)
        return atom_bench_write(opt, w->write, err);
    if (w->load)
        return atom_bench_load(opt, w->load, err);
    enum atom_status st = w->plot ? atom_bench_plot(NULL, 0, w->plot, err) : ATOM_OK;
    st = st ? st : atom_bench_cpu(opt, err);
    if (!st && out->lost) {
        st = err->code = ATOM_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory: some lines are missing");
    }
    return st || !w->plot ? st : atom_bench_plot(out->models, out->n_models, w->plot, err);
}

int bench_cpu(int argc, char **argv)
{
    struct output out = {.json = false};
    struct atom_bench_options opt = {.plan = {.repeat = 3}, .on_line = print_line, .progress = show, .user = &out};
    struct words w = {0};
    struct atom_error err = {0};
    bool quiet = false;
    const struct cli_option options[] = {
        {"shape", 's', CLI_TEXTS, "NAME", &w.shapes, 0, 0, "tiny, 1.1b, 7b, 13b, 70b, 8b (1.1b); may be given again",
         NULL},
        {"only", 0, CLI_WORD, "ceilings|kernels|models", &w.only, 0, 0, "leave the rest out", &w.only_given},
        {"prefill", 0, CLI_TEXT, "LIST", &w.prefill, 0, 0, "tokens to prefill (512; 128 of large shapes); 0: none",
         NULL},
        {"decode", 0, CLI_TEXT, "LIST", &w.decode, 0, 0, "steps to decode (64; fewer for large batches); 0: none",
         NULL},
        {"depth", 0, CLI_TEXT, "LIST", &w.depth, 0, 0, "positions in the cache before (0,1024; to decode 4096 too)",
         NULL},
        {"batch", 0, CLI_TEXT, "LIST", &w.batch, 0, 0, "sequences to decode at once (1; at depth 0 also 2 to 32)",
         NULL},
        {"abits", 0, CLI_WORD, "4|8", &w.abits, 0, 0, "bits of activations (4)", NULL},
        {"kv", 0, CLI_WORD, "4|8|16", &w.kv, 0, 0, "bits of the KV cache (4)", NULL},
        {"head", 0, CLI_WORD, "8|16", &w.head, 0, 0, "bits of the head (8)", NULL},
        {"repeat", 'r', CLI_INT, "N", &opt.plan.repeat, 1, 100, "times a phase is run, for the median (3)", NULL},
        {"write", 0, CLI_TEXT, "DIR", &w.write, 0, 0, "measure nothing: make a checkpoint of random weights", NULL},
        {"load", 0, CLI_TEXT, "DIR", &w.load, 0, 0, "measure how long the checkpoint in DIR takes to open", NULL},
        {"plot", 0, CLI_TEXT, "FILE", &w.plot, 0, 0, "draw the shares of whole models as an SVG (gnuplot)", NULL},
        {"json", 0, CLI_FLAG, NULL, &out.json, 0, 0, "one JSON object a line", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "bench cpu [options]",
        "Measures what this machine can do at best, then operations and whole models of random weights against it.\n"
        "A share is the part of that ceiling that was reached. LIST is numbers with commas between.",
        options,
        0,
        0,
        "example: atom bench cpu --shape 1.1b --prefill 512 --decode 64 --depth 0 --batch 1,4"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = settle(&cmd, &w, &opt);
    if (rc == CLI_GO_ON) {
        cli_progress_init(&out.bar, quiet);
        cli_catch_interrupts();
        enum atom_status st = run(&w, &opt, &out, &err);
        cli_progress_end(&out.bar);
        rc = cli_finish(st ? cli_fail(&err) : 0);
    }
    free(out.models);
    free(args);
    return rc;
}
