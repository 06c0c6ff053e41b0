/* SPDX-License-Identifier: Apache-2.0 */
/* Linears on the device against the specification's sums over the checkpoint's tensors: exactly (sixteen bits as their
 * rounding), or, where the tensor cores make the products of scales, within what those cut off. */
#include "cuda.h"
#include "cuda_floats.h"

#include "base/half.h"
#include "cuda/linear_form.h"
#include "cuda/ops.h"

#include <limits.h>

struct part {
    int n, rows_per_scale;
    uint8_t *qweight;
    uint16_t *scales, *outlier_scales;
    int8_t *outlier_q;
};

struct problem {
    enum atom_cuda_form form;
    struct atom_cuda_site site;
    struct part parts[ATOM_CUDA_MAX_PARTS];
    struct atom_cuda_tensors tensors[ATOM_CUDA_MAX_PARTS]; /* on the device */
    int n_parts, n, n_tok, tok_stride, y_columns;
    bool by_turns, cold;
    int8_t *q;
    float *tok_scales, *bias;
    enum atom_cuda_float type;
    void *add;
    struct atom_cuda_weights *w;
    bool *cuts; /* [n, n_runs] */
    struct atom_cuda_acts acts;
};

static enum atom_cuda_form form_now = ATOM_CUDA_FORM_AUTO; /* of the weights that are made */

static void use_form(enum atom_cuda_form form)
{
    form_now = form;
    atom_cuda_force_form(form);
}

/* The forms that this device runs. */
static int forms_here(enum atom_cuda_form (*out)[3])
{
    static const enum atom_cuda_form all[] = {ATOM_CUDA_FORM_SM90, ATOM_CUDA_FORM_SM80, ATOM_CUDA_FORM_SM80_BYTES};
    int n = 0;
    for (int i = 0; i < 3; i++)
        if (atom_cuda_form_for_device(all[i], &(*out)[n], NULL) == ATOM_OK)
            n++;
    assert_true(n > 0);
    return n;
}

static void *bytes_of(size_t n)
{
    uint8_t *p = malloc(n + 1);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)draw();
    return p;
}

static uint16_t *scales_of(size_t n)
{
    uint16_t *p = malloc(2 * n + 2);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = atom_float_f16(fabsf(unit()) + 0x1p-10f);
    return p;
}

static void make_part(struct problem *p, int i, int n)
{
    struct part *t = &p->parts[i];
    size_t normal = (size_t)(p->site.k - p->site.outliers), row = (normal + 1) / 2, o = (size_t)p->site.outliers;
    *t = (struct part){.n = n, .rows_per_scale = between(1, 3)};
    size_t sets = (size_t)((n + t->rows_per_scale - 1) / t->rows_per_scale) * (size_t)p->site.n_groups;
    t->qweight = bytes_of((size_t)n * row);
    t->scales = scales_of(sets);
    t->outlier_q = bytes_of((size_t)n * o);
    t->outlier_scales = scales_of((size_t)n);
    p->tensors[i] = (struct atom_cuda_tensors){.n = n,
                                               .rows_per_scale = t->rows_per_scale,
                                               .qweight = on_device(t->qweight, (size_t)n * row + 1),
                                               .scales = on_device(t->scales, 2 * sets + 2),
                                               .outlier_qweight = on_device(t->outlier_q, (size_t)n * o + 1),
                                               .outlier_scales = on_device(t->outlier_scales, 2 * (size_t)n)};
    p->n += n;
}

/* As ops.h has them. */
static float *parts_of(const struct problem *p)
{
    size_t stride = (size_t)p->tok_stride, n = (size_t)p->site.n_scales * stride;
    float *parts = malloc(4 * n * sizeof(float) + 4);
    assert_non_null(parts);
    for (size_t i = 0; i < n; i++) {
        float s = p->tok_scales[i] * (i / stride < (size_t)p->site.n_groups ? 0.0625f : 1.0f);
        for (int part = 0; part < 4; part++) {
            uint32_t bits;
            memcpy(&bits, &s, sizeof bits);
            bits &= 0xFFFFE000u;
            memcpy(&parts[4 * i + (size_t)part], &bits, sizeof bits);
            s -= parts[4 * i + (size_t)part];
        }
    }
    return parts;
}

