/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU kernels: one struct of function pointers, filled by tier.
 *
 * Every tier but avx512bf16 gives the same bits as the scalar one for every input (docs/design.md, section 3): integers
 * are exact; float sums either run down one chain of fma per element, or in 16 interleaved lanes folded 8-4-2-1. No
 * kernel allocates, and all may run at once on different outputs. */
#ifndef ATOM_KERNELS_KERNELS_H
#define ATOM_KERNELS_KERNELS_H

#include "kernels/layout.h"

enum {
    ATOM_PANEL = 32,      /* output rows of a weight panel, positions of a key panel */
    ATOM_PAGE = 16,       /* positions of a KV page */
    ATOM_CPU_AVX2 = 1,    /* AVX2, FMA and F16C */
    ATOM_CPU_AVXVNNI = 2, /* and AVX-VNNI */
    ATOM_CPU_AVX512 = 4,  /* AVX-512 F, BW, VL, DQ and VNNI */
    ATOM_CPU_BF16 = 8,    /* and BF16: for whoever asks */
};

/* ---- packed weights -------------------------------------------------------------------------------------------- */

enum atom_weight_kind { ATOM_W_F32, ATOM_W_F16, ATOM_W_BF16, ATOM_W_NIBBLE, ATOM_W_BYTE };

/* A linear of n output rows over a layout's channels, cut in panels of 32 rows; missing rows are zeros.
 *
 * Float kinds: panel = [k][32 rows] elements.
 * Integer kinds: panel = runs in order, one stream of steps of 128 bytes, [32 rows][4]. A NIBBLE run is padded/8 steps:
 * the byte of row r and j < 4 in step i holds q+8 of channel 8i+j in its low nibble and of 8i+4+j in its high one. A
 * BYTE run (and every outlier run) is padded/4 steps of bytes q+128. Padding is q=0.
 * scales: F16 [panel][n_scales][32 rows]. */
struct atom_packed {
    enum atom_weight_kind kind;
    int n;
    int n_panels;
    const struct atom_layout *lay;
    size_t panel_bytes;
    uint8_t *data;    /* 64-byte aligned */
    uint16_t *scales; /* NULL for float kinds */
    float *bias;      /* [n] or NULL */
};

/* ---- quantized activations --------------------------------------------------------------------------------------- */

/* Rows of a site. Integers when q is set; floats in stored order when x is. */
struct atom_acts {
    const struct atom_layout *lay;
    int n_tok;
    int bits;      /* of q, 2 to 8; outliers have 8 */
    int8_t *q;     /* [n_tok, k_padded], row_bytes apart, zeros in the padding */
    float *scales; /* [n_tok, n_scales] */
    int32_t *sums; /* [n_tok, n_runs]: sum of q over the run */
    float *x;      /* [n_tok, k] */
};

/* ---- KV pages ------------------------------------------------------------------------------------------------------
 */

enum atom_kv_kind { ATOM_KV_F32, ATOM_KV_F16, ATOM_KV_BYTE, ATOM_KV_NIBBLE };

/* One head's half of a page, 16 positions.
 * Keys are stored by channel, [channels][16 positions]; values by position, [16 positions][channels]. NIBBLE pairs
 * channel d (low) with d + head_dim/2 (high), the pair that RoPE rotates. The integer kinds are followed by F16 scale
 * [16], U8 zero point [16] and 16 bytes of padding. */
struct atom_kv_shape {
    enum atom_kv_kind kind;
    int head_dim; /* even */
    int bits;     /* 8, 4 or 3 for the integer kinds */
    float clip;
    size_t half_bytes; /* bytes of K, or of V, of one head in one page */
};

/* cos and sin of one page's positions, each [head_dim/2][16 positions]. NULL: keys are not rotated when read. */
struct atom_rope_page {
    const float *cos, *sin;
};

struct atom_linear_job {
    const struct atom_packed *w;
    const struct atom_acts *a;
    int panel;      /* this panel of 32 rows */
    int tok0, tok1; /* of these tokens */
    float *y;       /* row t - tok0, ld apart: its 32 results, or y + results when add; the bias is no part of it */
    size_t ld;
    bool add;
};

typedef float atom_sum_squares_fn(const float *x, int n);
/* out[i] = (x[order[i]] * r) * weight[i]; order NULL: identity */
typedef void atom_norm_fn(const float *x, const int32_t *order, const float *weight, float r, int n, float *out);
/* One row of floats in stored order to integers. False when a number is not finite (outputs are then zeros). */
typedef bool atom_quantize_fn(const float *x, const struct atom_layout *lay, int bits, float clip, int8_t *q,
                              float *scales, int32_t *sums);
