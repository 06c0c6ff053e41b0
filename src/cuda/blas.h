/* SPDX-License-Identifier: Apache-2.0 */
/* Products of whole matrices by cuBLASLt: linears of F16 and BF16, and the INT8 and FP8 that our kernels are measured
 * against. The library is opened when it is asked for; nothing is linked with it.
 *
 * y[t, r] = sum over c of x[t, c] * w[r, c], plus bias[r], plus add[t, r]; x [n_tok, k], w [n, k], y [n_tok, n].
 *
 *   type    x, w      summed in   y                        bias, add
 *   F16     half      float32     F16 or F32               of y's type
 *   BF16    bfloat16  float32     BF16 or F32              of y's type
 *   INT8    int8      int32       int32 (`out` unused)     none
 *   FP8     e4m3      float32     F16, BF16 or F32         none; sums are cuBLASLt's fast ones, of fewer bits
 *
 * What a sum's rounding is belongs to cuBLASLt: a token's result may depend on the plan it is computed with. Shapes
 * that cuBLASLt has no algorithm for (INT8 and FP8 want k and n in multiples of 16) fail where the plan is made. */
#ifndef ATOM_CUDA_BLAS_H
#define ATOM_CUDA_BLAS_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The open library, its handle and its workspace. One stream at a time may run its plans. */
struct atom_cuda_blas;

/* Of the open device. ATOM_ERR_UNSUPPORTED when there is no library, with the names that were tried. */
enum atom_status atom_cuda_blas_open(struct atom_cuda_blas **out, struct atom_error *err);
void atom_cuda_blas_close(struct atom_cuda_blas *b);        /* takes NULL; its plans go first */
int atom_cuda_blas_version(const struct atom_cuda_blas *b); /* as 130000 */

enum atom_cuda_blas_type { ATOM_CUDA_BLAS_F16, ATOM_CUDA_BLAS_BF16, ATOM_CUDA_BLAS_INT8, ATOM_CUDA_BLAS_FP8 };

struct atom_cuda_blas_shape {
    enum atom_cuda_blas_type type;
    enum atom_cuda_float out;
    int n, k, n_tok;
    size_t x_stride, y_stride; /* elements from row to row; 0: k, n */
    bool bias, add;
};

/* An algorithm for a shape. */
struct atom_cuda_blas_plan;

/* Asks cuBLASLt for its candidates and times each on memory of its own that is then given back; without memory for it,
 * the first is taken. Takes milliseconds and waits for the device. */
enum atom_status atom_cuda_blas_plan_create(struct atom_cuda_blas *b, const struct atom_cuda_blas_shape *shape,
                                            struct atom_cuda_blas_plan **out, struct atom_error *err);
void atom_cuda_blas_plan_free(struct atom_cuda_blas_plan *p); /* takes NULL */

struct atom_cuda_blas_job {
    const struct atom_cuda_blas_plan *plan;
    int n_tok;         /* 1 to the plan's, whose algorithm serves fewer tokens too */
    const void *x, *w; /* device memory, as all here, at 16-byte addresses */
    void *y;
    const void *bias; /* [n]; given when the plan's shape says so, and only then; as add */
    const void *add;  /* like y, may be y itself */
};
enum atom_status atom_cuda_blas_run(const struct atom_cuda_blas_job *job, atom_cuda_stream s, struct atom_error *err);

/* Weights (a bias is one row) from one float type to another, their rows and columns gathered by orders on the way:
 * to[r, c] = from[row_order[r], order[c]]. Orders are device memory, NULL: as they come. */
struct atom_cuda_floats {
    enum atom_cuda_float from_type, to_type;
    const void *from;
    void *to; /* rounded to nearest; what F16 cannot hold becomes infinite */
    int rows, columns;
    const int32_t *row_order, *order;
};
enum atom_status atom_cuda_floats_run(const struct atom_cuda_floats *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