static void make_acts(struct problem *p)
{
    size_t k = (size_t)p->site.k_padded, stride = (size_t)p->tok_stride, n_scales = (size_t)p->site.n_scales;
    int bits = between(0, 1) ? 4 : 8, normal = p->site.k - p->site.outliers;
    p->q = calloc(stride * k, 1);
    p->tok_scales = malloc(n_scales * stride * sizeof(float));
    assert_non_null(p->q);
    assert_non_null(p->tok_scales);
    for (int t = 0; t < p->n_tok; t++)
        for (int c = 0; c < p->site.k; c++) {
            bool outlier = c >= normal;
            size_t at = outlier ? (size_t)(p->site.n_groups * ATOM_CUDA_RUN + c - normal) : (size_t)c;
            int half = outlier || bits == 8 ? 128 : 8;
            p->q[(size_t)t * k + at] = (int8_t)between(-half, half - 1);
        }
    for (size_t i = 0; i < n_scales * stride; i++)
        p->tok_scales[i] = (int)(i % stride) < p->n_tok ? fabsf(unit()) + 0x1p-8f : NAN;
    float *parts = parts_of(p);
    p->acts = (struct atom_cuda_acts){.site = p->site,
                                      .n_tok = p->n_tok,
                                      .tok_stride = p->tok_stride,
                                      .q = on_device(p->q, stride * k),
                                      .scales = on_device(p->tok_scales, n_scales * stride * sizeof(float)),
                                      .scale_parts = on_device(parts, 4 * n_scales * stride * sizeof(float)),
                                      .bits = bits};
    free(parts);
}

/* In front of which runs of a row another chain begins. */
static void find_cuts(struct problem *p)
{
    p->cuts = calloc((size_t)p->n * (size_t)p->site.n_runs, sizeof *p->cuts);
    assert_non_null(p->cuts);
    for (int r = 0; r < p->n; r++)
        for (int run = 1; run < p->site.n_runs; run++)
            p->cuts[r * p->site.n_runs + run] = atom_cuda_linear_is_cut(p->w, p->n_tok, r, run);
}

static void make_problem(struct problem *p, int k, int outliers, int n, int n_tok)
{
    memset(p, 0, sizeof *p);
    cuda_ok(atom_cuda_form_for_device(form_now, &p->form, &cuda_err));
    atom_cuda_site_init(&p->site, k, outliers);
    p->by_turns = between(0, 2) == 0;
    p->n_parts = p->by_turns ? 2 : between(1, 3);
    for (int i = 0; i < p->n_parts; i++)
        make_part(p, i, p->by_turns ? (n / 2 + 7) / 8 * 8 : i ? between(1, 40) : n);
    p->n_tok = n_tok;
    p->tok_stride = (n_tok + 63) / 64 * 64 + 64 * between(0, 2);
    make_acts(p);
    p->type = (enum atom_cuda_float)between(0, 2);
    p->y_columns = (p->n + 7) / 8 * 8 + 8 * between(0, 2);
    if (between(0, 1)) {
        p->bias = malloc((size_t)p->n * sizeof(float));
        for (int i = 0; i < p->n; i++)
            p->bias[i] = unit();
    }
    cuda_ok(atom_cuda_weights_create(&p->site, p->tensors, p->n_parts, p->by_turns, NULL, &p->w, &cuda_err));
    find_cuts(p);
}

