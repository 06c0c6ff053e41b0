/* SPDX-License-Identifier: Apache-2.0 */
/* atom generate MODEL --prompt TEXT */
#include "commands.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INTERRUPTED = 130 };

struct request {
    const char *model, *prompt, *prompt_file;
    struct cli_texts stop;
    bool json, stats;
    int lost; /* errno of a write that failed */
    struct atom_generate_options opt;
};

/* Text as it comes; when it cannot be written, it ends. */
static bool print_piece(void *user, const char *text, size_t n_bytes)
{
    struct request *r = user;
    errno = 0;
    if (n_bytes && !r->json && (fwrite(text, 1, n_bytes, stdout) < n_bytes || fflush(stdout)))
        r->lost = errno ? errno : EIO;
    return !r->lost && !cli_interrupted();
}

/* "text" is what the ids decode to by themselves, as other programs have it: a tokenizer that drops the space in front
 * of a text drops the one that joins it to the prompt. */
static enum atom_status lone_text(const struct atom_tokenizer *tok, const struct atom_generate_result *res,
                                  const char **text, size_t *n_bytes, struct atom_error *err)
{
    char *alone;
    size_t n_alone;
    enum atom_status st =
        atom_tokenizer_decode(tok, res->ids.ids, res->ids.n, ATOM_DECODE_SKIP_SPECIAL, &alone, &n_alone, err);
    if (st)
        return st;
    bool joined = res->n_text_bytes > 0 && res->text[0] == ' ' && (n_alone == 0 || alone[0] != ' ');
    *text = res->text + joined;
    *n_bytes = res->n_text_bytes - joined;
    free(alone);
    return ATOM_OK;
}

static enum atom_status print_json(const struct atom_tokenizer *tok, const struct atom_generate_result *res,
                                   struct atom_error *err)
{
    const char *lone;
    size_t n_lone;
    enum atom_status st = lone_text(tok, res, &lone, &n_lone, err);
    if (st)
        return st;
    json_t *ids = json_array();
    int failed = !ids;
    for (size_t i = 0; i < res->ids.n; i++)
        failed |= json_array_append_new(ids, json_integer(res->ids.ids[i]));
    json_t *o = json_pack("{s:o, s:s%, s:s, s:i}", "ids", ids, "text", lone, n_lone, "finish_reason",
                          atom_finish_name(res->finish), "prompt_tokens", res->prompt_tokens);
    char *text = o && !failed ? json_dumps(o, 0) : NULL;
    json_decref(o);
    if (!text) {
        err->code = ATOM_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code;
    }
    puts(text);
    free(text);
    return ATOM_OK;
}

static void print_stats(const struct atom_generate_result *res)
{
    size_t decoded = res->ids.n > 0 ? res->ids.n - 1 : 0;
    fprintf(stderr, "prompt: %d tokens in %.3f s, %.1f a second\n", res->prompt_tokens, res->prefill_seconds,
            res->prompt_tokens / (res->prefill_seconds + 1e-9));
    fprintf(stderr, "text: %zu tokens; %zu after the first in %.3f s, %.1f a second; ended by %s\n", res->ids.n,
            decoded, res->decode_seconds, (double)decoded / (res->decode_seconds + 1e-9),
            atom_finish_name(res->finish));
}

/* The text to go on from: an argument's own, or a file's, which *to_free then holds. */
static enum atom_status read_prompt(const struct request *r, const char **text, size_t *n_bytes, char **to_free,
                                    struct atom_error *err)
{
    if (r->prompt_file) {
        enum atom_status st = cli_read_file(r->prompt_file, to_free, n_bytes, err);
        *text = *to_free;
        return st;
    }
    *text = r->prompt;
    *n_bytes = strlen(r->prompt);
    return ATOM_OK;
}

static enum atom_status encode_prompt(const struct request *r, const struct atom_model *model, struct atom_ids *ids,
                                      struct atom_error *err)
{
    const char *text;
    char *file = NULL;
    size_t n_bytes;
    enum atom_status st = read_prompt(r, &text, &n_bytes, &file, err);
    st = st ? st : atom_tokenizer_encode(atom_model_tokenizer(model), text, n_bytes, ATOM_ENCODE_POST, ids, err);
    if (!st && ids->n == 0) {
        atom_ids_free(ids);
        err->code = st = ATOM_ERR_INVALID;
        snprintf(err->message, sizeof err->message,
                 "the prompt is empty, and this model's tokenizer puts no token in front of a text to start from");
    }
    free(file);
    return st;
}

