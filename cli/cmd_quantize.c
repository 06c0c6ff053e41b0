/* SPDX-License-Identifier: Apache-2.0 */
/* atom quantize MODEL -o OUT --calib FILE */
#include "commands.h"
#include "execute.h"
#include "quantize_scheme.h"

#include <stdio.h>
#include <string.h>

struct job {
    struct atom_quantize_options options;
    struct quantize_scheme scheme;
    struct cli_progress bar;
    bool quiet;
};

static bool is_list(const struct job *j) { return strcmp(j->scheme.name, "list") == 0; }

static int check(const struct cli_command *cmd, void *user, const char **args, int n)
{
    struct job *j = user;
    struct atom_quantize_options *o = &j->options;
    if (is_list(j))
        return CLI_GO_ON;
    o->model = n ? args[0] : NULL;
    if (!o->model)
        return cli_usage(cmd, "an argument is missing: usage: atom %s", cmd->usage);
    if (!o->out)
        return cli_usage(cmd, "-o OUT is missing: the directory to make");
    if (!o->calib == !o->calib_ids)
        return cli_usage(cmd, o->calib ? "--calib and --calib-ids exclude each other" : "--calib FILE is missing");
    return quantize_scheme_settle(cmd, &j->scheme, o);
}

static enum atom_status execute(void *user, const char **args, int n, struct atom_error *err)
{
    struct job *j = user;
    char schemes[4096];
    (void)args;
    (void)n;
    if (is_list(j)) {
        fputs(quantize_scheme_list(schemes, sizeof schemes), stdout);
        return ATOM_OK;
    }
    j->options.progress = cli_progress_show;
    j->options.user = &j->bar;
    double started = cli_seconds();
    enum atom_status st = atom_quantize(&j->options, err);
    cli_progress_end(&j->bar);
    if (!st && !j->quiet)
        fprintf(stderr, "%s is ready after %.1f s\n", j->options.out, cli_seconds() - started);
    return st;
}

static struct job job = {.options = {.samples = 64, .window = 1024}, .scheme = QUANTIZE_SCHEME_AS_NAMED("default")};

