/* SPDX-License-Identifier: Apache-2.0 */
/* atom quantize MODEL -o OUT --calib FILE */
#include "commands.h"
#include "options.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the command line said; -1 and NULL leave the recipe's value. */
struct request {
    const char *recipe;
    int wbits, abits, kvbits, group, outliers, outlier_bits, rows_per_scale, kv_rope, rotate, lm_head, format;
    float act_clip, weight_clip, kv_clip, smooth, asymmetric;
    bool search, no_search, no_gptq, gptq, quiet;
};

static void apply(const struct request *r, struct atom_scheme *s)
{
    static const unsigned rotations[] = {0, ATOM_ROTATE_QK, ATOM_ROTATE_V, ATOM_ROTATE_QK | ATOM_ROTATE_V};
    const struct {
        int from, *to;
    } ints[] = {{r->wbits, &s->wbits},          {r->abits, &s->abits},
                {r->kvbits, &s->kvbits},        {r->group, &s->group},
                {r->outliers, &s->outliers},    {r->rows_per_scale, &s->rows_per_scale},
                {r->lm_head, &s->lm_head_bits}, {r->outlier_bits, &s->outlier_bits}};
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++)
        if (ints[i].from >= 0)
            *ints[i].to = ints[i].from;
    if (r->format >= 0)
        s->format = (enum atom_format)r->format;
    if (r->act_clip > 0)
        s->act_clip = r->act_clip;
    if (r->kv_clip > 0)
        s->kv_clip = r->kv_clip;
    if (r->weight_clip > 0) {
        s->weight_clip = r->weight_clip;
        s->clip_search = false;
    }
    if (r->search || r->no_search)
        s->clip_search = r->search;
    if (r->no_gptq || r->gptq)
        s->gptq = r->gptq;
    if (r->smooth >= 0)
        s->smooth = r->smooth;
    if (r->asymmetric >= 0)
        s->asymmetric = r->asymmetric;
    if (r->kv_rope >= 0)
        s->kv_rope = r->kv_rope == 0 ? ATOM_KV_PRE : ATOM_KV_POST;
    if (r->rotate >= 0)
        s->rotate = rotations[r->rotate];
}

static int run(const struct cli_command *cmd, const struct request *r, struct atom_quantize_options *o)
{
    struct atom_error err = {0};
    struct cli_progress bar;
    if (!o->out)
        return cli_usage(cmd, "-o OUT is missing: the directory to make");
    if (!o->calib == !o->calib_ids)
        return cli_usage(cmd, o->calib ? "--calib and --calib-ids exclude each other" : "--calib FILE is missing");
    if (atom_scheme_recipe(r->recipe, &o->scheme, &err))
        return cli_usage(cmd, "%s", err.message);
    if (strcmp(r->recipe, "default") == 0)
        o->scheme.outliers = -1;
    apply(r, &o->scheme);
    cli_progress_init(&bar, r->quiet);
    cli_catch_interrupts();
    o->progress = cli_progress_show;
    o->user = &bar;
    double started = cli_seconds();
    enum atom_status st = atom_quantize(o, &err);
    cli_progress_end(&bar);
    if (st)
        return cli_fail(&err);
    if (!r->quiet)
        fprintf(stderr, "%s is ready after %.1f s\n", o->out, cli_seconds() - started);
    return 0;
}

