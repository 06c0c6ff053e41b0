/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of INT4 weights in groups of 128 channels and 16-bit float activations (w4a16), on Hopper. Other devices are
 * refused by name.
 *
 * y[t, r] = sum over c of x[t, c] * (q[r, c] * s[r, c/128]), then + bias[r], then + add[t, r]; sums in float32.
 *
 *   up to 64 tokens    q goes into the products, s into the float32 sum of each group: nothing else is rounded. K is
 *                      cut at places that depend on n and k (and the device's multiprocessors); parts are added in
 *                      order.
 *   from 65 tokens on  q*s, rounded to the activations' type, goes into the products: a relative error of 2^-11 a
 *                      weight with F16 (where q*s is below 2^-14, 2^-25), of 2^-8 with BF16, whose scale keeps 8 of its
 *                      11 bits. That is what a checkpoint read back to 16 bits would hold; the whole of K is one chain.
 */
#ifndef ATOM_CUDA_W4A16_H
#define ATOM_CUDA_W4A16_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct atom_cuda_w4a16_weights;

/* Parts of k channels without outliers (their tensors stay NULL); stacked or by turns as in atom_cuda_weights_create
 * (ops.h). */
enum atom_status atom_cuda_w4a16_weights_create(int k, const struct atom_cuda_tensors *parts, int n_parts,
                                                bool by_turns, atom_cuda_stream s, struct atom_cuda_w4a16_weights **out,
                                                struct atom_error *err);
void atom_cuda_w4a16_weights_free(struct atom_cuda_w4a16_weights *w);
size_t atom_cuda_w4a16_weights_bytes(const struct atom_cuda_w4a16_weights *w);

struct atom_cuda_w4a16 {
    const struct atom_cuda_w4a16_weights *w;
    enum atom_cuda_float x_type; /* F16 or BF16 */
    const void *x;               /* [n_tok, k], x_stride elements apart, a multiple of 8; 16-byte aligned */
    size_t x_stride;
    int n_tok;
    enum atom_cuda_float type; /* of y and add */
    void *y;                   /* [n_tok, n], y_stride elements apart, a multiple of 8; 16-byte aligned */
    size_t y_stride;
    const float *bias; /* [n] or NULL */
    const void *add;   /* like y, may be y itself; NULL: none */
    bool silu;         /* of weights whose rows come by turns: y [n_tok, n/2] is silu(gate) * up */
    void *workspace;   /* of at least atom_cuda_w4a16_workspace bytes, zeroed once when it was made */
};

size_t atom_cuda_w4a16_workspace(const struct atom_cuda_w4a16_weights *w);
enum atom_status atom_cuda_w4a16_run(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
