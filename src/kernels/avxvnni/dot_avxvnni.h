/* SPDX-License-Identifier: Apache-2.0 */
/* Products of integers for int_tile.h, which says what each function means. vpdpbusd adds four products of a row to
 * 32 bits, without saturation, so nibbles and bytes go the same way. */
#ifndef ATOM_DOT_AVXVNNI_H
#define ATOM_DOT_AVXVNNI_H

#include "kernels/avx2/int_step.h"
#include "kernels/layout.h"

TILE_FN int nibble_steps(int bits) { return (void)bits, ATOM_RUN_MAX / 8; }

TILE_FN __m256i dot(__m256i sum, __m256i w, __m256i a)
{
    __asm__("%{vex%} vpdpbusd %[a], %[w], %[s]" : [s] "+x"(sum) : [w] "x"(w), [a] "x"(a));
    return sum;
}

TILE_FN __m256i fold(__m256i acc, __m256i sum) { return _mm256_add_epi32(acc, sum); }

TILE_FN void byte_blocks(const struct int_run *r, const int m, const int b, const uint8_t *w, __m256i *acc)
{
    __m256i sum[INT_TILE * 2], block[4];
    UNROLL
    for (int i = 0; i < m * b; i++)
        sum[i] = _mm256_setzero_si256();
    for (int c = 0; c < r->padded; c += 4, w += 128) {
        prefetch(m, w);
        UNROLL
        for (int i = 0; i < b; i++)
            block[i] = load_block(w + 32 * i);
        UNROLL
        for (int t = 0; t < m; t++) {
            __m256i a = four_bytes(r->q + (size_t)t * r->stride + c);
            UNROLL
            for (int i = 0; i < b; i++)
                sum[t * b + i] = dot(sum[t * b + i], block[i], a);
        }
    }
    UNROLL
    for (int i = 0; i < m * b; i++)
        acc[i / b * 4 + i % b] = sum[i];
}

TILE_FN void byte_run(const struct int_run *r, const int m, const int b, __m256i *acc)
{
    for (int i = 0; i < 4; i += b)
        byte_blocks(r, m, b, r->w + 32 * i, acc + i);
}

#endif