int cmd_quantize(int argc, char **argv)
{
    struct atom_quantize_options o = {.samples = 64, .window = 1024};
    struct request r = {.recipe = "default",
                        .wbits = -1,
                        .abits = -1,
                        .kvbits = -1,
                        .group = -1,
                        .outliers = -1,
                        .outlier_bits = -1,
                        .format = -1,
                        .rows_per_scale = -1,
                        .kv_rope = -1,
                        .rotate = -1,
                        .lm_head = -1,
                        .smooth = -1,
                        .asymmetric = -1};
    const struct cli_option options[] = {
        {"output", 'o', CLI_TEXT, "OUT", &o.out, 0, 0, "directory to make", NULL},
        {"calib", 0, CLI_TEXT, "FILE", &o.calib, 0, 0, "calibration text", NULL},
        {"calib-ids", 0, CLI_TEXT, "FILE", &o.calib_ids, 0, 0, "instead: JSON lines {\"ids\": [...]}, a window each",
         NULL},
        {"samples", 0, CLI_INT, "N", &o.samples, 1, 1 << 20, "windows to calibrate on, the file's first (64)", NULL},
        {"window", 0, CLI_INT, "T", &o.window, 2, 1 << 20, "tokens a window (1024)", NULL},
        {"recipe", 0, CLI_TEXT, "NAME", &r.recipe, 0, 0, "default, or paper: what the options below start from", NULL},
        {"wbits", 0, CLI_INT, "B", &r.wbits, 2, 16, "bits of a weight: 2, 3, 4, 8; 16 as it was", NULL},
        {"abits", 0, CLI_INT, "B", &r.abits, 3, 16, "bits of an activation: 3, 4, 8; 16 float", NULL},
        {"kvbits", 0, CLI_INT, "B", &r.kvbits, 3, 16, "bits of the KV cache: 3, 4, 8, 16", NULL},
        {"group", 0, CLI_INT, "G", &r.group, 0, 1 << 20, "input channels per scale; 0: a whole row", NULL},
        {"outliers", 0, CLI_INT, "O", &r.outliers, 0, 1 << 20, "channels a site kept in more bits", NULL},
        {"outlier-bits", 0, CLI_INT, "B", &r.outlier_bits, 8, 16, "bits of those: 8, or 16 (float, simulated)", NULL},
        {"format", 0, CLI_WORD, "int|fp4|nvfp4|mxfp4", &r.format, 0, 0,
         "what 4 bits stand for; all but int are simulated in float32", NULL},
        {"rows-per-scale", 0, CLI_INT, "C", &r.rows_per_scale, 1, 1 << 20, "output rows per weight scale", NULL},
        {"act-clip", 0, CLI_FLOAT, "R", &r.act_clip, 0.01, 1, "share of the largest activation that a scale covers",
         NULL},
        {"weight-clip", 0, CLI_FLOAT, "R", &r.weight_clip, 0.01, 1, "the same of weights, instead of the search", NULL},
        {"search-clip", 0, CLI_FLAG, NULL, &r.search, 0, 0, "search each weight group's clip by measured error", NULL},
        {"no-search-clip", 0, CLI_FLAG, NULL, &r.no_search, 0, 0, "no search: the clip as it is", NULL},
        {"kv-clip", 0, CLI_FLOAT, "R", &r.kv_clip, 0.01, 1, "the same of keys and values", NULL},
        {"gptq", 0, CLI_FLAG, NULL, &r.gptq, 0, 0, "compensate each column's rounding in the next ones", NULL},
        {"no-gptq", 0, CLI_FLAG, NULL, &r.no_gptq, 0, 0, "round to nearest", NULL},
        {"smooth", 0, CLI_FLOAT, "S", &r.smooth, 0, 1, "even out channel sizes inside a group, this strongly; 0: not",
         NULL},
        {"asymmetric", 0, CLI_FLOAT, "A", &r.asymmetric, 0, 1,
         "share of the error so far that the next weights make up for (with GPTQ)", NULL},
        {"kv-rope", 0, CLI_WORD, "pre|post", &r.kv_rope, 0, 0, "keys are cached before or after RoPE", NULL},
        {"rotate", 0, CLI_WORD, "none|qk|v|qkv", &r.rotate, 0, 0, "Hadamard rotation of heads before the cache", NULL},
        {"lm-head-bits", 0, CLI_INT, "B", &r.lm_head, 8, 16, "bits of the head: 16 as it was, or 8", NULL},
        {"resume", 0, CLI_FLAG, NULL, &o.resume, 0, 0, "go on from OUT.partial after the last finished layer", NULL},
        {"overwrite", 0, CLI_FLAG, NULL, &o.overwrite, 0, 0, "replace OUT as a whole if it exists", NULL},
        {"quiet", 'q', CLI_FLAG, NULL, &r.quiet, 0, 0, "no progress", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "quantize MODEL -o OUT --calib FILE [options]",
        "Makes a low-bit checkpoint: activations reordered by energy with the outlier channels in INT8, weights by\n"
        "groups with GPTQ, a quantized KV cache. Goes layer by layer; a run that was stopped can go on (--resume).",
        options,
        1,
        1,
        "examples:\n  atom quantize models/tiny -o /tmp/tiny-w4a4 --calib models/tiny/eval.txt --samples 8 --window "
        "256\n"
        "  atom quantize MODEL -o OUT --calib FILE --recipe paper"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON) {
        o.model = args[0];
        rc = run(&cmd, &r, &o);
    }
    free(args);
    return rc;
}
