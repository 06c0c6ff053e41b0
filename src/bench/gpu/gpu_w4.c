/* SPDX-License-Identifier: Apache-2.0 */
/* INT4 weights by activations of 4 or 8 bits (cuda/ops.h). */
#include "bench/gpu/gpu_linear.h"

#include "base/error.h"
#include "bench/gpu/gpu_quantize.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS_PER_SCALE = 2 };

struct w4 {
    const struct atom_gpu_matrix *m;
    enum atom_gpu_random acts_kind;
    struct atom_cuda_site site;
    struct atom_cuda_weights *w[ATOM_GPU_MAX_COPIES];
    void *q, *scales, *workspace, *y;
    struct atom_gpu_quantize *quantize;
    int n_tok, tok_stride;
    size_t q_bytes, scale_count; /* of one launch */
};

/* Tensors of a checkpoint: four seeds a copy. */
enum { SEED_QWEIGHT = 1000, SEED_SCALES, SEED_OUTLIERS, SEED_OUTLIER_SCALES, SEEDS, SEED_Q = 1, SEED_TOK_SCALES };
static uint32_t seed_of(int which, int copy) { return (uint32_t)(which + copy * (SEEDS - SEED_QWEIGHT)); }

static int tok_stride(int n_tok) { return (n_tok + 63) / 64 * 64; }