static void drop_problem(struct problem *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        free(p->parts[i].qweight);
        free(p->parts[i].scales);
        free(p->parts[i].outlier_q);
        free(p->parts[i].outlier_scales);
        atom_cuda_free((void *)(uintptr_t)p->tensors[i].qweight);
        atom_cuda_free((void *)(uintptr_t)p->tensors[i].scales);
        atom_cuda_free((void *)(uintptr_t)p->tensors[i].outlier_qweight);
        atom_cuda_free((void *)(uintptr_t)p->tensors[i].outlier_scales);
    }
    atom_cuda_weights_free(p->w);
    atom_cuda_free(p->acts.q);
    atom_cuda_free(p->acts.scales);
    atom_cuda_free(p->acts.scale_parts);
    free(p->q);
    free(p->tok_scales);
    free(p->bias);
    free(p->add);
    free(p->cuts);
}

/* The part and row there of stacked row r. */
static const struct part *part_of(const struct problem *p, int *r)
{
    int i = 0;
    if (p->by_turns) {
        i = *r / 8 % 2;
        *r = *r / 16 * 8 + *r % 8;
        return &p->parts[i];
    }
    while (*r >= p->parts[i].n)
        *r -= p->parts[i++].n;
    return &p->parts[i];
}

/* The tensor cores of Hopper make the products of scales for many tokens. */
static bool cuts_scales(const struct problem *p) { return p->n_tok > 64 && p->form == ATOM_CUDA_FORM_SM90; }

/* y of the specification; slack, how far from it a sum may be whose products of scales are one unit in the last place
 * off: that, and the roundings of two chains of fma that part there. */
static float formula(const struct problem *p, int t, int r, double *slack)
{
    const struct atom_cuda_site *s = &p->site;
    const bool *cuts = p->cuts + r * s->n_runs;
    const struct part *w = part_of(p, &r);
    int normal = s->k - s->outliers;
    double terms = 0;
    float y = 0.0f, before = 0.0f; /* of a chain, and those in front of it */
    for (int run = 0; run < s->n_runs; run++) {
        if (cuts[run]) {
            before += y;
            y = 0.0f;
        }
        const int8_t *q = p->q + (size_t)t * (size_t)s->k_padded + (size_t)run * ATOM_CUDA_RUN;
        bool outlier = run >= s->n_groups;
        int first = outlier ? (run - s->n_groups) * ATOM_CUDA_RUN : run * ATOM_CUDA_RUN,
            scale = outlier ? s->n_groups : run;
        int end = outlier ? s->outliers : normal, acc = 0;
        for (int c = first; c < end && c < first + ATOM_CUDA_RUN; c++) {
            int both = outlier ? 0 : w->qweight[(size_t)r * (size_t)((normal + 1) / 2) + (size_t)(c / 2)];
            int weight = outlier ? w->outlier_q[(size_t)r * (size_t)s->outliers + (size_t)c]
                                 : (c % 2 ? both >> 4 : both & 15) - 8;
            acc += weight * q[c - first];
        }
        float s_w =
            atom_f16_float(outlier ? w->outlier_scales[r]
                                   : w->scales[(size_t)(r / w->rows_per_scale) * (size_t)s->n_groups + (size_t)run]);
        float by = p->tok_scales[(size_t)scale * (size_t)p->tok_stride + (size_t)t] * s_w;
        y = fmaf((float)acc, by, y);
        terms += fabs((double)acc * (double)by);
    }
    *slack = cuts_scales(p) ? terms * 0x1p-23 * (1 + s->n_runs) : 0;
    return before + y;
}

static void check_silu(const struct problem *p, const void *y, size_t stride)
{
    for (int t = 0; t < p->n_tok; t += 1 + t % 3)
        for (int r = 0; r < p->n / 2; r += 1 + r % 5) {
            int at = r / 8 * 16 + r % 8;
            double g_slack, u_slack;
            double g = (double)formula(p, t, at, &g_slack) + (p->bias ? (double)p->bias[at] : 0);
            double u = (double)formula(p, t, at + 8, &u_slack) + (p->bias ? (double)p->bias[at + 8] : 0);
            double want = g / (1 + exp(-g)) * u, got = (double)element(p->type, y, (size_t)t * stride + (size_t)r);
            double step = p->type == ATOM_CUDA_F32 ? 0x1p-20 : p->type == ATOM_CUDA_F16 ? 0x1p-10 : 0x1p-7;
            bool over = p->type == ATOM_CUDA_F16 && fabs(want) > 65000;
            /* __expf is within 2 ulp and some of its argument's size; sums of bias round once more */
            double slack = 1.1 * g_slack * fabs(u) + fabs(g) * u_slack; /* silu's slope stays under 1.1 */
            if (!over && !(fabs(got - want) <= (step + 0x1p-22 * (fabs(g) + 2)) * fabs(want) + 0x1p-14 * step + slack))
                fail_msg("silu, token %d, row %d: %g, not %g", t, r, got, want);
        }
}

