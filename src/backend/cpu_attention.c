/* SPDX-License-Identifier: Apache-2.0 */
/* The paged KV cache and attention on the CPU.
 *
 * Positions are taken in splits of 256: a split's keys and values are read from their pages into float tiles once and
 * serve up to 64 query rows; each split is softmaxed by itself and splits are merged in ascending order, so that the
 * result depends on nothing but the positions. */
#include "backend/cpu.h"
#include "base/half.h"
#include "base/thread.h"
#include "kernels/hadamard.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- pages ------------------------------------------------------------------------------------------------------- */

static struct atom_kv_shape shape_of(const struct atom_kv_config *cfg)
{
    size_t values = (size_t)cfg->head_dim * ATOM_PAGE, tail = 64;
    struct atom_kv_shape s = {.head_dim = cfg->head_dim, .bits = cfg->bits, .clip = cfg->clip};
    switch (cfg->bits) {
    case 32:
        s.kind = ATOM_KV_F32, s.half_bytes = values * 4;
        break;
    case 16:
        s.kind = ATOM_KV_F16, s.half_bytes = values * 2;
        break;
    case 8:
        s.kind = ATOM_KV_BYTE, s.half_bytes = values + tail;
        break;
    default:
        s.kind = ATOM_KV_NIBBLE, s.half_bytes = values / 2 + tail;
        break;
    }
    return s;
}

static void fill_rope(struct atom_kv *kv, int n_pages)
{
    int half = kv->cfg.head_dim / 2;
    for (int page = 0; page < n_pages; page++)
        for (int d = 0; d < half; d++)
            for (int p = 0; p < ATOM_PAGE; p++) {
                size_t at = ((size_t)page * (size_t)half + (size_t)d) * ATOM_PAGE + (size_t)p;
                double angle = (double)(page * ATOM_PAGE + p) * kv->cfg.inv_freq[d];
                kv->cos[at] = (float)cos(angle);
                kv->sin[at] = (float)sin(angle);
            }
}

enum atom_status atom_cpu_kv_create(const struct atom_kv_config *cfg, struct atom_kv **out, struct atom_error *err)
{
    if (cfg->head_dim > ATOM_HADAMARD_MAX || cfg->heads / cfg->kv_heads > ATOM_QUERY_ROWS)
        return atom_fail(
            err, ATOM_ERR_UNSUPPORTED,
            "%d heads of size %d over %d key-value heads: sizes to %d, and %d heads over one, are done here",
            cfg->heads, cfg->head_dim, cfg->kv_heads, ATOM_HADAMARD_MAX, ATOM_QUERY_ROWS);
    struct atom_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return atom_fail_nomem(err, sizeof *kv);
    int rope_pages = (cfg->max_position + ATOM_PAGE - 1) / ATOM_PAGE;
    size_t rope_bytes = (size_t)rope_pages * ATOM_PAGE * (size_t)(cfg->head_dim / 2) * sizeof(float);
    kv->cfg = *cfg;
    kv->shape = shape_of(cfg);
    kv->head_bytes = 2 * kv->shape.half_bytes;
    kv->page_bytes = kv->head_bytes * (size_t)cfg->kv_heads;
    kv->layer_bytes = kv->page_bytes * (size_t)cfg->n_pages;
    kv->data = atom_alloc64(kv->layer_bytes * (size_t)cfg->layers);
    kv->cos = atom_alloc64(rope_bytes);
    kv->sin = atom_alloc64(rope_bytes);
    if (!kv->data || !kv->cos || !kv->sin) {
        size_t n_bytes = kv->layer_bytes * (size_t)cfg->layers + 2 * rope_bytes;
        atom_cpu_kv_free(kv);
        return atom_fail_nomem(err, n_bytes);
    }
    fill_rope(kv, rope_pages);
    kv->cfg.inv_freq = NULL;
    *out = kv;
    return ATOM_OK;
}

void atom_cpu_kv_free(struct atom_kv *kv)
{
    if (!kv)
        return;
    free(kv->data);
    free(kv->cos);
    free(kv->sin);
    free(kv);
}

size_t atom_cpu_kv_bytes(const struct atom_kv *kv) { return kv->layer_bytes * (size_t)kv->cfg.layers; }

