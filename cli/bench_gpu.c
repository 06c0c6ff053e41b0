/* SPDX-License-Identifier: Apache-2.0 */
/* atom bench gpu */
#include "bench_devices.h"
#include "options.h"
#include "progress.h"

#include "bench/gpu_bench.h"

#include <stdio.h>
#include <stdlib.h>

/* All lines are kept: those from `told` on make the table that is not printed yet, and a plot wants all. */
struct output {
    struct cli_progress bar;
    bool json, lost;
    struct atom_gpu_line *lines;
    int n, room, told;
};

static bool show(void *user, const struct atom_progress *p)
{
    struct output *out = user;
    return cli_progress_show(&out->bar, p);
}

static void print(struct output *out, char *text, const char *end)
{
    cli_progress_end(&out->bar);
    out->lost |= !text;
    if (text)
        printf("%s%s", text, end);
    fflush(stdout);
    free(text);
}

static void print_table(struct output *out)
{
    if (!out->json && out->told < out->n)
        print(out, atom_gpu_text(out->lines + out->told, out->n - out->told), "");
    out->told = out->n;
}

static void take_line(void *user, const struct atom_gpu_line *line)
{
    struct output *out = user;
    if (out->told < out->n && !atom_gpu_same_table(&out->lines[out->told], line))
        print_table(out);
    if (out->n == out->room) {
        int room = 2 * out->room + 64;
        struct atom_gpu_line *more = realloc(out->lines, (size_t)room * sizeof *more);
        out->lost |= !more;
        if (!more)
            return;
        out->lines = more;
        out->room = room;
    }
    out->lines[out->n++] = *line;
    if (out->json)
        print(out, atom_gpu_json(line), "\n");
}

/* What the command line says, before it is understood. */
struct words {
    struct cli_texts shapes;
    const char *tokens, *plot, *from;
    int only;
    bool only_given, quiet;
};

enum { ONLY_CEILINGS, ONLY_LINEARS, ONLY_ROWS, ONLY_ATTENTION };

static int settle(const struct cli_command *cmd, const struct words *w, struct atom_gpu_options *opt)
{
    const struct atom_bench_range range = {"--tokens", 1, 1 << 16};
    struct atom_error err = {0};
    opt->shapes = w->shapes.at;
    opt->n_shapes = w->shapes.n;
    opt->ceilings = !w->only_given || w->only == ONLY_CEILINGS;
    opt->linears = !w->only_given || w->only == ONLY_LINEARS;
    opt->rows = !w->only_given || w->only == ONLY_ROWS;
    opt->attention = !w->only_given || w->only == ONLY_ATTENTION;
    if (w->tokens && atom_bench_parse_list(&range, w->tokens, &opt->tokens, &err))
        return cli_usage(cmd, "%s", err.message);
    if (w->plot && !opt->linears)
        return cli_usage(cmd, "--plot draws linears, which --only leaves out");
    return atom_gpu_check(opt, &err) ? cli_usage(cmd, "%s", err.message) : CLI_GO_ON;
}

static enum atom_status run(const struct words *w, const struct atom_gpu_options *opt, struct output *out,
                            struct atom_error *err)
{
    enum atom_status st = w->plot ? atom_gpu_plot(NULL, 0, w->plot, err) : ATOM_OK;
    if (!st)
        st = w->from ? atom_gpu_read(w->from, take_line, out, err) : atom_bench_gpu(opt, err);
    print_table(out);
    if (!st && out->lost) {
        st = err->code = ATOM_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory: some lines are missing");
    }
    return st || !w->plot ? st : atom_gpu_plot(out->lines, out->n, w->plot, err);
}

static const char about[] =
    "Measures what a CUDA device can do at best, then the kernels of a model's step against it and beside cuBLASLt.\n"
    "Every kernel's results are compared with the formula first. Without options: the linears, rows and attention of\n"
    "Llama-2-7B and Llama-3-8B, under a minute on an H100. LIST is numbers or names with commas between.";

int bench_gpu(int argc, char **argv)
{
    struct output out = {.json = false};
    struct atom_gpu_options opt = {.on_line = take_line, .progress = show, .user = &out};
    struct words w = {0};
    struct atom_error err = {0};
    const struct cli_option options[] = {
        {"shape", 's', CLI_TEXTS, "SHAPE", &w.shapes, 0, 0,
         "a model (7b, 13b, 70b, 8b, 1.1b, tiny), or a linear, rows x channels: 11008x4096; again", NULL},
        {"tokens", 't', CLI_TEXT, "LIST", &w.tokens, 0, 0, "tokens at once (1,4,16,64,256,1024,4096)", NULL},
        {"only", 0, CLI_WORD, "ceilings|linears|rows|attention", &w.only, 0, 0, "leave the rest out", &w.only_given},
        {"schemes", 0, CLI_TEXT, "LIST", &opt.schemes, 0, 0,
         "of linears: w4a4, w4a8, w8a8, w4a16; by cuBLASLt fp16, int8, fp8 (all)", NULL},
        {"repeat", 'r', CLI_INT, "N", &opt.repeat, 1, 1000, "times a measurement is repeated, for the median (21)",
         NULL},
        {"device", 0, CLI_INT, "N", &opt.device, 0, 1023, "which CUDA device (0)", NULL},
        {"plot", 0, CLI_TEXT, "FILE", &w.plot, 0, 0, "draw the linears' speed by tokens as an SVG (gnuplot)", NULL},
        {"from", 0, CLI_TEXT, "FILE", &w.from, 0, 0, "measure nothing: tables and --plot of lines that --json wrote",
         NULL},
        {"json", 0, CLI_FLAG, NULL, &out.json, 0, 0, "one JSON object a line", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &w.quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {"bench gpu [options]",
                                    about,
                                    options,
                                    0,
                                    0,
                                    "example: atom bench gpu --shape 11008x4096 --tokens 1,16,256 --schemes w4a4,fp16"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = settle(&cmd, &w, &opt);
    if (rc == CLI_GO_ON) {
        cli_progress_init(&out.bar, w.quiet);
        cli_catch_interrupts();
        enum atom_status st = run(&w, &opt, &out, &err);
        cli_progress_end(&out.bar);
        rc = cli_finish(st ? cli_fail(&err) : 0);
    }
    free(out.lines);
    free(args);
    return rc;
}
