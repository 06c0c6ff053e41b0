/* SPDX-License-Identifier: Apache-2.0 */
/* Float products over panels of 32 columns, written once over a vec header (included first) and compiled per tier.
 * Each output element is one chain of fma down k, so tiles and vector widths show in no result. */
#include "kernels/kernels.h"

#include <string.h>

/* c[m, 32] += a[m, k] * b[k, 32] for a constant m <= VEC_TILE. */
VEC_FN void gemm_tile(const float *a, int lda, const int m, const float *b, int k, float *c, int ldc)
{
    vec acc[VEC_TILE][2];
    for (int t = 0; t < m; t++) {
        acc[t][0] = v_load(c + (size_t)t * (size_t)ldc);
        acc[t][1] = v_load(c + (size_t)t * (size_t)ldc + 16);
    }
    for (int i = 0; i < k; i++) {
        vec b0 = v_load(b + (size_t)i * 32), b1 = v_load(b + (size_t)i * 32 + 16);
#pragma GCC unroll 16
        for (int t = 0; t < m; t++) {
            vec x = v_set(a[(size_t)t * (size_t)lda + (size_t)i]);
            acc[t][0] = v_fma(x, b0, acc[t][0]);
            acc[t][1] = v_fma(x, b1, acc[t][1]);
        }
    }
    for (int t = 0; t < m; t++) {
        v_store(c + (size_t)t * (size_t)ldc, acc[t][0]);
        v_store(c + (size_t)t * (size_t)ldc + 16, acc[t][1]);
    }
}

static void gemm(const float *a, int lda, int m, const float *b, int k, float *c, int ldc)
{
    int t = 0;
    for (; t + VEC_TILE <= m; t += VEC_TILE)
        gemm_tile(a + (size_t)t * (size_t)lda, lda, VEC_TILE, b, k, c + (size_t)t * (size_t)ldc, ldc);
    for (; VEC_TILE > 4 && t + 4 <= m; t += 4)
        gemm_tile(a + (size_t)t * (size_t)lda, lda, VEC_TILE > 4 ? 4 : 1, b, k, c + (size_t)t * (size_t)ldc, ldc);
    for (; t < m; t++)
        gemm_tile(a + (size_t)t * (size_t)lda, lda, 1, b, k, c + (size_t)t * (size_t)ldc, ldc);
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

/* Where a run of a panel starts: nibble runs take 16 bytes a channel for the 32 rows, byte runs 32. */
VEC_FN size_t run_at(const struct atom_packed *w, const struct atom_run *run)
{
    const struct atom_layout *lay = w->lay;
    if (w->kind == ATOM_W_BYTE)
        return (size_t)run->offset * 32;
    size_t normal =
        lay->first_outlier_run < lay->n_runs ? (size_t)lay->runs[lay->first_outlier_run].offset : (size_t)lay->k_padded;
    size_t at = (size_t)run->offset;
    return at < normal ? at * 16 : normal * 16 + (at - normal) * 32;
}

VEC_FN bool is_nibbles(const struct atom_packed *w, const struct atom_run *run)
{
    return w->kind == ATOM_W_NIBBLE && run->scale < w->lay->n_groups;
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
