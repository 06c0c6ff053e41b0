/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 weights by INT8 activations, one scale a row and one a token (cuda/int8_linear.h). */
#include "bench/gpu/gpu_acts.h"
#include "bench/gpu/gpu_linear.h"

#include "base/error.h"
#include "cuda/int8_linear.h"

#include <math.h>
#include <stdlib.h>

enum { SEED_W = 2000, SEED_SCALES = 3000 }; /* and the copy's number */

struct w8a8 {
    const struct atom_gpu_matrix *m;
    struct atom_cuda_site site;
    struct atom_gpu_acts acts;
    struct atom_cuda_int8_weights *w[ATOM_GPU_MAX_COPIES];
    void *y;
};

static size_t acts_bytes(const struct atom_gpu_matrix *m, int n_tok)
{
    struct atom_cuda_site site;
    atom_cuda_site_init_whole(&site, m->k);
    return atom_gpu_acts_bytes(&site, n_tok);
}

static enum atom_status make_weights(struct w8a8 *w, int copy, struct atom_error *err)
{
    void *q = NULL, *scales = NULL;
    size_t n = (size_t)w->m->n;
    uint32_t c = (uint32_t)copy;
    enum atom_status st = atom_gpu_alloc_random(n * (size_t)w->m->k, ATOM_GPU_BYTES, SEED_W + c, &q, err);
    st = st ? st : atom_gpu_alloc_random(n * sizeof(float), ATOM_GPU_FSCALES, SEED_SCALES + c, &scales, err);
    const struct atom_cuda_int8_tensors t = {.n = w->m->n, .rows_per_scale = 1, .qweight = q, .scales_f32 = scales};
    st = st ? st : atom_cuda_int8_weights_create(&w->site, &t, 1, false, NULL, &w->w[copy], err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    atom_cuda_free(q);
    atom_cuda_free(scales);
    return st;
}

static void close_w8a8(void *state)
{
    struct w8a8 *w = state;
    if (!w)
        return;
    for (int i = 0; i < ATOM_GPU_MAX_COPIES; i++)
        atom_cuda_int8_weights_free(w->w[i]);
    atom_gpu_acts_close(&w->acts);
    free(w);
}

static enum atom_status set_w8a8(void *state, int n_tok, int copies, struct atom_error *err)
{
    return atom_gpu_acts_set(&((struct w8a8 *)state)->acts, n_tok, copies, err);
}

static enum atom_status put_w8a8(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct w8a8 *w = state;
    size_t stride = atom_gpu_y_stride(w->m->n);
    const struct atom_cuda_acts acts = atom_gpu_acts_copy(&w->acts, copy);
    const struct atom_cuda_int8_linear job = {.w = w->w[copy],
                                              .a = &acts,
                                              .type = ATOM_CUDA_F16,
                                              .y = (uint16_t *)w->y + (size_t)copy * (size_t)acts.n_tok * stride,
                                              .y_stride = stride};
    return atom_cuda_int8_linear_run(&job, s, err);
}

static enum atom_status put_quantize(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    (void)copy;
    return atom_gpu_acts_quantize(&((struct w8a8 *)state)->acts, s, err);
}

static enum atom_status open_w8a8(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                                  struct atom_error *err)
{
    struct w8a8 *w = calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    w->m = ask->matrix;
    w->y = ask->y;
    atom_cuda_site_init_whole(&w->site, w->m->k);
    enum atom_status st = make_weights(w, 0, err);
    st = st ? st : atom_gpu_acts_open(&w->site, 8, ask->max_tok, &w->acts, err);
    if (!st) {
        out->weight_bytes = (double)atom_cuda_int8_weights_bytes(w->w[0]);
        out->copies = atom_gpu_copies(out->weight_bytes);
        for (int i = 1; i < out->copies && !st; i++)
            st = make_weights(w, i, err);
    }
    if (st) {
        close_w8a8(w);
        return st;
    }
    out->state = w;
    return ATOM_OK;
}

/* The sum is an integer: only float32's roundings of it and of the scales, and the result's, are allowed. */
static struct atom_gpu_wanted wanted_w8a8(const void *state, int copy, int tok, int row)
{
    const struct w8a8 *w = state;
    uint32_t c = (uint32_t)copy;
    size_t at = (size_t)row * (size_t)w->m->k;
    int64_t sum = 0;
    for (size_t i = 0; i < (size_t)w->m->k; i++)
        sum += atom_gpu_acts_q(&w->acts, copy, tok, i) * (int8_t)atom_gpu_byte_at(ATOM_GPU_BYTES, SEED_W + c, at + i);
    double y = (double)sum * atom_gpu_acts_scale(&w->acts, copy, tok, 0) *
               (double)atom_gpu_float_at(ATOM_GPU_FSCALES, SEED_SCALES + c, (size_t)row);
    return (struct atom_gpu_wanted){y, (0x1p-11 + 0x1p-22) * fabs(y) + 0x1p-24};
}

const struct atom_gpu_linear_kind atom_gpu_w8a8 = {.bound = ATOM_GPU_INT8,
                                                   .y_bytes = 2,
                                                   .result = atom_gpu_result_f16,
                                                   .acts_bytes = acts_bytes,
                                                   .open = open_w8a8,
                                                   .close = close_w8a8,
                                                   .set = set_w8a8,
                                                   .put = put_w8a8,
                                                   .put_quantize = put_quantize,
                                                   .wanted = wanted_w8a8};
