/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over a cache of random keys and values: decode, where each of several sequences brings a token, and
 * prefill, where one brings many. */
#include "bench/gpu/gpu_cache.h"

#include "base/error.h"
#include "cuda/attention_prefill.h"

#include <math.h>
#include <stdlib.h>

enum { SEED_Q = 51 };

struct attention {
    struct atom_gpu_cache cache;
    void *q, *out, *workspace;
    int n_tok;
    size_t q_count;
    enum atom_status (*run)(const struct atom_cuda_attend *job, atom_cuda_stream s, struct atom_error *err);
};

static void close_attention(void *state)
{
    struct attention *a = state;
    if (!a)
        return;
    atom_gpu_cache_close(&a->cache);
    atom_cuda_free(a->q);
    atom_cuda_free(a->out);
    atom_cuda_free(a->workspace);
    free(a);
}

static struct atom_cuda_attend job_of(const struct attention *a, const struct atom_cuda_kv *kv, int copy)
{
    size_t width = (size_t)(kv->heads * kv->head_dim);
    return (struct atom_cuda_attend){.kv = kv,
                                     .step = &a->cache.step,
                                     .type = ATOM_CUDA_F16,
                                     .q = (uint16_t *)a->q + (size_t)copy * a->q_count,
                                     .out = a->out,
                                     .q_stride = width,
                                     .out_stride = width,
                                     .scale = 1 / sqrtf((float)kv->head_dim),
                                     .workspace = a->workspace};
}

static enum atom_status put_attention(void *state, int copy, atom_cuda_stream s, struct atom_error *err)
{
    const struct attention *a = state;
    const struct atom_cuda_kv kv = atom_gpu_cache_layer(&a->cache, copy);
    const struct atom_cuda_attend job = job_of(a, &kv, copy);
    return a->run(&job, s, err);
}

/* Products of queries with keys and of weights with values; the cache is read once for each sequence. */
static void count_work(const struct attention *a, struct atom_gpu_operation *out)
{
    const struct atom_gpu_cache *c = &a->cache;
    double seen = 0, rows = 2.0 * 2 * a->n_tok * c->kv.heads * c->kv.head_dim;
    for (int t = 0; t < c->batch.n_tok; t++)
        seen += c->batch.context + t + 1;
    out->ops = 4 * seen * c->batch.n_seqs * c->kv.heads * c->kv.head_dim;
    out->bytes =
        rows + (double)c->batch.n_seqs * (c->batch.context + c->batch.n_tok) * atom_gpu_cache_position_bytes(c);
    out->bound = ATOM_GPU_FP16;
    out->memory = ATOM_GPU_READ;
    out->copies = c->copies;
    out->cold = out->bytes * c->copies >= ATOM_GPU_COLD_BYTES * 0.9; /* pages are a little larger than what they hold */
}

static double query_bytes(const struct atom_gpu_case *c)
{
    return 2.0 * c->tokens * c->model->heads * c->model->head_dim;
}

static enum atom_status open_attention(const struct atom_gpu_case *c, const struct atom_gpu_batch *batch,
                                       struct attention **out, struct atom_error *err)
{
    struct attention *a = calloc(1, sizeof *a);
    if (!a)
        return atom_fail_nomem(err, sizeof *a);
    a->n_tok = batch->n_seqs * batch->n_tok;
    a->q_count = (size_t)a->n_tok * (size_t)(c->model->heads * c->model->head_dim);
    enum atom_status st = atom_gpu_cache_open(c, batch, &a->cache, err);
    st = st ? st : atom_gpu_alloc_random(2 * a->q_count * (size_t)a->cache.copies, ATOM_GPU_HALVES, SEED_Q, &a->q, err);
    st = st ? st : atom_cuda_alloc(2 * a->q_count, &a->out, err);
    if (st) {
        close_attention(a);
        return st;
    }
    *out = a;
    return ATOM_OK;
}

static enum atom_status make_workspace(struct attention *a, size_t n_bytes, struct atom_error *err)
{
    enum atom_status st = atom_cuda_alloc(n_bytes, &a->workspace, err);
    return st ? st : atom_cuda_fill(a->workspace, 0, n_bytes, err);
}

