/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_WHOLE_MODEL_H
#define ATOM_BENCH_WHOLE_MODEL_H

#include "bench/bench.h"
#include "bench/ceilings.h"
#include "bench/random_tensors.h"
#include "bench/shape.h"

/* The default scheme with the bits that the options name. */
enum atom_status atom_bench_scheme(const struct atom_bench_options *opt, struct atom_scheme *out,
                                   struct atom_error *err);

/* A model of random numbers. *random holds its embedding: to be freed after the model is closed. */
enum atom_status atom_random_model(const struct atom_config *cfg, uint64_t seed, struct atom_model **out,
                                   struct atom_random **random, struct atom_error *err);

/* Builds a model of the shape and runs the plan's phases, a line each, and one of its memory. */
enum atom_status atom_bench_model(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                  const struct atom_ceilings *ceilings, struct atom_error *err);

#endif
