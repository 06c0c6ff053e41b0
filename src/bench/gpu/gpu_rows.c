/* SPDX-License-Identifier: Apache-2.0 */
/* Row operations (cuda/row_ops.h): norm, order and quantize; order and quantize; silu and quantize; the embedding. */
#include "bench/gpu/gpu_operation.h"

#include "base/error.h"
#include "cuda/row_ops.h"

#include <math.h>
#include <stdlib.h>

enum source { NORM, GATHER, SILU, EMBED };
enum { OUTLIERS = 128, SEED_X = 21, SEED_WEIGHT = 22, SEED_TOKENS = 23 };
static const float eps = 1e-5f, clip = 0.9f;

/* A kind's number says the source and the bits. */
#define WHICH(source, bits) ((source)*100 + (bits))

struct rows {
    enum source source;
    int bits, n_tok, stride, width; /* channels that come out */
    int vocab;
    struct atom_cuda_site site;
    void *x, *q, *scales, *y, *weight, *order_there, *tokens_there, *bad;
    int32_t *order, *tokens;
    size_t in_floats, q_bytes, scale_count; /* of a launch */
};

static void close_rows(void *state)
{
    struct rows *r = state;
    if (!r)
        return;
    void *const device[] = {r->x, r->q, r->scales, r->y, r->weight, r->order_there, r->tokens_there, r->bad};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        atom_cuda_free(device[i]);
    free(r->order);
    free(r->tokens);
    free(r);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static enum atom_status upload_ints(const int32_t *from, int n, void **out, struct atom_error *err)
{
    enum atom_status st = atom_cuda_alloc((size_t)n * sizeof *from, out, err);
    return st ? st : atom_cuda_upload(*out, from, (size_t)n * sizeof *from, err);
}

/* Any order of the channels; for an embedding, any tokens. */
static enum atom_status make_indices(struct rows *r, struct atom_error *err)
{
    r->order = malloc((size_t)r->width * sizeof *r->order);
    r->tokens = malloc((size_t)r->n_tok * sizeof *r->tokens);
    if (!r->order || !r->tokens)
        return atom_fail_nomem(err, (size_t)r->width * sizeof *r->order);
    for (int i = 0; i < r->width; i++) {
        int j = (int)(atom_gpu_hash(1, (uint32_t)i) % (uint32_t)(i + 1));
        r->order[i] = r->order[j];
        r->order[j] = i;
    }
    for (int t = 0; t < r->n_tok; t++)
        r->tokens[t] = (int32_t)(atom_gpu_hash(SEED_TOKENS, (uint32_t)t) % (uint32_t)r->vocab);
    enum atom_status st = upload_ints(r->order, r->width, &r->order_there, err);
    return st ? st : upload_ints(r->tokens, r->n_tok, &r->tokens_there, err);
}

static int copies_of(const struct rows *r, double bytes, bool *cold)
{
    int copies = r->source == EMBED ? 1 : atom_gpu_copies(bytes);
    *cold = copies * bytes >= ATOM_GPU_COLD_BYTES && r->source != EMBED;
    return *cold ? copies : 1;
}

static enum atom_status make_arrays(struct rows *r, int copies, struct atom_error *err)
{
    size_t n = (size_t)copies;
    size_t in = r->source == EMBED ? (size_t)r->vocab * (size_t)r->width : n * r->in_floats;
    enum atom_status st = atom_gpu_alloc_random(2 * in, ATOM_GPU_HALVES, SEED_X, &r->x, err);
    if (r->source == EMBED)
        st = st ? st : atom_cuda_alloc(2 * r->in_floats, &r->y, err);
    st = st ? st : atom_cuda_alloc(n * r->q_bytes, &r->q, err);
    st = st ? st : atom_cuda_alloc(n * r->scale_count * sizeof(float), &r->scales, err);
    st = st ? st
            : atom_gpu_alloc_random((size_t)r->width * sizeof(float), ATOM_GPU_FLOATS, SEED_WEIGHT, &r->weight, err);
    st = st ? st : atom_cuda_alloc((size_t)r->n_tok * sizeof(int32_t), &r->bad, err);
    st = st ? st : atom_cuda_fill(r->bad, 0, (size_t)r->n_tok * sizeof(int32_t), err);
    return st ? st : make_indices(r, err);
}

static int width_of(enum source source, const struct atom_shape *m)
{
    return source == GATHER ? m->heads * m->head_dim : source == SILU ? m->intermediate : m->hidden;
}

static enum atom_status open_rows(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                                  struct atom_error *err)
{
    struct rows *r = calloc(1, sizeof *r);
    if (!r)
        return atom_fail_nomem(err, sizeof *r);
    r->source = (enum source)(which / 100);
    r->bits = which % 100;
    r->n_tok = c->tokens;
    r->vocab = c->model->vocab;
    r->width = width_of(r->source, c->model);
    r->stride = (c->tokens + 63) / 64 * 64;
    atom_cuda_site_init(&r->site, r->width, OUTLIERS < r->width / 4 ? OUTLIERS : r->width / 4);
    r->in_floats = (size_t)r->n_tok * (size_t)r->width * (r->source == SILU ? 2 : 1);
    r->q_bytes = (size_t)r->stride * (size_t)r->site.k_padded;
    r->scale_count = (size_t)r->stride * (size_t)r->site.n_scales;
    double written = (double)r->n_tok * (r->source == EMBED ? 2.0 * r->width : r->width + 4.0 * r->site.n_scales);
    out->bytes = 2.0 * (double)r->in_floats + written;
    out->memory = ATOM_GPU_COPY;
    out->copies = copies_of(r, out->bytes, &out->cold);
    out->state = r;
    enum atom_status st = make_arrays(r, out->copies, err);
    if (st) {
        close_rows(r);
        out->state = NULL;
    }
    return st;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static enum atom_status put_embed(const struct rows *r, atom_cuda_stream s, struct atom_error *err)
{
    const struct atom_cuda_embed job = {.type = ATOM_CUDA_F16,
                                        .table = r->x,
                                        .vocab = r->vocab,
                                        .tokens = r->tokens_there,
                                        .out = {ATOM_CUDA_F16, r->y, (size_t)r->width, r->n_tok, r->width},
                                        .bad = r->bad,
                                        .where = 1};
    return atom_cuda_embed(&job, s, err);
}

static enum atom_status put_rows(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    const struct rows *r = state;
    size_t c = (size_t)copy, width = (size_t)r->width * (r->source == SILU ? 2 : 1);
    if (r->source == EMBED)
        return put_embed(r, s, err);
    const struct atom_cuda_row_op job = {
        .in = {ATOM_CUDA_F16, (uint16_t *)r->x + c * r->in_floats, width, r->n_tok, (int)width},
        .weight = r->weight,
        .eps = eps,
        .to = {.bits = r->bits,
               .clip = clip,
               .acts = {r->site, r->n_tok, r->stride, (int8_t *)r->q + c * r->q_bytes,
                        (float *)r->scales + c * r->scale_count},
               .order = r->source == SILU ? NULL : r->order_there,
               .bad = r->bad,
               .where = 1}};
    return r->source == NORM     ? atom_cuda_norm(&job, s, err)
           : r->source == GATHER ? atom_cuda_gather(&job, s, err)
                                 : atom_cuda_silu_mul(&job, s, err);
}

/* ---- the formula ------------------------------------------------------------------------------------------------- */

static double x_at(size_t i) { return (double)atom_gpu_half_at(ATOM_GPU_HALVES, SEED_X, i); }

/* Stored channels of a token, before they are quantized. */
static void wanted_row(const struct rows *r, int tok, double *out)
{
    size_t k = (size_t)r->width, at = (size_t)tok * k * (r->source == SILU ? 2 : 1);
    double squares = 0;
    for (size_t i = 0; i < k; i++)
        squares += x_at(at + i) * x_at(at + i);
    double scale = 1 / sqrt(squares / (double)k + (double)eps);
    for (size_t i = 0; i < k; i++) {
        double x = x_at(at + (r->source == SILU ? i : (size_t)r->order[i]));
        if (r->source == SILU)
            x = x / (1 + exp(-x)) * x_at(at + k + i);
        else if (r->source == NORM)
            x *= scale * (double)atom_gpu_float_at(ATOM_GPU_FLOATS, SEED_WEIGHT, i);
        out[i] = x;
    }
}

struct group {
    const double *x;
    const int8_t *q;
    int n;
    double scale, clip; /* as stored */
    int top;
};

/* -1, or the channel whose integer is not what rounding makes of x, give or take what floats of fewer bits may. */
static int differing(const struct group *g, double *wanted_scale)
{
    double most = 0;
    for (int i = 0; i < g->n; i++)
        most = fmax(most, fabs(g->x[i]));
    *wanted_scale = g->clip * most / g->top;
    if (!(fabs(g->scale - *wanted_scale) <= 1e-5 * *wanted_scale))
        return 0;
    for (int i = 0; i < g->n; i++) {
        double exact = fmin(fmax(g->x[i] / g->scale, -g->top - 1), g->top);
        if (!(fabs(g->q[i] - exact) <= 0.5 + 1e-3))
            return i;
    }
    return -1;
}

static enum atom_status compare_groups(const struct rows *r, int tok, const double *x, const int8_t *q,
                                       const float *scales, struct atom_error *err)
{
    int normal = r->site.k - r->site.outliers;
    for (int s = 0; s < r->site.n_scales; s++) {
        bool outlier = s >= r->site.n_groups;
        int from = outlier ? normal : s * ATOM_CUDA_RUN, end = outlier ? r->site.k : from + ATOM_CUDA_RUN;
        end = !outlier && end > normal ? normal : end;
        const struct group g = {x + from,
                                q + (outlier ? r->site.n_groups : s) * ATOM_CUDA_RUN,
                                end - from,
                                (double)scales[(size_t)s * (size_t)r->stride + (size_t)tok],
                                outlier ? 1 : (double)clip,
                                outlier ? 127 : (1 << (r->bits - 1)) - 1};
        double scale;
        int at = differing(&g, &scale);
        if (at >= 0)
            return atom_fail(err, ATOM_ERR_NUMERIC, "token %d, channel %d is %d * %.6g; the formula says %.6g / %.6g",
                             tok, from + at, g.q[at], g.scale, g.x[at], scale);
    }
    return ATOM_OK;
}

static enum atom_status compare_quantized(const struct rows *r, int tok, double *x, int8_t *q, float *scales,
                                          struct atom_error *err)
{
    size_t row = (size_t)r->site.k_padded;
    wanted_row(r, tok, x);
    enum atom_status st = atom_cuda_download(q, (const int8_t *)r->q + (size_t)tok * row, row, err);
    st = st ? st : atom_cuda_download(scales, r->scales, r->scale_count * sizeof(float), err);
    return st ? st : compare_groups(r, tok, x, q, scales, err);
}

static enum atom_status compare_embedded(const struct rows *r, int tok, uint16_t *y, struct atom_error *err)
{
    size_t width = (size_t)r->width, row = (size_t)r->tokens[tok] * width;
    enum atom_status st = atom_cuda_download(y, (const uint16_t *)r->y + (size_t)tok * width, 2 * width, err);
    for (size_t i = 0; i < width && !st; i++)
        if (atom_f16_float(y[i]) != atom_gpu_half_at(ATOM_GPU_HALVES, SEED_X, row + i))
            st = atom_fail(err, ATOM_ERR_NUMERIC, "token %d, channel %zu is not its row's", tok, i);
    return st;
}

static enum atom_status compare_rows(void *state, int *checked, struct atom_error *err)
{
    const struct rows *r = state;
    const int toks[] = {0, r->n_tok / 2, r->n_tok - 1};
    double *x = malloc((size_t)r->width * sizeof *x);
    void *q = malloc(2 * (size_t)r->site.k_padded);
    float *scales = malloc(r->scale_count * sizeof *scales);
    enum atom_status st = x && q && scales ? ATOM_OK : atom_fail_nomem(err, r->scale_count * sizeof *scales);
    for (int i = 0; i < 3 && !st; i++)
        if (!i || toks[i] != toks[i - 1]) {
            st = r->source == EMBED ? compare_embedded(r, toks[i], q, err)
                                    : compare_quantized(r, toks[i], x, q, scales, err);
            *checked += r->width;
        }
    free(x);
    free(q);
    free(scales);
    return st;
}

#define KIND(name, on, source, bits)                                                                                   \
    {                                                                                                                  \
        name, on, WHICH(source, bits), open_rows, close_rows, put_rows, compare_rows                                   \
    }
const struct atom_gpu_operation_kind atom_gpu_rows_kinds[] = {
    KIND("embed", "", EMBED, 16),
    KIND("norm", "order, 4 bits", NORM, 4),
    KIND("gather", "order, 4 bits", GATHER, 4),
    KIND("silu_mul", "4 bits", SILU, 4),
    {NULL, NULL, 0, NULL, NULL, NULL, NULL},
};
