/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of a step on a CUDA device, one .cu each.
 *
 * All pointers in these structs are device memory unless named host. Every launcher checks its shapes, puts its work
 * on the stream and returns: nothing is allocated, nothing waited for. A status other than ATOM_OK means that nothing
 * was started. Integers equal the scalar tier's for the same floats; floats are within the rounding of their sums. */
#ifndef ATOM_CUDA_OPS_H
#define ATOM_CUDA_OPS_H

#include "cuda/cuda.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum atom_cuda_float { ATOM_CUDA_F32, ATOM_CUDA_F16, ATOM_CUDA_BF16 };

/* ---- sites ---------------------------------------------------------------------------------------------------------
 * The K channels of a site in stored order: K-O normal ones in groups of 128, the last perhaps short, then O outliers
 * that share one scale, summed in integers 128 at a time. A run is a group, or up to 128 outliers. Integers lie run
 * after run, each padded to 128 channels with zeros. */
enum { ATOM_CUDA_RUN = 128 };

struct atom_cuda_site {
    int k, outliers;
    bool whole;   /* one scale for all channels of a token, outliers 0: w8a8 */
    int n_groups; /* normal ones; whole: 1 */
    int n_scales; /* n_groups, and one more when there are outliers */
    int n_runs;   /* n_groups, then the outliers' */
    int k_padded; /* 128 * n_runs */
};

/* 0 <= outliers <= k, k >= 1. */
void atom_cuda_site_init(struct atom_cuda_site *site, int k, int outliers);
void atom_cuda_site_init_whole(struct atom_cuda_site *site, int k);

/* Quantized rows of a site. tok_stride is a multiple of 64, at least n_tok; scales of tokens past n_tok are never
 * used, but their memory may be read, as may the integers of tokens up to tok_stride. */
struct atom_cuda_acts {
    struct atom_cuda_site site;
    int n_tok, tok_stride;
    int8_t *q;     /* [tok_stride, k_padded], 16-byte aligned */
    float *scales; /* [n_scales, tok_stride], 16-byte aligned */
    int bits;      /* 2 to 8; 4 or fewer: normal channels fit INT4 (outliers are INT8 always) */
    /* [n_scales, tok_stride, 4], 16-byte aligned: a scale (of a group of normal channels, a sixteenth of it) as three
     * numbers of at most 11 bits each, whose sum it is, and 0. What the linear of Hopper multiplies by where there are
     * more than 64 tokens; elsewhere it may be NULL. */
    float *scale_parts;
};

/* Fills scale_parts from scales of all tok_stride tokens, for whoever has those from elsewhere: quantizing (row_ops.h)
 * leaves both. */
enum atom_status atom_cuda_cut_scales(const struct atom_cuda_acts *a, atom_cuda_stream s, struct atom_error *err);

/* ---- linear --------------------------------------------------------------------------------------------------------
 */

/* A linear of n rows in the form this device's kernel wants, made from the checkpoint's tensors (docs/design.md,
 * section 4) by a kernel. */
struct atom_cuda_weights;

struct atom_cuda_tensors {
    int n, rows_per_scale;
    const uint8_t *qweight;         /* [n, (k-O+1)/2], 4 bits: q+8, even column low */
    const uint16_t *scales;         /* F16 [n/rows_per_scale up, n_groups] */
    const int8_t *outlier_qweight;  /* [n, O] */
    const uint16_t *outlier_scales; /* F16 [n] */
};

/* Parts stacked by rows, 1 to 3 (query, key and value); by_turns: two parts of equal n, 8 rows of the one, then 8 of
 * the other (gate and up, n a multiple of 8). The tensors may go once the stream has come past. */
enum { ATOM_CUDA_MAX_PARTS = 3 };
enum atom_status atom_cuda_weights_create(const struct atom_cuda_site *site, const struct atom_cuda_tensors *parts,
                                          int n_parts, bool by_turns, atom_cuda_stream s,
                                          struct atom_cuda_weights **out, struct atom_error *err);
void atom_cuda_weights_free(struct atom_cuda_weights *w);
size_t atom_cuda_weights_bytes(const struct atom_cuda_weights *w);

/* y[t, r] = sum over groups ascending, outliers last, of (s_a * s_w) * integer sum; then + bias[r]; then + add[t, r].
 * silu: of weights whose rows come by turns, y [n_tok, n/2] is silu(gate) * up. On Hopper, from 65 tokens on, s_a * s_w
 * is cut off where it should be rounded: at most one unit in the last place. */
struct atom_cuda_linear {
    const struct atom_cuda_weights *w;
    const struct atom_cuda_acts *a;
    enum atom_cuda_float type; /* of y and add */
    void *y;                   /* [n_tok, n], y_stride elements apart, a multiple of 8; 16-byte aligned */
    size_t y_stride;
    const float *bias; /* [n] or NULL */
    const void *add;   /* like y, may be y itself; NULL: none */
    bool silu;
    void *workspace; /* of at least atom_cuda_linear_workspace bytes, zeroed once when it was made */
};

/* Whether the runs of a row are cut in front of `run`, 1 or more, for that many tokens: what lies between two cuts is a
 * chain of its own, and y their sum in order. Depends on the weights, the row, and on whether there are up to 64, 128,
 * 256, 512, 1024 or more tokens. */
bool atom_cuda_linear_is_cut(const struct atom_cuda_weights *w, int n_tok, int row, int run);
size_t atom_cuda_linear_workspace(const struct atom_cuda_weights *w, int max_tok);
enum atom_status atom_cuda_linear_run(const struct atom_cuda_linear *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
