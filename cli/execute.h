/* SPDX-License-Identifier: Apache-2.0 */
/* How a subcommand that computes goes: options, checks, work that can be stopped, exit status. */
#ifndef ATOM_CLI_EXECUTE_H
#define ATOM_CLI_EXECUTE_H

#include "options.h"
#include "progress.h"

struct cli_work {
    const struct cli_command *cmd;
    /* What options say together: CLI_GO_ON, or an exit status after a usage error. May be NULL. */
    int (*check)(const struct cli_command *cmd, void *run, const char **args, int n);
    enum atom_status (*execute)(void *run, const char **args, int n, struct atom_error *err);
    void *run;
    struct cli_progress *bar; /* is made ready, and ended */
    const bool *quiet;
};

/* Returns the exit status. */
int cli_execute(const struct cli_work *work, int argc, char **argv);

#endif
