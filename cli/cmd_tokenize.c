/* SPDX-License-Identifier: Apache-2.0 */
/* atom tokenize: JSON lines {"text": ...} in, {"ids": [...], "decoded": ...} out. */
#include "commands.h"
#include "files.h"
#include "options.h"
#include "progress.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    const char *bench;
    bool bos;
};

static unsigned flags_of(const struct request *r) { return r->bos ? ATOM_ENCODE_POST : 0; }

static enum atom_status fail(struct atom_error *err, enum atom_status code, const char *what)
{
    err->code = code;
    snprintf(err->message, sizeof err->message, "%s", what);
    return code;
}

static json_t *line_of(const struct atom_ids *ids, const char *decoded, size_t n_decoded)
{
    json_t *list = json_array(), *text = json_stringn(decoded, n_decoded);
    for (size_t i = 0; i < ids->n; i++)
        json_array_append_new(list, json_integer(ids->ids[i]));
    if (list && text && json_array_size(list) == ids->n)
        return json_pack("{s:o, s:o}", "ids", list, "decoded", text);
    json_decref(list);
    json_decref(text);
    return NULL;
}

static enum atom_status print_tokens(const struct atom_tokenizer *tok, const json_t *text, unsigned flags,
                                     struct atom_error *err)
{
    struct atom_ids ids = {0};
    char *decoded = NULL;
    size_t n_decoded = 0;
    json_t *line = NULL;
    enum atom_status st =
        atom_tokenizer_encode(tok, json_string_value(text), json_string_length(text), flags, &ids, err);
    st = st ? st : atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &decoded, &n_decoded, err);
    if (!st) {
        line = line_of(&ids, decoded, n_decoded);
        if (!line)
            st = fail(err, ATOM_ERR_NOMEM, "out of memory");
        else if (json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) || putchar('\n') == EOF)
            st = fail(err, ATOM_ERR_IO, strerror(errno));
    }
    json_decref(line);
    free(decoded);
    atom_ids_free(&ids);
    return st;
}

static enum atom_status answer_line(const struct atom_tokenizer *tok, const char *line, size_t n, unsigned flags,
                                    struct atom_error *err)
{
    json_error_t why;
    json_t *value = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    const json_t *text = json_object_get(value, "text");
    enum atom_status st;
    if (value && json_is_string(text))
        st = print_tokens(tok, text, flags, err);
    else
        st = fail(err, ATOM_ERR_FORMAT, value ? "this is no object with a string \"text\"" : why.text);
    json_decref(value);
    return st;
}

static enum atom_status answer_lines(const struct atom_tokenizer *tok, unsigned flags, struct atom_error *err)
{
    struct atom_error why = {0};
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    enum atom_status st = ATOM_OK;
    while (!st && (n = getline(&line, &cap, stdin)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] || strlen(line) < (size_t)n)
            st = answer_line(tok, line, (size_t)n, flags, &why);
    }
    free(line);
    if (st) {
        err->code = st;
        snprintf(err->message, sizeof err->message, "line %zu: %.900s", number, why.message);
    } else if (ferror(stdin)) {
        st = fail(err, ATOM_ERR_IO, "standard input cannot be read");
    }
    return st;
}

/* One run's seconds to encode and to decode. */
static enum atom_status time_once(const struct atom_tokenizer *tok, const char *text, size_t n_bytes, unsigned flags,
                                  double seconds[2], size_t *n_tokens, struct atom_error *err)
{
    struct atom_ids ids = {0};
    char *decoded = NULL;
    size_t n_decoded;
    double started = cli_seconds();
    enum atom_status st = atom_tokenizer_encode(tok, text, n_bytes, flags, &ids, err);
    seconds[0] = cli_seconds() - started;
    started = cli_seconds();
    st = st ? st : atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &decoded, &n_decoded, err);
    seconds[1] = cli_seconds() - started;
    *n_tokens = ids.n;
    free(decoded);
    atom_ids_free(&ids);
    return st;
}

/* The fastest of several runs: one alone can be far off. */
static enum atom_status bench(const struct atom_tokenizer *tok, const struct request *r, double load_s,
                              struct atom_error *err)
{
    enum { RUNS = 7 };
    double best[2] = {1e30, 1e30}, once[2];
    size_t n_bytes, n_tokens = 0;
    char *text;
    enum atom_status st = cli_read_file(r->bench, &text, &n_bytes, err);
    if (st)
        return st;
    for (int run = 0; run < RUNS && !st; run++) {
        st = time_once(tok, text, n_bytes, flags_of(r), once, &n_tokens, err);
        for (int i = 0; i < 2; i++)
            best[i] = once[i] < best[i] ? once[i] : best[i];
    }
    free(text);
    if (!st)
        printf("load %.3f s, %zu bytes, %zu tokens, encode %.1f MB/s, decode %.1f MB/s (fastest of %d)\n", load_s,
               n_bytes, n_tokens, (double)n_bytes / best[0] * 1e-6, (double)n_bytes / best[1] * 1e-6, RUNS);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct request r = {0};
    struct atom_tokenizer *tok = NULL;
    struct atom_error err = {0};
    const struct cli_option options[] = {
        {"bos", 0, CLI_FLAG, NULL, &r.bos, 0, 0, "put in front of a text what the model's tokenizer does", NULL},
        {"bench", 0, CLI_TEXT, "FILE", &r.bench, 0, 0, "instead: encode and decode FILE as one text, and say how fast",
         NULL},
        {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    const struct cli_command cmd = {
        "tokenize MODEL [options]",
        "Reads JSON lines {\"text\": ...} from standard input and prints for each a line {\"ids\": [...], \"decoded\": "
        "...}.\n"
        "MODEL is a directory that holds a tokenizer.json, or such a file. Spellings of added tokens in a text become\n"
        "those tokens; decoded text keeps special tokens.",
        options,
        1,
        1,
        "example: echo '{\"text\": \"Hello\"}' | atom tokenize models/tiny --bos"};
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON) {
        double started = cli_seconds();
        enum atom_status st = atom_tokenizer_open(args[0], &tok, &err);
        double load_s = cli_seconds() - started;
        if (!st)
            st = r.bench ? bench(tok, &r, load_s, &err) : answer_lines(tok, flags_of(&r), &err);
        rc = cli_finish(st ? cli_fail(&err) : 0);
    }
    atom_tokenizer_close(tok);
    free(args);
    return rc;
}