static uint8_t *head_page(const struct atom_kv *kv, int layer, int page, int head)
{
    return kv->data + (size_t)layer * kv->layer_bytes + (size_t)page * kv->page_bytes + (size_t)head * kv->head_bytes;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct store_task {
    struct atom_work *w;
    struct atom_kv *kv;
    int layer, where;
    const struct atom_batch *batch;
};

/* Byte offset of channel d of position slot p, for keys ([channel][16]) or values ([16][channel]). */
static size_t place(const struct atom_kv_shape *s, bool keys, int d, int p)
{
    int width = s->kind == ATOM_KV_NIBBLE ? s->head_dim / 2 : s->head_dim;
    size_t size = s->kind == ATOM_KV_F32 ? 4 : s->kind == ATOM_KV_F16 ? 2 : 1;
    return (keys ? (size_t)d * ATOM_PAGE + (size_t)p : (size_t)p * (size_t)width + (size_t)d) * size;
}

static bool store_float(const struct atom_kv_shape *s, uint8_t *half, bool keys, int p, const float *x)
{
    bool fine = true;
    for (int d = 0; d < s->head_dim; d++) {
        uint16_t h = atom_float_f16(x[d]);
        float back = s->kind == ATOM_KV_F32 ? x[d] : atom_f16_float(h);
        fine &= isfinite(back) != 0;
        if (s->kind == ATOM_KV_F32)
            memcpy(half + place(s, keys, d, p), &x[d], sizeof x[d]);
        else
            memcpy(half + place(s, keys, d, p), &h, sizeof h);
    }
    return fine;
}

/* One head vector into slot p of a page half. */
static bool store_vector(const struct atom_kv_shape *s, uint8_t *half, bool keys, int p, const float *x)
{
    uint8_t q[ATOM_MAX_HEAD_DIM], zero;
    uint16_t scale;
    if (s->kind == ATOM_KV_F32 || s->kind == ATOM_KV_F16)
        return store_float(s, half, keys, p, x);
    bool fine = atom_kern.kv_quantize(x, s->head_dim, s->bits, s->clip, q, &scale, &zero);
    int pairs = s->head_dim / 2;
    if (s->kind == ATOM_KV_NIBBLE)
        for (int d = 0; d < pairs; d++)
            half[place(s, keys, d, p)] = (uint8_t)(q[d] | q[d + pairs] << 4);
    else
        for (int d = 0; d < s->head_dim; d++)
            half[place(s, keys, d, p)] = q[d];
    uint8_t *tail = half + s->half_bytes - 64;
    memcpy(tail + 2 * p, &scale, sizeof scale);
    tail[32 + p] = zero;
    return fine;
}

static const struct atom_batch_seq *seq_of(const struct atom_batch *b, int t)
{
    int lo = 0, hi = b->n_seqs - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (b->seqs[mid].first_tok <= t)
            lo = mid;
        else
            hi = mid - 1;
    }
    return &b->seqs[lo];
}

static void store_token(void *ctx, int t, int worker)
{
    const struct store_task *task = ctx;
    const struct atom_kv *kv = task->kv;
    const struct atom_kv_config *cfg = &kv->cfg;
    const struct atom_batch_seq *seq = seq_of(task->batch, t);
    int hd = cfg->head_dim, half = hd / 2, pos = seq->pos0 + t - seq->first_tok, slot = pos % ATOM_PAGE;
    float cos[ATOM_MAX_HEAD_DIM / 2], sin[ATOM_MAX_HEAD_DIM / 2];
    (void)worker;
    for (int d = 0; d < half; d++) {
        size_t at = ((size_t)(pos / ATOM_PAGE) * (size_t)half + (size_t)d) * ATOM_PAGE + (size_t)slot;
        cos[d] = kv->cos[at];
        sin[d] = kv->sin[at];
    }
    float *q = task->w->buf[ATOM_BUF_QKV] + (size_t)t * (size_t)task->w->width[ATOM_BUF_QKV];
    float *k = q + cfg->heads * hd, *v = k + cfg->kv_heads * hd;
    for (int h = 0; h < cfg->heads; h++) {
        atom_kern.rope(q + h * hd, cos, sin, half);
        if (cfg->rotate & ATOM_ROTATE_QK)
            atom_hadamard(q + h * hd, hd);
    }
    bool fine = true;
    for (int h = 0; h < cfg->kv_heads; h++) {
        uint8_t *page = head_page(kv, task->layer, seq->pages[pos / ATOM_PAGE], h);
        if (cfg->rope == ATOM_KV_POST)
            atom_kern.rope(k + h * hd, cos, sin, half);
        if (cfg->rotate & ATOM_ROTATE_QK)
            atom_hadamard(k + h * hd, hd);
        if (cfg->rotate & ATOM_ROTATE_V)
            atom_hadamard(v + h * hd, hd);
        fine &= store_vector(&kv->shape, page, true, slot, k + h * hd);
        fine &= store_vector(&kv->shape, page + kv->shape.half_bytes, false, slot, v + h * hd);
    }
    if (!fine && !task->w->bad[t])
        task->w->bad[t] = task->where;
}

