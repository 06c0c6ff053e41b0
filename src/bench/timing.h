/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_TIMING_H
#define ATOM_BENCH_TIMING_H

#include "bench/bench.h"
#include "bench/ceilings.h"

/* Sorts seconds [n] and takes the middle one (of two: their mean). */
double atom_median(double *seconds, int n);

/* Sets median_s, fastest_s and share from seconds [n], which it sorts; ops, bytes and bound of the line must be set.
 * The ceiling is that of all threads. */
void atom_line_times(struct atom_bench_line *line, double *seconds, int n, const struct atom_ceilings *ceilings);

/* Tells progress and sees whether to stop: ATOM_ERR_CANCELLED. */
enum atom_status atom_bench_tell(const struct atom_bench_options *opt, const char *phase, int done, int total,
                                 struct atom_error *err);

#endif
