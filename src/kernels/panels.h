/* SPDX-License-Identifier: Apache-2.0 */
/* Float products over panels of 32 columns, written once over a vec header (included first) and compiled per tier.
 * Each output element is one chain of fma down k, so tiles and vector widths show in no result. */
#include "kernels/packed.h"

#include <string.h>

/* m rows times `panels` panels, both constant, m * panels <= VEC_TILE, from panel `first` on. */
VEC_FN void gemm_tile(const struct atom_gemm_job *j, int row, int first, const int m, const int panels)
{
    const float *a = j->a + (size_t)row * (size_t)j->lda, *b = j->b + (size_t)first * j->b_stride;
    float *c = j->c + (size_t)row * (size_t)j->ldc + (size_t)first * ATOM_PANEL;
    vec acc[VEC_TILE][2];
#pragma GCC unroll 16
    for (int t = 0; t < m * panels; t++) {
        const float *at = c + (size_t)(t / panels) * (size_t)j->ldc + t % panels * ATOM_PANEL;
        acc[t][0] = j->add ? v_load(at) : v_set(0.0f);
        acc[t][1] = j->add ? v_load(at + 16) : v_set(0.0f);
    }
    for (int i = 0; i < j->k; i++)
#pragma GCC unroll 16
        for (int p = 0; p < panels; p++) {
            const float *from = b + (size_t)p * j->b_stride + (size_t)i * ATOM_PANEL;
            vec b0 = v_load(from), b1 = v_load(from + 16);
#pragma GCC unroll 16
            for (int t = 0; t < m; t++) {
                vec x = v_set(a[(size_t)t * (size_t)j->lda + (size_t)i]);
                acc[t * panels + p][0] = v_fma(x, b0, acc[t * panels + p][0]);
                acc[t * panels + p][1] = v_fma(x, b1, acc[t * panels + p][1]);
            }
        }
#pragma GCC unroll 16
    for (int t = 0; t < m * panels; t++) {
        float *at = c + (size_t)(t / panels) * (size_t)j->ldc + t % panels * ATOM_PANEL;
        v_store(at, acc[t][0]);
        v_store(at + 16, acc[t][1]);
    }
}

/* One row alone takes several panels at once, so that its chains hide the latency of an fma. */
static void gemm_one_row(const struct atom_gemm_job *j, int row)
{
    enum { WIDE = VEC_TILE >= 4 ? 4 : 2 };
    int p = 0;
    for (; p + WIDE <= j->n_panels; p += WIDE)
        gemm_tile(j, row, p, 1, WIDE);
    for (; p < j->n_panels; p++)
        gemm_tile(j, row, p, 1, 1);
}

static void gemm(const struct atom_gemm_job *j)
{
    int t = 0;
    for (; t + VEC_TILE <= j->m; t += VEC_TILE)
        for (int p = 0; p < j->n_panels; p++)
            gemm_tile(j, t, p, VEC_TILE, 1);
    for (; VEC_TILE > 8 && t + 8 <= j->m; t += 8)
        for (int p = 0; p < j->n_panels; p++)
            gemm_tile(j, t, p, VEC_TILE > 8 ? 8 : 1, 1);
    for (; VEC_TILE > 4 && t + 4 <= j->m; t += 4)
        for (int p = 0; p < j->n_panels; p++)
            gemm_tile(j, t, p, VEC_TILE > 4 ? 4 : 1, 1);
    for (; VEC_TILE > 2 && t + 2 <= j->m; t += 2)
        for (int p = 0; p < j->n_panels; p++)
            gemm_tile(j, t, p, VEC_TILE > 2 ? 2 : 1, 1);
    for (; t < j->m; t++)
        gemm_one_row(j, t);
}

static void load_float_run(const struct atom_packed *w, const uint8_t *panel, const struct atom_run *run, float *out)
{
    size_t at = (size_t)run->first * ATOM_PANEL;
    const uint16_t *h = (const uint16_t *)(const void *)panel + at;
    int n = run->len * ATOM_PANEL;
    if (w->kind == ATOM_W_F32)
        memcpy(out, (const float *)(const void *)panel + at, (size_t)n * sizeof *out);
    else if (w->kind == ATOM_W_BF16)
        for (int i = 0; i < n; i += 16)
            v_store(out + i, v_bf16(h + i));
    else
        for (int i = 0; i < n; i += 16)
            v_store(out + i, v_f16(h + i));
}

static void load_int_run(const struct atom_packed *w, int panel, const struct atom_run *run, float *out)
{
    int n_scales = w->lay->n_scales;
    bool nibbles = is_nibbles(w, run);
    for (int block = 0; block < 2; block++) {
        const uint8_t *from = w->data + (size_t)panel * w->panel_bytes + run_at(w, run) + (size_t)block * 64;
        vec s = v_f16(w->scales + ((size_t)panel * (size_t)n_scales + (size_t)run->scale) * ATOM_PANEL + block * 16);
        for (int i = 0; i < run->len; i++) {
            int shift = 8 * (i % 4) + (nibbles && i % 8 >= 4 ? 4 : 0), mask = nibbles ? 15 : 255;
            int32_t lanes[16];
            memcpy(lanes, from + (size_t)(nibbles ? i / 8 : i / 4) * 128, sizeof lanes);
            ivec q = i_and(i_shr(i_load(lanes), shift), i_set(mask));
            vec v = v_mul(v_int(i_add(q, i_set(nibbles ? -8 : -128))), s);
            v_store(out + i * ATOM_PANEL + block * 16, v);
        }
    }
}

static void load_run(const struct atom_packed *w, int panel, const struct atom_run *run, float *out)
{
    if (w->kind == ATOM_W_NIBBLE || w->kind == ATOM_W_BYTE)
        load_int_run(w, panel, run, out);
    else
        load_float_run(w, w->data + (size_t)panel * w->panel_bytes, run, out);
}

static void fill_panels(struct atom_kernels *k)
{
    k->gemm = gemm;
    k->load_run = load_run;
}
