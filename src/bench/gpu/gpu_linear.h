/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of a scheme as the bench sees them: made for a matrix, set to numbers of tokens, put on a stream, compared
 * with the formula. A new scheme is a file with one of these, and a row in gpu_linears.c. */
#ifndef ATOM_BENCH_GPU_LINEAR_H
#define ATOM_BENCH_GPU_LINEAR_H

#include "bench/gpu/gpu_random.h"
#include "bench/gpu_plan.h"
#include "cuda/ops.h"

/* What a rotation goes through, so that nothing of a copy is left in a cache when its turn comes again; and how many
 * copies small things are made in at the most, for which no rotation is cold. */
enum { ATOM_GPU_COLD_BYTES = 240 << 20, ATOM_GPU_MAX_COPIES = 256 };

/* Copies of so many bytes each that make a cold rotation. */
static inline int atom_gpu_copies(double bytes)
{
    double n = ATOM_GPU_COLD_BYTES / (bytes > 1 ? bytes : 1);
    return n >= ATOM_GPU_MAX_COPIES ? ATOM_GPU_MAX_COPIES : (int)n + 1;
}

/* Enough for what is cut into atom_gpu_copies of `bytes` and of anything less. */
static inline size_t atom_gpu_pool(size_t bytes) { return (size_t)ATOM_GPU_COLD_BYTES + bytes + 4096; }

struct atom_gpu_linear_ask {
    const struct atom_gpu_matrix *matrix;
    enum atom_gpu_scheme scheme;
    int max_tok;
    void *y; /* device memory: a pool for results of y_bytes each */
};

/* Results are rows of n rounded up to 8. */
static inline size_t atom_gpu_y_stride(int n) { return ((size_t)n + 7) / 8 * 8; }

/* What a result should be, and how far rounding may take it from there. */
struct atom_gpu_wanted {
    double value, allowed;
};

/* What an open scheme says of itself. */
struct atom_gpu_linear {
    void *state;
    int copies;          /* of weights, by atom_gpu_copies */
    double weight_bytes; /* of one */
};

struct atom_gpu_linear_kind {
    enum atom_gpu_ceiling bound;
    size_t y_bytes; /* of a result: at most 4 */
    double (*result)(const void *row, size_t i);
    size_t (*acts_bytes)(const struct atom_gpu_matrix *m, int n_tok); /* of one launch's activations */

    /* ATOM_ERR_UNSUPPORTED: this device or program has no such linear, err says why. */
    enum atom_status (*open)(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                             struct atom_error *err);
    void (*close)(void *state); /* takes NULL */
    /* From here on n_tok tokens, with activations and results `copies` times; ATOM_ERR_UNSUPPORTED as open. */
    enum atom_status (*set)(void *state, int n_tok, int copies, struct atom_error *err);
    enum atom_status (*put)(void *state, int copy, atom_cuda_stream s, struct atom_error *err);
    /* Quantizes as many activations of the same shape; NULL: nothing is quantized for this scheme. */
    enum atom_status (*put_quantize)(void *state, int copy, atom_cuda_stream s, struct atom_error *err);
    struct atom_gpu_wanted (*wanted)(const void *state, int copy, int tok, int row);
};

extern const struct atom_gpu_linear_kind atom_gpu_w4; /* w4a4 and w4a8 */
extern const struct atom_gpu_linear_kind atom_gpu_w8a8, atom_gpu_w4a16;
extern const struct atom_gpu_linear_kind atom_gpu_blas_fp16, atom_gpu_blas_int8, atom_gpu_blas_fp8;

double atom_gpu_result_f16(const void *row, size_t i);

#endif
