/* SPDX-License-Identifier: Apache-2.0 */
/* Linears: each scheme, each matrix, each number of tokens, compared and then timed. */
#include "bench/gpu/gpu_linear.h"

#include "base/error.h"
#include "bench/gpu/gpu_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct atom_gpu_linear_kind *const kinds[ATOM_GPU_N_SCHEMES] = {
    [ATOM_GPU_W4A4] = &atom_gpu_w4,
    [ATOM_GPU_W4A8] = &atom_gpu_w4,
    [ATOM_GPU_W8A8] = &atom_gpu_w8a8,
    [ATOM_GPU_W4A16] = &atom_gpu_w4a16,
    [ATOM_GPU_BLAS_FP16] = &atom_gpu_blas_fp16,
    [ATOM_GPU_BLAS_INT8] = &atom_gpu_blas_int8,
    [ATOM_GPU_BLAS_FP8] = &atom_gpu_blas_fp8,
};

double atom_gpu_result_f16(const void *row, size_t i) { return (double)atom_f16_float(((const uint16_t *)row)[i]); }

/* What is measured now. */
struct linear {
    struct atom_gpu_run *run;
    const struct atom_gpu_matrix *m;
    enum atom_gpu_scheme scheme;
    const struct atom_gpu_linear_kind *kind;
    struct atom_gpu_linear open;
    void *y;
    int n_tok, copies, checked;
};

/* ---- comparing --------------------------------------------------------------------------------------------------- */

enum { SAMPLES = 7 };

/* First and last of n, and some between; ascending, perhaps some twice. */
static void pick(int n, int seed, int out[SAMPLES])
{
    for (int i = 0; i < SAMPLES; i++) {
        int from = (int)((int64_t)n * i / SAMPLES), end = (int)((int64_t)n * (i + 1) / SAMPLES);
        out[i] = end > from ? from + (int)(atom_gpu_hash((uint32_t)seed, (uint32_t)i) % (uint32_t)(end - from)) : from;
    }
    out[0] = 0;
    out[SAMPLES - 1] = n - 1;
}

static enum atom_status compare_row(struct linear *l, int copy, int tok, const void *row, struct atom_error *err)
{
    int rows[SAMPLES];
    pick(l->m->n, tok + 1, rows);
    for (int i = 0; i < SAMPLES; i++) {
        double got = l->kind->result(row, (size_t)rows[i]);
        struct atom_gpu_wanted want = l->kind->wanted(l->open.state, copy, tok, rows[i]);
        if (!(fabs(got - want.value) <= want.allowed))
            return atom_fail(err, ATOM_ERR_NUMERIC,
                             "linear %s of %s, %d tokens: token %d, row %d is %.9g; the formula says %.9g within %.2g",
                             atom_gpu_scheme_names[l->scheme], l->m->shape, l->n_tok, tok, rows[i], got, want.value,
                             want.allowed);
        l->checked++;
    }
    return ATOM_OK;
}

