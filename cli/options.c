/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "quantize MODEL", "bench cpu [options]": the words in front that are meant as they stand. */
static const char *name_of(const char *usage, int *n)
{
    *n = (int)strcspn(usage, " ");
    for (int end = *n; usage[end] == ' ' && islower((unsigned char)usage[end + 1]); *n = end) {
        end += 1 + (int)strcspn(usage + end + 1, " ");
        if (memchr(usage + *n, '|', (size_t)(end - *n)))
            break;
    }
    return usage;
}

int cli_usage(const struct cli_command *cmd, const char *fmt, ...)
{
    int n;
    const char *word = name_of(cmd->usage, &n);
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "atom %.*s: ", n, word);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n'atom %.*s --help' lists the options.\n", n, word);
    return CLI_USAGE;
}

int cli_fail(const struct atom_error *err)
{
    fprintf(stderr, "atom: %s\n", err->message[0] ? err->message : atom_status_name(err->code));
    return 1;
}

int cli_finish(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "atom: standard output: %s\n", errno ? strerror(errno) : "some of it could not be written");
    return status ? status : 1;
}

static void print_help(const struct cli_command *cmd)
{
    printf("usage: atom %s\n\n%s\n\n", cmd->usage, cmd->about);
    for (const struct cli_option *o = cmd->options; o->name; o++) {
        char left[160];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                 o->letter ? "," : " ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        if (strlen(left) > 28)
            printf("  %s\n%*s%s\n", left, 32, "", o->help);
        else
            printf("  %-28s  %s\n", left, o->help);
    }
    printf("  %-28s  %s\n", "    --help", "this page");
    if (cmd->example)
        printf("\n%s\n", cmd->example);
}

static bool match_word(const char *words, const char *value, int *index)
{
    size_t n = strlen(value);
    for (int i = 0; *words; i++) {
        size_t len = strcspn(words, "|");
        if (len == n && memcmp(words, value, n) == 0) {
            *index = i;
            return true;
        }
        words += len + (words[len] == '|');
    }
    return false;
}

static bool read_size(const char *value, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    *out = v;
    return !errno && end != value && !*end && value[0] != '-';
}

static bool read_number(const char *value, double *out)
{
    char *end;
    errno = 0;
    *out = strtod(value, &end);
    return !errno && end != value && !*end && isfinite(*out);
}

static bool add_text(struct cli_texts *texts, const char *value)
{
    if (texts->n == CLI_MAX_TEXTS)
        return false;
    texts->at[texts->n++] = value;
    return true;
}

static int set_value(const struct cli_command *cmd, const struct cli_option *o, const char *value)
{
    double v;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->to = true;
        return CLI_GO_ON;
    case CLI_UNFLAG:
        *(bool *)o->to = false;
        return CLI_GO_ON;
    case CLI_TEXT:
        *(const char **)o->to = value;
        return CLI_GO_ON;
    case CLI_TEXTS:
        return add_text(o->to, value) ? CLI_GO_ON
                                      : cli_usage(cmd, "--%s can be given %d times at most", o->name, CLI_MAX_TEXTS);
    case CLI_SIZE:
        return read_size(value, o->to) ? CLI_GO_ON
                                       : cli_usage(cmd, "--%s takes a whole number, not '%s'", o->name, value);
    case CLI_WORD:
        return match_word(o->arg, value, o->to) ? CLI_GO_ON
                                                : cli_usage(cmd, "--%s takes %s, not '%s'", o->name, o->arg, value);
    case CLI_INT:
        if (!read_number(value, &v) || v != floor(v) || v < o->min || v > o->max)
            return cli_usage(cmd, "--%s takes a whole number from %.0f to %.0f, not '%s'", o->name, o->min, o->max,
                             value);
        *(int *)o->to = (int)v;
        return CLI_GO_ON;
    case CLI_FLOAT:
        if (!read_number(value, &v) || v < o->min || v > o->max)
            return cli_usage(cmd, "--%s takes a number from %g to %g, not '%s'", o->name, o->min, o->max, value);
        *(float *)o->to = (float)v;
        return CLI_GO_ON;
    }
    return CLI_USAGE;
}

static const struct cli_option *find(const struct cli_command *cmd, const char *arg, const char **value)
{
    *value = NULL;
    for (const struct cli_option *o = cmd->options; o->name; o++) {
        if (arg[1] != '-') {
            if (o->letter && arg[1] == o->letter && !arg[2])
                return o;
            continue;
        }
        size_t n = strlen(o->name);
        if (strncmp(arg + 2, o->name, n) != 0)
            continue;
        if (!arg[2 + n])
            return o;
        if (arg[2 + n] == '=') {
            *value = arg + 2 + n + 1;
            return o;
        }
    }
    return NULL;
}

static int take_option(const struct cli_command *cmd, int argc, char **argv, int *i)
{
    const char *value;
    const struct cli_option *o = find(cmd, argv[*i], &value);
    if (!o)
        return cli_usage(cmd, "unknown option '%s'", argv[*i]);
    bool flag = o->kind == CLI_FLAG || o->kind == CLI_UNFLAG;
    if (flag && value)
        return cli_usage(cmd, "--%s takes no value", o->name);
    if (!flag && !value) {
        if (*i + 1 >= argc)
            return cli_usage(cmd, "--%s needs a value (%s)", o->name, o->arg);
        value = argv[++*i];
    }
    if (o->given)
        *o->given = true;
    return set_value(cmd, o, value);
}

int cli_parse(const struct cli_command *cmd, int argc, char **argv, const char **args, int *n_args)
{
    bool only_args = false;
    *n_args = 0;
    for (int i = 1; i < argc; i++) {
        if (!only_args && strcmp(argv[i], "--") == 0) {
            only_args = true;
        } else if (!only_args && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(cmd);
            return cli_finish(0);
        } else if (!only_args && argv[i][0] == '-' && argv[i][1]) {
            int rc = take_option(cmd, argc, argv, &i);
            if (rc != CLI_GO_ON)
                return rc;
        } else {
            args[(*n_args)++] = argv[i];
        }
    }
    if (*n_args < cmd->min_args || (cmd->max_args >= 0 && *n_args > cmd->max_args))
        return cli_usage(cmd, "%s: usage: atom %s",
                         *n_args < cmd->min_args ? "an argument is missing" : "too many arguments", cmd->usage);
    return CLI_GO_ON;
}
