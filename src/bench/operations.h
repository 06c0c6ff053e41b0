/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_OPERATIONS_H
#define ATOM_BENCH_OPERATIONS_H

#include "bench/bench.h"
#include "bench/ceilings.h"
#include "bench/shape.h"

/* A line for each operation of a backend at the sizes of this shape: compared with the scalar tier first, then timed in
 * the order of a step, layer after layer, so that weights come from memory. */
enum atom_status atom_bench_operations(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                       const struct atom_ceilings *ceilings, struct atom_error *err);

#endif