/* The plan of a step is made before its layers and serves all of them. */
static enum atom_status open_decode(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                                    struct atom_error *err)
{
    const struct atom_gpu_batch batch = {c->tokens, 1, c->context, query_bytes(c)};
    struct attention *a = NULL;
    (void)which;
    enum atom_status st = open_attention(c, &batch, &a, err);
    if (st)
        return st;
    a->run = atom_cuda_decode_run;
    const struct atom_cuda_kv kv = atom_gpu_cache_layer(&a->cache, 0);
    st = make_workspace(a, atom_cuda_decode_workspace(&kv, c->tokens, kv.max_position), err);
    const struct atom_cuda_attend job = job_of(a, &kv, 0);
    st = st ? st : atom_cuda_decode_plan(&job, NULL, err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    if (st) {
        close_attention(a);
        return st;
    }
    count_work(a, out);
    out->state = a;
    return ATOM_OK;
}

static enum atom_status open_prefill(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                                     struct atom_error *err)
{
    const struct atom_gpu_batch batch = {1, c->tokens, c->context, query_bytes(c)};
    struct attention *a = NULL;
    (void)which;
    enum atom_status st = open_attention(c, &batch, &a, err);
    if (st)
        return st;
    a->run = atom_cuda_prefill_run;
    st = make_workspace(a, atom_cuda_prefill_workspace(&a->cache.kv, &a->cache.step), err);
    if (st) {
        close_attention(a);
        return st;
    }
    count_work(a, out);
    out->state = a;
    return ATOM_OK;
}

/* ---- the formula ------------------------------------------------------------------------------------------------- */

/* Weighted values of a head, and for each channel what roundings of scores to about 2^-10 may do to it. */
static void wanted_head(const struct attention *a, int tok, int head, double *out, double *spread)
{
    const struct atom_gpu_cache *c = &a->cache;
    int hd = c->kv.head_dim, seq = tok / c->batch.n_tok, kv_head = head / (c->kv.heads / c->kv.kv_heads);
    int last = c->batch.context + tok % c->batch.n_tok;
    double q[ATOM_CUDA_MAX_HEAD], x[ATOM_CUDA_MAX_HEAD], sum = 0;
    size_t at = ((size_t)tok * (size_t)c->kv.heads + (size_t)head) * (size_t)hd;
    for (int i = 0; i < hd; i++) {
        q[i] = (double)atom_gpu_half_at(ATOM_GPU_HALVES, SEED_Q, at + (size_t)i);
        out[i] = spread[i] = 0;
    }
    for (int p = 0; p <= last; p++) {
        double score = 0;
        atom_gpu_cache_key(c, seq, p, kv_head, x);
        for (int i = 0; i < hd; i++)
            score += q[i] * x[i];
        double weight = exp(score / sqrt(hd)); /* scores of such numbers are far from overflowing */
        atom_gpu_cache_value(c, seq, p, kv_head, x);
        sum += weight;
        for (int i = 0; i < hd; i++) {
            out[i] += weight * x[i];
            spread[i] += weight * weight * x[i] * x[i];
        }
    }
    for (int i = 0; i < hd; i++) {
        out[i] /= sum;
        spread[i] = sqrt(spread[i]) / sum;
    }
}

static enum atom_status compare_head(const struct attention *a, int tok, int head, struct atom_error *err)
{
    int hd = a->cache.kv.head_dim;
    double want[ATOM_CUDA_MAX_HEAD], spread[ATOM_CUDA_MAX_HEAD];
    uint16_t got[ATOM_CUDA_MAX_HEAD];
    size_t at = ((size_t)tok * (size_t)a->cache.kv.heads + (size_t)head) * (size_t)hd;
    wanted_head(a, tok, head, want, spread);
    enum atom_status st = atom_cuda_download(got, (uint16_t *)a->out + at, (size_t)hd * sizeof *got, err);
    for (int i = 0; i < hd && !st; i++) {
        double x = (double)atom_f16_float(got[i]);
        if (!(fabs(x - want[i]) <= 0.02 * spread[i] + 0.004 * fabs(want[i]) + 1e-5))
            st = atom_fail(err, ATOM_ERR_NUMERIC, "token %d, head %d, channel %d is %.6g; the formula says %.6g", tok,
                           head, i, x, want[i]);
    }
    return st;
}

static enum atom_status compare_attention(void *state, int *checked, struct atom_error *err)
{
    const struct attention *a = state;
    int heads = a->cache.kv.heads;
    const int toks[] = {0, a->n_tok / 2, a->n_tok - 1}, of[] = {heads / 2, 0, heads - 1};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < 3 && !st; i++) {
        st = compare_head(a, toks[i], of[i], err);
        *checked += a->cache.kv.head_dim;
    }
    return st;
}

#define KIND(name, on, bits, open)                                                                                     \
    {                                                                                                                  \
        name, on, bits, open, close_attention, put_attention, compare_attention                                        \
    }
#define LAST                                                                                                           \
    {                                                                                                                  \
        NULL, NULL, 0, NULL, NULL, NULL, NULL                                                                          \
    }
const struct atom_gpu_operation_kind atom_gpu_decode_kinds[] = {
    KIND("decode", "4 bits", 4, open_decode),
    KIND("decode", "4 bits, post", 104, open_decode),
    KIND("decode", "8 bits", 8, open_decode),
    KIND("decode", "16 bits", 16, open_decode),
    LAST,
};
const struct atom_gpu_operation_kind atom_gpu_prefill_kinds[] = {
    KIND("prefill", "4 bits", 4, open_prefill),
    KIND("prefill", "4 bits, post", 104, open_prefill),
    KIND("prefill", "16 bits", 16, open_prefill),
    LAST,
};
