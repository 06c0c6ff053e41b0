/* SPDX-License-Identifier: Apache-2.0 */
/* A run of `atom bench gpu`: what its parts share. */
#ifndef ATOM_BENCH_GPU_RUN_H
#define ATOM_BENCH_GPU_RUN_H

#include "bench/gpu/gpu_ceilings.h"
#include "bench/gpu_plan.h"

struct atom_gpu_run {
    const struct atom_gpu_options *opt;
    struct atom_gpu_plan plan;
    struct atom_gpu_timer *timer;
    struct atom_gpu_ceilings ceilings;
    struct atom_gpu_machine machine;
    int repeat, done, total; /* measurements */
};

/* Tells progress, one measurement further, and sees whether to stop: ATOM_ERR_CANCELLED. */
enum atom_status atom_gpu_tell(struct atom_gpu_run *run, const char *phase, struct atom_error *err);

/* Sets times and share of a line whose ops, bytes, bound and `cold` are set (bound: of ops; bytes are compared with
 * `memory`, READ or COPY, when the line is cold) and tells it. */
void atom_gpu_tell_line(const struct atom_gpu_run *run, struct atom_gpu_line *line, const struct atom_gpu_time *time,
                        enum atom_gpu_ceiling memory);

enum atom_status atom_gpu_linears(struct atom_gpu_run *run, struct atom_error *err);
enum atom_status atom_gpu_operations(struct atom_gpu_run *run, enum atom_gpu_what what, struct atom_error *err);
int atom_gpu_count_linears(const struct atom_gpu_run *run);
int atom_gpu_count_operations(const struct atom_gpu_run *run, enum atom_gpu_what what);

#endif
