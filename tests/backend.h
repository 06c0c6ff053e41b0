/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the CPU backend: what they draw and fill, and a pool of two threads before each test. */
#ifndef ATOM_TESTS_BACKEND_H
#define ATOM_TESTS_BACKEND_H

#include "inputs.h"

#include "backend/cpu.h"
#include "base/thread.h"

static const struct atom_backend *const cpu = &atom_backend_cpu;
static struct atom_error err;

static inline void *room(size_t n_bytes)
{
    void *p = calloc(n_bytes + 1, 1);
    assert_non_null(p);
    return p;
}

static inline void fill(float *x, size_t n, float by)
{
    for (size_t i = 0; i < n; i++)
        x[i] = by * unit();
}

static inline int32_t *permutation(int n)
{
    int32_t *order = room((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = between(0, i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    return order;
}

static inline int start(void **state)
{
    (void)state;
    seed = 99;
    memset(&err, 0, sizeof err);
    atom_cpu_use(~(unsigned)ATOM_CPU_BF16); /* of the tiers with the same bits, the best */
    return atom_pool_start(2, &err) != ATOM_OK;
}

#endif
