/* SPDX-License-Identifier: Apache-2.0 */
/* atom tokenize: JSON lines {"text": ...} in, {"ids": [...], "decoded": ...} out. */
#include "commands.h"

#include "atom/atom.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EXIT_USAGE = 2 };

static const char usage[] = "usage: atom tokenize [--bos] [--bench FILE] MODEL\n"
                            "\n"
                            "Reads JSON lines {\"text\": ...} from standard input and prints for each a line\n"
                            "{\"ids\": [...], \"decoded\": ...}. MODEL is a directory that holds a tokenizer.json,\n"
                            "or such a file. Spellings of added tokens in a text become those tokens; decoded\n"
                            "text keeps special tokens.\n"
                            "\n"
                            "  --bos         also put in front of a text what the model's tokenizer does\n"
                            "  --bench FILE  instead: encode and decode FILE as one text, and print how fast\n"
                            "  --help        print this\n";

struct options {
    const char *model, *bench;
    unsigned flags;
};

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int fail(const char *what)
{
    fprintf(stderr, "atom tokenize: %s\n", what);
    return EXIT_FAILURE;
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

static int print_tokens(const struct atom_tokenizer *tok, const json_t *text, unsigned flags, struct atom_error *err)
{
    struct atom_ids ids = {0};
    char *decoded = NULL;
    size_t n_decoded = 0;
    json_t *line = NULL;
    int rc = EXIT_FAILURE;
    if (!atom_tokenizer_encode(tok, json_string_value(text), json_string_length(text), flags, &ids, err) &&
        !atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &decoded, &n_decoded, err)) {
        line = line_of(&ids, decoded, n_decoded);
        if (line && json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) == 0 && putchar('\n') != EOF)
            rc = EXIT_SUCCESS;
        else
            snprintf(err->message, sizeof err->message, "cannot write to standard output: %s", strerror(errno));
    }
    json_decref(line);
    free(decoded);
    atom_ids_free(&ids);
    return rc;
}

static int answer_line(const struct atom_tokenizer *tok, const char *line, size_t n, size_t number, unsigned flags)
{
    struct atom_error err = {0};
    json_error_t why;
    int rc = EXIT_FAILURE;
    json_t *value = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    const json_t *text = json_object_get(value, "text");
    if (!value)
        fprintf(stderr, "atom tokenize: line %zu is not JSON: %s\n", number, why.text);
    else if (!json_is_string(text))
        fprintf(stderr, "atom tokenize: line %zu is not an object with a string \"text\"\n", number);
    else if ((rc = print_tokens(tok, text, flags, &err)))
        fprintf(stderr, "atom tokenize: line %zu: %s\n", number, err.message);
    json_decref(value);
    return rc;
}

static int answer_lines(const struct atom_tokenizer *tok, unsigned flags)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    int rc = EXIT_SUCCESS;
    while (rc == EXIT_SUCCESS && (n = getline(&line, &cap, stdin)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] || strlen(line) < (size_t)n)
            rc = answer_line(tok, line, (size_t)n, number, flags);
    }
    free(line);
    if (rc == EXIT_SUCCESS && ferror(stdin))
        rc = fail("cannot read standard input");
    if (fflush(stdout) != 0 && rc == EXIT_SUCCESS)
        rc = fail("cannot write to standard output");
    return rc;
}

static char *read_file(const char *path, size_t *n)
{
    char *data = NULL;
    size_t cap = 0;
    FILE *f = fopen(path, "rb");
    *n = 0;
    while (f && !feof(f) && !ferror(f)) {
        if (*n == cap) {
            char *bigger = realloc(data, cap = cap ? cap * 2 : 1 << 20);
            if (!bigger)
                break;
            data = bigger;
        }
        *n += fread(data + *n, 1, cap - *n, f);
    }
    if (!f || ferror(f) || !feof(f)) {
        fprintf(stderr, "atom tokenize: cannot read %s: %s\n", path, strerror(errno));
        free(data);
        data = NULL;
    }
    if (f)
        fclose(f);
    return data;
}

/* The fastest and the median of several runs: one alone can be far off. */
static int bench(const struct atom_tokenizer *tok, const struct options *opt, double load_s)
{
    enum { RUNS = 7 };
    struct atom_error err = {0};
    double best[2] = {1e30, 1e30};
    size_t n, n_tokens = 0;
    char *text = read_file(opt->bench, &n);
    if (!text)
        return EXIT_FAILURE;
    for (int run = 0; run < RUNS; run++) {
        struct atom_ids ids = {0};
        char *decoded = NULL;
        size_t n_decoded;
        double t0 = seconds_now(), t1;
        if (atom_tokenizer_encode(tok, text, n, opt->flags, &ids, &err))
            break;
        t1 = seconds_now();
        if (!atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &decoded, &n_decoded, &err)) {
            best[0] = t1 - t0 < best[0] ? t1 - t0 : best[0];
            best[1] = seconds_now() - t1 < best[1] ? seconds_now() - t1 : best[1];
        }
        n_tokens = ids.n;
        free(decoded);
        atom_ids_free(&ids);
    }
    free(text);
    if (err.code)
        return fail(err.message);
    printf("load %.3f s, %zu bytes, %zu tokens, encode %.1f MB/s, decode %.1f MB/s (fastest of %d)\n", load_s, n,
           n_tokens, (double)n / best[0] * 1e-6, (double)n / best[1] * 1e-6, RUNS);
    return EXIT_SUCCESS;
}

/* 0: go on; else the exit status plus one. */
static int parse(int argc, char **argv, struct options *opt)
{
    static const struct option known[] = {{"bos", no_argument, NULL, 'b'},
                                          {"bench", required_argument, NULL, 'B'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int c;
    optind = 0;
    while ((c = getopt_long(argc, argv, "h", known, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage, stdout);
            return EXIT_SUCCESS + 1;
        }
        if (c == 'b')
            opt->flags |= ATOM_ENCODE_POST;
        else if (c == 'B')
            opt->bench = optarg;
        else
            return EXIT_USAGE + 1;
    }
    if (argc - optind != 1) {
        fprintf(stderr, "atom tokenize: one MODEL is needed, not %d (see atom tokenize --help)\n", argc - optind);
        return EXIT_USAGE + 1;
    }
    opt->model = argv[optind];
    return 0;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options opt = {0};
    struct atom_tokenizer *tok = NULL;
    struct atom_error err = {0};
    int done = parse(argc, argv, &opt);
    if (done)
        return done - 1;
    double start = seconds_now();
    if (atom_tokenizer_open(opt.model, &tok, &err))
        return fail(err.message);
    double load_s = seconds_now() - start;
    int rc = opt.bench ? bench(tok, &opt, load_s) : answer_lines(tok, opt.flags);
    atom_tokenizer_close(tok);
    return rc;
}
