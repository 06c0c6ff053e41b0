/* SPDX-License-Identifier: Apache-2.0 */
/* Linears on the CPU: the loop over panels and tokens. */
#include "backend/cpu.h"
#include "base/thread.h"

#include <assert.h>
#include <string.h>

static void read_back_row(void *ctx, int t, int worker)
{
    struct atom_work *w = ctx;
    const struct atom_layout *lay = w->acts.lay;
    const int8_t *q = w->acts.q + (size_t)t * (size_t)lay->row_bytes;
    const float *scales = w->acts.scales + (size_t)t * (size_t)lay->n_scales;
    float *x = w->x + (size_t)t * (size_t)lay->k;
    (void)worker;
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *run = &lay->runs[r];
        for (int c = 0; c < run->len; c++)
            x[run->first + c] = (float)q[run->offset + c] * scales[run->scale];
    }
}

static void round_row(void *ctx, int t, int worker)
{
    struct atom_work *w = ctx;
    int k = w->acts.lay->k;
    (void)worker;
    atom_kern.to_bf16(w->x + (size_t)t * (size_t)k, k, w->h + (size_t)t * (size_t)w->shape.max_row_bytes);
}

struct linear_task {
    struct atom_work *w;
    const struct atom_packed *p;
    float *y;
    size_t ld;
    bool add, integer, bf16;
    int n_chunks;
};

static void float_tile(const struct linear_task *task, const struct atom_scratch *s, int panel, int tok0, int n)
{
    const struct atom_layout *lay = task->p->lay;
    const float *x = task->w->x + (size_t)tok0 * (size_t)lay->k;
    for (int r = 0; r < lay->n_runs; r++) {
        const struct atom_run *run = &lay->runs[r];
        atom_kern.load_run(task->p, panel, run, s->run);
        atom_kern.gemm(&(struct atom_gemm_job){.a = x + run->first,
                                               .b = s->run,
                                               .c = s->tile,
                                               .lda = lay->k,
                                               .ldc = ATOM_PANEL,
                                               .m = n,
                                               .k = run->len,
                                               .n_panels = 1,
                                               .add = r > 0});
    }
}

/* y = x + bias, or y += x + bias */
static void put_rows(const float *restrict x, const float *restrict bias, int rows, bool add, float *restrict y)
{
    for (int r = 0; r < rows; r++) {
        float v = bias ? x[r] + bias[r] : x[r];
        y[r] = add ? y[r] + v : v;
    }
}

/* A kernel writes to y itself where it may: whole panels without bias. */
static void run_tile(void *ctx, int i, int worker)
{
    const struct linear_task *task = ctx;
    const struct atom_scratch *s = &task->w->scratch[worker];
    int panel = i / task->n_chunks, tok0 = i % task->n_chunks * ATOM_TOK_CHUNK;
    int n = task->w->n_tok - tok0 < ATOM_TOK_CHUNK ? task->w->n_tok - tok0 : ATOM_TOK_CHUNK;
    int first = panel * ATOM_PANEL, rows = task->p->n - first < ATOM_PANEL ? task->p->n - first : ATOM_PANEL;
    float *y = task->y + (size_t)tok0 * task->ld + first;
    const float *bias = task->p->bias ? task->p->bias + first : NULL;
    bool direct = task->integer && rows == ATOM_PANEL && !bias;
    if (direct) {
        atom_kern.linear_int(
            &(struct atom_linear_job){task->p, &task->w->acts, panel, tok0, tok0 + n, y, task->ld, task->add});
        return;
    }
    if (task->integer)
        atom_kern.linear_int(
            &(struct atom_linear_job){task->p, &task->w->acts, panel, tok0, tok0 + n, s->tile, ATOM_PANEL, false});
    else if (task->bf16)
        atom_kern.linear_bf16(&(struct atom_bf16_job){task->p, task->w->h, (size_t)task->w->shape.max_row_bytes, panel,
                                                      tok0, tok0 + n, s->tile});
    else
        float_tile(task, s, panel, tok0, n);
    for (int t = 0; t < n; t++)
        put_rows(s->tile + t * ATOM_PANEL, bias, rows, task->add, y + (size_t)t * task->ld);
}

void atom_cpu_linear_into(struct atom_work *w, const struct atom_linear *lin, float *y, size_t ld, bool add)
{
    const struct atom_packed *p = &lin->p;
    bool integer = w->acts.q && !atom_kind_is_float(p->kind);
    assert(w->acts.lay->k == p->lay->k && (!integer || w->acts.lay->n_runs == p->lay->n_runs));
    if (!integer && !w->x_ready) {
        atom_parallel(w->n_tok, read_back_row, w);
        w->x_ready = true;
    }
    bool bf16 = !integer && p->kind == ATOM_W_BF16 && atom_kern.linear_bf16 && w->h;
    if (bf16 && !w->h_ready) {
        atom_parallel(w->n_tok, round_row, w);
        w->h_ready = true;
    }
    struct linear_task task = {w, p, y, ld, add, integer, bf16, (w->n_tok + ATOM_TOK_CHUNK - 1) / ATOM_TOK_CHUNK};
    atom_parallel(p->n_panels * task.n_chunks, run_tile, &task);
}

void atom_cpu_linear(struct atom_work *w, const struct atom_linear *lin, enum atom_buf dst, bool add)
{
    assert(lin->p.n == w->width[dst]);
    atom_cpu_linear_into(w, lin, w->buf[dst], (size_t)w->width[dst], add);
}
