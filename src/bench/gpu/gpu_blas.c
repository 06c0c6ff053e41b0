/* SPDX-License-Identifier: Apache-2.0 */
/* The same products by cuBLASLt: halves, bytes with INT32 results, e4m3. */
#include "bench/gpu/gpu_linear.h"

#include "base/error.h"
#include "cuda/blas.h"

#include <math.h>
#include <stdlib.h>

enum { SEED_X = 11, SEED_W = 12 };

struct blas {
    const struct atom_gpu_matrix *m;
    struct atom_cuda_blas_shape shape; /* of any number of tokens */
    enum atom_gpu_random numbers;
    size_t bytes; /* of x and w */
    struct atom_cuda_blas *lib;
    struct atom_cuda_blas_plan *plan;
    void *x, *w, *y;
    int n_tok;
};

static size_t acts_f16(const struct atom_gpu_matrix *m, int n_tok) { return 2 * (size_t)n_tok * (size_t)m->k; }
static size_t acts_bytes(const struct atom_gpu_matrix *m, int n_tok) { return (size_t)n_tok * (size_t)m->k; }
/* Copies begin at addresses that any algorithm may take. */
static size_t aligned(size_t n_bytes) { return (n_bytes + 255) / 256 * 256; }
static size_t x_bytes(const struct blas *b) { return aligned((size_t)b->n_tok * (size_t)b->m->k * b->bytes); }
static size_t w_bytes(const struct blas *b) { return aligned((size_t)b->m->n * (size_t)b->m->k * b->bytes); }

static double result_i32(const void *row, size_t i) { return (double)((const int32_t *)row)[i]; }

static void close_blas(void *state)
{
    struct blas *b = state;
    if (!b)
        return;
    atom_cuda_blas_plan_free(b->plan);
    atom_cuda_blas_close(b->lib);
    atom_cuda_free(b->x);
    atom_cuda_free(b->w);
    free(b);
}

static void set_type(struct blas *b, enum atom_gpu_scheme scheme)
{
    b->shape = (struct atom_cuda_blas_shape){.type = scheme == ATOM_GPU_BLAS_FP16   ? ATOM_CUDA_BLAS_F16
                                                     : scheme == ATOM_GPU_BLAS_INT8 ? ATOM_CUDA_BLAS_INT8
                                                                                    : ATOM_CUDA_BLAS_FP8,
                                             .out = ATOM_CUDA_F16,
                                             .n = b->m->n,
                                             .k = b->m->k,
                                             .y_stride = atom_gpu_y_stride(b->m->n)};
    b->numbers = scheme == ATOM_GPU_BLAS_FP16   ? ATOM_GPU_HALVES
                 : scheme == ATOM_GPU_BLAS_INT8 ? ATOM_GPU_BYTES
                                                : ATOM_GPU_E4M3;
    b->bytes = scheme == ATOM_GPU_BLAS_FP16 ? 2 : 1;
}

static enum atom_status open_blas(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                                  struct atom_error *err)
{
    struct blas *b = calloc(1, sizeof *b);
    if (!b)
        return atom_fail_nomem(err, sizeof *b);
    b->m = ask->matrix;
    b->y = ask->y;
    set_type(b, ask->scheme);
    size_t row = (size_t)b->m->k * b->bytes, weights = w_bytes(b);
    out->weight_bytes = (double)weights;
    out->copies = atom_gpu_copies((double)weights);
    enum atom_status st = atom_cuda_blas_open(&b->lib, err);
    st = st ? st : atom_gpu_alloc_random(weights * (size_t)out->copies, b->numbers, SEED_W, &b->w, err);
    st = st ? st
            : atom_gpu_alloc_random(atom_gpu_pool(aligned((size_t)ask->max_tok * row)) + ATOM_GPU_MAX_COPIES * 256,
                                    b->numbers, SEED_X, &b->x, err);
    if (st) {
        close_blas(b);
        return st;
    }
    out->state = b;
    return ATOM_OK;
}

