/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on the CPU.
 *
 * Positions are taken in splits of 256: a split's keys and values are read from their pages into float tiles once and
 * serve up to 64 query rows; each split is softmaxed by itself and splits are merged in ascending order, so that the
 * result depends on nothing but the positions: neither on which thread took a split nor on the company. */
#include "backend/cpu.h"
#include "base/thread.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { TASKS_ENOUGH = 8 /* a thread: the last one is then a small part of the whole */ };

struct attend_task {
    struct atom_work *w;
    const struct atom_kv *kv;
    int layer;
    const struct atom_batch *batch;
    int per_task;   /* tokens of a task: rows are tokens times the query heads of a KV head */
    int wide;       /* head_dim up to whole panels */
    int max_splits; /* of any sequence */
};

/* Rows of one task: tokens [tok0, tok0 + n) of a sequence, heads of one KV head; row = token * rep + head. */
struct query_rows {
    const struct atom_batch_seq *seq;
    int tok0, n_tok, head, rep, n_rows;
    int n_pos; /* positions the last token sees */
    int n_splits;
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
        const uint8_t *page = atom_cpu_head_page(kv, task->layer, r->seq->pages[at], r->head);
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
    int hd = task->kv->cfg.head_dim, up16 = (n + 15) / 16 * 16, panels = (hd + ATOM_PANEL - 1) / ATOM_PANEL;
    atom_kern.gemm(&(struct atom_gemm_job){.a = s->q,
                                           .b = s->keys,
                                           .c = s->scores,
                                           .lda = hd,
                                           .ldc = ATOM_SPLIT,
                                           .m = r->n_rows,
                                           .k = hd,
                                           .n_panels = (n + ATOM_PANEL - 1) / ATOM_PANEL,
                                           .b_stride = (size_t)hd * ATOM_PANEL});
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
    atom_kern.gemm(&(struct atom_gemm_job){.a = s->scores,
                                           .b = s->values,
                                           .c = s->part,
                                           .lda = ATOM_SPLIT,
                                           .ldc = panels * ATOM_PANEL,
                                           .m = r->n_rows,
                                           .k = up16,
                                           .n_panels = panels,
                                           .b_stride = (size_t)ATOM_SPLIT * ATOM_PANEL});
}

static float *out_row(const struct attend_task *task, const struct query_rows *r, int i)
{
    return task->w->buf[ATOM_BUF_ATT] + (size_t)(r->tok0 + i / r->rep) * (size_t)task->w->width[ATOM_BUF_ATT] +
           (size_t)((r->head * r->rep + i % r->rep) * task->kv->cfg.head_dim);
}

static void write_out(const struct attend_task *task, const struct query_rows *r, const struct atom_partial *sum)
{
    int hd = task->kv->cfg.head_dim;
    for (int i = 0; i < r->n_rows; i++) {
        float *out = out_row(task, r, i), by = 1.0f / sum[i].total;
        for (int d = 0; d < hd; d++)
            out[d] = sum[i].o[d] * by;
        if (task->kv->cfg.rotate & ATOM_ROTATE_V)
            atom_cpu_rotate(out, hd, true);
    }
}

static int split_length(const struct query_rows *r, int split)
{
    int left = r->n_pos - split * ATOM_SPLIT;
    return left < ATOM_SPLIT ? left : ATOM_SPLIT;
}

static void attend_rows(const struct attend_task *task, const struct query_rows *r, const struct atom_scratch *s)
{
    size_t wide = (size_t)task->wide;
    struct atom_partial part[ATOM_QUERY_ROWS], sum[ATOM_QUERY_ROWS];
    for (int i = 0; i < r->n_rows; i++) {
        part[i].o = s->part + (size_t)i * wide;
        sum[i] = (struct atom_partial){s->sum + (size_t)i * wide, 0.0f, 0.0f};
    }
    load_queries(task, r, s->q);
    for (int split = 0; split < r->n_splits; split++) {
        load_split(task, r, split * ATOM_SPLIT, split_length(r, split), s);
        attend_split(task, r, split * ATOM_SPLIT, split_length(r, split), s, part);
        for (int i = 0; i < r->n_rows; i++)
            atom_kern.merge(&sum[i], &part[i], (int)wide);
    }
    write_out(task, r, sum);
}

/* ---- tasks: a task is some query rows, or one split of them ------------------------------------------------------ */

/* Where a row's partial result of a split waits to be merged: [token of the batch][head][split], [wide] and two. */
static struct atom_partial *partial_at(const struct attend_task *task, const struct query_rows *r, int i, int split)
{
    size_t row = (size_t)(r->tok0 + i / r->rep) * (size_t)task->kv->cfg.heads + (size_t)(r->head * r->rep + i % r->rep);
    return &task->w->partials[row * (size_t)task->max_splits + (size_t)split];
}

