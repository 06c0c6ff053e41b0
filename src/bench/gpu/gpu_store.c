/* SPDX-License-Identifier: Apache-2.0 */
/* Writing keys and values into the cache, queries rotated on the way. What reaches the pages is compared through
 * attention; here the queries are. */
#include "bench/gpu/gpu_cache.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

enum { SEED_QKV = 41, FEW = 64 };

struct store {
    struct atom_gpu_cache cache;
    void *qkv, *bad; /* copies of the rows of a step */
    size_t row_count;
};

static void close_store(void *state)
{
    struct store *s = state;
    if (!s)
        return;
    atom_gpu_cache_close(&s->cache);
    atom_cuda_free(s->qkv);
    atom_cuda_free(s->bad);
    free(s);
}

/* Few tokens are a sequence each, many are one prompt. */
static enum atom_status open_store(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                                   struct atom_error *err)
{
    struct store *s = calloc(1, sizeof *s);
    bool few = c->tokens <= FEW;
    const struct atom_gpu_batch batch = {few ? c->tokens : 1, few ? 1 : c->tokens, c->context, -1};
    (void)which;
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    enum atom_status st = atom_gpu_cache_open(c, &batch, &s->cache, err);
    s->row_count = (size_t)c->tokens * (size_t)s->cache.width;
    out->bytes = 2.0 * (double)s->row_count + 2.0 * c->tokens * c->model->heads * c->model->head_dim;
    out->bytes += st ? 0 : c->tokens * atom_gpu_cache_position_bytes(&s->cache);
    out->memory = ATOM_GPU_COPY;
    out->copies = atom_gpu_copies(out->bytes);
    out->cold = out->copies * out->bytes >= ATOM_GPU_COLD_BYTES;
    out->copies = out->cold ? out->copies : 1;
    st = st ? st
            : atom_gpu_alloc_random(2 * s->row_count * (size_t)out->copies, ATOM_GPU_HALVES, SEED_QKV, &s->qkv, err);
    st = st ? st : atom_cuda_alloc((size_t)c->tokens * sizeof(int32_t), &s->bad, err);
    st = st ? st : atom_cuda_fill(s->bad, 0, (size_t)c->tokens * sizeof(int32_t), err);
    if (st) {
        close_store(s);
        return st;
    }
    out->state = s;
    return ATOM_OK;
}

static enum atom_status put_store(void *state, int copy, atom_cuda_stream stream, struct atom_error *err)
{
    const struct store *s = state;
    const struct atom_cuda_kv kv = atom_gpu_cache_layer(&s->cache, 0);
    const struct atom_cuda_store job = {.kv = &kv,
                                        .step = &s->cache.step,
                                        .type = ATOM_CUDA_F16,
                                        .qkv = (uint16_t *)s->qkv + (size_t)copy * s->row_count,
                                        .qkv_stride = (size_t)s->cache.width,
                                        .bad = s->bad,
                                        .where = 1};
    return atom_cuda_store_run(&job, stream, err);
}

static enum atom_status compare_head(const struct store *s, int tok, int head, const uint16_t *row,
                                     struct atom_error *err)
{
    const struct atom_gpu_cache *c = &s->cache;
    int hd = c->kv.head_dim, position = c->batch.context + tok % c->batch.n_tok;
    size_t at = (size_t)tok * (size_t)c->width + (size_t)(head * hd);
    double q[ATOM_CUDA_MAX_HEAD];
    for (int i = 0; i < hd; i++)
        q[i] = (double)atom_gpu_half_at(ATOM_GPU_HALVES, SEED_QKV, at + (size_t)i);
    atom_gpu_cache_turn(c, position, q);
    for (int i = 0; i < hd; i++) {
        double got = (double)atom_f16_float(row[head * hd + i]);
        if (!(fabs(got - q[i]) <= 0x1p-10 * fabs(q[i]) + 1e-3))
            return atom_fail(err, ATOM_ERR_NUMERIC,
                             "token %d, query head %d, channel %d is %.6g; the formula says %.6g", tok, head, i, got,
                             q[i]);
    }
    return ATOM_OK;
}

static enum atom_status compare_store(void *state, int *checked, struct atom_error *err)
{
    const struct store *s = state;
    const struct atom_gpu_cache *c = &s->cache;
    int n_tok = c->batch.n_seqs * c->batch.n_tok, toks[] = {0, n_tok / 2, n_tok - 1};
    uint16_t *row = malloc((size_t)c->width * sizeof *row);
    enum atom_status st = row ? ATOM_OK : atom_fail_nomem(err, (size_t)c->width * sizeof *row);
    for (int i = 0; i < 3 && !st; i++) {
        st = atom_cuda_download(row, (uint16_t *)s->qkv + (size_t)toks[i] * (size_t)c->width,
                                (size_t)c->width * sizeof *row, err);
        for (int h = 0; h < c->kv.heads && !st; h++)
            st = compare_head(s, toks[i], h, row, err);
        *checked += c->kv.heads * c->kv.head_dim;
    }
    free(row);
    return st;
}

const struct atom_gpu_operation_kind atom_gpu_store_kinds[] = {
    {"store", "4 bits", 4, open_store, close_store, put_store, compare_store},
    {NULL, NULL, 0, NULL, NULL, NULL, NULL},
};
