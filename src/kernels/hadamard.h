/* SPDX-License-Identifier: Apache-2.0 */
/* Orthonormal Hadamard transform of a head vector, in place: n = 2^m, 12*2^m or 20*2^m.
 * A butterfly over the power of two, then Paley's matrix of order 12 or 20 over the rest; additions in one fixed
 * order, the same code for every tier. */
#ifndef ATOM_KERNELS_HADAMARD_H
#define ATOM_KERNELS_HADAMARD_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ATOM_HADAMARD_MAX = 1024 }; /* largest n */

bool atom_hadamard_has(int n);
void atom_hadamard(float *x, int n);
void atom_hadamard_undo(float *x, int n);

#ifdef __cplusplus
}
#endif

#endif
