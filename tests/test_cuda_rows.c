/* SPDX-License-Identifier: Apache-2.0 */
/* Row operations on the device: integers and silu against the scalar kernels exactly, a norm's floats within what its
 * sum of squares may round. */
#include "cuda.h"
#include "cuda_floats.h"

#include "base/half.h"
#include "cuda/row_ops.h"
#include "kernels/kernels.h"

enum op { NORM, GATHER, SILU, N_OPS };

struct problem {
    enum op op;
    int k, outliers, n_rows, n_tok, bits;
    bool whole, picks, marks, ordered;
    enum atom_cuda_float in, out;
    size_t in_stride, out_stride;
    float eps, clip;
    float *x; /* [n_rows, width], as the device reads them */
    int width;
    int32_t *order, *rows;
    float *weight;
    struct atom_layout lay;
    struct atom_cuda_site site;
    struct atom_cuda_row_op job;
};

struct result {
    int8_t *q;
    float *scales, *y;
    int32_t *bad;
};

static struct atom_kernels scalar;
static bool all_even; /* integers of rows of 16-bit numbers whose 16-byte pieces lie at even places */

static void *array(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* ---- problems ---------------------------------------------------------------------------------------------------- */

static void make_rows(struct problem *p)
{
    size_t size = type_bytes(p->in), n_bytes;
    p->width = p->op == SILU ? 2 * p->k : p->k;
    p->in_stride = (size_t)p->width + (size_t)(between(0, 1) && !all_even ? between(0, 9) : (8 - p->width % 8) % 8);
    n_bytes = (size_t)p->n_rows * p->in_stride * size;
    uint8_t *raw = array(n_bytes, 1);
    p->x = array((size_t)p->n_rows * (size_t)p->width, sizeof(float));
    memset(raw, 0xFF, n_bytes); /* NaN between the rows */
    for (int r = 0; r < p->n_rows; r++) {
        int style = between(0, 2) ? ORDINARY : between(0, N_STYLES - 1);
        for (int i = 0; i < p->width; i++) {
            float x = number(style);
            x = p->in == ATOM_CUDA_F16 && fabsf(x) > 60000 ? unit() : x;
            put_element(p->in, raw, (size_t)r * p->in_stride + (size_t)i, x);
            p->x[(size_t)r * (size_t)p->width + (size_t)i] = rounded(p->in, x);
        }
        if (between(0, 7) == 0) {
            int at = between(0, p->width - 1);
            float x = between(0, 1) ? NAN : -INFINITY;
            put_element(p->in, raw, (size_t)r * p->in_stride + (size_t)at, x);
            p->x[(size_t)r * (size_t)p->width + (size_t)at] = x;
        }
    }
    p->job.in = (struct atom_cuda_rows){p->in, on_device(raw, n_bytes), p->in_stride, p->n_rows, p->width};
    free(raw);
}

static void make_order(struct problem *p)
{
    p->order = array((size_t)p->k, sizeof *p->order);
    for (int i = 0; i < p->k; i++)
        p->order[i] = i;
    for (int i = p->k - 1; i > 0 && p->ordered; i--) {
        int j = between(0, i), other = p->order[i];
        p->order[i] = p->order[j];
        p->order[j] = other;
    }
    if (p->ordered)
        p->job.to.order = on_device(p->order, (size_t)p->k * sizeof *p->order);
}

/* Where results go is full of 0xFF. */
static void make_out(struct problem *p)
{
    struct atom_cuda_quantizer *to = &p->job.to;
    int32_t *bad = array((size_t)p->n_tok, sizeof *bad);
    to->bits = p->bits;
    to->clip = p->clip;
    to->where = p->marks ? 7 : 0;
    for (int t = 0; t < p->n_tok; t++)
        bad[t] = t % 5 == 3 ? 2 : 0;
    to->bad = on_device(bad, (size_t)p->n_tok * sizeof *bad);
    free(bad);
    if (p->bits == 16) {
        p->out_stride = (size_t)p->k + (size_t)between(0, 9);
        to->floats =
            (struct atom_cuda_rows){p->out, on_device(NULL, (size_t)p->n_tok * p->out_stride * type_bytes(p->out)),
                                    p->out_stride, p->n_tok, p->k};
        return;
    }
    int stride = (p->n_tok + 63) / 64 * 64;
    to->acts = (struct atom_cuda_acts){
        .site = p->site,
        .n_tok = p->n_tok,
        .tok_stride = stride,
        .q = on_device(NULL, (size_t)stride * (size_t)p->site.k_padded),
        .scales = on_device(NULL, (size_t)p->site.n_scales * (size_t)stride * sizeof(float)),
        .bits = p->bits,
    };
    if (between(0, 1))
        to->acts.scale_parts = on_device(NULL, 4 * (size_t)p->site.n_scales * (size_t)stride * sizeof(float));
}

static void make_problem(struct problem *p, enum op op, int k, int n_tok)
{
    memset(p, 0, sizeof *p);
    p->op = op;
    p->k = k;
    p->n_tok = n_tok;
    p->whole = between(0, 4) == 0;
    p->outliers = p->whole || !between(0, 3) ? 0 : between(0, 3) ? between(0, k < 300 ? k : 300) : k < 128 ? k : 128;
    p->bits = between(0, 3) ? between(2, 8) : 16;
    p->marks = between(0, 3);
    p->picks = between(0, 3) == 0;
    p->n_rows = p->picks ? n_tok + 3 : n_tok;
    p->ordered = op != SILU && between(0, 3);
    p->in = (enum atom_cuda_float)between(0, 2);
    p->out = (enum atom_cuda_float)between(0, 2);
    p->clip = between(0, 1) ? 1.0f : 0.9f;
    if (all_even) {
        p->in = p->in == ATOM_CUDA_F32 ? ATOM_CUDA_BF16 : p->in;
        p->bits = p->bits == 16 ? 4 : p->bits;
        p->outliers = p->outliers / 16 * 16;
        p->picks = false;
        p->n_rows = n_tok;
    }
    p->eps = 1e-5f;
    assert_ok(atom_layout_init(&p->lay, k, p->whole ? 0 : 128, p->outliers, &cuda_err), &cuda_err);
    if (p->whole)
        atom_cuda_site_init_whole(&p->site, k);
    else
        atom_cuda_site_init(&p->site, k, p->outliers);
    make_rows(p);
    make_order(p);
    make_out(p);
    p->weight = array((size_t)k, sizeof(float));
    for (int i = 0; i < k; i++)
        p->weight[i] = 1.0f + 0.5f * unit();
    p->job.weight = on_device(p->weight, (size_t)k * sizeof(float));
    p->job.eps = p->eps;
    p->rows = array((size_t)n_tok, sizeof *p->rows);
    for (int t = 0; t < n_tok; t++)
        p->rows[t] = p->picks ? between(-1, p->n_rows) : t;
    if (p->picks)
        p->job.rows = on_device(p->rows, (size_t)n_tok * sizeof *p->rows);
}

static void drop(const void *device) { atom_cuda_free((void *)(uintptr_t)device); }

static void drop_problem(struct problem *p)
{
    drop(p->job.in.x);
    drop(p->job.rows);
    drop(p->job.weight);
    drop(p->job.to.order);
    drop(p->job.to.bad);
    drop(p->job.to.acts.q);
    drop(p->job.to.acts.scales);
    drop(p->job.to.acts.scale_parts);
    drop(p->job.to.floats.x);
    free(p->x);
    free(p->order);
    free(p->rows);
    free(p->weight);
    atom_layout_fini(&p->lay);
}

/* ---- what is expected -------------------------------------------------------------------------------------------- */

/* Values of a token in stored order, given 1 / rms; NaN in all of them when its row is not there. */
static void values(const struct problem *p, int t, float r, float *v)
{
    int row = p->rows[t];
    if (row < 0 || row >= p->n_rows) {
        for (int i = 0; i < p->k; i++)
            v[i] = NAN;
        return;
    }
    const float *x = p->x + (size_t)row * (size_t)p->width;
    if (p->op == SILU)
        scalar.silu_mul(x, x + p->k, p->k, v);
    else if (p->op == NORM)
        scalar.norm(x, p->order, p->weight, r, p->k, v);
    else
        for (int i = 0; i < p->k; i++)
            v[i] = x[p->order[i]];
}

/* 1 / rms as a chain in double; how far a float sum in any order may make it differ goes to *bound, relative. */
static double exact_r(const struct problem *p, int t, double *bound)
{
    int row = p->rows[t];
    double sum = 0;
    *bound = 0.5 * (p->k + 2) * 0x1p-24 + 4 * 0x1p-24;
    if (p->op != NORM || row < 0 || row >= p->n_rows)
        return 1;
    for (int i = 0; i < p->k; i++) {
        double x = (double)p->x[(size_t)row * (size_t)p->width + (size_t)i];
        sum += x * x;
    }
    /* squares that float32 has no exponent for */
    *bound = sum / p->k < 1e-12 ? 1e-3 : *bound;
    return sum / p->k > (double)FLT_MAX / 1.01 / p->k ? NAN : 1 / sqrt(sum / p->k + (double)p->eps);
}

static bool all_finite(const float *v, int k)
{
    for (int i = 0; i < k; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

static void check_bad(const struct problem *p, int t, bool fine, int32_t bad)
{
    int before = t % 5 == 3 ? 2 : 0;
    assert_int_equal(bad, !fine && p->marks && !before ? 7 : before);
}

/* Integers of values v; a norm's may be one off where its value is within the bound of a tie. */
static void check_integers(const struct problem *p, const struct result *res, int t, const float *v, double bound)
{
    int8_t *q = array((size_t)p->lay.k_padded, 1);
    float *scales = array((size_t)p->lay.n_scales, sizeof *scales);
    int32_t *sums = array((size_t)p->lay.n_runs, sizeof *sums);
    bool fine = scalar.quantize(v, &p->lay, p->bits, p->clip, q, scales, sums);
    size_t stride = (size_t)p->job.to.acts.tok_stride;
    check_bad(p, t, fine, res->bad[t]);
    int n_nan = 0;
    for (int i = 0; i < p->lay.n_scales; i++)
        n_nan += isnan(res->scales[(size_t)i * stride + (size_t)t]);
    assert_true(fine || p->marks ? n_nan == 0 : n_nan > 0);
    for (int i = 0; i < p->lay.n_scales && fine; i++) {
        float got = res->scales[(size_t)i * stride + (size_t)t];
        if (!(fabs((double)got - (double)scales[i]) <= 2 * bound * (double)scales[i]))
            fail_msg("op %d, k %d: token %d, scale %d is %.9g, not %.9g", (int)p->op, p->k, t, i, (double)got,
                     (double)scales[i]);
    }
    const int8_t *got = res->q + (size_t)t * (size_t)p->site.k_padded;
    for (int r = 0; r < p->lay.n_runs && fine; r++)
        for (int c = 0; c < ATOM_CUDA_RUN; c++) {
            const struct atom_run *run = &p->lay.runs[r];
            int want = c < run->len ? q[run->offset + c] : 0, is = got[r * ATOM_CUDA_RUN + c];
            double at = c < run->len ? (double)v[run->first + c] / (double)scales[run->scale] : 0;
            bool near_tie = fabs(fabs(at - floor(at)) - 0.5) <= 4 * (bound + 0x1p-24) * (fabs(at) + 1);
            if (is != want && !(bound > 0 && near_tie && abs(is - want) == 1))
                fail_msg("op %d, type %d, k %d, outliers %d, bits %d: token %d, run %d, channel %d is %d, not %d (%g)",
                         (int)p->op, (int)p->in, p->k, p->outliers, p->bits, t, r, c, is, want, at);
        }
    free(q);
    free(scales);
    free(sums);
}

static void check_floats(const struct problem *p, const struct result *res, int t, const float *v, double bound)
{
    bool fine = all_finite(v, p->k), zeros = !fine && p->marks;
    double step = p->out == ATOM_CUDA_F32 ? 0 : p->out == ATOM_CUDA_F16 ? 0x1p-10 : 0x1p-7;
    check_bad(p, t, fine, res->bad[t]);
    for (int i = 0; i < p->k; i++) {
        float want = rounded(p->out, v[i]), got = res->y[(size_t)t * p->out_stride + (size_t)i];
        want = zeros && (got == 0.0f || !isfinite(v[i])) ? 0.0f : want;
        bool same = want == got || (isnan(want) && isnan(got));
        double most = bound > 0 ? (2 * bound + step) * fabs((double)want) + 0x1p-24 : 0;
        if (!same && !(fabs((double)want - (double)got) <= most) && !(bound > 0 && isinf(rounded(p->out, got))))
            fail_msg("op %d, type %d to %d, k %d: token %d, channel %d is %.9g, not %.9g", (int)p->op, (int)p->in,
                     (int)p->out, p->k, t, i, (double)got, (double)want);
    }
    for (size_t i = (size_t)p->k; i < p->out_stride; i++)
        assert_true(isnan(res->y[(size_t)t * p->out_stride + i]));
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void run_op(const struct problem *p, const struct atom_cuda_row_op *job)
{
    enum atom_status st = p->op == NORM     ? atom_cuda_norm(job, NULL, &cuda_err)
                          : p->op == GATHER ? atom_cuda_gather(job, NULL, &cuda_err)
                                            : atom_cuda_silu_mul(job, NULL, &cuda_err);
    cuda_ok(st);
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
}

static void *from_device(const void *device, size_t n_bytes)
{
    void *p = array(n_bytes, 1);
    cuda_ok(atom_cuda_download(p, device, n_bytes, &cuda_err));
    return p;
}

/* Scales in parts are the scales: three numbers of at most 11 bits, a sixteenth where channels are normal. */
static void check_parts(const struct problem *p, const float *scales)
{
    size_t stride = (size_t)p->job.to.acts.tok_stride, n = (size_t)p->site.n_scales * stride;
    float *parts = from_device(p->job.to.acts.scale_parts, 4 * n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        const float *part = parts + 4 * i;
        float want = i / stride < (size_t)p->site.n_groups ? scales[i] * 0.0625f : scales[i];
        if ((int)(i % stride) >= p->n_tok) { /* guards */
            assert_true(isnan(part[0]) && isnan(part[3]));
            continue;
        }
        assert_true(isnan(want) || ((part[0] + part[1]) + part[2] == want && part[3] == 0.0f));
        for (int j = 0; j < 3 && !isnan(want); j++) {
            uint32_t bits;
            memcpy(&bits, &part[j], sizeof bits);
            assert_int_equal(bits & 0x1FFF, 0);
        }
    }
    free(parts);
}

static struct result results(const struct problem *p)
{
    const struct atom_cuda_quantizer *to = &p->job.to;
    struct result res = {.bad = from_device(to->bad, (size_t)p->n_tok * sizeof(int32_t))};
    if (p->bits < 16) {
        size_t stride = (size_t)to->acts.tok_stride;
        res.q = from_device(to->acts.q, stride * (size_t)p->site.k_padded);
        res.scales = from_device(to->acts.scales, (size_t)p->site.n_scales * stride * sizeof(float));
        for (size_t i = 0; i < (size_t)p->site.n_scales * stride; i++)
            assert_true((int)(i % stride) < p->n_tok || isnan(res.scales[i])); /* guards */
        for (size_t i = (size_t)p->n_tok * (size_t)p->site.k_padded; i < stride * (size_t)p->site.k_padded; i++)
            assert_int_equal(res.q[i], -1);
        if (to->acts.scale_parts)
            check_parts(p, res.scales);
        return res;
    }
    size_t n = (size_t)p->n_tok * p->out_stride;
    void *raw = from_device(to->floats.x, n * type_bytes(p->out));
    res.y = array(n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        res.y[i] = element(p->out, raw, i);
    free(raw);
    return res;
}

static void drop_results(struct result *res)
{
    free(res->q);
    free(res->scales);
    free(res->y);
    free(res->bad);
}

static void check_problem(const struct problem *p)
{
    run_op(p, &p->job);
    struct result res = results(p);
    float *v = array((size_t)p->k, sizeof *v);
    for (int t = 0; t < p->n_tok; t++) {
        double bound, r = exact_r(p, t, &bound);
        bound = p->op == NORM ? bound : 0;
        values(p, t, (float)r, v);
        if (p->bits == 16)
            check_floats(p, &res, t, v, bound);
        else
            check_integers(p, &res, t, v, bound);
    }
    free(v);
    drop_results(&res);
}

static void rows_are_the_scalar_kernels(void **state)
{
    (void)state;
    need_device();
    seed = 51;
    static const int toks[] = {1, 2, 5, 33, 64, 100};
    for (int round = 0; round < 150; round++) {
        struct problem p;
        int k = round % 3 == 0 ? between(1, 300) : round % 3 == 1 ? between(1, 40) * 128 : between(300, 3000);
        make_problem(&p, (enum op)(round % N_OPS), k, toks[between(0, 5)]);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* Several chunks a thread, shared memory past 48 KB, rows that fit in neither registers nor shared memory. */
static void wide_rows(void **state)
{
    (void)state;
    need_device();
    seed = 52;
    static const int widths[] = {8192, 11008, 14336, 16384, 16500, 28672, 32640, 32768, 33000, 70001};
    for (int round = 0; round < 60; round++) {
        struct problem p;
        make_problem(&p, (enum op)(round % N_OPS), widths[round / N_OPS % 10], between(1, 3));
        check_problem(&p);
        drop_problem(&p);
    }
}

/* Enough tokens for a block to take several. */
static void many_tokens(void **state)
{
    (void)state;
    need_device();
    seed = 53;
    for (int round = 0; round < 12; round++) {
        struct problem p;
        static const int widths[] = {100, 1000, 4096, 8192}, toks[] = {6001, 6000, 1501, 303};
        make_problem(&p, (enum op)(round % N_OPS), widths[round / N_OPS], toks[round / N_OPS]);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* Rows at even places, which go two at a time: odd numbers of them too, and scales that runs share. */
static void pairs_of_rows(void **state)
{
    (void)state;
    need_device();
    seed = 57;
    static const int widths[] = {4096, 5120, 8192, 2048, 11008, 16384, 144}, toks[] = {133, 290, 611};
    all_even = true;
    for (int round = 0; round < 42; round++) {
        struct problem p;
        make_problem(&p, round % 4 == 3 ? GATHER : NORM, widths[round % 7], toks[round / 7 % 3]);
        check_problem(&p);
        drop_problem(&p);
    }
    all_even = false;
}

static bool same_bits(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

/* Tokens from t on, by themselves, have the bits that they have among all. */
static void check_some(const struct problem *p, const struct result *all, int t, int n)
{
    struct atom_cuda_row_op some = p->job;
    size_t row = (size_t)p->site.k_padded, stride = (size_t)p->job.to.acts.tok_stride;
    some.in.x = (uint8_t *)some.in.x + (size_t)t * p->in_stride * type_bytes(p->in);
    some.in.n_tok = some.to.acts.n_tok = n;
    some.to.bad = NULL, some.to.where = 0;
    run_op(p, &some);
    struct result res = results(p);
    for (int i = 0; i < n; i++) {
        if (all->bad[t + i])
            continue;
        assert_memory_equal(all->q + (size_t)(t + i) * row, res.q + (size_t)i * row, row);
        for (size_t g = 0; g < (size_t)p->site.n_scales; g++)
            assert_true(same_bits(all->scales[g * stride + (size_t)(t + i)], res.scales[g * stride + (size_t)i]));
    }
    drop_results(&res);
}

/* The device shares few rows out otherwise than many; that must not show. */
static void batches_change_nothing(void **state)
{
    (void)state;
    need_device();
    seed = 54;
    static const int widths[] = {1000, 4096, 8192};
    for (int done = 0; done < 12;) {
        struct problem p;
        make_problem(&p, NORM, widths[done % 3], 300);
        bool even = p.site.outliers % 16 == 0 && p.in_stride % 8 == 0;
        if (p.bits < 16 && !p.picks && (even || done % 3 == 0)) {
            run_op(&p, &p.job);
            struct result all = results(&p);
            for (int t = 0; t < 200; t += 33) {
                check_some(&p, &all, t, 1);
                check_some(&p, &all, t, 13);
                check_some(&p, &all, t, 100);
            }
            drop_results(&all);
            done++;
        }
        drop_problem(&p);
    }
}

static void checks_find_bad_rows(void **state)
{
    (void)state;
    need_device();
    seed = 55;
    for (int round = 0; round < 12; round++) {
        struct problem p;
        make_problem(&p, NORM, between(1, 5000), 50);
        const struct atom_cuda_row_check job = {p.job.in, on_device(NULL, 4 * (size_t)p.n_rows), 9};
        cuda_ok(atom_cuda_fill(job.bad, 0, 4 * (size_t)p.n_rows, &cuda_err));
        cuda_ok(atom_cuda_check_rows(&job, NULL, &cuda_err));
        int32_t *bad = from_device(job.bad, 4 * (size_t)p.n_rows);
        for (int r = 0; r < p.n_rows; r++) {
            double sum = 0;
            for (int i = 0; i < p.k; i++)
                sum += (double)p.x[(size_t)(r * p.k + i)] * (double)p.x[(size_t)(r * p.k + i)];
            if (!(fabs(sum / (double)FLT_MAX - 1) < 0.01))
                assert_int_equal(bad[r], sum < (double)FLT_MAX ? 0 : 9);
        }
        free(bad);
        drop(job.bad);
        drop_problem(&p);
    }
}

/* ---- embedding --------------------------------------------------------------------------------------------------- */

static void check_embedding(int vocab, int width, int n_tok)
{
    enum atom_cuda_float from = (enum atom_cuda_float)between(0, 2), to = (enum atom_cuda_float)between(0, 2);
    size_t n = (size_t)vocab * (size_t)width, stride = (size_t)width + (size_t)between(0, 9);
    size_t out_bytes = (size_t)n_tok * stride * type_bytes(to);
    uint8_t *table = array(n, type_bytes(from));
    int32_t *tokens = array((size_t)n_tok, sizeof *tokens);
    for (size_t i = 0; i < n; i++)
        put_element(from, table, i, 3 * unit());
    for (int t = 0; t < n_tok; t++)
        tokens[t] = between(0, 9) ? between(0, vocab - 1) : between(0, 1) ? vocab + between(0, 9) : -between(1, 1000);
    struct atom_cuda_embed job = {from,
                                  on_device(table, n * type_bytes(from)),
                                  vocab,
                                  on_device(tokens, (size_t)n_tok * sizeof *tokens),
                                  {to, on_device(NULL, out_bytes), stride, n_tok, width},
                                  on_device(NULL, (size_t)n_tok * sizeof *tokens),
                                  3};
    cuda_ok(atom_cuda_embed(&job, NULL, &cuda_err));
    uint8_t *y = from_device(job.out.x, out_bytes);
    int32_t *bad = from_device(job.bad, (size_t)n_tok * sizeof *bad);
    for (int t = 0; t < n_tok; t++) {
        bool there = tokens[t] >= 0 && tokens[t] < vocab;
        assert_int_equal(bad[t], there ? 0 : 3);
        for (int i = 0; i < width; i++) {
            float want = there ? element(from, table, (size_t)tokens[t] * (size_t)width + (size_t)i) : 0.0f;
            assert_true(element(to, y, (size_t)t * stride + (size_t)i) == rounded(to, want));
        }
        for (size_t i = ((size_t)t * stride + (size_t)width) * type_bytes(to);
             i < (size_t)(t + 1) * stride * type_bytes(to); i++)
            assert_int_equal(y[i], 0xFF);
    }
    free(table), free(tokens), free(y), free(bad);
    drop(job.table), drop(job.tokens), drop(job.out.x), drop(job.bad);
}

static void embeddings_are_rows(void **state)
{
    (void)state;
    need_device();
    seed = 56;
    for (int round = 0; round < 40; round++)
        check_embedding(between(1, 90), round % 2 ? between(1, 2000) : 64 * between(1, 40), between(1, 70));
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    seed = 57;
    struct problem p;
    do {
        make_problem(&p, NORM, 256, 5);
        if (p.bits < 16 && p.ordered && !p.picks)
            break;
        drop_problem(&p);
    } while (true);
    struct atom_cuda_row_op bad = p.job;
    struct atom_error why = {0};
    bad.in.width = 255;
    assert_fails(atom_cuda_norm(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "255");
    bad = p.job, why = (struct atom_error){0};
    bad.to.bits = 9;
    assert_fails(atom_cuda_norm(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "9 bits");
    bad = p.job, why = (struct atom_error){0};
    bad.weight = NULL;
    assert_fails(atom_cuda_norm(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "no weights");
    bad = p.job, why = (struct atom_error){0};
    bad.in.n_tok = 4;
    assert_fails(atom_cuda_norm(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "4 rows for 5");
    bad = p.job, why = (struct atom_error){0};
    bad.to.acts.tok_stride = 65;
    assert_fails(atom_cuda_norm(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "multiple of 64");
    bad = p.job, why = (struct atom_error){0};
    bad.in.width = 512, bad.in.stride = 512;
    assert_fails(atom_cuda_silu_mul(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "order");
    drop_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_are_the_scalar_kernels),
                                       cmocka_unit_test(wide_rows),
                                       cmocka_unit_test(many_tokens),
                                       cmocka_unit_test(pairs_of_rows),
                                       cmocka_unit_test(batches_change_nothing),
                                       cmocka_unit_test(checks_find_bad_rows),
                                       cmocka_unit_test(embeddings_are_rows),
                                       cmocka_unit_test(bad_jobs_are_refused)};
    atom_kernels_scalar(&scalar);
    int rc = cmocka_run_group_tests_name("cuda rows", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