void atom_cpu_store(struct atom_work *w, struct atom_kv *kv, int layer, const struct atom_batch *batch, int where)
{
    struct store_task task = {w, kv, layer, where, batch};
    atom_parallel(batch->n_tok, store_token, &task);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

struct attend_task {
    struct atom_work *w;
    const struct atom_kv *kv;
    int layer;
    const struct atom_batch *batch;
    int per_task; /* tokens of a task: rows are tokens times the query heads of a KV head */
};

/* Rows of one task: tokens [tok0, tok0 + n) of a sequence, heads of one KV head; row = token * rep + head. */
struct query_rows {
    const struct atom_batch_seq *seq;
    int tok0, n_tok, head, rep, n_rows;
    int n_pos; /* positions the last token sees */
};

static void load_queries(const struct attend_task *task, const struct query_rows *r, float *q)
{
    int hd = task->kv->cfg.head_dim;
    float by = 1.0f / sqrtf((float)hd);
    for (int t = 0; t < r->n_tok; t++) {
        const float *from = task->w->buf[ATOM_BUF_QKV] + (size_t)(r->tok0 + t) * (size_t)task->w->width[ATOM_BUF_QKV] +
                            (size_t)(r->head * r->rep * hd);
        for (int i = 0; i < r->rep * hd; i++)
            q[(size_t)t * (size_t)(r->rep * hd) + (size_t)i] = from[i] * by;
    }
}

/* Keys and values of positions [first, first + n) as tiles. */
static void load_split(const struct attend_task *task, const struct query_rows *r, int first, int n,
                       const struct atom_scratch *s)
{
    const struct atom_kv *kv = task->kv;
    size_t hd = (size_t)kv->cfg.head_dim, half = hd / 2;
    int n_pages = (n + ATOM_PAGE - 1) / ATOM_PAGE;
    for (int i = 0; i < (n_pages + 1) / 2 * 2; i++) {
        int at = first / ATOM_PAGE + i, left = n - i * ATOM_PAGE;
        float *keys = s->keys + (size_t)(i / 2) * hd * ATOM_PANEL + (size_t)(i % 2) * ATOM_PAGE;
        float *values = s->values + (size_t)i * ATOM_PAGE * ATOM_PANEL;
        if (left <= 0) { /* fills the last key panel; its scores are never read */
            for (size_t d = 0; d < hd; d++)
                memset(keys + d * ATOM_PANEL, 0, ATOM_PAGE * sizeof *keys);
            continue;
        }
        const uint8_t *page = head_page(kv, task->layer, r->seq->pages[at], r->head);
        struct atom_rope_page rope = {kv->cos + (size_t)at * half * ATOM_PAGE, kv->sin + (size_t)at * half * ATOM_PAGE};
        atom_kern.kv_keys(&kv->shape, page, kv->cfg.rope == ATOM_KV_PRE ? &rope : NULL, keys);
        atom_kern.kv_values(&kv->shape, page + kv->shape.half_bytes, left < ATOM_PAGE ? left : ATOM_PAGE,
                            (size_t)ATOM_SPLIT * ATOM_PANEL, values);
    }
}

/* One split: scores, softmax per row, weighted values into part. */
static void attend_split(const struct attend_task *task, const struct query_rows *r, int first, int n,
                         const struct atom_scratch *s, struct atom_partial *part)
{
    int hd = task->kv->cfg.head_dim, panels = (n + ATOM_PANEL - 1) / ATOM_PANEL, up16 = (n + 15) / 16 * 16;
    int hd32 = (hd + 31) / 32 * 32;
    memset(s->scores, 0, (size_t)r->n_rows * ATOM_SPLIT * sizeof *s->scores);
    memset(s->part, 0, (size_t)r->n_rows * (size_t)hd32 * sizeof *s->part);
    for (int p = 0; p < panels; p++)
        atom_kern.gemm(s->q, hd, r->n_rows, s->keys + (size_t)p * (size_t)hd * ATOM_PANEL, hd,
                       s->scores + p * ATOM_PANEL, ATOM_SPLIT);
    for (int i = 0; i < r->n_rows; i++) {
        int token = i / r->rep, pos = r->seq->pos0 + r->tok0 - r->seq->first_tok + token;
        int sees = pos + 1 - first < n ? pos + 1 - first : n;
        float *row = s->scores + (size_t)i * ATOM_SPLIT;
        part[i].max = part[i].total = 0.0f;
        if (sees > 0)
            atom_kern.softmax(row, sees, up16, &part[i].max, &part[i].total);
        else
            memset(row, 0, (size_t)up16 * sizeof *row);
    }
    for (int c = 0; c < hd32; c += ATOM_PANEL)
        atom_kern.gemm(s->scores, ATOM_SPLIT, r->n_rows, s->values + (size_t)c * ATOM_SPLIT, up16, s->part + c, hd32);
}

static void write_out(const struct attend_task *task, const struct query_rows *r, const struct atom_partial *sum)
{
    int hd = task->kv->cfg.head_dim;
    for (int i = 0; i < r->n_rows; i++) {
        float *out = task->w->buf[ATOM_BUF_ATT] +
                     (size_t)(r->tok0 + i / r->rep) * (size_t)task->w->width[ATOM_BUF_ATT] +
                     (size_t)((r->head * r->rep + i % r->rep) * hd);
        float by = 1.0f / sum[i].total;
        for (int d = 0; d < hd; d++)
            out[d] = sum[i].o[d] * by;
        if (task->kv->cfg.rotate & ATOM_ROTATE_V)
            atom_hadamard_undo(out, hd);
    }
}

static void attend_rows(const struct attend_task *task, const struct query_rows *r, const struct atom_scratch *s)
{
    size_t hd32 = (size_t)((task->kv->cfg.head_dim + 31) / 32 * 32);
    struct atom_partial part[ATOM_QUERY_ROWS], sum[ATOM_QUERY_ROWS];
    for (int i = 0; i < r->n_rows; i++) {
        part[i].o = s->part + (size_t)i * hd32;
        sum[i] = (struct atom_partial){s->sum + (size_t)i * hd32, 0.0f, 0.0f};
    }
    load_queries(task, r, s->q);
    for (int first = 0; first < r->n_pos; first += ATOM_SPLIT) {
        int n = r->n_pos - first < ATOM_SPLIT ? r->n_pos - first : ATOM_SPLIT;
        load_split(task, r, first, n, s);
        attend_split(task, r, first, n, s, part);
        for (int i = 0; i < r->n_rows; i++)
            atom_kern.merge(&sum[i], &part[i], (int)hd32);
    }
    write_out(task, r, sum);
}

static int tasks_of(const struct attend_task *task, const struct atom_batch_seq *seq)
{
    return (seq->n_tok + task->per_task - 1) / task->per_task * task->kv->cfg.kv_heads;
}

static void attend_one(void *ctx, int i, int worker)
{
    const struct attend_task *task = ctx;
    const struct atom_batch_seq *seq = task->batch->seqs;
    while (i >= tasks_of(task, seq))
        i -= tasks_of(task, seq++);
    int kv_heads = task->kv->cfg.kv_heads, first = i / kv_heads * task->per_task;
    int n = seq->n_tok - first < task->per_task ? seq->n_tok - first : task->per_task;
    int rep = task->kv->cfg.heads / kv_heads;
    struct query_rows rows = {seq, seq->first_tok + first, n, i % kv_heads, rep, n * rep, seq->pos0 + first + n};
    attend_rows(task, &rows, &task->w->scratch[worker]);
}

void atom_cpu_attend(struct atom_work *w, const struct atom_kv *kv, int layer, const struct atom_batch *batch)
{
    int rep = kv->cfg.heads / kv->cfg.kv_heads, total = 0;
    assert(rep <= ATOM_QUERY_ROWS);
    struct attend_task task = {w, kv, layer, batch, ATOM_QUERY_ROWS / rep};
    for (int i = 0; i < batch->n_seqs; i++)
        total += tasks_of(&task, &batch->seqs[i]);
    atom_parallel(total, attend_one, &task);
}