static enum atom_status set_blas(void *state, int n_tok, int copies, struct atom_error *err)
{
    struct blas *b = state;
    (void)copies;
    atom_cuda_blas_plan_free(b->plan);
    b->plan = NULL;
    b->n_tok = b->shape.n_tok = n_tok;
    return atom_cuda_blas_plan_create(b->lib, &b->shape, &b->plan, err);
}

static enum atom_status put_blas(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct blas *b = state;
    size_t c = (size_t)copy, y_row = b->shape.y_stride * (b->shape.type == ATOM_CUDA_BLAS_INT8 ? 4 : 2);
    const struct atom_cuda_blas_job job = {.plan = b->plan,
                                           .n_tok = b->n_tok,
                                           .x = (uint8_t *)b->x + c * x_bytes(b),
                                           .w = (uint8_t *)b->w + c * w_bytes(b),
                                           .y = (uint8_t *)b->y + c * (size_t)b->n_tok * y_row};
    return atom_cuda_blas_run(&job, s, err);
}

/* ---- the formula ------------------------------------------------------------------------------------------------- */

static double e4m3(uint8_t b)
{
    int e = b >> 3 & 15, m = b & 7;
    double x = e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return b & 128 ? -x : x;
}

static double number(enum atom_gpu_random kind, uint32_t seed, size_t i)
{
    switch (kind) {
    case ATOM_GPU_HALVES:
        return (double)atom_gpu_half_at(kind, seed, i);
    case ATOM_GPU_E4M3:
        return e4m3(atom_gpu_byte_at(kind, seed, i));
    default:
        return (int8_t)atom_gpu_byte_at(kind, seed, i);
    }
}

/* Integers exactly. Float32 sums lose 2^-24 a step at the most; tensor cores add FP8 with far fewer bits. */
static struct atom_gpu_wanted wanted_blas(const void *state, int copy, int tok, int row)
{
    const struct blas *b = state;
    size_t k = (size_t)b->m->k, x0 = (size_t)copy * x_bytes(b) / b->bytes + (size_t)tok * k,
           w0 = (size_t)copy * w_bytes(b) / b->bytes + (size_t)row * k;
    double y = 0, magnitude = 0;
    for (size_t c = 0; c < k; c++) {
        double term = number(b->numbers, SEED_X, x0 + c) * number(b->numbers, SEED_W, w0 + c);
        y += term;
        magnitude += fabs(term);
    }
    if (b->numbers == ATOM_GPU_BYTES)
        return (struct atom_gpu_wanted){y, 0};
    double lost = b->numbers == ATOM_GPU_E4M3 ? 0x1p-10 : 0x1p-24 * (double)k;
    return (struct atom_gpu_wanted){y, 0x1p-11 * fabs(y) + lost * magnitude};
}

const struct atom_gpu_linear_kind atom_gpu_blas_fp16 = {.bound = ATOM_GPU_FP16,
                                                        .y_bytes = 2,
                                                        .result = atom_gpu_result_f16,
                                                        .acts_bytes = acts_f16,
                                                        .open = open_blas,
                                                        .close = close_blas,
                                                        .set = set_blas,
                                                        .put = put_blas,
                                                        .wanted = wanted_blas};

const struct atom_gpu_linear_kind atom_gpu_blas_int8 = {.bound = ATOM_GPU_INT8,
                                                        .y_bytes = 4,
                                                        .result = result_i32,
                                                        .acts_bytes = acts_bytes,
                                                        .open = open_blas,
                                                        .close = close_blas,
                                                        .set = set_blas,
                                                        .put = put_blas,
                                                        .wanted = wanted_blas};

const struct atom_gpu_linear_kind atom_gpu_blas_fp8 = {.bound = ATOM_GPU_FP8,
                                                       .y_bytes = 2,
                                                       .result = atom_gpu_result_f16,
                                                       .acts_bytes = acts_bytes,
                                                       .open = open_blas,
                                                       .close = close_blas,
                                                       .set = set_blas,
                                                       .put = put_blas,
                                                       .wanted = wanted_blas};
