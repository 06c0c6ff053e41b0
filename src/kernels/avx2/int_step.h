/* SPDX-License-Identifier: Apache-2.0 */
/* What a step of an integer tile begins with, in 256-bit registers: 8 rows of weights, 4 channels of a token. */
#ifndef ATOM_INT_STEP_H
#define ATOM_INT_STEP_H

#include "kernels/unroll.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define TILE_FN static inline __attribute__((always_inline, unused))

/* At most five tokens times two blocks in registers: ten sums, two weights, and what products and a mask need. */
enum { INT_TILE = 5, AHEAD_BYTES = 1536 };

/* A run of a panel and of a tile's tokens. */
struct int_run {
    const uint8_t *w;
    const int8_t *q; /* of the first token */
    size_t stride;   /* to the next one's */
    int padded;
    int bits; /* of activations */
};

/* A block: 8 rows of 4 bytes. */
TILE_FN __m256i load_block(const uint8_t *w) { return _mm256_loadu_si256((const void *)w); }

/* Four bytes for every row. In assembly, because the compiler would hoist the loads of all tokens and spill sums. */
TILE_FN __m256i four_bytes(const void *q)
{
    __m256i a;
    __asm__("vpbroadcastd %[q], %[a]" : [a] "=x"(a) : [q] "m"(*(const int32_t(*)[1])q));
    return a;
}

/* Both lines of a step to come: the later blocks of a run that is read twice then wait in the cache. One token alone is
 * as fast as memory, which the hardware's own prefetch serves best. */
TILE_FN void prefetch(const int m, const uint8_t *w)
{
    if (m == 1)
        return;
    _mm_prefetch(w + AHEAD_BYTES, _MM_HINT_T0);
    _mm_prefetch(w + AHEAD_BYTES + 64, _MM_HINT_T0);
}

#endif
