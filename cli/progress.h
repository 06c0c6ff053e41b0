/* SPDX-License-Identifier: Apache-2.0 */
/* Progress on stderr: a bar with rate and ETA on a terminal, a line now and then elsewhere. */
#ifndef ATOM_CLI_PROGRESS_H
#define ATOM_CLI_PROGRESS_H

#include "atom/atom.h"

struct cli_progress {
    double started, last; /* seconds; zero at first */
    bool quiet, terminal, shown;
};

void cli_progress_init(struct cli_progress *p, bool quiet);
bool cli_progress_show(void *user, const struct atom_progress *p); /* an atom_progress_fn; user: struct cli_progress */
void cli_progress_end(struct cli_progress *p);

/* Seconds on a clock that only goes forward. */
double cli_seconds(void);
/* Makes SIGINT and SIGTERM ask running work to stop (the second one ends the process). */
void cli_catch_interrupts(void);
bool cli_interrupted(void);
/* Whether work is to stop: a signal came, or standard output takes no more. */
bool cli_stopped(void);

#endif
