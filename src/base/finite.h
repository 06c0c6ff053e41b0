/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BASE_FINITE_H
#define ATOM_BASE_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* No NaN or infinity among x[n]; a loop that compilers turn into vectors. */
static inline bool atom_all_finite(const float *x, size_t n)
{
    int32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7F800000;
}

#endif
