/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA and F16C. */
#include "vec_avx2.h"

#include "kernels/rows.h"
#include "kernels/panels.h"

/* Integer tile: m tokens times 8 rows, m constant. Nibble weights q+8 <= 15 go through vpmaddubsw, whose
 * 16-bit sums of four products stay under 2 * 2 * 15 * 128 = 7680; bytes would saturate there, so they are widened to
 * 16 bits and go through vpmaddwd. */
enum { INT_TILE = 4 };

struct tile {
    const uint8_t *w;       /* the panel, at these 8 rows */
    const uint16_t *scales; /* [n_scales][32], at these 8 rows */
    const int8_t *q;
    const float *a_scales;
    const int32_t *sums;
    float *y;
    size_t ld;
    bool add;
};

VEC_FN __m256i four_of(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}

VEC_FN void nibble_run(const struct tile *x, const int m, size_t at, const int8_t *q, size_t stride, int padded,
                       __m256i *acc)
{
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (int c = 0; c < padded; c += 8, at += 128) {
        __m256i both = _mm256_loadu_si256((const void *)(x->w + at));
        __m256i lo = _mm256_and_si256(both, mask), hi = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
#pragma GCC unroll 8
        for (int t = 0; t < m; t++) {
            const int8_t *at_t = q + (size_t)t * stride + (size_t)c;
            __m256i pairs =
                _mm256_add_epi16(_mm256_maddubs_epi16(lo, four_of(at_t)), _mm256_maddubs_epi16(hi, four_of(at_t + 4)));
            acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(pairs, ones));
        }
    }
}

/* Bytes q+128 minus 128 as 16-bit lanes: rows 0-3 and 4-7; their sums of two leave two partial sums a row. */
VEC_FN void byte_run(const struct tile *x, const int m, size_t at, const int8_t *q, size_t stride, int padded,
                     __m256i *acc)
{
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    for (int c = 0; c < padded; c += 4, at += 128) {
        __m256i w = _mm256_xor_si256(_mm256_loadu_si256((const void *)(x->w + at)), flip);
        __m256i w0 = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w));
        __m256i w1 = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w, 1));
#pragma GCC unroll 8
        for (int t = 0; t < m; t++) {
            __m256i a = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(four_of(q + (size_t)t * stride + (size_t)c)));
            __m256i sum = _mm256_hadd_epi32(_mm256_madd_epi16(w0, a), _mm256_madd_epi16(w1, a));
            acc[t] = _mm256_add_epi32(acc[t], _mm256_permute4x64_epi64(sum, 0xD8));
        }
    }
}

VEC_FN void int_tile(const struct atom_packed *w, const struct tile *x, const int m)
{
    const struct atom_layout *lay = w->lay;
    size_t stride = (size_t)lay->row_bytes, n_scales = (size_t)lay->n_scales, n_runs = (size_t)lay->n_runs;
    __m256 y[INT_TILE];
    for (int t = 0; t < m; t++)
        y[t] = _mm256_setzero_ps();
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *run = &lay->runs[r];
        bool nibbles = is_nibbles(w, run);
        __m256i acc[INT_TILE];
        for (int t = 0; t < m; t++)
            acc[t] = _mm256_set1_epi32(nibbles ? -8 * x->sums[(size_t)t * n_runs + (size_t)r] : 0);
        if (nibbles)
            nibble_run(x, m, run_at(w, run), x->q + run->offset, stride, run->padded, acc);
        else
            byte_run(x, m, run_at(w, run), x->q + run->offset, stride, run->padded, acc);
        __m256 s_w = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(x->scales + run->scale * ATOM_PANEL)));
        for (int t = 0; t < m; t++) {
            __m256 s_a = _mm256_set1_ps(x->a_scales[(size_t)t * n_scales + (size_t)run->scale]);
            y[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t]), _mm256_mul_ps(s_a, s_w), y[t]);
        }
    }
    for (int t = 0; t < m; t++) {
        float *to = x->y + (size_t)t * x->ld;
        _mm256_storeu_ps(to, x->add ? _mm256_add_ps(_mm256_loadu_ps(to), y[t]) : y[t]);
    }
}

static void rows_of_eight(const struct atom_linear_job *job, struct tile *x, int row)
{
    const struct atom_packed *w = job->w;
    const struct atom_layout *lay = w->lay;
    for (int t = job->tok0, m; t < job->tok1; t += m) {
        m = job->tok1 - t >= INT_TILE ? INT_TILE : 1;
        x->q = job->a->q + (size_t)t * (size_t)lay->row_bytes;
        x->a_scales = job->a->scales + (size_t)t * (size_t)lay->n_scales;
        x->sums = job->a->sums + (size_t)t * (size_t)lay->n_runs;
        x->y = job->y + (size_t)(t - job->tok0) * job->ld + row;
        if (m == INT_TILE)
            int_tile(w, x, INT_TILE);
        else
            int_tile(w, x, 1);
    }
}

static void linear_int(const struct atom_linear_job *job)
{
    const struct atom_packed *w = job->w;
    for (int row = 0; row < ATOM_PANEL; row += 8) {
        struct tile x = {.w = w->data + (size_t)job->panel * w->panel_bytes + row * 4,
                         .scales = w->scales + (size_t)job->panel * (size_t)w->lay->n_scales * ATOM_PANEL + row,
                         .ld = job->ld,
                         .add = job->add};
        rows_of_eight(job, &x, row);
    }
}

void atom_kernels_avx2(struct atom_kernels *k)
{
    k->name = "avx2";
    k->linear_int = linear_int;
    fill_rows(k);
    fill_panels(k);
}
