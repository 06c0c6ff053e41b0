/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with bfloat16 products: the tier that nobody gets without asking, since its bits are its own. */
#include "kernels/kernels.h"
#include "kernels/unroll.h"

#include <immintrin.h>

/* m tokens times the 32 rows of a panel. vdpbf16ps multiplies pairs of channels, which lie one after the other in a
 * panel: two permutations bring those of a row together, and serve all tokens of the tile. */
enum { BF16_TILE = 6 };

#define VEC_FN static inline __attribute__((always_inline, unused))

/* Words of row r of channel c (even places) and of channel c + 1, for rows 0 to 15; 16 more for the others. */
VEC_FN __m512i pairs_of_rows(void)
{
    __m512i row = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_or_si512(row, _mm512_slli_epi32(_mm512_add_epi32(row, _mm512_set1_epi32(32)), 16));
}

/* In assembly, because the compiler would hoist the broadcasts and spill accumulators. */
VEC_FN void two_channels(const int m, const uint16_t *h, size_t stride, __m512i w0, __m512i w1, __m512 acc[][2])
{
    UNROLL
    for (int t = 0; t < m; t++) {
        __m512i a;
        __asm__("vpbroadcastd %[h], %[a]\n\t"
                "vdpbf16ps %[a], %[w0], %[x]\n\t"
                "vdpbf16ps %[a], %[w1], %[y]"
                : [a] "=&v"(a), [x] "+v"(acc[t][0]), [y] "+v"(acc[t][1])
                : [h] "m"(*(const uint16_t(*)[2])(const void *)(h + (size_t)t * stride)), [w0] "v"(w0), [w1] "v"(w1));
    }
}

VEC_FN void bf16_tile(const struct atom_bf16_job *j, int tok, const int m)
{
    const int k = j->w->lay->k;
    const uint16_t *w = (const uint16_t *)(const void *)(j->w->data + (size_t)j->panel * j->w->panel_bytes);
    const uint16_t *h = j->h + (size_t)tok * j->stride;
    const __m512i low = pairs_of_rows(), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __m512 acc[BF16_TILE][2];
    UNROLL
    for (int t = 0; t < m; t++)
        acc[t][0] = acc[t][1] = _mm512_setzero_ps();
    for (int c = 0; c < k; c += 2, w += 64, h += 2) {
        __m512i r0 = _mm512_loadu_si512(w), r1 = c + 1 < k ? _mm512_loadu_si512(w + 32) : _mm512_setzero_si512();
        two_channels(m, h, j->stride, _mm512_permutex2var_epi16(r0, low, r1), _mm512_permutex2var_epi16(r0, high, r1),
                     acc);
    }
    float *y = j->y + (size_t)(tok - j->tok0) * ATOM_PANEL;
    UNROLL
    for (int t = 0; t < m; t++) {
        _mm512_storeu_ps(y + t * ATOM_PANEL, acc[t][0]);
        _mm512_storeu_ps(y + t * ATOM_PANEL + 16, acc[t][1]);
    }
}

static void linear_bf16(const struct atom_bf16_job *j)
{
    int t = j->tok0;
    for (; t + BF16_TILE <= j->tok1; t += BF16_TILE)
        bf16_tile(j, t, BF16_TILE);
    for (; t + 2 <= j->tok1; t += 2)
        bf16_tile(j, t, 2);
    for (; t < j->tok1; t++)
        bf16_tile(j, t, 1);
}

static void to_bf16(const float *x, int n, uint16_t *out)
{
    for (int i = 0; i < n; i += 16) {
        __mmask16 some = (__mmask16)(n - i >= 16 ? 0xFFFFu : (1u << (n - i)) - 1u);
        __m256bh h = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, x + i));
        _mm256_mask_storeu_epi16(out + i, some, (__m256i)h);
    }
    if (n % 2)
        out[n] = 0;
}

void atom_kernels_avx512bf16(struct atom_kernels *k)
{
    k->name = "avx512bf16";
    k->to_bf16 = to_bf16;
    k->linear_bf16 = linear_bf16;
}