static void check_rows(const struct problem *p, const void *y, const void *add, size_t stride)
{
    for (int t = 0; t < p->n_tok; t += 1 + t % 3)
        for (int r = 0; r < p->n; r += 1 + r % 5) {
            size_t at = (size_t)t * stride + (size_t)r;
            double slack;
            float sum = formula(p, t, r, &slack) + (p->bias ? p->bias[r] : 0.0f);
            sum = add ? sum + element(p->type, add, at) : sum;
            float want = rounded(p->type, sum), got = element(p->type, y, at);
            double step = p->type == ATOM_CUDA_F32 ? 0x1p-24 : p->type == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
            bool near =
                slack > 0 && fabs((double)got - (double)sum) <= slack + step * (fabs((double)sum) + slack) + 0x1p-24;
            if (got != want && !near)
                fail_msg("type %d, k %d, outliers %d, rows %d, %d tokens: token %d, row %d is %.9g, not %.9g",
                         (int)p->type, p->site.k, p->site.outliers, p->n, p->n_tok, t, r, (double)got, (double)want);
        }
}

/* Bytes past the rows' ends are as they were. */
static void check_guards(const struct problem *p, const uint8_t *y, size_t stride, int columns)
{
    size_t size = type_bytes(p->type);
    for (int t = 0; t < p->n_tok; t++)
        for (size_t i = ((size_t)t * stride + (size_t)columns) * size; i < (size_t)(t + 1) * stride * size; i++)
            assert_int_equal(y[i], 0xFF);
}

