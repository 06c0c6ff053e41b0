/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend: work buffers and the operations that go row by row. */
#include "backend/cpu.h"
#include "base/aligned.h"
#include "base/finite.h"
#include "base/half.h"
#include "base/thread.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct atom_kernels atom_kern;

void atom_cpu_use(unsigned cpu) { atom_kernels_init(&atom_kern, cpu & atom_cpu_detect()); }
const char *atom_cpu_name(void) { return atom_kern.name; }
const struct atom_kernels *atom_cpu_kernels(void) { return &atom_kern; }

/* ---- work -------------------------------------------------------------------------------------------------------- */

static size_t up16(size_t n) { return (n + 15) / 16 * 16; }

/* Lays one worker's scratch out from base (NULL: only counts) and returns its floats. */
static size_t lay_out_scratch(const struct atom_work_shape *sh, struct atom_scratch *s, float *base)
{
    size_t hd = (size_t)sh->head_dim, hd32 = (hd + 31) / 32 * 32, at = 0;
    size_t row = (size_t)(sh->max_row_bytes > sh->hidden ? sh->max_row_bytes : sh->hidden);
    struct {
        float **to;
        size_t n;
    } want[] = {{&s->run, (size_t)ATOM_RUN_MAX * ATOM_PANEL},
                {&s->tile, (size_t)ATOM_TOK_CHUNK * ATOM_PANEL},
                {&s->row, row},
                {&s->keys, ATOM_SPLIT * hd},
                {&s->values, ATOM_SPLIT * hd32},
                {&s->q, ATOM_QUERY_ROWS * hd},
                {&s->scores, (size_t)ATOM_QUERY_ROWS * ATOM_SPLIT},
                {&s->part, ATOM_QUERY_ROWS * hd32},
                {&s->sum, ATOM_QUERY_ROWS * hd32}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        if (base)
            *want[i].to = base + at;
        at += up16(want[i].n);
    }
    return at;
}

static void work_free(struct atom_work *w)
{
    if (!w)
        return;
    for (int i = 0; i < ATOM_N_BUFS; i++)
        atom_free64(w->buf[i]);
    atom_free64(w->q);
    atom_free64(w->scales);
    atom_free64(w->x);
    atom_free64(w->h);
    atom_free64(w->sums);
    free(w->bad);
    free(w->scratch);
    atom_free64(w->block);
    free(w->partials);
    atom_free64(w->partial_rows);
    free(w);
}

