/* SPDX-License-Identifier: Apache-2.0 */
/* atom inspect DIR */
#include "commands.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_COLUMNS = 7 }; /* linears of a layer, in the order of the JSON */
static const char *const columns[N_COLUMNS] = {"q", "k", "v", "o", "gate", "up", "down"};

static const json_t *at(const json_t *o, const char *name) { return json_object_get(o, name); }
static long long whole(const json_t *o, const char *name) { return (long long)json_integer_value(at(o, name)); }
static double number(const json_t *o, const char *name) { return json_number_value(at(o, name)); }

static const char *size_text(double n, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int i = 0;
    while (n >= 1024 && i < 4) {
        n /= 1024;
        i++;
    }
    snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", n, units[i]);
    return buf;
}

static void print_config(const json_t *root)
{
    const json_t *c = at(root, "config");
    printf("%s: a %s Llama model\n\n", json_string_value(at(root, "dir")),
           json_is_true(at(root, "quantized")) ? "quantized" : "float");
    printf("  layers         %lld of %lld channels, %lld in the MLP%s\n", whole(c, "layers"), whole(c, "hidden"),
           whole(c, "intermediate"), json_is_true(at(c, "attention_bias")) ? ", biases in attention" : "");
    printf("  heads          %lld of %lld channels, %lld for keys and values\n", whole(c, "heads"),
           whole(c, "head_dim"), whole(c, "kv_heads"));
    printf("  vocabulary     %lld%s\n", whole(c, "vocab"),
           json_is_true(at(c, "tied")) ? ", the head is the embedding" : "");
    printf("  positions      %lld\n", whole(c, "max_position"));
}

