/* SPDX-License-Identifier: Apache-2.0 */
/* Products of integers for int_tile.h, which says what each function means. The pairs of a multiplication and an
 * addition are in assembly, because the compiler would add products to one another first and spill sums. */
#ifndef ATOM_DOT_AVX2_H
#define ATOM_DOT_AVX2_H

#include "kernels/avx2/int_step.h"
#include "kernels/layout.h"

/* Nibbles q+8 <= 15 go through vpmaddubsw, four products of a row a step in each 16 bits: 4 steps of activations with 8
 * bits, any run of those with 4. */
TILE_FN int nibble_steps(int bits) { return INT16_MAX / (4 * 15 << (bits - 1)); }

TILE_FN __m256i dot(__m256i sum, __m256i w, __m256i a)
{
    __m256i pairs;
    __asm__("vpmaddubsw %[a], %[w], %[p]\n\t"
            "vpaddw %[p], %[s], %[s]"
            : [s] "+x"(sum), [p] "=&x"(pairs)
            : [w] "x"(w), [a] "x"(a));
    return sum;
}

TILE_FN __m256i fold(__m256i acc, __m256i sum)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
}

/* Bytes would saturate there. Widened to 16 bits, even channels and odd ones apart, they go through vpmaddwd, whose
 * sums of two products then belong to one row. */
struct split {
    _Alignas(32) int16_t even[ATOM_RUN_MAX / 2], odd[ATOM_RUN_MAX / 2];
};

TILE_FN void split_run(const int8_t *q, int padded, struct split *s)
{
    int c = 0;
    for (; c + 32 <= padded; c += 32) {
        __m256i both = _mm256_loadu_si256((const void *)(q + c));
        _mm256_store_si256((void *)(s->even + c / 2), _mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8));
        _mm256_store_si256((void *)(s->odd + c / 2), _mm256_srai_epi16(both, 8));
    }
    for (; c < padded; c += 8) {
        __m128i both = _mm_loadl_epi64((const void *)(q + c));
        _mm_storel_epi64((void *)(s->even + c / 2), _mm_srai_epi16(_mm_slli_epi16(both, 8), 8));
        _mm_storel_epi64((void *)(s->odd + c / 2), _mm_srai_epi16(both, 8));
    }
}

/* a: of the first token, which a struct split parts from the next */
TILE_FN void two_channels(const int m, const int b, const int16_t *a, const __m256i *w, __m256i *sum)
{
    UNROLL
    for (int t = 0; t < m; t++) {
        __m256i two = four_bytes((const uint8_t *)a + (size_t)t * sizeof(struct split)), pairs;
        UNROLL
        for (int i = 0; i < b; i++)
            __asm__("vpmaddwd %[a], %[w], %[p]\n\t"
                    "vpaddd %[p], %[s], %[s]"
                    : [s] "+x"(sum[t * b + i]), [p] "=&x"(pairs)
                    : [w] "x"(w[i]), [a] "x"(two));
    }
}

TILE_FN void byte_blocks(const int m, const int b, const uint8_t *w, const struct split *s, int padded, __m256i *acc)
{
    const __m256i low = _mm256_set1_epi16(255);
    __m256i sum[INT_TILE * 2], wide[4];
    UNROLL
    for (int i = 0; i < m * b; i++)
        sum[i] = _mm256_setzero_si256();
    for (int c = 0; c < padded; c += 4, w += 128) {
        prefetch(m, w);
        UNROLL
        for (int i = 0; i < b; i++)
            wide[i] = _mm256_and_si256(load_block(w + 32 * i), low);
        two_channels(m, b, s->even + c / 2, wide, sum);
        UNROLL
        for (int i = 0; i < b; i++)
            wide[i] = _mm256_srli_epi16(load_block(w + 32 * i), 8);
        two_channels(m, b, s->odd + c / 2, wide, sum);
    }
    UNROLL
    for (int i = 0; i < m * b; i++)
        acc[i / b * 4 + i % b] = sum[i];
}

TILE_FN void byte_run(const struct int_run *r, const int m, const int b, __m256i *acc)
{
    struct split s[INT_TILE];
    for (int t = 0; t < m; t++)
        split_run(r->q + (size_t)t * r->stride, r->padded, &s[t]);
    for (int i = 0; i < 4; i += b)
        byte_blocks(m, b, r->w + 32 * i, s, r->padded, acc + i);
}

#endif
