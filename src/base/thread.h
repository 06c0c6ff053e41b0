/* SPDX-License-Identifier: Apache-2.0 */
/* One process-wide pool of threads. */
#ifndef ATOM_BASE_THREAD_H
#define ATOM_BASE_THREAD_H

#include "base/error.h"

/* Processors this process may use: the affinity mask, and the quota of its control groups rounded up. */
int atom_processors(void);

/* n threads in all, the caller's included. 0: one per processor this process may use. A pool that runs is replaced;
 * when threads cannot be had none is left and work runs in the caller. */
enum atom_status atom_pool_start(int n, struct atom_error *err);
void atom_pool_stop(void);
int atom_pool_size(void); /* at least 1 */

/* Runs fn(ctx, i, worker) for i in [0, n), each once, in any order, on all threads; worker in [0, atom_pool_size())
 * never runs two at once. Returns when all are done. Not to be called from inside fn; one caller at a time is served,
 * others wait. */
typedef void atom_task_fn(void *ctx, int i, int worker);
void atom_parallel(int n, atom_task_fn *fn, void *ctx);

#endif
