/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of a whole model, in the order they are run: by depth, so that the cache only grows. */
#ifndef ATOM_BENCH_PLAN_H
#define ATOM_BENCH_PLAN_H

#include "bench/bench.h"
#include "bench/shape.h"

struct atom_phase {
    bool decode;
    int tokens; /* of the prefill; decode: steps */
    int depth, batch;
};

/* *out is malloc'd. */
enum atom_status atom_plan_phases(const struct atom_bench_plan *plan, const struct atom_shape *shape,
                                  struct atom_phase **out, int *n, struct atom_error *err);

/* What a session needs for them: sequences, and positions of all together in whole pages. */
void atom_plan_room(const struct atom_phase *phases, int n, int *sequences, int *positions);

#endif
