/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of INT8 weights and INT8 activations with one scale a row and one a token (w8a8).
 *
 * y[t, r] = float(sum over all channels of q_a[t, c] * q_w[r, c]) * (s_a[t] * s_w[r]), then + bias[r], then + add[t,
 * r]: the sum is exact in INT32, so that no order of it shows and K may be split in any way; it is rounded to float32
 * once, where it exceeds 2^24.
 *
 * On sm_90 these kernels start before the one in front of them on the stream has ended, bring weights, and wait for it
 * then: weights are not to be what a kernel just before is still writing. */
#ifndef ATOM_CUDA_INT8_LINEAR_H
#define ATOM_CUDA_INT8_LINEAR_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ATOM_CUDA_INT8_MAX_K = 131071 /* 128 * 128 * k stays within INT32 */ };

struct atom_cuda_int8_weights;

struct atom_cuda_int8_tensors {
    int n, rows_per_scale;
    const int8_t *qweight;   /* [n, k] */
    const uint16_t *scales;  /* F16 [n/rows_per_scale up], or NULL and */
    const float *scales_f32; /* the same in float32 */
};

/* Of a `whole` site. Parts and by_turns as in atom_cuda_weights_create (ops.h). */
enum atom_status atom_cuda_int8_weights_create(const struct atom_cuda_site *site,
                                               const struct atom_cuda_int8_tensors *parts, int n_parts, bool by_turns,
                                               atom_cuda_stream s, struct atom_cuda_int8_weights **out,
                                               struct atom_error *err);
void atom_cuda_int8_weights_free(struct atom_cuda_int8_weights *w);
size_t atom_cuda_int8_weights_bytes(const struct atom_cuda_int8_weights *w);

/* As struct atom_cuda_linear. */
struct atom_cuda_int8_linear {
    const struct atom_cuda_int8_weights *w;
    const struct atom_cuda_acts *a;
    enum atom_cuda_float type; /* of y and add */
    void *y;                   /* [n_tok, n], y_stride elements apart, a multiple of 8; 16-byte aligned */
    size_t y_stride;
    const float *bias; /* [n] or NULL */
    const void *add;   /* like y, may be y itself; NULL: none */
    bool silu;         /* of weights whose rows come by turns: y [n_tok, n/2] is silu(gate) * up */
};

enum atom_status atom_cuda_int8_linear_run(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                           struct atom_error *err);
/* By the kernel for devices before 9.0, which runs on every one: the same integers. */
enum atom_status atom_cuda_int8_linear_run_plain(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                                 struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
