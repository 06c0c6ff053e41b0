/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512 with VNNI. */
#include "vec_avx512.h"

#include "kernels/rows.h"
#include "kernels/panels.h"
#include "kernels/unroll.h"

/* Integer tile: m tokens times the 32 rows of a panel, m constant. Weights are the unsigned side of vpdpbusd (q+8 or
 * q+128), so 8 or 128 times the run's activation sum is taken off once per run. Six tokens are the widest tile whose
 * integers and floats all stay in registers: 12 + 12, and 7 for weights, mask and activations. */
enum { INT_TILE = 6, AHEAD_BYTES = 1536 };

struct tile {
    const uint8_t *w;       /* the panel */
    const uint16_t *scales; /* [n_scales][32] */
    const int8_t *q;        /* first token */
    const float *a_scales;
    const int32_t *sums;
    float *y;
    size_t ld;
    size_t ahead; /* bytes: where to prefetch */
    bool add;
};

/* acc[t][b] += four products a lane, for each token. In assembly, because the compiler would hoist the broadcasts and
 * spill accumulators. */
VEC_FN void four_channels(const int m, const int8_t *q, size_t stride, ivec w0, ivec w1, ivec acc[][2])
{
    UNROLL
    for (int t = 0; t < m; t++) {
        ivec a;
        __asm__("vpbroadcastd %[q], %[a]\n\t"
                "vpdpbusd %[a], %[w0], %[x]\n\t"
                "vpdpbusd %[a], %[w1], %[y]"
                : [a] "=&v"(a), [x] "+v"(acc[t][0]), [y] "+v"(acc[t][1])
                : [q] "m"(*(const int32_t(*)[1])(const void *)(q + (size_t)t * stride)), [w0] "v"(w0), [w1] "v"(w1));
    }
}

/* One token alone is as fast as memory, which the hardware's own prefetch serves best; more would miss lines late. */
VEC_FN void prefetch(const struct tile *x, const int m, size_t at)
{
    if (m == 1)
        return;
    _mm_prefetch(x->w + at + x->ahead, _MM_HINT_T1);
    _mm_prefetch(x->w + at + x->ahead + 64, _MM_HINT_T1);
}

VEC_FN void nibble_run(const struct tile *x, const int m, size_t at, const int8_t *q, size_t stride, int padded,
                       ivec acc[][2])
{
    const ivec mask = _mm512_set1_epi8(15);
    ivec odd[1][2] = {{i_set(0), i_set(0)}}; /* one token alone keeps two chains a block, for vpdpbusd's latency */
    for (int c = 0; c < padded; c += 8, at += 128, q += 8) {
        ivec r0 = _mm512_loadu_si512(x->w + at), r1 = _mm512_loadu_si512(x->w + at + 64);
        prefetch(x, m, at);
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
    for (int c = 0; c < padded; c += 4, at += 128, q += 4) {
        prefetch(x, m, at);
        four_channels(m, q, stride, _mm512_loadu_si512(x->w + at), _mm512_loadu_si512(x->w + at + 64), acc);
    }
}

VEC_FN void put_tile(const struct tile *x, const int m, vec y[][2])
{
    UNROLL
    for (int t = 0; t < m; t++) {
        float *to = x->y + (size_t)t * x->ld;
        v_store(to, x->add ? v_add(v_load(to), y[t][0]) : y[t][0]);
        v_store(to + 16, x->add ? v_add(v_load(to + 16), y[t][1]) : y[t][1]);
    }
}

VEC_FN void int_tile(const struct atom_packed *w, const struct tile *x, const int m)
{
    const struct atom_layout *lay = w->lay;
    size_t stride = (size_t)lay->row_bytes, n_scales = (size_t)lay->n_scales, n_runs = (size_t)lay->n_runs;
    vec y[INT_TILE][2];
    UNROLL
    for (int t = 0; t < m; t++)
        y[t][0] = y[t][1] = v_set(0.0f);
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *run = &lay->runs[r];
        bool nibbles = is_nibbles(w, run);
        ivec acc[INT_TILE][2];
        UNROLL
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
        UNROLL
        for (int t = 0; t < m; t++) {
            vec s = v_set(x->a_scales[(size_t)t * n_scales + (size_t)run->scale]);
            y[t][0] = v_fma(v_int(acc[t][0]), v_mul(s, s0), y[t][0]);
            y[t][1] = v_fma(v_int(acc[t][1]), v_mul(s, s1), y[t][1]);
        }
    }
    put_tile(x, m, y);
}

static void int_tile_1(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 1); }
static void int_tile_2(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 2); }
static void int_tile_3(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 3); }
static void int_tile_4(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 4); }
static void int_tile_5(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 5); }
static void int_tile_6(const struct atom_packed *w, const struct tile *x) { int_tile(w, x, 6); }

static void linear_int(const struct atom_linear_job *job)
{
    static void (*const tiles[])(const struct atom_packed *, const struct tile *) = {
        int_tile_1, int_tile_2, int_tile_3, int_tile_4, int_tile_5, int_tile_6};
    const struct atom_packed *w = job->w;
    const struct atom_layout *lay = w->lay;
    struct tile x = {.w = w->data + (size_t)job->panel * w->panel_bytes,
                     .scales = w->scales + (size_t)job->panel * (size_t)lay->n_scales * ATOM_PANEL,
                     .ld = job->ld,
                     .add = job->add};
    int n = job->tok1 - job->tok0, n_tiles = (n + INT_TILE - 1) / INT_TILE;
    for (int i = 0; i < n_tiles; i++) { /* tiles as even as can be */
        int from = i * n / n_tiles, t = job->tok0 + from;
        x.q = job->a->q + (size_t)t * (size_t)lay->row_bytes;
        x.a_scales = job->a->scales + (size_t)t * (size_t)lay->n_scales;
        x.sums = job->a->sums + (size_t)t * (size_t)lay->n_runs;
        x.y = job->y + (size_t)from * job->ld;
        /* The last tile finds its weights in a cache: it brings the next panel, so that memory works while this
         * computes. */
        x.ahead = i > 0 && i == n_tiles - 1 ? w->panel_bytes : AHEAD_BYTES;
        tiles[(i + 1) * n / n_tiles - from - 1](w, &x);
    }
}

void atom_kernels_avx512(struct atom_kernels *k)
{
    k->name = "avx512";
    k->linear_int = linear_int;
    fill_rows(k);
    fill_panels(k);
}
