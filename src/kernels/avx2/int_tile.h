/* SPDX-License-Identifier: Apache-2.0 */
/* Integer linears in 256-bit registers, written once over a dot header (dot_avx2.h, dot_avxvnni.h; included first) and
 * compiled per tier. Of it come
 *
 *   dot(sum, w, a)   sum plus four products a row: w unsigned, a block of 8 rows; a signed, the same for every row
 *   fold(acc, sum)   acc, 8 rows of INT32, plus such a sum
 *   nibble_steps     how many steps of 8 channels such a sum can take, of nibbles and activations with so many bits
 *   byte_run         what nibble_run is here, for bytes
 *
 * A tile is m tokens times a panel's four blocks of 8 rows, b blocks at a time. A run of a tile is a function of its
 * own with m and b constant, so that it has all registers. */
#include "kernels/packed.h"

/* sum[t][i] += w[i] times four channels of token t */
TILE_FN void four_channels(const int m, const int b, const int8_t *q, size_t stride, const __m256i *w, __m256i *sum)
{
    UNROLL
    for (int t = 0; t < m; t++) {
        __m256i a = four_bytes(q + (size_t)t * stride);
        UNROLL
        for (int i = 0; i < b; i++)
            sum[t * b + i] = dot(sum[t * b + i], w[i], a);
    }
}

TILE_FN void eight_channels(const int m, const int b, const uint8_t *w, const int8_t *q, size_t stride, __m256i *sum)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i nibbles[4];
    UNROLL
    for (int i = 0; i < b; i++)
        nibbles[i] = _mm256_and_si256(load_block(w + 32 * i), mask);
    four_channels(m, b, q, stride, nibbles, sum);
    UNROLL
    for (int i = 0; i < b; i++)
        nibbles[i] = _mm256_and_si256(_mm256_srli_epi16(load_block(w + 32 * i), 4), mask);
    four_channels(m, b, q + 4, stride, nibbles, sum);
}

TILE_FN void nibble_blocks(const struct int_run *r, const int m, const int b, const uint8_t *w, __m256i *acc)
{
    const int8_t *q = r->q;
    int c = 0, steps = nibble_steps(r->bits);
    UNROLL
    for (int i = 0; i < m * b; i++)
        acc[i / b * 4 + i % b] = _mm256_setzero_si256();
    do {
        int end = r->padded - c > 8 * steps ? c + 8 * steps : r->padded;
        __m256i sum[INT_TILE * 2];
        UNROLL
        for (int i = 0; i < m * b; i++)
            sum[i] = _mm256_setzero_si256();
        for (; c < end; c += 8, q += 8, w += 128) {
            prefetch(m, w);
            eight_channels(m, b, w, q, r->stride, sum);
        }
        UNROLL
        for (int i = 0; i < m * b; i++)
            acc[i / b * 4 + i % b] = fold(acc[i / b * 4 + i % b], sum[i]);
    } while (8 * steps < ATOM_RUN_MAX && c < r->padded);
}

/* acc[t][4 blocks] = the run's sums of (weight + 8) * activation */
TILE_FN void nibble_run(const struct int_run *r, const int m, const int b, __m256i *acc)
{
    for (int i = 0; i < 4; i += b)
        nibble_blocks(r, m, b, r->w + 32 * i, acc + i);
}

static void nibbles_1(const struct int_run *r, __m256i *acc) { nibble_run(r, 1, 4, acc); }
static void nibbles_2(const struct int_run *r, __m256i *acc) { nibble_run(r, 2, 4, acc); }
static void nibbles_3(const struct int_run *r, __m256i *acc) { nibble_run(r, 3, 2, acc); }
static void nibbles_4(const struct int_run *r, __m256i *acc) { nibble_run(r, 4, 2, acc); }
static void nibbles_5(const struct int_run *r, __m256i *acc) { nibble_run(r, 5, 2, acc); }
static void bytes_1(const struct int_run *r, __m256i *acc) { byte_run(r, 1, 4, acc); }
static void bytes_2(const struct int_run *r, __m256i *acc) { byte_run(r, 2, 4, acc); }
static void bytes_3(const struct int_run *r, __m256i *acc) { byte_run(r, 3, 2, acc); }
static void bytes_4(const struct int_run *r, __m256i *acc) { byte_run(r, 4, 2, acc); }
static void bytes_5(const struct int_run *r, __m256i *acc) { byte_run(r, 5, 2, acc); }

