/* SPDX-License-Identifier: Apache-2.0 */
#include "execute.h"

#include <stdlib.h>

int cli_execute(const struct cli_work *work, int argc, char **argv)
{
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    struct atom_error err = {0};
    int n, rc = args ? cli_parse(work->cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON && work->check)
        rc = work->check(work->cmd, work->run, args, n);
    if (rc == CLI_GO_ON) {
        cli_progress_init(work->bar, *work->quiet);
        cli_catch_interrupts();
        enum atom_status st = work->execute(work->run, args, n, &err);
        cli_progress_end(work->bar);
        rc = cli_finish(st ? cli_fail(&err) : 0);
    }
    free(args);
    return rc;
}