static void attend_one_split(const struct attend_task *task, const struct query_rows *r, int split,
                             const struct atom_scratch *s)
{
    struct atom_partial part[ATOM_QUERY_ROWS];
    size_t wide = (size_t)task->wide;
    load_queries(task, r, s->q);
    load_split(task, r, split * ATOM_SPLIT, split_length(r, split), s);
    attend_split(task, r, split * ATOM_SPLIT, split_length(r, split), s, part);
    for (int i = 0; i < r->n_rows; i++) {
        struct atom_partial *to = partial_at(task, r, i, split);
        to->o = task->w->partial_rows + (size_t)(to - task->w->partials) * wide;
        to->max = part[i].max;
        to->total = part[i].total;
        memcpy(to->o, s->part + (size_t)i * wide, wide * sizeof *to->o);
    }
}

static void merge_splits(const struct attend_task *task, const struct query_rows *r, const struct atom_scratch *s)
{
    struct atom_partial sum[ATOM_QUERY_ROWS];
    for (int i = 0; i < r->n_rows; i++) {
        sum[i] = (struct atom_partial){s->sum + (size_t)i * (size_t)task->wide, 0.0f, 0.0f};
        for (int split = 0; split < r->n_splits; split++)
            atom_kern.merge(&sum[i], partial_at(task, r, i, split), task->wide);
    }
    write_out(task, r, sum);
}

static int blocks_of(const struct attend_task *task, const struct atom_batch_seq *seq)
{
    return (seq->n_tok + task->per_task - 1) / task->per_task;
}

static int splits_of(const struct atom_batch_seq *seq)
{
    return (seq->pos0 + seq->n_tok + ATOM_SPLIT - 1) / ATOM_SPLIT;
}

/* Rows number i of the batch: blocks of each sequence in order, the KV heads of a block one after the other. `each`
 * is how often a block counts: once, or once a split. */
static struct query_rows rows_at(const struct attend_task *task, int i, bool by_split, int *split)
{
    const struct atom_batch_seq *seq = task->batch->seqs;
    int kv_heads = task->kv->cfg.kv_heads, rep = task->kv->cfg.heads / kv_heads, each, n;
    for (;; seq++) {
        each = by_split ? splits_of(seq) : 1;
        n = blocks_of(task, seq) * kv_heads * each;
        if (i < n)
            break;
        i -= n;
    }
    *split = i % each;
    int head = i / each % kv_heads, first = i / each / kv_heads * task->per_task;
    int tok = seq->n_tok - first < task->per_task ? seq->n_tok - first : task->per_task;
    int n_pos = seq->pos0 + first + tok;
    return (struct query_rows){
        seq, seq->first_tok + first, tok, head, rep, tok * rep, n_pos, (n_pos + ATOM_SPLIT - 1) / ATOM_SPLIT};
}

static void run_rows(void *ctx, int i, int worker)
{
    const struct attend_task *task = ctx;
    int split;
    struct query_rows r = rows_at(task, i, false, &split);
    attend_rows(task, &r, &task->w->scratch[worker]);
}

static void run_split(void *ctx, int i, int worker)
{
    const struct attend_task *task = ctx;
    int split;
    struct query_rows r = rows_at(task, i, true, &split);
    if (split < r.n_splits)
        attend_one_split(task, &r, split, &task->w->scratch[worker]);
}

static void run_merge(void *ctx, int i, int worker)
{
    const struct attend_task *task = ctx;
    int split;
    struct query_rows r = rows_at(task, i, false, &split);
    merge_splits(task, &r, &task->w->scratch[worker]);
}

void atom_cpu_attend(struct atom_work *w, const struct atom_kv *kv, int layer, const struct atom_batch *batch)
{
    int rep = kv->cfg.heads / kv->cfg.kv_heads, n_rows = 0, n_splits = 0, longest = 0;
    assert(rep <= ATOM_QUERY_ROWS);
    struct attend_task task = {w, kv, layer, batch, ATOM_QUERY_ROWS / rep, (kv->cfg.head_dim + 31) / 32 * 32, 0};
    for (int i = 0; i < batch->n_seqs; i++) {
        int n = blocks_of(&task, &batch->seqs[i]) * kv->cfg.kv_heads, splits = splits_of(&batch->seqs[i]);
        n_rows += n;
        n_splits += n * splits;
        longest = splits > longest ? splits : longest;
    }
    task.max_splits = longest;
    /* Few tasks leave threads idle at the end: then positions are shared out too. The sums are the same. */
    size_t room = (size_t)batch->n_tok * (size_t)kv->cfg.heads * (size_t)longest;
    if (w->n_workers > 1 && n_splits > n_rows && n_rows < TASKS_ENOUGH * w->n_workers && room <= w->max_partials) {
        atom_parallel(n_splits, run_split, &task);
        atom_parallel(n_rows, run_merge, &task);
    } else {
        atom_parallel(n_rows, run_rows, &task);
    }
}
