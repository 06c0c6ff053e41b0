/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom bench` measures: each gets argv with its own name first and returns the exit status. */
#ifndef ATOM_CLI_BENCH_DEVICES_H
#define ATOM_CLI_BENCH_DEVICES_H

int bench_cpu(int argc, char **argv);
int bench_gpu(int argc, char **argv);

#endif
