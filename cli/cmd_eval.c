/* SPDX-License-Identifier: Apache-2.0 */
/* atom eval: the measure's name decides which options there are. */
#include "commands.h"
#include "eval_measures.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} measures[] = {{"ppl", eval_ppl}, {"kld", eval_kld}, {"tasks", eval_tasks}};
enum { N_MEASURES = sizeof measures / sizeof measures[0] };

void eval_name_file(struct atom_error *err, const char *file)
{
    char why[sizeof err->message];
    if (strncmp(err->message, file, strlen(file)) == 0)
        return;
    memcpy(why, err->message, sizeof why);
    snprintf(err->message, sizeof err->message, "%s: %.700s", file, why);
}

int cmd_eval(int argc, char **argv)
{
    static const struct cli_option options[] = {{NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL}};
    static const struct cli_command cmd = {
        "eval ppl|kld|tasks [options] MODEL FILE...",
        "Measures a float or quantized model: perplexity of a text, how far it is from another model, or multiple\n"
        "choice. 'atom eval ppl --help', 'kld --help' and 'tasks --help' list the options of each.",
        options,
        1,
        -1,
        "examples: atom eval ppl models/tiny --window 256 models/tiny/eval.txt\n"
        "          atom eval kld models/tiny build/tiny-w4a4 --window 256 models/tiny/eval.txt\n"
        "          atom eval tasks MODEL --json piqa.jsonl winogrande.jsonl"};
    for (int i = 0; argc > 1 && i < N_MEASURES; i++)
        if (strcmp(argv[1], measures[i].name) == 0)
            return measures[i].run(argc - 1, argv + 1);
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = cli_usage(&cmd, "unknown measurement '%s'; there are 'ppl', 'kld' and 'tasks'", args[0]);
    free(args);
    return rc;
}
