/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_FLOAT_HEADS_H
#define ATOM_BENCH_FLOAT_HEADS_H

#include "bench/bench.h"
#include "bench/ceilings.h"
#include "bench/stage.h"

/* What a model has beside its quantized layers: a linear of bfloat16 weights of the size of gate_up, and heads of 8 and
 * 16 bits. */
enum atom_status atom_bench_floats(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                   struct atom_stage *s, const struct atom_ceilings *ceilings, struct atom_error *err);

#endif
