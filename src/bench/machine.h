/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_MACHINE_H
#define ATOM_BENCH_MACHINE_H

#include <stddef.h>

const char *atom_machine_name(void);     /* the processor's own words */
const char *atom_machine_compiler(void); /* "gcc 12.2.0" */
const char *atom_machine_commit(void);   /* of the sources, "-dirty" after it when they were changed; "" not known */

/* The most memory this process has had resident so far; 0: not known. */
double atom_machine_peak_bytes(void);
/* Makes what is resident now the most so far, where the kernel lets a process. */
void atom_machine_forget_peak(void);

#endif
