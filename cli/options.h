/* SPDX-License-Identifier: Apache-2.0 */
/* Command-line options: one array per subcommand both parses and prints help. */
#ifndef ATOM_CLI_OPTIONS_H
#define ATOM_CLI_OPTIONS_H

#include "atom/atom.h"

enum cli_kind { CLI_FLAG, CLI_UNFLAG, CLI_INT, CLI_SIZE, CLI_FLOAT, CLI_TEXT, CLI_TEXTS, CLI_WORD };

/* Values of an option that may be given again. */
enum { CLI_MAX_TEXTS = 16 };
struct cli_texts {
    const char *at[CLI_MAX_TEXTS];
    int n;
};

struct cli_option {
    const char *name; /* long name, without dashes */
    char letter;      /* short name or 0 */
    enum cli_kind kind;
    const char *arg; /* what the value is called in help; for CLI_WORD "pre|post": index of the word goes to int */
    void *to;        /* bool, int, uint64_t, float, const char * or struct cli_texts */
    double min, max; /* range of CLI_INT and CLI_FLOAT */
    const char *help;
    bool *given; /* set when the option was there; may be NULL */
};

struct cli_command {
    const char *usage; /* after "atom " */
    const char *about;
    const struct cli_option *options; /* ends with name NULL */
    int min_args, max_args;           /* positional; max -1: any number */
    const char *example;              /* whole lines, or NULL */
};

enum { CLI_GO_ON = -1, CLI_USAGE = 2 };

/* Fills options and leaves positional arguments in args/n_args (args has room for argc). Returns CLI_GO_ON, or the
 * exit status after --help (0) or a usage error (2, told on stderr). */
int cli_parse(const struct cli_command *cmd, int argc, char **argv, const char **args, int *n_args);

/* Exit status 1 after "atom: sentence" on stderr. */
int cli_fail(const struct atom_error *err);
/* Exit status 2 after a sentence and a pointer to --help. */
int cli_usage(const struct cli_command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Flushes stdout; exit status 1 with a sentence if anything written there was lost, else `status`. */
int cli_finish(int status);

#endif