static int generate(struct request *r)
{
    struct atom_error err = {0};
    struct atom_model *model = NULL;
    struct atom_ids prompt = {0};
    struct atom_generate_result res = {0};
    enum atom_status st = atom_model_open(r->model, &model, &err);
    st = st ? st : encode_prompt(r, model, &prompt, &err);
    st = st ? st : atom_generate(model, prompt.ids, prompt.n, &r->opt, &res, &err);
    if (r->lost) {
        err.code = st = ATOM_ERR_IO;
        snprintf(err.message, sizeof err.message, "standard output: %s", strerror(r->lost));
    }
    if (!st && r->json)
        st = print_json(atom_model_tokenizer(model), &res, &err);
    else if (!st && isatty(STDOUT_FILENO) == 1)
        putchar('\n');
    if (!st && r->stats)
        print_stats(&res);
    int rc = st ? cli_fail(&err) : cli_finish(cli_interrupted() ? INTERRUPTED : 0);
    atom_generate_result_fini(&res);
    atom_ids_free(&prompt);
    atom_model_close(model);
    return rc;
}

int cmd_generate(int argc, char **argv)
{
    struct request r = {0};
    struct atom_generate_options *o = &r.opt;
    const struct cli_option options[] = {
        {"prompt", 'p', CLI_TEXT, "TEXT", &r.prompt, 0, 0, "text to continue", NULL},
        {"prompt-file", 0, CLI_TEXT, "FILE", &r.prompt_file, 0, 0, "the same from a file (-: standard input)", NULL},
        {"max-tokens", 'n', CLI_INT, "N", &o->max_tokens, 1, 1 << 26, "tokens to add; without it, to the last position",
         NULL},
        {"temperature", 't', CLI_FLOAT, "X", &o->sampling.temperature, 0, 100, "0: the likeliest token each time (0)",
         NULL},
        {"top-p", 0, CLI_FLOAT, "P", &o->sampling.top_p, 0, 1, "draw from the likeliest that make up P (all)", NULL},
        {"top-k", 0, CLI_INT, "K", &o->sampling.top_k, 0, 1 << 26, "draw from the K likeliest; 0: from all (0)", NULL},
        {"seed", 's', CLI_SIZE, "S", &o->sampling.seed, 0, 0, "same seed, same text (0)", NULL},
        {"stop", 0, CLI_TEXTS, "TEXT", &r.stop, 0, 0, "end before this text; may be given again", NULL},
        {"ignore-eos", 0, CLI_FLAG, NULL, &o->ignore_eos, 0, 0, "go on after an end-of-text token", NULL},
        {"json", 0, CLI_FLAG, NULL, &r.json, 0, 0,
         "one object at the end: ids, text (of the ids alone), finish_reason, prompt_tokens", NULL},
        {"stats", 0, CLI_FLAG, NULL, &r.stats, 0, 0, "say on standard error how fast it was", NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "generate MODEL --prompt TEXT [options]",
        "Continues a prompt, printing text as it is made. The prompt gets the BOS that the model's tokenizer adds;\n"
        "spellings of added tokens in it are those tokens. Ctrl-C ends the text there.",
        options,
        1,
        1,
        "example: atom generate models/tiny --prompt 'The president said that' --max-tokens 32 --stats"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON && !r.prompt == !r.prompt_file)
        rc = cli_usage(&cmd, r.prompt ? "--prompt and --prompt-file exclude each other" : "--prompt TEXT is missing");
    for (int i = 0; rc == CLI_GO_ON && i < r.stop.n; i++)
        if (!*r.stop.at[i])
            rc = cli_usage(&cmd, "--stop takes a text, not an empty one");
    if (rc == CLI_GO_ON) {
        r.model = args[0];
        o->stop = r.stop.at;
        o->n_stop = r.stop.n;
        o->on_text = print_piece;
        o->user = &r;
        cli_catch_interrupts();
        rc = generate(&r);
    }
    free(args);
    return rc;
}
