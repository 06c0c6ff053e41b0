/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that Python's random.Random draws, so that a seed chooses the examples that it chooses in the harness.
 *
 * Source: M. Matsumoto, T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), seeded by array (2002). The order in
 * which a sample takes its words is that of Python 3.2 and later; tests compare both with Python itself. */
#ifndef ATOM_EVAL_PYTHON_RANDOM_H
#define ATOM_EVAL_PYTHON_RANDOM_H

#include <stdint.h>

enum { ATOM_PYTHON_WORDS = 624, ATOM_PYTHON_SAMPLE_MOST = 256 };

struct atom_python_random {
    uint32_t words[ATOM_PYTHON_WORDS];
    int next; /* word that is drawn next; past the last: they are made anew */
};

void atom_python_seed(struct atom_python_random *r, uint64_t seed);
/* out [k]: k of 0 to n - 1, all different; k at most n and ATOM_PYTHON_SAMPLE_MOST. */
void atom_python_sample(struct atom_python_random *r, int n, int k, int *out);

#endif