static const struct cli_option options[] = {
    {"output", 'o', CLI_TEXT, "OUT", &job.options.out, 0, 0, "directory to make", NULL},
    {"calib", 0, CLI_TEXT, "FILE", &job.options.calib, 0, 0, "calibration text", NULL},
    {"calib-ids", 0, CLI_TEXT, "FILE", &job.options.calib_ids, 0, 0,
     "instead: JSON lines {\"ids\": [...]}, a window each", NULL},
    {"samples", 0, CLI_INT, "N", &job.options.samples, 1, 1 << 20, "windows to calibrate on, the file's first (64)",
     NULL},
    {"window", 0, CLI_INT, "T", &job.options.window, 2, 1 << 20, "tokens a window (1024)", NULL},
    {"scheme", 's', CLI_TEXT, "NAME", &job.scheme.name, 0, 0,
     "what the options below start from (default): one of those at the end, or list", NULL},
    {"recipe", 0, CLI_TEXT, "NAME", &job.scheme.name, 0, 0, "the same, as it used to be called", NULL},
    {"wbits", 0, CLI_INT, "B", &job.scheme.wbits, 2, 16, "bits of a weight: 2, 3, 4, 8; 16 as it was", NULL},
    {"abits", 0, CLI_INT, "B", &job.scheme.abits, 3, 16, "bits of an activation: 3, 4, 8; 16 float", NULL},
    {"kvbits", 0, CLI_INT, "B", &job.scheme.kvbits, 3, 16, "bits of the KV cache: 3, 4, 8, 16", NULL},
    {"group", 0, CLI_INT, "G", &job.scheme.group, 0, 1 << 20, "input channels per scale; 0: a whole row", NULL},
    {"outliers", 0, CLI_INT, "O", &job.scheme.outliers, 0, 1 << 20, "channels a site kept in more bits", NULL},
    {"outlier-bits", 0, CLI_INT, "B", &job.scheme.outlier_bits, 8, 16, "bits of those: 8, or 16 (float, simulated)",
     NULL},
    {"format", 0, CLI_WORD, "int|fp4|nvfp4|mxfp4", &job.scheme.format, 0, 0,
     "what 4 bits stand for; all but int are simulated in float32", NULL},
    {"rows-per-scale", 0, CLI_INT, "C", &job.scheme.rows_per_scale, 1, 1 << 20, "output rows per weight scale", NULL},
    {"act-clip", 0, CLI_FLOAT, "R", &job.scheme.act_clip, 0.01, 1,
     "share of the largest activation that a scale covers", NULL},
    {"weight-clip", 0, CLI_FLOAT, "R", &job.scheme.weight_clip, 0.01, 1, "the same of weights, instead of the search",
     NULL},
    {"search-clip", 0, CLI_FLAG, NULL, &job.scheme.search, 0, 0, "search each weight group's clip by measured error",
     NULL},
    {"no-search-clip", 0, CLI_FLAG, NULL, &job.scheme.no_search, 0, 0, "no search: the clip as it is", NULL},
    {"kv-clip", 0, CLI_FLOAT, "R", &job.scheme.kv_clip, 0.01, 1, "the same of keys and values", NULL},
    {"gptq", 0, CLI_FLAG, NULL, &job.scheme.gptq, 0, 0, "compensate each column's rounding in the next ones", NULL},
    {"no-gptq", 0, CLI_FLAG, NULL, &job.scheme.no_gptq, 0, 0, "round to nearest", NULL},
    {"smooth", 0, CLI_FLOAT, "S", &job.scheme.smooth, 0, 1,
     "even out channel sizes inside a group, this strongly; 0: not", NULL},
    {"smooth-search", 0, CLI_WORD, "none|peak|rms", &job.scheme.smooth_search, 0, 0,
     "try strengths up to that at each site: SmoothQuant's, or AWQ's", NULL},
    {"asymmetric", 0, CLI_FLOAT, "A", &job.scheme.asymmetric, 0, 1,
     "share of the error so far that the next weights make up for (with GPTQ)", NULL},
    {"kv-rope", 0, CLI_WORD, "pre|post", &job.scheme.kv_rope, 0, 0, "keys are cached before or after RoPE", NULL},
    {"rotate", 0, CLI_WORD, "none|qk|v|qkv", &job.scheme.rotate, 0, 0, "Hadamard rotation of heads before the cache",
     NULL},
    {"lm-head-bits", 0, CLI_INT, "B", &job.scheme.lm_head, 8, 16, "bits of the head: 16 as it was, or 8", NULL},
    {"resume", 0, CLI_FLAG, NULL, &job.options.resume, 0, 0, "go on from OUT.partial after the last finished layer",
     NULL},
    {"overwrite", 0, CLI_FLAG, NULL, &job.options.overwrite, 0, 0, "replace OUT as a whole if it exists", NULL},
    {"quiet", 'q', CLI_FLAG, NULL, &job.quiet, 0, 0, "no progress", NULL},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};

int cmd_quantize(int argc, char **argv)
{
    char schemes[4096], epilogue[5000];
    snprintf(epilogue, sizeof epilogue,
             "schemes (--scheme list shows them alone):\n%s\n"
             "examples:\n  atom quantize models/tiny -o /tmp/tiny-w4a4 --calib models/tiny/eval.txt --samples 8 "
             "--window 256\n  atom quantize MODEL -o OUT --calib FILE --scheme w4a16-gptq",
             quantize_scheme_list(schemes, sizeof schemes));
    const struct cli_command cmd = {
        "quantize MODEL -o OUT --calib FILE [options]",
        "Makes a low-bit checkpoint: activations reordered by energy with the outlier channels in INT8, weights by\n"
        "groups with GPTQ, a quantized KV cache. Goes layer by layer; a run that was stopped can go on (--resume).",
        options,
        0,
        1,
        epilogue};
    const struct cli_work work = {&cmd, check, execute, &job, &job.bar, &job.quiet};
    return cli_execute(&work, argc, argv);
}
