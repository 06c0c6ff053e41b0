/* SPDX-License-Identifier: Apache-2.0 */
/* One function per subcommand: argv[0] is its name; returns the exit status (0; 1 failure; 2 usage). */
#ifndef ATOM_CLI_COMMANDS_H
#define ATOM_CLI_COMMANDS_H

int cmd_tokenize(int argc, char **argv);

#endif