static void check_problem(struct problem *p)
{
    bool silu = p->by_turns && between(0, 1);
    size_t stride = (size_t)p->y_columns, n_bytes = (size_t)p->n_tok * stride * type_bytes(p->type);
    void *y = on_device(NULL, n_bytes), *back = malloc(n_bytes), *again = malloc(n_bytes), *add = NULL,
         *host_add = NULL;
    if (!silu && between(0, 1)) {
        host_add = malloc(n_bytes);
        for (size_t i = 0; i < (size_t)p->n_tok * stride; i++) {
            float x = unit();
            uint16_t h = p->type == ATOM_CUDA_F16 ? atom_float_f16(x) : atom_float_bf16(x);
            memcpy((uint8_t *)host_add + i * type_bytes(p->type), p->type == ATOM_CUDA_F32 ? (void *)&x : &h,
                   type_bytes(p->type));
        }
        add = on_device(host_add, n_bytes);
    }
    void *bias = p->bias ? on_device(p->bias, (size_t)p->n * sizeof(float)) : NULL;
    size_t ws_bytes = atom_cuda_linear_workspace(p->w, p->n_tok);
    void *ws = on_device(NULL, ws_bytes);
    cuda_ok(atom_cuda_fill(ws, 0, ws_bytes, &cuda_err));
    const struct atom_cuda_linear job = {p->w, &p->acts, p->type, y, stride, bias, add, silu, ws};
    for (int twice = 0; twice < 2; twice++) { /* a second run finds the workspace as the first left it */
        if (p->cold) /* weights come from memory: late, so that who does not wait for them is found out */
            atom_cuda_free(on_device(NULL, 3 * cuda_device.l2_bytes));
        cuda_ok(atom_cuda_fill(y, 0xFF, n_bytes, &cuda_err));
        cuda_ok(atom_cuda_linear_run(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
        cuda_ok(atom_cuda_download(twice ? again : back, y, n_bytes, &cuda_err));
    }
    if (silu)
        check_silu(p, back, stride);
    else
        check_rows(p, back, host_add, stride);
    check_guards(p, back, stride, silu ? p->n / 2 : p->n);
    assert_memory_equal(again, back, n_bytes);
    atom_cuda_free(y);
    atom_cuda_free(add);
    atom_cuda_free(bias);
    atom_cuda_free(ws);
    free(back);
    free(again);
    free(host_add);
}

static void check_random_sizes(void)
{
    static const int toks[] = {1, 7, 16, 17, 33, 64, 65, 128, 129, 192, 200, 385};
    seed = 31;
    for (int round = 0; round < 48; round++) {
        struct problem p;
        int k = between(1, 700), o = between(0, 3) ? between(0, k < 200 ? k : 200) : 0;
        make_problem(&p, k, o, between(1, 400), toks[round % 12]);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* As a model has them, then with more tiles than a device takes at once: rings that turn several times, blocks that go
 * on to other tiles, with their runs split and whole; on a H100 the last three split some tiles of many, all of many,
 * and all of few, with more of them than clusters at once. */
static void check_large(void)
{
    seed = 32;
    static const struct {
        int k, outliers, n, n_tok;
    } sizes[] = {{2048, 128, 3000, 1},    {2048, 128, 3000, 16},  {2048, 128, 3000, 64},  {2048, 128, 3000, 256},
                 {2048, 128, 3000, 1000}, {300, 40, 36000, 20},   {128, 0, 36000, 3},     {290, 200, 9000, 600},
                 {140, 12, 36000, 70},    {3000, 128, 20000, 70}, {5000, 128, 1500, 200}, {7600, 128, 10240, 33}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct problem p;
        make_problem(&p, sizes[i].k, sizes[i].outliers, sizes[i].n, sizes[i].n_tok);
        p.cold = true;
        check_problem(&p);
        drop_problem(&p);
    }
}

/* What a H100 cuts in halves between two blocks: all tiles of 64 tokens, some after whole ones, rows that leave one by
 * one; again and again, as types, bias, addend and SiLU are drawn. */
static void check_halved(void)
{
    seed = 34;
    static const struct {
        int k, outliers, n, n_tok;
    } sizes[] = {{2048, 128, 4096, 100}, {2048, 0, 4090, 128}, {4096, 128, 2600, 90}, {2048, 128, 17408, 70}};
    for (int i = 0; i < 8; i++) {
        struct problem p;
        make_problem(&p, sizes[i % 4].k, sizes[i % 4].outliers, sizes[i % 4].n, sizes[i % 4].n_tok);
        p.cold = true;
        check_problem(&p);
        drop_problem(&p);
    }
}

/* On all forms that this device runs. */
static void check_forms(void (*check)(void))
{
    enum atom_cuda_form forms[3];
    int n = forms_here(&forms);
    for (int i = 0; i < n; i++) {
        use_form(forms[i]);
        print_message("form %d\n", (int)forms[i]);
        check();
    }
    use_form(ATOM_CUDA_FORM_AUTO);
}

static void linears_are_the_formula(void **state)
{
    (void)state;
    need_device();
    check_forms(check_random_sizes);
}

static void large_linears(void **state)
{
    (void)state;
    need_device();
    check_forms(check_large);
}

static void halved_linears(void **state)
{
    (void)state;
    need_device();
    check_halved();
}

/* A good job of five tokens, and the same with one thing wrong. */
struct refusal {
    struct problem p;
    struct atom_cuda_acts acts;
    struct atom_cuda_linear job;
    void *y, *workspace;
};

static void make_refusal(struct refusal *r)
{
    seed = 33;
    make_problem(&r->p, 256, 32, 64, 5);
    size_t n_bytes = atom_cuda_linear_workspace(r->p.w, 5);
    r->y = on_device(NULL, 4 * 5 * 512);
    r->workspace = on_device(NULL, n_bytes + 256);
    cuda_ok(atom_cuda_fill(r->workspace, 0, n_bytes + 256, &cuda_err));
}

static void reset_job(struct refusal *r)
{
    r->acts = r->p.acts;
    r->job = (struct atom_cuda_linear){
        .w = r->p.w, .a = &r->acts, .type = ATOM_CUDA_F32, .y = r->y, .y_stride = 512, .workspace = r->workspace};
}

static void drop_refusal(struct refusal *r)
{
    atom_cuda_free(r->y);
    atom_cuda_free(r->workspace);
    drop_problem(&r->p);
}

/* The job with `change` made to it must fail with a sentence that has `word`, and leave the device well. */
#define refused(change, word)                                                                                          \
    do {                                                                                                               \
        struct atom_error why_ = {0};                                                                                  \
        reset_job(&r);                                                                                                 \
        change;                                                                                                        \
        assert_fails(atom_cuda_linear_run(&r.job, NULL, &why_), &why_, ATOM_ERR_INVALID, word);                        \
    } while (0)

static void *off_by(const void *p, size_t n_bytes) { return (void *)((uintptr_t)p + n_bytes); }

static void check_refusals(void)
{
    struct refusal r;
    make_refusal(&r);
    refused(r.job.w = NULL, "without weights");
    refused(r.job.a = NULL, "activations");
    refused(r.acts.site.k++, "257");
    refused(r.acts.site.k = 0, "0 channels");
    refused(r.acts.site.k = INT_MAX, "2147483647 channels");
    refused(r.acts.site.outliers = -1, "-1 of them");
    refused(r.acts.site.outliers = 257, "257 of them");
    refused(r.acts.site.whole = true, "one a token");
    refused(r.acts.site.k_padded += 128, "counts are others");
    refused(r.acts.site.n_runs = 0, "counts are others");
    refused(atom_cuda_site_init(&r.acts.site, 256, 31), "31 outliers");
    refused(r.acts.n_tok = 0, "0 tokens");
    refused(r.acts.n_tok = -7, "-7 tokens");
    refused(r.acts.n_tok = 1 << 30; r.acts.tok_stride = 1 << 30, "1073741824 tokens");
    refused(r.acts.tok_stride = 0, "stride 0");
    refused(r.acts.tok_stride = INT_MIN, "stride -2147483648");
    refused(r.acts.tok_stride = 63, "stride 63");
    refused(r.acts.q = NULL, "without integers");
    refused(r.acts.q = off_by(r.acts.q, 8), "16-byte");
    refused(r.acts.scales = NULL, "scales");
    refused(r.acts.scales = off_by(r.acts.scales, 4), "16-byte");
    refused(r.job.type = (enum atom_cuda_float)3, "type 3");
    refused(r.job.y = NULL, "apart");
    refused(r.job.y = off_by(r.y, 8), "16-byte");
    refused(r.job.y_stride = 4, "4 apart");
    refused(r.job.y_stride = 0, "0 apart");
    refused(r.job.y_stride = 508, "508 apart");
    refused(r.job.add = off_by(r.y, 4), "16-byte");
    refused(r.job.bias = off_by(r.y, 2), "bias");
    refused(r.job.silu = true; r.job.add = r.y, "silu");
    refused(r.job.workspace = off_by(r.workspace, 4), "workspace");
    if (atom_cuda_linear_workspace(r.p.w, 5))
        refused(r.job.workspace = NULL, "workspace");
    reset_job(&r);
    assert_int_equal(atom_cuda_linear_run(NULL, NULL, NULL), ATOM_ERR_INVALID);
    cuda_ok(atom_cuda_linear_run(&r.job, NULL, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    drop_refusal(&r);
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    check_forms(check_refusals);
}

/* mma.sync takes INT4 at its word, so there the number of bits must make sense. */
static void unknown_bits_are_refused(void **state)
{
    (void)state;
    need_device();
    struct refusal r;
    use_form(ATOM_CUDA_FORM_SM80);
    make_refusal(&r);
    use_form(ATOM_CUDA_FORM_AUTO);
    refused(r.acts.bits = 0, "0 bits");
    refused(r.acts.bits = 1, "1 bits");
    refused(r.acts.bits = 9, "9 bits");
    refused(r.acts.bits = -4, "-4 bits");
    drop_refusal(&r);
}

/* Weights of 256 channels, 32 outliers, 64 rows, with one thing wrong. */
#define no_weights(change, word)                                                                                       \
    do {                                                                                                               \
        struct atom_error why_ = {0};                                                                                  \
        struct atom_cuda_site site = p.site;                                                                           \
        struct atom_cuda_tensors parts[3] = {p.tensors[0], p.tensors[0], p.tensors[0]};                                \
        int n_parts = 1;                                                                                               \
        bool by_turns = false;                                                                                         \
        change;                                                                                                        \
        assert_fails(atom_cuda_weights_create(&site, parts, n_parts, by_turns, NULL, &w, &why_), &why_,                \
                     ATOM_ERR_INVALID, word);                                                                          \
        assert_null(w);                                                                                                \
    } while (0)

static void bad_weights_are_refused(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    struct atom_cuda_weights *w = NULL;
    seed = 34;
    make_problem(&p, 256, 32, 64, 5);
    no_weights(site.k = 0, "0 channels");
    no_weights(site.k = -1, "-1 channels");
    no_weights(site.k = INT_MAX, "2147483647 channels");
    no_weights(site.outliers = -1, "-1 of them");
    no_weights(site.outliers = 300, "300 of them");
    no_weights(site.n_groups = 3, "counts are others");
    no_weights(site.n_scales = 0, "counts are others");
    no_weights(atom_cuda_site_init_whole(&site, 256), "one a token");
    no_weights(n_parts = 0, "0 parts");
    no_weights(n_parts = -1, "-1 parts");
    no_weights(n_parts = 4, "4 parts");
    no_weights(parts[0].n = 0, "0 rows");
    no_weights(parts[0].n = INT_MIN, "rows");
    no_weights(parts[0].n = INT_MAX, "2147483647 rows");
    no_weights(n_parts = 3; parts[0].n = parts[1].n = parts[2].n = 1 << 22, "12582912 rows");
    no_weights(parts[0].rows_per_scale = 0, "0 a scale");
    no_weights(n_parts = 2; parts[1].rows_per_scale = -3, "part 1");
    no_weights(parts[0].qweight = NULL, "lacks a tensor");
    no_weights(parts[0].scales = NULL, "lacks a tensor");
    no_weights(parts[0].outlier_qweight = NULL, "lacks a tensor");
    no_weights(parts[0].outlier_scales = NULL, "lacks a tensor");
    no_weights(parts[0].scales = off_by(parts[0].scales, 1), "odd address");
    no_weights(by_turns = true, "by turns");
    no_weights(by_turns = true; n_parts = 2; parts[0].n = parts[1].n = 4, "by turns");
    no_weights(by_turns = true; n_parts = 2; parts[0].n = 8; parts[1].n = 16, "by turns");
    assert_int_equal(atom_cuda_weights_create(NULL, p.tensors, 1, false, NULL, &w, NULL), ATOM_ERR_INVALID);
    assert_int_equal(atom_cuda_weights_create(&p.site, NULL, 1, false, NULL, &w, NULL), ATOM_ERR_INVALID);
    assert_int_equal(atom_cuda_weights_create(&p.site, p.tensors, 1, false, NULL, NULL, NULL), ATOM_ERR_INVALID);
    atom_cuda_weights_free(NULL);
    drop_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linears_are_the_formula),  cmocka_unit_test(large_linears),
        cmocka_unit_test(halved_linears),           cmocka_unit_test(bad_jobs_are_refused),
        cmocka_unit_test(unknown_bits_are_refused), cmocka_unit_test(bad_weights_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda linear", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