static enum atom_status work_create(const struct atom_work_shape *shape, struct atom_work **out, struct atom_error *err)
{
    struct atom_work *w = calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    size_t tok = (size_t)shape->max_tok, total = 0;
    w->shape = *shape;
    w->n_workers = atom_pool_size();
    w->width[ATOM_BUF_X] = shape->hidden;
    w->width[ATOM_BUF_QKV] = shape->qkv_rows;
    w->width[ATOM_BUF_ATT] = shape->att_width;
    w->width[ATOM_BUF_GATE_UP] = shape->gate_up_rows;
    bool ok = true;
    for (int i = 0; i < ATOM_N_BUFS; i++) {
        size_t n_bytes = tok * (size_t)w->width[i] * sizeof(float);
        total += n_bytes;
        ok &= (w->buf[i] = atom_alloc64(n_bytes)) != NULL;
    }
    size_t k = (size_t)shape->max_row_bytes;
    ok &= (w->q = atom_alloc64(tok * k)) != NULL;
    ok &= (w->x = atom_alloc64(tok * k * sizeof(float))) != NULL;
    if (atom_kern.linear_bf16)
        ok &= (w->h = atom_alloc64(tok * k * sizeof *w->h)) != NULL;
    ok &= (w->scales = atom_alloc64(tok * (size_t)shape->max_scales * sizeof(float))) != NULL;
    ok &= (w->sums = atom_alloc64(tok * (size_t)shape->max_runs * sizeof(int32_t))) != NULL;
    ok &= (w->bad = calloc(tok, sizeof *w->bad)) != NULL;
    ok &= (w->scratch = calloc((size_t)w->n_workers, sizeof *w->scratch)) != NULL;
    struct atom_scratch none;
    size_t per_worker = lay_out_scratch(shape, &none, NULL);
    ok &= (w->block = atom_alloc64(per_worker * (size_t)w->n_workers * sizeof(float))) != NULL;
    w->max_partials = w->n_workers > 1 ? (size_t)w->n_workers * ATOM_PARTIALS_PER_WORKER : 0;
    size_t wide = (size_t)((shape->head_dim + 31) / 32 * 32);
    ok &= (w->partials = calloc(w->max_partials + 1, sizeof *w->partials)) != NULL;
    ok &= (w->partial_rows = atom_alloc64(w->max_partials * wide * sizeof(float))) != NULL;
    if (!ok) {
        work_free(w);
        return atom_fail_nomem(err, total + 6 * tok * k);
    }
    for (int i = 0; i < w->n_workers; i++)
        lay_out_scratch(shape, &w->scratch[i], w->block + per_worker * (size_t)i);
    *out = w;
    return ATOM_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

struct row_task {
    struct atom_work *w;
    const struct atom_site *site;
    const float *weight; /* of a norm */
    float eps;
    int where;
    const int *rows; /* of X; NULL: all */
};

/* ACTS of such a site are floats. */
static bool keeps_floats(const struct atom_site *site) { return site->bits == 16 || atom_site_is_simulated(site); }

/* A row of floats in stored order becomes row t of ACTS. `row` may be the place in w->x itself. What is not finite is
 * noted and goes on as zeros; without a place to name (where 0) it goes on as it is, or as a scale that spreads it. */
static void put_row(const struct row_task *task, int t, float *row)
{
    struct atom_work *w = task->w;
    const struct atom_layout *lay = &task->site->lay;
    bool fine;
    if (task->site->bits == 16)
        fine = atom_all_finite(row, (size_t)lay->k);
    else if (keeps_floats(task->site))
        fine = atom_cpu_round_row(w, task->site, t, row);
    else
        fine = atom_kern.quantize(
            row, lay, task->site->bits, task->site->clip, w->q + (size_t)t * (size_t)lay->row_bytes,
            w->scales + (size_t)t * (size_t)lay->n_scales, w->sums + (size_t)t * (size_t)lay->n_runs);
    if (!fine && task->where && !w->bad[t])
        w->bad[t] = task->where;
    if (!fine && task->where && keeps_floats(task->site))
        memset(row, 0, (size_t)lay->k * sizeof *row);
    if (!fine && !task->where && !keeps_floats(task->site))
        w->scales[(size_t)t * (size_t)lay->n_scales] = NAN;
}

static float *row_place(const struct row_task *task, int t, int worker)
{
    if (keeps_floats(task->site))
        return task->w->x + (size_t)t * (size_t)task->site->lay.k;
    return task->w->scratch[worker].row;
}

/* 1 / sqrt(mean of squares + eps); NaN, which spreads, when that is not finite: 0 would make zeros of an overflow. */
static float inverse_rms(const float *x, int k, float eps)
{
    float mean = atom_kern.sum_squares(x, k) / (float)k;
    return mean < INFINITY ? 1.0f / sqrtf(mean + eps) : NAN;
}

static void norm_row(void *ctx, int t, int worker)
{
    const struct row_task *task = ctx;
    int k = task->site->lay.k, from = task->rows ? task->rows[t] : t;
    const float *x = task->w->buf[ATOM_BUF_X] + (size_t)from * (size_t)k;
    float *row = row_place(task, t, worker);
    float r = inverse_rms(x, k, task->eps);
    atom_kern.norm(x, task->site->gathers ? task->site->order : NULL, task->weight, r, k, row);
    put_row(task, t, row);
}

static void gather_row(void *ctx, int t, int worker)
{
    const struct row_task *task = ctx;
    int k = task->site->lay.k;
    const float *x = task->w->buf[ATOM_BUF_ATT] + (size_t)t * (size_t)k;
    const int32_t *order = task->site->order;
    float *row = row_place(task, t, worker);
    for (int i = 0; i < k; i++)
        row[i] = x[order ? order[i] : i];
    put_row(task, t, row);
}

static void silu_row(void *ctx, int t, int worker)
{
    const struct row_task *task = ctx;
    int k = task->site->lay.k;
    const float *gate = task->w->buf[ATOM_BUF_GATE_UP] + (size_t)t * 2 * (size_t)k;
    float *row = row_place(task, t, worker);
    atom_kern.silu_mul(gate, gate + k, k, row);
    put_row(task, t, row);
}

static void run_rows(struct atom_work *w, struct row_task *task, int n_tok, atom_task_fn *fn)
{
    const struct atom_layout *lay = &task->site->lay;
    bool floats = keeps_floats(task->site);
    w->acts = (struct atom_acts){.lay = lay, .n_tok = n_tok, .bits = task->site->bits, .sums = w->sums};
    if (floats)
        w->acts.x = w->x;
    else
        w->acts.q = w->q, w->acts.scales = w->scales;
    w->x_ready = floats;
    w->h_ready = false;
    atom_parallel(n_tok, fn, task);
}

static void norm(struct atom_work *w, const float *weight, float eps, const struct atom_site *site, int where)
{
    struct row_task task = {w, site, weight, eps, where, NULL};
    run_rows(w, &task, w->n_tok, norm_row);
}

static void gather(struct atom_work *w, const struct atom_site *site, int where)
{
    struct row_task task = {.w = w, .site = site, .where = where};
    run_rows(w, &task, w->n_tok, gather_row);
}

static void silu(struct atom_work *w, const struct atom_site *site, int where)
{
    struct row_task task = {.w = w, .site = site, .where = where};
    run_rows(w, &task, w->n_tok, silu_row);
}

/* ---- in and out -------------------------------------------------------------------------------------------------- */

static void begin(struct atom_work *w, int n_tok)
{
    assert(n_tok <= w->shape.max_tok);
    w->n_tok = n_tok;
    memset(w->bad, 0, (size_t)n_tok * sizeof *w->bad);
}

static void embed(struct atom_work *w, enum atom_weight_kind kind, const void *embedding, const int32_t *tokens,
                  int n_tok)
{
    size_t hidden = (size_t)w->shape.hidden;
    begin(w, n_tok);
    for (int t = 0; t < n_tok; t++) {
        float *x = w->buf[ATOM_BUF_X] + (size_t)t * hidden;
        size_t size = kind == ATOM_W_F32 ? 4 : 2;
        const uint8_t *from = (const uint8_t *)embedding + (size_t)tokens[t] * hidden * size;
        if (kind == ATOM_W_F32) {
            memcpy(x, from, hidden * sizeof *x);
            continue;
        }
        for (size_t i = 0; i < hidden; i++) {
            uint16_t h;
            memcpy(&h, from + 2 * i, sizeof h);
            x[i] = kind == ATOM_W_F16 ? atom_f16_float(h) : atom_bf16_float(h);
        }
    }
}

static void logits(struct atom_work *w, const float *norm_weight, float eps, const struct atom_site *site,
                   const struct atom_linear *head, const int *rows, int n, float *out)
{
    struct row_task task = {w, site, norm_weight, eps, 0, rows};
    int n_tok = w->n_tok;
    run_rows(w, &task, n, norm_row);
    w->n_tok = n;
    atom_cpu_linear_into(w, head, out, (size_t)head->p.n, false);
    w->n_tok = n_tok;
}

static void set_x(struct atom_work *w, const float *x, int n_tok)
{
    begin(w, n_tok);
    memcpy(w->buf[ATOM_BUF_X], x, (size_t)n_tok * (size_t)w->shape.hidden * sizeof *x);
}

static void get_x(struct atom_work *w, float *x)
{
    memcpy(x, w->buf[ATOM_BUF_X], (size_t)w->n_tok * (size_t)w->shape.hidden * sizeof *x);
}

static void get_acts(struct atom_work *w, float *out)
{
    const struct atom_layout *lay = w->acts.lay;
    for (int t = 0; t < w->n_tok; t++) {
        float *row = out + (size_t)t * (size_t)lay->k;
        if (!w->acts.q) {
            memcpy(row, w->x + (size_t)t * (size_t)lay->k, (size_t)lay->k * sizeof *row);
            continue;
        }
        for (int r = 0; r < lay->n_runs; r++) {
            const struct atom_run *run = &lay->runs[r];
            float s = w->acts.scales[(size_t)t * (size_t)lay->n_scales + (size_t)run->scale];
            const int8_t *q = w->acts.q + (size_t)t * (size_t)lay->row_bytes + run->offset;
            for (int c = 0; c < run->len; c++)
                row[run->first + c] = (float)q[c] * s;
        }
    }
}

static void check(struct atom_work *w, int where)
{
    for (int t = 0; t < w->n_tok; t++) {
        const float *x = w->buf[ATOM_BUF_X] + (size_t)t * (size_t)w->shape.hidden;
        if (!w->bad[t] && isnan(inverse_rms(x, w->shape.hidden, 0.0f)))
            w->bad[t] = where;
    }
}

static int bad(const struct atom_work *w, int t) { return w->bad[t]; }

const struct atom_backend atom_backend_cpu = {
    .name = "cpu",
    .linear_create = atom_cpu_linear_create,
    .linear_free = atom_cpu_linear_free,
    .linear_take_bias = atom_cpu_linear_take_bias,
    .work_create = work_create,
    .work_free = work_free,
    .kv_create = atom_cpu_kv_create,
    .kv_free = atom_cpu_kv_free,
    .kv_bytes = atom_cpu_kv_bytes,
    .embed = embed,
    .norm = norm,
    .gather = gather,
    .silu = silu,
    .linear = atom_cpu_linear,
    .store = atom_cpu_store,
    .attend = atom_cpu_attend,
    .logits = logits,
    .set_x = set_x,
    .get_x = get_x,
    .get_acts = get_acts,
    .check = check,
    .bad = bad,
};
