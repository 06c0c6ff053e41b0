/* SPDX-License-Identifier: Apache-2.0 */
/* INT4 weights by halves (cuda/w4a16.h). */
#include "bench/gpu/gpu_linear.h"
#include "bench/gpu/gpu_tensors.h"

#include "base/error.h"
#include "cuda/w4a16.h"

#include <math.h>
#include <stdlib.h>

enum { SEED_X = 13 };

struct w4a16 {
    const struct atom_gpu_matrix *m;
    struct atom_cuda_site site; /* the same channels, no outliers */
    struct atom_cuda_w4a16_weights *w[ATOM_GPU_MAX_COPIES];
    void *x, *workspace, *y;
    int n_tok;
};

/* Rows at 16-byte addresses. */
static size_t x_stride(const struct atom_gpu_matrix *m) { return ((size_t)m->k + 7) / 8 * 8; }
static size_t acts_bytes(const struct atom_gpu_matrix *m, int n_tok) { return 2 * (size_t)n_tok * x_stride(m); }

static enum atom_status make_weights(struct w4a16 *w, int copy, struct atom_error *err)
{
    struct atom_cuda_tensors t;
    enum atom_status st = atom_gpu_tensors_make(&w->site, w->m->n, copy, &t, err);
    struct atom_cuda_tensors given = t;
    given.outlier_qweight = NULL;
    given.outlier_scales = NULL;
    st = st ? st : atom_cuda_w4a16_weights_create(w->m->k, &given, 1, false, NULL, &w->w[copy], err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    atom_gpu_tensors_drop(&t);
    return st;
}

static void close_w4a16(void *state)
{
    struct w4a16 *w = state;
    if (!w)
        return;
    for (int i = 0; i < ATOM_GPU_MAX_COPIES; i++)
        atom_cuda_w4a16_weights_free(w->w[i]);
    atom_cuda_free(w->x);
    atom_cuda_free(w->workspace);
    free(w);
}

static enum atom_status set_w4a16(void *state, int n_tok, int copies, struct atom_error *err)
{
    (void)copies;
    (void)err;
    ((struct w4a16 *)state)->n_tok = n_tok;
    return ATOM_OK;
}

static enum atom_status put_w4a16(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct w4a16 *w = state;
    size_t stride = atom_gpu_y_stride(w->m->n), before = (size_t)copy * (size_t)w->n_tok;
    const struct atom_cuda_w4a16 job = {.w = w->w[copy],
                                        .x_type = ATOM_CUDA_F16,
                                        .x = (uint16_t *)w->x + before * x_stride(w->m),
                                        .x_stride = x_stride(w->m),
                                        .n_tok = w->n_tok,
                                        .type = ATOM_CUDA_F16,
                                        .y = (uint16_t *)w->y + before * stride,
                                        .y_stride = stride,
                                        .workspace = w->workspace};
    return atom_cuda_w4a16_run(&job, s, err);
}

static enum atom_status make_buffers(struct w4a16 *w, int max_tok, struct atom_error *err)
{
    size_t n_bytes = atom_cuda_w4a16_workspace(w->w[0]);
    enum atom_status st =
        atom_gpu_alloc_random(atom_gpu_pool(acts_bytes(w->m, max_tok)), ATOM_GPU_HALVES, SEED_X, &w->x, err);
    st = st ? st : atom_cuda_alloc(n_bytes, &w->workspace, err);
    return st ? st : atom_cuda_fill(w->workspace, 0, n_bytes, err);
}

static enum atom_status open_w4a16(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                                   struct atom_error *err)
{
    struct w4a16 *w = calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    w->m = ask->matrix;
    w->y = ask->y;
    atom_cuda_site_init(&w->site, w->m->k, 0);
    enum atom_status st = make_weights(w, 0, err);
    st = st ? st : make_buffers(w, ask->max_tok, err);
    if (!st) {
        out->weight_bytes = (double)atom_cuda_w4a16_weights_bytes(w->w[0]);
        out->copies = atom_gpu_copies(out->weight_bytes);
        for (int i = 1; i < out->copies && !st; i++)
            st = make_weights(w, i, err);
    }
    if (st) {
        close_w4a16(w);
        return st;
    }
    out->state = w;
    return ATOM_OK;
}

/* Many tokens take weights rounded to halves: 2^-11 of each product. */
static struct atom_gpu_wanted wanted_w4a16(const void *state, int copy, int tok, int row)
{
    const struct w4a16 *w = state;
    size_t at = ((size_t)copy * (size_t)w->n_tok + (size_t)tok) * x_stride(w->m);
    double y = 0, magnitude = 0;
    for (int c = 0; c < w->m->k; c++) {
        double weight =
            atom_gpu_tensors_q(&w->site, copy, row, c) * atom_gpu_tensors_scale(&w->site, copy, row, c / ATOM_CUDA_RUN);
        double term = weight * (double)atom_gpu_half_at(ATOM_GPU_HALVES, SEED_X, at + (size_t)c);
        y += term;
        magnitude += fabs(term);
    }
    return (struct atom_gpu_wanted){y, 0x1p-11 * fabs(y) + (0x1p-11 + 0x1p-24 * w->m->k) * magnitude};
}

const struct atom_gpu_linear_kind atom_gpu_w4a16 = {.bound = ATOM_GPU_FP16,
                                                    .y_bytes = 2,
                                                    .result = atom_gpu_result_f16,
                                                    .acts_bytes = acts_bytes,
                                                    .open = open_w4a16,
                                                    .close = close_w4a16,
                                                    .set = set_w4a16,
                                                    .put = put_w4a16,
                                                    .wanted = wanted_w4a16};
