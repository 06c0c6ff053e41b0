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
} measures[] = {{"ppl", eval_ppl}, {"kld", eval_kld}, {"tasks", eval_tasks}, {"schemes", eval_schemes}};
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
        "eval ppl|kld|tasks|schemes [options] MODEL FILE...",
        "Measures a float or quantized model: perplexity of a text, how far it is from another model, multiple "
        "choice,\n"
        "or all of that for several schemes at once ('atom eval --schemes LIST ...' is short for 'atom eval schemes\n"
        "--schemes LIST ...'). 'atom eval ppl --help' and so on list the options of each.",
        options,
        1,
        -1,
        "examples: atom eval ppl models/tiny --window 256 models/tiny/eval.txt\n"
        "          atom eval kld models/tiny build/tiny-w4a4 --window 256 models/tiny/eval.txt\n"
        "          atom eval tasks MODEL --json piqa.jsonl winogrande.jsonl\n"
        "          atom eval --schemes w8a8,w4a4kv4 MODEL --calib valid.txt test.txt"};
    for (int i = 0; argc > 1 && i < N_MEASURES; i++)
        if (strcmp(argv[1], measures[i].name) == 0)
            return measures[i].run(argc - 1, argv + 1);
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--schemes") == 0 || strncmp(argv[i], "--schemes=", 10) == 0)
            return eval_schemes(argc, argv);
    const char **args = calloc((size_t)argc + 1, sizeof *args);
    int n, rc = args ? cli_parse(&cmd, argc, argv, args, &n) : 1;
    if (rc == CLI_GO_ON)
        rc = cli_usage(&cmd, "unknown measurement '%s'; there are 'ppl', 'kld', 'tasks' and 'schemes'", args[0]);
    free(args);
    return rc;
}
