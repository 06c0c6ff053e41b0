/* SPDX-License-Identifier: Apache-2.0 */
/* The paged KV cache on the CPU: its memory, and writing a step's keys and values into it. */
#include "backend/cpu.h"
#include "base/aligned.h"
#include "base/half.h"
#include "base/thread.h"
#include "kernels/hadamard.h"

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

static void fill_rope_page(void *ctx, int i, int worker)
{
    const struct atom_kv *kv = ctx;
    int half = kv->cfg.head_dim / 2, page = kv->rope_pages + i;
    (void)worker;
    for (int d = 0; d < half; d++)
        for (int p = 0; p < ATOM_PAGE; p++) {
            size_t at = ((size_t)page * (size_t)half + (size_t)d) * ATOM_PAGE + (size_t)p;
            double angle = (double)(page * ATOM_PAGE + p) * kv->inv_freq[d];
            kv->cos[at] = (float)cos(angle);
            kv->sin[at] = (float)sin(angle);
        }
}

/* Angles of the positions before `end`. Of the positions that a model takes, 10^5 and more, few sessions see many. */
static void fill_rope(struct atom_kv *kv, int end)
{
    int n_pages = (end + ATOM_PAGE - 1) / ATOM_PAGE;
    if (n_pages <= kv->rope_pages)
        return;
    atom_parallel(n_pages - kv->rope_pages, fill_rope_page, kv);
    kv->rope_pages = n_pages;
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
    kv->inv_freq = malloc((size_t)(cfg->head_dim / 2) * sizeof *kv->inv_freq);
    kv->cos = atom_alloc64(rope_bytes);
    kv->sin = atom_alloc64(rope_bytes);
    if (!kv->data || !kv->inv_freq || !kv->cos || !kv->sin) {
        size_t n_bytes = kv->layer_bytes * (size_t)cfg->layers + 2 * rope_bytes;
        atom_cpu_kv_free(kv);
        return atom_fail_nomem(err, n_bytes);
    }
    memcpy(kv->inv_freq, cfg->inv_freq, (size_t)(cfg->head_dim / 2) * sizeof *kv->inv_freq);
    kv->cfg.inv_freq = NULL;
    *out = kv;
    return ATOM_OK;
}

void atom_cpu_kv_free(struct atom_kv *kv)
{
    if (!kv)
        return;
    atom_free64(kv->data);
    free(kv->inv_freq);
    atom_free64(kv->cos);
    atom_free64(kv->sin);
    free(kv);
}

size_t atom_cpu_kv_bytes(const struct atom_kv *kv) { return kv->layer_bytes * (size_t)kv->cfg.layers; }

uint8_t *atom_cpu_head_page(const struct atom_kv *kv, int layer, int page, int head)
{
    return kv->data + (size_t)layer * kv->layer_bytes + (size_t)page * kv->page_bytes + (size_t)head * kv->head_bytes;
}

void atom_cpu_rotate(float *x, int n, bool undo)
{
    if (n >= 16 && (n & (n - 1)) == 0)
        atom_kern.hadamard(x, n);
    else if (undo)
        atom_hadamard_undo(x, n);
    else
        atom_hadamard(x, n);
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
            atom_cpu_rotate(q + h * hd, hd, false);
    }
    bool fine = true;
    for (int h = 0; h < cfg->kv_heads; h++) {
        uint8_t *page = atom_cpu_head_page(kv, task->layer, seq->pages[pos / ATOM_PAGE], h);
        if (cfg->rope == ATOM_KV_POST)
            atom_kern.rope(k + h * hd, cos, sin, half);
        if (cfg->rotate & ATOM_ROTATE_QK)
            atom_cpu_rotate(k + h * hd, hd, false);
        if (cfg->rotate & ATOM_ROTATE_V)
            atom_cpu_rotate(v + h * hd, hd, false);
        fine &= store_vector(&kv->shape, page, true, slot, k + h * hd);
        fine &= store_vector(&kv->shape, page + kv->shape.half_bytes, false, slot, v + h * hd);
    }
    if (!fine && !task->w->bad[t])
        task->w->bad[t] = task->where;
}

void atom_cpu_store(struct atom_work *w, struct atom_kv *kv, int layer, const struct atom_batch *batch, int where)
{
    struct store_task task = {w, kv, layer, where, batch};
    for (int i = 0; i < batch->n_seqs; i++)
        fill_rope(kv, batch->seqs[i].pos0 + batch->seqs[i].n_tok);
    atom_parallel(batch->n_tok, store_token, &task);
}
