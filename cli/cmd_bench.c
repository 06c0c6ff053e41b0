/* SPDX-License-Identifier: Apache-2.0 */
/* atom bench: the device's name decides which options there are. */
#include "bench_devices.h"
#include "commands.h"
#include "options.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} devices[] = {{"cpu", bench_cpu}, {"gpu", bench_gpu}};
enum { N_DEVICES = sizeof devices / sizeof devices[0] };

int cmd_bench(int argc, char **argv)
{
    static const struct cli_option options[] = {{NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    static const struct cli_command cmd = {
        "bench cpu|gpu [options]",
        "Measures what a device can do at best, then operations and whole models against it.\n"
        "'atom bench cpu --help' and 'atom bench gpu --help' list the options of each.",
        options,
        1,
        2,
        "examples: atom bench cpu --shape 1.1b\n          atom bench gpu --shape 7b --json"};
    for (int i = 0; argc > 1 && i < N_DEVICES; i++)
        if (strcmp(argv[1], devices[i].name) == 0)
            return devices[i].run(argc - 1, argv + 1);
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = cli_usage(&cmd, "unknown device '%s'; there are 'cpu' and 'gpu'", args[0]);
    free(args);
    return rc;
}
