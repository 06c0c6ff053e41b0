/* SPDX-License-Identifier: Apache-2.0 */
/* INT4 weights by activations of 4 or 8 bits (cuda/ops.h). */
#include "bench/gpu/gpu_acts.h"
#include "bench/gpu/gpu_linear.h"
#include "bench/gpu/gpu_tensors.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

struct w4 {
    const struct atom_gpu_matrix *m;
    struct atom_cuda_site site;
    struct atom_gpu_acts acts;
    struct atom_cuda_weights *w[ATOM_GPU_MAX_COPIES];
    void *workspace, *y;
};

static size_t acts_bytes(const struct atom_gpu_matrix *m, int n_tok)
{
    struct atom_cuda_site site;
    atom_cuda_site_init(&site, m->k, m->outliers);
    return atom_gpu_acts_bytes(&site, n_tok);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static enum atom_status make_weights(struct w4 *w, int copy, struct atom_error *err)
{
    struct atom_cuda_tensors t;
    enum atom_status st = atom_gpu_tensors_make(&w->site, w->m->n, copy, &t, err);
    st = st ? st : atom_cuda_weights_create(&w->site, &t, 1, false, NULL, &w->w[copy], err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    atom_gpu_tensors_drop(&t);
    return st;
}

static void close_w4(void *state)
{
    struct w4 *w = state;
    if (!w)
        return;
    for (int i = 0; i < ATOM_GPU_MAX_COPIES; i++)
        atom_cuda_weights_free(w->w[i]);
    atom_gpu_acts_close(&w->acts);
    atom_cuda_free(w->workspace);
    free(w);
}

static enum atom_status make_workspace(struct w4 *w, int max_tok, struct atom_error *err)
{
    size_t n_bytes = atom_cuda_linear_workspace(w->w[0], max_tok);
    enum atom_status st = atom_cuda_alloc(n_bytes, &w->workspace, err);
    return st ? st : atom_cuda_fill(w->workspace, 0, n_bytes, err);
}

static enum atom_status set_w4(void *state, int n_tok, int copies, struct atom_error *err)
{
    struct w4 *w = state;
    return atom_gpu_acts_set(&w->acts, n_tok, copies, err);
}

static enum atom_status put_w4(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct w4 *w = state;
    size_t stride = atom_gpu_y_stride(w->m->n);
    const struct atom_cuda_acts acts = atom_gpu_acts_copy(&w->acts, copy);
    const struct atom_cuda_linear job = {.w = w->w[copy],
                                         .a = &acts,
                                         .type = ATOM_CUDA_F16,
                                         .y = (uint16_t *)w->y + (size_t)copy * (size_t)acts.n_tok * stride,
                                         .y_stride = stride,
                                         .workspace = w->workspace};
    return atom_cuda_linear_run(&job, s, err);
}

static enum atom_status put_quantize(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    const struct w4 *w = state;
    (void)copy;
    return atom_gpu_acts_quantize(&w->acts, s, err);
}

/* A device without such a linear says so when one is run. */
static enum atom_status try_one(struct w4 *w, struct atom_error *err)
{
    enum atom_status st = atom_gpu_acts_set(&w->acts, 1, 1, err);
    st = st ? st : put_w4(w, 0, NULL, err);
    return st ? st : atom_cuda_stream_wait(NULL, err);
}

static enum atom_status open_w4(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                                struct atom_error *err)
{
    struct w4 *w = calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    w->m = ask->matrix;
    w->y = ask->y;
    atom_cuda_site_init(&w->site, w->m->k, w->m->outliers);
    enum atom_status st = make_weights(w, 0, err);
    st = st ? st : atom_gpu_acts_open(&w->site, ask->scheme == ATOM_GPU_W4A4 ? 4 : 8, ask->max_tok, &w->acts, err);
    st = st ? st : make_workspace(w, ask->max_tok, err);
    st = st ? st : try_one(w, err);
    if (!st) {
        out->weight_bytes = (double)atom_cuda_weights_bytes(w->w[0]);
        out->copies = atom_gpu_copies(out->weight_bytes);
        for (int i = 1; i < out->copies && !st; i++)
            st = make_weights(w, i, err);
    }
    if (st) {
        close_w4(w);
        return st;
    }
    out->state = w;
    return ATOM_OK;
}

/* ---- the formula ------------------------------------------------------------------------------------------------- */

/* The integer sum of a run. */
static double run_sum(const struct w4 *w, int copy, int tok, int row, int run)
{
    const struct atom_cuda_site *s = &w->site;
    bool outlier = run >= s->n_groups;
    int from = (outlier ? run - s->n_groups : run) * ATOM_CUDA_RUN, end = outlier ? s->outliers : s->k - s->outliers;
    int acc = 0;
    for (int c = from; c < end && c < from + ATOM_CUDA_RUN; c++) {
        int q = atom_gpu_acts_q(&w->acts, copy, tok, (size_t)run * ATOM_CUDA_RUN + (size_t)(c - from));
        acc += q * (outlier ? atom_gpu_tensors_outlier(s, copy, row, c) : atom_gpu_tensors_q(s, copy, row, c));
    }
    return acc;
}

static struct atom_gpu_wanted wanted_w4(const void *state, int copy, int tok, int row)
{
    const struct w4 *w = state;
    const struct atom_cuda_site *s = &w->site;
    double y = 0, magnitude = 0;
    for (int run = 0; run < s->n_runs; run++) {
        int scale = run >= s->n_groups ? s->n_groups : run;
        double term = run_sum(w, copy, tok, row, run) * atom_gpu_acts_scale(&w->acts, copy, tok, scale) *
                      atom_gpu_tensors_scale(s, copy, row, scale);
        y += term;
        magnitude += fabs(term);
    }
    return (struct atom_gpu_wanted){y, 0x1p-11 * fabs(y) + 0x1p-22 * s->n_runs * magnitude + 0x1p-24};
}

const struct atom_gpu_linear_kind atom_gpu_w4 = {.bound = ATOM_GPU_INT8,
                                                 .y_bytes = 2,
                                                 .result = atom_gpu_result_f16,
                                                 .acts_bytes = acts_bytes,
                                                 .open = open_w4,
                                                 .close = close_w4,
                                                 .set = set_w4,
                                                 .put = put_w4,
                                                 .put_quantize = put_quantize,
                                                 .wanted = wanted_w4};
