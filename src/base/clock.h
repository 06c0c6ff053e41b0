/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BASE_CLOCK_H
#define ATOM_BASE_CLOCK_H

#include <time.h>

/* Seconds on a clock that only goes forward. */
static inline double atom_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