static enum atom_status compare(struct linear *l, struct atom_error *err)
{
    int toks[SAMPLES], copy = l->copies - 1;
    size_t row_bytes = atom_gpu_y_stride(l->m->n) * l->kind->y_bytes, all = (size_t)l->n_tok * row_bytes;
    uint8_t *y = (uint8_t *)l->y + (size_t)copy * all;
    void *row = malloc(row_bytes);
    if (!row)
        return atom_fail_nomem(err, row_bytes);
    pick(l->n_tok, 0, toks);
    l->checked = 0;
    enum atom_status st = atom_cuda_fill(y, 0xFF, all, err);
    st = st ? st : l->kind->put(l->open.state, copy, atom_gpu_timer_stream(l->run->timer), err);
    st = st ? st : atom_cuda_stream_wait(atom_gpu_timer_stream(l->run->timer), err);
    for (int i = 0; i < SAMPLES && !st; i++) {
        if (i && toks[i] == toks[i - 1])
            continue;
        st = atom_cuda_download(row, y + (size_t)toks[i] * row_bytes, row_bytes, err);
        st = st ? st : compare_row(l, copy, toks[i], row, err);
    }
    free(row);
    return st;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

static struct atom_gpu_line blank_line(const struct linear *l)
{
    struct atom_gpu_line line = {.what = ATOM_GPU_LINEAR, .n = l->m->n, .k = l->m->k};
    snprintf(line.name, sizeof line.name, "%s", atom_gpu_scheme_names[l->scheme]);
    snprintf(line.shape, sizeof line.shape, "%s", l->m->shape);
    snprintf(line.whose, sizeof line.whose, "%s", l->m->whose);
    return line;
}

static double launch_bytes(const struct linear *l, int n_tok)
{
    return l->open.weight_bytes + (double)l->kind->acts_bytes(l->m, n_tok) +
           (double)n_tok * (double)atom_gpu_y_stride(l->m->n) * (double)l->kind->y_bytes;
}

/* Devices with INT4 tensor cores multiply 4 bits by 4 on them. */
static enum atom_gpu_ceiling bound_of(const struct linear *l)
{
    bool int4 = l->scheme == ATOM_GPU_W4A4 && l->run->ceilings.at[ATOM_GPU_INT4].rate > 0;
    return int4 ? ATOM_GPU_INT4 : l->kind->bound;
}

static enum atom_status time_both(struct linear *l, struct atom_error *err)
{
    const struct atom_gpu_work work = {l->kind->put, l->open.state, l->copies},
                               quantize = {l->kind->put_quantize, l->open.state, l->copies};
    struct atom_gpu_line line = blank_line(l);
    struct atom_gpu_time time = {0};
    enum atom_status st = ATOM_OK;
    line.tokens = l->n_tok;
    line.ops = 2.0 * l->n_tok * l->m->n * l->m->k;
    line.bytes = launch_bytes(l, l->n_tok);
    line.checked = l->checked;
    line.bound = bound_of(l);
    if (quantize.put) {
        st = atom_gpu_timer_run(l->run->timer, &quantize, false, l->run->repeat, &time, err);
        line.quantize_s = time.median_s;
    }
    for (int cold = 1; cold >= 0 && !st; cold--) {
        if (cold && line.bytes * l->copies < ATOM_GPU_COLD_BYTES)
            continue;
        st = atom_gpu_timer_run(l->run->timer, &work, cold, l->run->repeat, &time, err);
        line.cold = cold;
        if (!st)
            atom_gpu_tell_line(l->run, &line, &time, ATOM_GPU_READ);
    }
    return st;
}

/* A line without a time says why there is none: of a scheme, or of one number of tokens. */
static void tell_missing(const struct linear *l, int n_tok, const struct atom_error *why)
{
    struct atom_gpu_line line = blank_line(l);
    line.tokens = n_tok;
    snprintf(line.how, sizeof line.how, "%.*s", ATOM_GPU_HOW - 1, why->message);
    atom_gpu_tell_line(l->run, &line, NULL, ATOM_GPU_NONE);
}

static enum atom_status measure_tokens(struct linear *l, int n_tok, struct atom_error *err)
{
    struct atom_error why = {0};
    char phase[96];
    l->n_tok = n_tok;
    l->copies = atom_gpu_copies(launch_bytes(l, n_tok));
    l->copies = l->copies < l->open.copies ? l->copies : l->open.copies;
    snprintf(phase, sizeof phase, "%s %s", atom_gpu_scheme_names[l->scheme], l->m->shape);
    enum atom_status st = atom_gpu_tell(l->run, phase, err);
    if (st)
        return st;
    st = l->kind->set(l->open.state, n_tok, l->copies, &why);
    if (st == ATOM_ERR_UNSUPPORTED) {
        tell_missing(l, n_tok, &why);
        return ATOM_OK;
    }
    if (st)
        return atom_fail(err, st, "%s", why.message);
    st = compare(l, err);
    return st ? st : time_both(l, err);
}

static enum atom_status measure_scheme(struct linear *l, struct atom_error *err)
{
    const struct atom_bench_list *tokens = &l->run->plan.tokens;
    const struct atom_gpu_linear_ask ask = {l->m, l->scheme, l->run->plan.max_tok, l->y};
    struct atom_error why = {0};
    enum atom_status st = l->kind->open(&ask, &l->open, &why);
    if (st == ATOM_ERR_UNSUPPORTED) {
        tell_missing(l, 0, &why);
        l->run->done += tokens->n;
        return ATOM_OK;
    }
    if (st)
        return atom_fail(err, st, "%s", why.message);
    for (int i = 0; i < tokens->n && !st; i++)
        st = measure_tokens(l, tokens->at[i], err);
    l->kind->close(l->open.state);
    return st;
}

int atom_gpu_count_linears(const struct atom_gpu_run *run)
{
    int n = 0;
    for (int s = 0; s < ATOM_GPU_N_SCHEMES; s++)
        n += run->plan.schemes[s];
    return n * run->plan.n_matrices * run->plan.tokens.n;
}

enum atom_status atom_gpu_linears(struct atom_gpu_run *run, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->plan.n_matrices && !st; i++) {
        struct linear l = {.run = run, .m = &run->plan.matrices[i]};
        size_t most = (size_t)run->plan.max_tok * atom_gpu_y_stride(l.m->n) * 4;
        st = atom_cuda_alloc(atom_gpu_pool(most), &l.y, err);
        for (int s = 0; s < ATOM_GPU_N_SCHEMES && !st; s++) {
            l.scheme = (enum atom_gpu_scheme)s;
            l.kind = kinds[s];
            if (run->plan.schemes[s])
                st = measure_scheme(&l, err);
        }
        atom_cuda_free(l.y);
    }
    return st;
}