/* out = gate * sigmoid(gate) * up */
typedef void atom_silu_mul_fn(const float *gate, const float *up, int n, float *out);
/* Rotates pairs (x[i], x[i+half]) by cos[i], sin[i]. */
typedef void atom_rope_fn(float *x, const float *cos, const float *sin, int half);
/* Orthonormal Hadamard transform, its own inverse; n = 2^m, at least 16. Equals atom_hadamard. */
typedef void atom_hadamard_fn(float *x, int n);
/* One head vector: q as bytes [n], F16 scale and zero point. False when a number is not finite. */
typedef bool atom_kv_quantize_fn(const float *x, int n, int bits, float clip, uint8_t *q, uint16_t *scale,
                                 uint8_t *zero);
/* A page's keys as floats, out[d*32 + p] for p < 16. */
typedef void atom_kv_keys_fn(const struct atom_kv_shape *kv, const uint8_t *page, const struct atom_rope_page *rope,
                             float *out);
/* A page's values as floats: position p < n_pos, channel d at out[(d/32)*panel_stride + p*32 + d%32]. Other positions
 * up to 16, and channels up to a multiple of 32, are zeros. */
typedef void atom_kv_values_fn(const struct atom_kv_shape *kv, const uint8_t *page, int n_pos, size_t panel_stride,
                               float *out);
/* s[i] = exp(s[i] - max) for i < n, 0 up to n_padded (a multiple of 16); n >= 1. A score that is not finite makes the
 * sum NaN, which attention then spreads to where it is found. */
typedef void atom_softmax_fn(float *s, int n, int n_padded, float *max, float *sum);
/* Attention over some positions of one query: values weighted by exp(score - max), and the weights' sum (0: none). */
struct atom_partial {
    float *o; /* [n] */
    float max, total;
};
/* Adds `part` to `sum`; n is a multiple of 16. */
typedef void atom_merge_fn(struct atom_partial *sum, const struct atom_partial *part, int n);
/* log(sum(exp(x))) */
typedef float atom_logsumexp_fn(const float *x, int n);
/* c[m, 32 * n_panels] (rows ldc apart) = a[m, k] (rows lda apart) * b, or c += that when add; panel i of b is [k, 32]
 * at b + i * b_stride. One fma chain down k per element, from 0 or from c. */
struct atom_gemm_job {
    const float *a, *b;
    float *c;
    int lda, ldc, m, k, n_panels;
    size_t b_stride;
    bool add;
};
typedef void atom_gemm_fn(const struct atom_gemm_job *job);
/* One run of a panel as floats, out[(channel - first)*32 + row]. */
typedef void atom_load_run_fn(const struct atom_packed *w, int panel, const struct atom_run *run, float *out);
/* Integer acts times integer weights. */
typedef void atom_linear_int_fn(const struct atom_linear_job *job);

/* x[n] rounded to bfloat16; one zero more when n is odd. */
typedef void atom_to_bf16_fn(const float *x, int n, uint16_t *out);
/* Panels of BF16 weights times activations in bfloat16, as the processor's instruction sums them: bits of its own. */
struct atom_bf16_job {
    const struct atom_packed *w;
    const uint16_t *h; /* [n_tok, k up to even], stride apart */
    size_t stride;
    int panel, tok0, tok1;
    float *y; /* [tok1 - tok0, 32] */
};
typedef void atom_linear_bf16_fn(const struct atom_bf16_job *job);

struct atom_kernels {
    const char *name;
    atom_sum_squares_fn *sum_squares;
    atom_norm_fn *norm;
    atom_quantize_fn *quantize;
    atom_silu_mul_fn *silu_mul;
    atom_rope_fn *rope;
    atom_hadamard_fn *hadamard;
    atom_kv_quantize_fn *kv_quantize;
    atom_kv_keys_fn *kv_keys;
    atom_kv_values_fn *kv_values;
    atom_softmax_fn *softmax;
    atom_merge_fn *merge;
    atom_logsumexp_fn *logsumexp;
    atom_gemm_fn *gemm;
    atom_load_run_fn *load_run;
    atom_linear_int_fn *linear_int;
    atom_to_bf16_fn *to_bf16; /* NULL, as the next, but in the tier that is named for them */
    atom_linear_bf16_fn *linear_bf16;
};

void atom_kernels_scalar(struct atom_kernels *k);
void atom_kernels_avx2(struct atom_kernels *k);
void atom_kernels_avxvnni(struct atom_kernels *k);
void atom_kernels_avx512(struct atom_kernels *k);
void atom_kernels_avx512bf16(struct atom_kernels *k); /* over the ones of avx512 */

unsigned atom_cpu_detect(void); /* ATOM_CPU_* of this machine */
/* Those of a tier. False: no tier has that name. */
bool atom_cpu_mask(const char *tier, unsigned *mask);
/* The strongest tier within `cpu`. */
void atom_kernels_init(struct atom_kernels *k, unsigned cpu);

#endif
