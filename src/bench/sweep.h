/* SPDX-License-Identifier: Apache-2.0 */
/* How fast this machine reads a model's packed weights when it does nothing else with them, just now: the ceiling of a
 * decode step. Memory is shared with whatever else the machine runs, so that a ceiling taken minutes ago says little.
 */
#ifndef ATOM_BENCH_SWEEP_H
#define ATOM_BENCH_SWEEP_H

#include "model/model.h"

struct atom_sweep;

/* Of a model on the CPU backend, which must stay. */
enum atom_status atom_sweep_create(const struct atom_model *m, struct atom_sweep **out, struct atom_error *err);
void atom_sweep_free(struct atom_sweep *s);

/* Reads all of it `times` times on all threads; bytes a second, the best. */
double atom_sweep_rate(struct atom_sweep *s, int times);

#endif