static void row(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void row(const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("  %-13s  ", name);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
}

static void print_weights(const json_t *s, const char *format)
{
    long long rows = whole(s, "rows_per_scale");
    if (format)
        row("weights", "%lld bits, stored as %s", whole(s, "wbits"), format);
    else if (whole(s, "wbits") == 16)
        row("weights", "as stored");
    else
        row("weights", "%lld bits, a scale for %lld row%s, %s, clip %s%g", whole(s, "wbits"), rows,
            rows == 1 ? "" : "s", json_is_true(at(s, "gptq")) ? "GPTQ" : "rounded to nearest",
            json_is_true(at(s, "clip_search")) ? "searched up to " : "", number(s, "weight_clip"));
}

static void print_cache(const json_t *s)
{
    const json_t *rotate = at(s, "rotate");
    const char *when = strcmp(json_string_value(at(s, "kv_rope")), "pre") == 0 ? "before" : "after";
    const char *first = json_string_value(json_array_get(rotate, 0)),
               *second = json_string_value(json_array_get(rotate, 1));
    if (whole(s, "kvbits") == 16)
        row("KV cache", "half precision, keys %s RoPE", when);
    else
        row("KV cache", "%lld bits, clip %g, keys %s RoPE", whole(s, "kvbits"), number(s, "kv_clip"), when);
    if (first)
        row("rotated", "%s%s%s", first, second ? ", " : "", second ? second : "");
}

static const char *outlier_text(const json_t *s)
{
    return whole(s, "outlier_bits") == 16 ? "half precision, activations in float"
           : at(s, "format")              ? "E4M3"
                                          : "8 bits";
}

static void print_scheme(const json_t *root)
{
    const json_t *s = at(root, "scheme");
    bool floats = at(s, "format"), halves = whole(s, "outliers") && whole(s, "outlier_bits") == 16;
    puts("\nscheme");
    if (floats || halves)
        row("format", "%s, simulated in float32", floats ? json_string_value(at(s, "format")) : "int");
    print_weights(s, json_string_value(at(root, "format")));
    if (whole(s, "abits") == 16)
        row("activations", "float");
    else
        row("activations", "%lld bits, clip %g", whole(s, "abits"), number(s, "act_clip"));
    if (whole(s, "wbits") < 16 || whole(s, "abits") < 16) {
        if (whole(s, "group"))
            row("group", "%lld channels", whole(s, "group"));
        else
            row("group", "the whole row");
        if (whole(s, "outliers"))
            row("outliers", "%lld channels in %s", whole(s, "outliers"), outlier_text(s));
        else
            row("outliers", "none");
    }
    print_cache(s);
    row("head", "%s", whole(s, "lm_head_bits") == 8 ? "8 bits" : "as stored");
}

static void print_bytes(const json_t *root)
{
    static const char *const kinds[] = {"linears", "embeddings", "head", "norms", "orders", "other", "total"};
    const json_t *bytes = at(root, "bytes");
    double total = number(bytes, "total");
    char size[32], other[32];
    printf("\n%-13s  %15s  %10s  %6s\n", "tensors", "bytes", "", "share");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (whole(bytes, kinds[i]) > 0)
            printf("  %-13s%15lld  %10s  %5.1f%%\n", kinds[i], whole(bytes, kinds[i]),
                   size_text(number(bytes, kinds[i]), size), 100 * number(bytes, kinds[i]) / (total > 0 ? total : 1));
    printf("\n  %.3f bits a weight in the linears, scales included; at 16 bits they would be %s\n",
           number(root, "bits_per_weight"), size_text(number(bytes, "linears_bf16"), size));
    printf("  %s of KV cache a token; %s in half precision\n", size_text(number(root, "kv_bytes_per_token"), size),
           size_text(number(root, "kv_bytes_per_token_f16"), other));
}

/* How another program's linears run, those of one form and reason in one line. */
static void print_forms(const json_t *root)
{
    const json_t *lines = at(root, "linears");
    size_t n = json_array_size(lines);
    if (!at(json_array_get(lines, 0), "form"))
        return;
    puts("\nlinears run in");
    for (size_t i = 0; i < n; i++) {
        const json_t *first = json_array_get(lines, i);
        double bytes = 0;
        int count = 0;
        char size[32];
        for (size_t j = 0; j < n && count >= 0; j++) {
            const json_t *line = json_array_get(lines, j);
            if (!json_equal(at(line, "form"), at(first, "form")) || !json_equal(at(line, "why"), at(first, "why")))
                continue;
            count = j < i ? -1 : count + 1; /* -1: told before */
            bytes += number(line, "loaded_bytes");
        }
        const char *why = json_string_value(at(first, "why"));
        if (count > 0)
            row(json_string_value(at(first, "form")), "%4d of them, %s in memory%s%s", count, size_text(bytes, size),
                why ? ": " : "", why ? why : "");
    }
}

static void print_error(const json_t *error)
{
    if (json_is_number(error))
        printf("  %7.4f", json_number_value(error));
    else
        printf("  %7s", "-");
}

/* One row per layer; nothing when no error is known. */
static void print_errors(const json_t *root)
{
    const json_t *lines = at(root, "linears"), *line;
    bool known = false;
    size_t i;
    json_array_foreach(lines, i, line) known |= json_is_number(at(line, "error"));
    if (!known)
        return;
    printf("\n%-7s", "errors");
    for (int c = 0; c < N_COLUMNS; c++)
        printf("  %7s", columns[c]);
    json_array_foreach(lines, i, line)
    {
        if (i % N_COLUMNS == 0)
            printf("\n  %-5zu", i / N_COLUMNS);
        print_error(at(line, "error"));
    }
    puts("\n\n  relative, of each linear's outputs on the calibration text");
}

static void print_tensors(const json_t *root)
{
    const json_t *lines = at(root, "tensors"), *line, *dim;
    size_t i, d, longest = 0;
    json_array_foreach(lines, i, line)
    {
        size_t n = json_string_length(at(line, "name"));
        longest = n > longest ? n : longest;
    }
    puts("");
    json_array_foreach(lines, i, line)
    {
        char shape[128] = "";
        size_t n = 0;
        json_array_foreach(at(line, "shape"), d, dim) if (n < 100) n +=
            (size_t)snprintf(shape + n, sizeof shape - n, "%s%lld", d ? " x " : "", (long long)json_integer_value(dim));
        printf("  %-*s  %-4s  %-15s %14lld  %s\n", (int)longest, json_string_value(at(line, "name")),
               json_string_value(at(line, "dtype")), shape, whole(line, "bytes"), json_string_value(at(line, "kind")));
    }
}

static int print_page(const char *json, bool tensors)
{
    json_error_t why;
    json_t *root = json_loads(json, 0, &why);
    if (!root) {
        fprintf(stderr, "atom: out of memory\n");
        return 1;
    }
    print_config(root);
    if (json_is_true(at(root, "quantized")))
        print_scheme(root);
    print_bytes(root);
    print_forms(root);
    print_errors(root);
    if (tensors)
        print_tensors(root);
    json_decref(root);
    return 0;
}

struct request {
    struct atom_inspect_plot_options plot;
    const char *out; /* NULL: no picture */
    bool json, tensors, quiet, any_of_plot;
};

static int draw(const struct cli_command *cmd, struct request *r)
{
    struct atom_error err = {0};
    struct cli_progress bar;
    if (!r->out)
        return cli_usage(cmd, "--calib, --samples and --window are for --plot FILE, which is missing");
    if (r->json || r->tensors)
        return cli_usage(cmd, "--plot draws: it goes with neither --json nor --tensors");
    if (cli_same_file(r->out, r->plot.calib))
        return cli_usage(cmd, "--plot %s would overwrite the text", r->out);
    if (cli_is_model_file(r->out, r->plot.model))
        return cli_usage(cmd, "--plot %s would overwrite a file of the model", r->out);
    cli_progress_init(&bar, r->quiet);
    cli_catch_interrupts();
    r->plot.progress = cli_progress_show;
    r->plot.user = &bar;
    enum atom_status st = atom_inspect_plot(&r->plot, r->out, &err);
    cli_progress_end(&bar);
    if (st == ATOM_ERR_INVALID && !r->plot.calib)
        strncat(err.message, " (--calib FILE)", sizeof err.message - strlen(err.message) - 1);
    return st ? cli_fail(&err) : 0;
}

static int print(const struct request *r)
{
    struct atom_error err = {0};
    char *text = NULL;
    int rc = atom_inspect(r->plot.model, &text, &err) ? cli_fail(&err) : r->json ? 0 : print_page(text, r->tensors);
    if (r->json && rc == 0)
        puts(text);
    free(text);
    return cli_finish(rc);
}

int cmd_inspect(int argc, char **argv)
{
    struct request r = {0};
    const struct cli_option options[] = {
        {"json", 0, CLI_FLAG, NULL, &r.json, 0, 0, "all of it as one JSON object", NULL},
        {"tensors", 0, CLI_FLAG, NULL, &r.tensors, 0, 0, "list every tensor too", NULL},
        {"plot", 0, CLI_TEXT, "FILE", &r.out, 0, 0, "instead: draw layers, linears and channels into FILE, an SVG",
         NULL},
        {"calib", 0, CLI_TEXT, "FILE", &r.plot.calib, 0, 0, "a text, for what activations show; a float model needs it",
         &r.any_of_plot},
        {"samples", 0, CLI_INT, "N", &r.plot.samples, 1, 1 << 20, "windows of it, the first (8)", &r.any_of_plot},
        {"window", 'w', CLI_INT, "T", &r.plot.window, 2, 1 << 20, "tokens a window (1024)", &r.any_of_plot},
        {"quiet", 'q', CLI_FLAG, NULL, &r.quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "inspect DIR [options]",
        "Says what a checkpoint holds, float or quantized: shape, scheme, bytes by kind, bits a weight, and the\n"
        "error each quantized linear ended with, or how the linears of another program's checkpoint run here. --plot "
        "draws\n"
        "errors and outliers of a quantized checkpoint and, with a text, channel sizes of any.",
        options,
        1,
        1,
        "examples: atom inspect models/tiny\n"
        "          atom inspect models/tiny --plot tiny.svg --calib models/tiny/eval.txt"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON) {
        r.plot.model = args[0];
        rc = r.out || r.any_of_plot ? draw(&cmd, &r) : print(&r);
    }
    free(args);
    return rc;
}