static size_t acts_bytes(const struct atom_gpu_matrix *m, int n_tok)
{
    struct atom_cuda_site site;
    atom_cuda_site_init(&site, m->k, m->outliers);
    return (size_t)tok_stride(n_tok) * ((size_t)site.k_padded + sizeof(float) * (size_t)site.n_scales);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void free_tensors(struct atom_cuda_tensors *t)
{
    atom_cuda_free((void *)(uintptr_t)t->qweight);
    atom_cuda_free((void *)(uintptr_t)t->scales);
    atom_cuda_free((void *)(uintptr_t)t->outlier_qweight);
    atom_cuda_free((void *)(uintptr_t)t->outlier_scales);
}

/* Random tensors, packed. */
static enum atom_status make_weights(struct w4 *w, int copy, struct atom_error *err)
{
    size_t n = (size_t)w->m->n, normal = (size_t)(w->m->k - w->m->outliers), o = (size_t)w->m->outliers;
    size_t sets = (n + ROWS_PER_SCALE - 1) / ROWS_PER_SCALE * (size_t)w->site.n_groups;
    struct atom_cuda_tensors t = {.n = w->m->n, .rows_per_scale = ROWS_PER_SCALE};
    const struct {
        size_t n_bytes;
        enum atom_gpu_random kind;
        const void **to;
    } parts[] = {{n * ((normal + 1) / 2), ATOM_GPU_BYTES, (const void **)&t.qweight},
                 {2 * sets, ATOM_GPU_SCALES, (const void **)&t.scales},
                 {n * o, ATOM_GPU_BYTES, (const void **)&t.outlier_qweight},
                 {2 * n, ATOM_GPU_SCALES, (const void **)&t.outlier_scales}};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < 4 && !st; i++) {
        void *p = NULL;
        st = atom_gpu_alloc_random(parts[i].n_bytes + 4, parts[i].kind, seed_of(SEED_QWEIGHT + i, copy), &p, err);
        *parts[i].to = p;
    }
    st = st ? st : atom_cuda_weights_create(&w->site, &t, 1, false, NULL, &w->w[copy], err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    free_tensors(&t);
    return st;
}

static void close_w4(void *state)
{
    struct w4 *w = state;
    if (!w)
        return;
    for (int i = 0; i < ATOM_GPU_MAX_COPIES; i++)
        atom_cuda_weights_free(w->w[i]);
    atom_cuda_free(w->q);
    atom_cuda_free(w->scales);
    atom_cuda_free(w->workspace);
    atom_gpu_quantize_free(w->quantize);
    free(w);
}

static enum atom_status make_acts(struct w4 *w, int max_tok, struct atom_error *err)
{
    size_t stride = (size_t)tok_stride(max_tok);
    enum atom_status st =
        atom_gpu_alloc_random(atom_gpu_pool(stride * (size_t)w->site.k_padded), w->acts_kind, SEED_Q, &w->q, err);
    return st ? st
              : atom_gpu_alloc_random(atom_gpu_pool(stride * (size_t)w->site.n_scales * sizeof(float)),
                                      ATOM_GPU_FSCALES, SEED_TOK_SCALES, &w->scales, err);
}

static enum atom_status make_workspace(struct w4 *w, int max_tok, struct atom_error *err)
{
    size_t n_bytes = atom_cuda_linear_workspace(w->w[0], max_tok);
    enum atom_status st = atom_cuda_alloc(n_bytes, &w->workspace, err);
    return st ? st : atom_cuda_fill(w->workspace, 0, n_bytes, err);
}

/* A device without such a linear says so when one is run. */
static enum atom_status try_one(struct w4 *w, struct atom_error *err);

static enum atom_status open_w4(const struct atom_gpu_linear_ask *ask, struct atom_gpu_linear *out,
                                struct atom_error *err)
{
    struct w4 *w = calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    w->m = ask->matrix;
    w->acts_kind = ask->scheme == ATOM_GPU_W4A4 ? ATOM_GPU_NIBBLES : ATOM_GPU_BYTES;
    w->y = ask->y;
    atom_cuda_site_init(&w->site, w->m->k, w->m->outliers);
    enum atom_status st = make_weights(w, 0, err);
    st = st ? st : make_acts(w, ask->max_tok, err);
    st = st ? st : make_workspace(w, ask->max_tok, err);
    st = st ? st : try_one(w, err);
    st = st ? st
            : atom_gpu_quantize_create(&w->site, ask->scheme == ATOM_GPU_W4A4 ? 4 : 8, ask->max_tok, &w->quantize, err);
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

/* ---- running ----------------------------------------------------------------------------------------------------- */

static enum atom_status set_w4(void *state, int n_tok, int copies, struct atom_error *err)
{
    struct w4 *w = state;
    (void)copies;
    (void)err;
    w->n_tok = n_tok;
    w->tok_stride = tok_stride(n_tok);
    w->q_bytes = (size_t)w->tok_stride * (size_t)w->site.k_padded;
    w->scale_count = (size_t)w->tok_stride * (size_t)w->site.n_scales;
    return ATOM_OK;
}

static enum atom_status put_w4(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct w4 *w = state;
    size_t c = (size_t)copy, stride = atom_gpu_y_stride(w->m->n);
    const struct atom_cuda_acts acts = {w->site, w->n_tok, w->tok_stride, (int8_t *)w->q + c * w->q_bytes,
                                        (float *)w->scales + c * w->scale_count};
    const struct atom_cuda_linear job = {.w = w->w[copy],
                                         .a = &acts,
                                         .type = ATOM_CUDA_F16,
                                         .y = (uint16_t *)w->y + c * (size_t)w->n_tok * stride,
                                         .y_stride = stride,
                                         .workspace = w->workspace};
    return atom_cuda_linear_run(&job, s, err);
}

static enum atom_status put_quantize(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    const struct w4 *w = state;
    (void)copy;
    return atom_gpu_quantize_put(w->quantize, w->n_tok, s, err);
}

static enum atom_status try_one(struct w4 *w, struct atom_error *err)
{
    enum atom_status st = set_w4(w, 1, 1, err);
    st = st ? st : put_w4(w, 0, NULL, err);
    return st ? st : atom_cuda_stream_wait(NULL, err);
}

/* ---- the formula ------------------------------------------------------------------------------------------------- */

struct reader {
    const struct w4 *w;
    int copy;
    size_t tok, row;
};

static int q_at(const struct reader *r, size_t c)
{
    size_t i = (size_t)r->copy * r->w->q_bytes + r->tok * (size_t)r->w->site.k_padded + c;
    return (int8_t)atom_gpu_byte_at(r->w->acts_kind, SEED_Q, i);
}

static double tok_scale(const struct reader *r, int scale)
{
    size_t i = (size_t)r->copy * r->w->scale_count + (size_t)scale * (size_t)r->w->tok_stride + r->tok;
    return (double)atom_gpu_float_at(ATOM_GPU_FSCALES, SEED_TOK_SCALES, i);
}

/* The integer sum of a run. */
static double run_sum(const struct reader *r, int run)
{
    const struct atom_cuda_site *s = &r->w->site;
    size_t normal = (size_t)(s->k - s->outliers), o = (size_t)s->outliers;
    bool outlier = run >= s->n_groups;
    size_t from = (size_t)(outlier ? run - s->n_groups : run) * ATOM_CUDA_RUN, end = outlier ? o : normal;
    int acc = 0;
    for (size_t c = from; c < end && c < from + ATOM_CUDA_RUN; c++) {
        int q = q_at(r, (size_t)run * ATOM_CUDA_RUN + (c - from)), weight;
        if (outlier) {
            weight = (int8_t)atom_gpu_byte_at(ATOM_GPU_BYTES, seed_of(SEED_OUTLIERS, r->copy), r->row * o + c);
        } else {
            int both =
                atom_gpu_byte_at(ATOM_GPU_BYTES, seed_of(SEED_QWEIGHT, r->copy), r->row * ((normal + 1) / 2) + c / 2);
            weight = (c % 2 ? both >> 4 : both & 15) - 8;
        }
        acc += weight * q;
    }
    return acc;
}

static struct atom_gpu_wanted wanted_w4(const void *state, int copy, int tok, int row)
{
    const struct reader r = {state, copy, (size_t)tok, (size_t)row};
    const struct atom_cuda_site *s = &r.w->site;
    double y = 0, magnitude = 0;
    for (int run = 0; run < s->n_runs; run++) {
        bool outlier = run >= s->n_groups;
        size_t at = outlier ? r.row : r.row / ROWS_PER_SCALE * (size_t)s->n_groups + (size_t)run;
        double scale =
            (double)atom_gpu_half_at(ATOM_GPU_SCALES, seed_of(outlier ? SEED_OUTLIER_SCALES : SEED_SCALES, copy), at);
        double term = run_sum(&r, run) * tok_scale(&r, outlier ? s->n_groups : run) * scale;
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
