/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands. Each gets argv with its own name first and returns the exit status: 0, 1 failure, 2 usage. */
#ifndef ATOM_CLI_COMMANDS_H
#define ATOM_CLI_COMMANDS_H

int cmd_quantize(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_ablate(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_sample_calib(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