typedef void run_fn(const struct int_run *r, __m256i *acc);
static run_fn *const nibbles_of[INT_TILE] = {nibbles_1, nibbles_2, nibbles_3, nibbles_4, nibbles_5};
static run_fn *const bytes_of[INT_TILE] = {bytes_1, bytes_2, bytes_3, bytes_4, bytes_5};

/* y[t][4 blocks] += the sums times their scales. Weights were q+8 or q+128: 2^bias_bits times the activations' sum too
 * much. */
static void scale_run(const struct atom_linear_job *job, int tok, int n, int r, const __m256i *acc, __m256 *y)
{
    const struct atom_layout *lay = job->w->lay;
    size_t n_scales = (size_t)lay->n_scales, scale = (size_t)lay->runs[r].scale;
    const uint16_t *scales = job->w->scales + ((size_t)job->panel * n_scales + scale) * ATOM_PANEL;
    int bias_bits = is_nibbles(job->w, &lay->runs[r]) ? 3 : 7;
    for (int t = 0; t < n; t++) {
        size_t at = (size_t)(tok + t);
        __m256i sum_a = _mm256_set1_epi32(job->a->sums[at * (size_t)lay->n_runs + (size_t)r]);
        __m256i bias = _mm256_slli_epi32(sum_a, bias_bits);
        __m256 s_a = _mm256_set1_ps(job->a->scales[at * n_scales + scale]);
        UNROLL
        for (int i = 0; i < 4; i++) {
            __m256 s_w = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(scales + 8 * i)));
            __m256 sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(acc[t * 4 + i], bias));
            y[t * 4 + i] = _mm256_fmadd_ps(sum, _mm256_mul_ps(s_a, s_w), y[t * 4 + i]);
        }
    }
}

static void int_tile(const struct atom_linear_job *job, int tok, int n)
{
    const struct atom_layout *lay = job->w->lay;
    const uint8_t *w = job->w->data + (size_t)job->panel * job->w->panel_bytes;
    const int8_t *q = job->a->q + (size_t)tok * (size_t)lay->row_bytes;
    __m256 y[INT_TILE * 4];
    for (int i = 0; i < n * 4; i++)
        y[i] = _mm256_setzero_ps();
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *at = &lay->runs[r];
        const struct int_run run = {w + run_at(job->w, at), q + at->offset, (size_t)lay->row_bytes, at->padded,
                                    job->a->bits};
        __m256i acc[INT_TILE * 4];
        if (is_nibbles(job->w, at))
            nibbles_of[n - 1](&run, acc);
        else
            bytes_of[n - 1](&run, acc);
        scale_run(job, tok, n, r, acc, y);
    }
    for (int i = 0; i < n * 4; i++) {
        float *to = job->y + (size_t)(tok - job->tok0 + i / 4) * job->ld + i % 4 * 8;
        _mm256_storeu_ps(to, job->add ? _mm256_add_ps(_mm256_loadu_ps(to), y[i]) : y[i]);
    }
}

static void linear_int(const struct atom_linear_job *job)
{
    int n = job->tok1 - job->tok0, n_tiles = (n + INT_TILE - 1) / INT_TILE;
    for (int i = 0; i < n_tiles; i++) { /* tiles as even as can be */
        int from = i * n / n_tiles;
        int_tile(job, job->tok0 + from, (i + 1) * n / n_tiles - from);
    }
}
