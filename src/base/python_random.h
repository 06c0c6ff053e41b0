/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that CPython's `random` draws, for choices published as a seed. MT19937 (Matsumoto and Nishimura,
 * "Mersenne Twister", 1998). */
#ifndef ATOM_BASE_PYTHON_RANDOM_H
#define ATOM_BASE_PYTHON_RANDOM_H

#include <stdint.h>

struct atom_python_random {
    uint32_t state[624];
    int used; /* words of state that were drawn */
};

/* random.seed(seed) */
void atom_python_random_seed(struct atom_python_random *r, uint32_t seed);
/* random.randint(0, most), 0 <= most < 2^31 - 1 */
int atom_python_randint(struct atom_python_random *r, int most);

#endif
