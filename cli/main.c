/* SPDX-License-Identifier: Apache-2.0 */
#include "commands.h"
#include "options.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"quantize", cmd_quantize, "make a low-bit checkpoint from a Hugging Face directory"},
    {"export", cmd_export, "write 4-bit weights as other engines read them"},
    {"eval", cmd_eval, "measure perplexity, the divergence of two models, or multiple choice"},
    {"ablate", cmd_ablate, "measure what each ingredient of quantization gives"},
    {"generate", cmd_generate, "continue a prompt"},
    {"inspect", cmd_inspect, "say what a checkpoint holds"},
    {"tokenize", cmd_tokenize, "turn text into token ids and back"},
    {"sample-calib", cmd_sample_calib, "let a model write its own calibration windows"},
    {"bench", cmd_bench, "time operations and whole models against what the machine can do"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int help(void)
{
    puts("usage: atom [--cpu TIER] [--threads N] COMMAND ...\n\n"
         "Quantizes Llama-family models to 4 bits and runs them on packed integers.\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-14s %s\n", commands[i].name, commands[i].about);
    puts("\n  --cpu TIER     scalar, avx2, avxvnni or avx512; the best there is if not given. All give the same bits.\n"
         "                 avx512bf16, never chosen by itself: bfloat16 weights at twice the speed, bits of its own\n"
         "  --threads N    threads to compute with; one per processor if not given\n"
         "  --version      version, tier and threads\n\n'atom COMMAND --help' says more.");
    return cli_finish(0);
}

static int usage(const char *what, const char *arg)
{
    fprintf(stderr, "atom: %s%s%s%s\n'atom --help' lists the commands.\n", what, arg ? " '" : "", arg ? arg : "",
            arg ? "'" : "");
    return CLI_USAGE;
}

/* Options in front of the command. Returns the index of the command, or 0 after an error. */
static int global_options(int argc, char **argv, struct atom_runtime_options *opt, bool *version)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            *version = true;
        } else if (strcmp(argv[i], "--cpu") == 0 && i + 1 < argc) {
            opt->cpu = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            char *end;
            long n = strtol(argv[++i], &end, 10);
            if (*end || n < 1 || n > 1024)
                return usage("--threads takes a whole number from 1 to 1024, not", argv[i]), 0;
            opt->threads = (int)n;
        } else {
            return usage("unknown option, or no value after it:", argv[i]), 0;
        }
    }
    return i;
}

/* A standard stream that was closed stays useless, but no file of ours gets its number. A file that grows over the
 * process's limit is an error to report, like a full disk. */
static void settle_process(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(1);
    signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
    settle_process();
    struct atom_runtime_options opt = {0};
    struct atom_error err = {0};
    bool version = false;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help();
    int at = global_options(argc, argv, &opt, &version);
    if (at == 0)
        return CLI_USAGE;
    if (atom_runtime_init(&opt, &err))
        return err.code == ATOM_ERR_INVALID ? usage(err.message, NULL) : cli_fail(&err);
    int rc = CLI_USAGE;
    if (version) {
        printf("atom %s, %s, %d threads\n", atom_version(), atom_runtime_cpu(), atom_runtime_threads());
        rc = cli_finish(0);
    } else if (at >= argc) {
        rc = usage("a command is missing", NULL);
    } else {
        int i = 0;
        while (i < N_COMMANDS && strcmp(commands[i].name, argv[at]) != 0)
            i++;
        rc = i < N_COMMANDS ? commands[i].run(argc - at, argv + at) : usage("unknown command", argv[at]);
    }
    atom_runtime_fini();
    return rc;
}
