/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with VNNI. */
#include "vec_avx512.h"

#include "kernels/rows.h"
#include "kernels/panels.h"

/* Integer tile: m tokens times the 32 rows of a panel, m constant. Weights are the unsigned side of vpdpbusd (q+8 or
 * q+128), so 8 or 128 times the run's activation sum is taken off once per run. */
struct tile {
    const uint8_t *w;       /* the panel */
    const uint16_t *scales; /* [n_scales][32] */
    const int8_t *q;        /* first token, rows k_padded apart */
    const float *a_scales;
    const int32_t *sums;
    float *y;
};

VEC_FN ivec four_of(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_set1_epi32(four);
}

/* acc[t][b] += four products a lane, for each token. */
VEC_FN void four_channels(const int m, const int8_t *q, size_t stride, ivec w0, ivec w1, ivec acc[][2])
{
#pragma GCC unroll 16
    for (int t = 0; t < m; t++) {
        ivec a = four_of(q + (size_t)t * stride);
        acc[t][0] = _mm512_dpbusd_epi32(acc[t][0], w0, a);
        acc[t][1] = _mm512_dpbusd_epi32(acc[t][1], w1, a);
    }
}

VEC_FN void nibble_run(const struct tile *x, const int m, size_t at, const int8_t *q, size_t stride, int padded,
                       ivec acc[][2])
{
    const ivec mask = _mm512_set1_epi8(15);
    ivec odd[1][2] = {{i_set(0), i_set(0)}}; /* one token alone keeps two chains a block, for vpdpbusd's latency */
    for (int c = 0; c < padded; c += 8, at += 128, q += 8) {
        ivec r0 = _mm512_loadu_si512(x->w + at), r1 = _mm512_loadu_si512(x->w + at + 64);
        four_channels(m, q, stride, _mm512_and_si512(r0, mask), _mm512_and_si512(r1, mask), acc);
        r0 = _mm512_and_si512(_mm512_srli_epi16(r0, 4), mask);
        r1 = _mm512_and_si512(_mm512_srli_epi16(r1, 4), mask);
        four_channels(m, q + 4, stride, r0, r1, m == 1 ? odd : acc);
    }
    if (m == 1) {
        acc[0][0] = _mm512_add_epi32(acc[0][0], odd[0][0]);
        acc[0][1] = _mm512_add_epi32(acc[0][1], odd[0][1]);
    }
}

VEC_FN void byte_run(const struct tile *x, const int m, size_t at, const int8_t *q, size_t stride, int padded,
                     ivec acc[][2])
{
    for (int c = 0; c < padded; c += 4, at += 128, q += 4)
        four_channels(m, q, stride, _mm512_loadu_si512(x->w + at), _mm512_loadu_si512(x->w + at + 64), acc);
}

VEC_FN void int_tile(const struct atom_packed *w, const struct tile *x, const int m)
{
    const struct atom_layout *lay = w->lay;
    size_t stride = (size_t)lay->k_padded, n_scales = (size_t)lay->n_scales, n_runs = (size_t)lay->n_runs;
    memset(x->y, 0, (size_t)m * ATOM_PANEL * sizeof *x->y); /* sums stay in memory: registers are for the integers */
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *run = &lay->runs[r];
        bool nibbles = is_nibbles(w, run);
        ivec acc[VEC_TILE][2];
#pragma GCC unroll 16
        for (int t = 0; t < m; t++) {
            int32_t sum = x->sums[(size_t)t * n_runs + (size_t)r];
            acc[t][0] = acc[t][1] = i_set(nibbles ? -8 * sum : -128 * sum);
        }
        if (nibbles)
            nibble_run(x, m, run_at(w, run), x->q + run->offset, stride, run->padded, acc);
        else
            byte_run(x, m, run_at(w, run), x->q + run->offset, stride, run->padded, acc);
        const uint16_t *scales = x->scales + run->scale * ATOM_PANEL;
        vec s0 = v_f16(scales), s1 = v_f16(scales + 16);
#pragma GCC unroll 16
        for (int t = 0; t < m; t++) {
            float *y = x->y + t * ATOM_PANEL;
            vec s = v_set(x->a_scales[(size_t)t * n_scales + (size_t)run->scale]);
            v_store(y, v_fma(v_int(acc[t][0]), v_mul(s, s0), v_load(y)));
            v_store(y + 16, v_fma(v_int(acc[t][1]), v_mul(s, s1), v_load(y + 16)));
        }
    }
}

/* Wider tiles would fit in the registers, but gcc 12 then spills accumulators in the inner loop. */
static int widest_tile(int n) { return n >= 6 ? 6 : n >= 4 ? 4 : n >= 2 ? 2 : 1; }

static void linear_int(const struct atom_linear_job *job)
{
    const struct atom_packed *w = job->w;
    const struct atom_layout *lay = w->lay;
    const uint8_t *panel = w->data + (size_t)job->panel * w->panel_bytes;
    struct tile x = {.w = panel, .scales = w->scales + (size_t)job->panel * (size_t)lay->n_scales * ATOM_PANEL};
    for (int t = job->tok0, m; t < job->tok1; t += m) {
        m = widest_tile(job->tok1 - t);
        x.q = job->a->q + (size_t)t * (size_t)lay->k_padded;
        x.a_scales = job->a->scales + (size_t)t * (size_t)lay->n_scales;
        x.sums = job->a->sums + (size_t)t * (size_t)lay->n_runs;
        x.y = job->y + (size_t)(t - job->tok0) * ATOM_PANEL;
        switch (m) {
        case 6:
            int_tile(w, &x, 6);
            break;
        case 4:
            int_tile(w, &x, 4);
            break;
        case 2:
            int_tile(w, &x, 2);
            break;
        default:
            int_tile(w, &x, 1);
            break;
        }
    }
}

void atom_kernels_avx512(struct atom_kernels *k)
{
    k->name = "avx512";
    k->linear_int = linear_int;
    fill_rows(k);
    fill_panels(k);
}
