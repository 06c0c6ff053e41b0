/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of INT4 weights and 16-bit activations against sums in double, within the bounds that w4a16.h names. */
#include "cuda.h"

#include "base/half.h"
#include "cuda/w4a16.h"

struct part {
    int n, rows_per_scale;
    uint8_t *qweight;
    uint16_t *scales;
};

struct problem {
    int k, n, n_tok, n_parts, n_groups;
    size_t x_stride;
    bool by_turns;
    struct part parts[ATOM_CUDA_MAX_PARTS];
    enum atom_cuda_float x_type;
    uint16_t *x;
    float *bias;
    void *x_device;
    struct atom_cuda_w4a16_weights *w;
};

static float wide(enum atom_cuda_float t, uint16_t h)
{
    return t == ATOM_CUDA_F16 ? atom_f16_float(h) : atom_bf16_float(h);
}
static uint16_t narrow(enum atom_cuda_float t, float x)
{
    return t == ATOM_CUDA_F16 ? atom_float_f16(x) : atom_float_bf16(x);
}

static void make_part(struct problem *p, int i, int n, struct atom_cuda_tensors *on)
{
    struct part *t = &p->parts[i];
    *t = (struct part){.n = n, .rows_per_scale = between(1, 3)};
    size_t n_bytes = (size_t)n * (size_t)((p->k + 1) / 2),
           sets = (size_t)((n + t->rows_per_scale - 1) / t->rows_per_scale) * (size_t)p->n_groups;
    t->qweight = malloc(n_bytes);
    t->scales = malloc(2 * sets);
    bool saturated = between(0, 7) == 0;
    for (size_t j = 0; j < n_bytes; j++)
        t->qweight[j] = saturated ? 0 : (uint8_t)draw();
    for (size_t j = 0; j < sets; j++)
        t->scales[j] = atom_float_f16(0.1f * (fabsf(unit()) + 0x1p-10f));
    *on = (struct atom_cuda_tensors){.n = n,
                                     .rows_per_scale = t->rows_per_scale,
                                     .qweight = on_device(t->qweight, n_bytes),
                                     .scales = on_device(t->scales, 2 * sets)};
    p->n += n;
}

static void make_problem(struct problem *p, int k, int n, int n_tok)
{
    struct atom_cuda_tensors on[ATOM_CUDA_MAX_PARTS];
    memset(p, 0, sizeof *p);
    p->k = k;
    p->n_tok = n_tok;
    p->n_groups = (k + 127) / 128;
    p->x_type = between(0, 1) ? ATOM_CUDA_F16 : ATOM_CUDA_BF16;
    p->x_stride = (size_t)((k + 7) / 8 * 8 + 8 * between(0, 2));
    p->by_turns = between(0, 2) == 0;
    p->n_parts = p->by_turns ? 2 : between(1, 3);
    for (int i = 0; i < p->n_parts; i++)
        make_part(p, i, p->by_turns ? (n / 2 + 8) / 8 * 8 : i ? between(1, 40) : n, &on[i]);
    size_t n_x = (size_t)n_tok * p->x_stride;
    p->x = malloc(2 * n_x);
    for (size_t i = 0; i < n_x; i++) /* what lies between rows is not read as numbers */
        p->x[i] = (int)(i % p->x_stride) < k ? narrow(p->x_type, unit()) : 0x7FFF;
    p->x_device = on_device(p->x, 2 * n_x);
    if (between(0, 1)) {
        p->bias = malloc((size_t)p->n * sizeof(float));
        for (int i = 0; i < p->n; i++)
            p->bias[i] = unit();
    }
    cuda_ok(atom_cuda_w4a16_weights_create(k, on, p->n_parts, p->by_turns, NULL, &p->w, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    for (int i = 0; i < p->n_parts; i++) {
        atom_cuda_free((void *)(uintptr_t)on[i].qweight);
        atom_cuda_free((void *)(uintptr_t)on[i].scales);
    }
}

static void drop_problem(struct problem *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        free(p->parts[i].qweight);
        free(p->parts[i].scales);
    }
    atom_cuda_w4a16_weights_free(p->w);
    atom_cuda_free(p->x_device);
    free(p->x);
    free(p->bias);
}

/* The sum of token t, stacked row r, with bias, and how far off it may be. */
static double formula(const struct problem *p, int t, int r, double *bound)
{
    const struct part *w = p->parts;
    double sum = 0, terms = 0, bias = p->bias ? (double)p->bias[r] : 0;
    double step = p->n_tok <= 64 ? 0 : p->x_type == ATOM_CUDA_F16 ? 0x1p-11 : 0x1.01p-8; /* bfloat16: s, then q*s */
    if (p->by_turns) {
        w += r / 8 % 2;
        r = r / 16 * 8 + r % 8;
    } else
        while (r >= w->n)
            r -= w++->n;
    double off = 0;
    for (int c = 0; c < p->k; c++) {
        int both = w->qweight[(size_t)r * (size_t)((p->k + 1) / 2) + (size_t)(c / 2)];
        double s = (double)atom_f16_float(w->scales[r / w->rows_per_scale * p->n_groups + c / 128]);
        double x = (double)wide(p->x_type, p->x[(size_t)t * p->x_stride + (size_t)c]);
        double weight = s * ((c % 2 ? both >> 4 : both & 15) - 8);
        sum += x * weight;
        terms += fabs(x * weight);
        off += fabs(x) * fmax(fabs(weight) * step, step > 0 ? 0x1p-25 : 0);
    }
    /* Tensor cores keep 2^-23 of the largest of what they add, a wgmma adds 16 channels; a group's scaling, the joining
     * of pairs and of pieces round besides. */
    *bound = off + (p->k / 8 + 40) * 0x1p-23 * (terms + fabs(bias));
    return sum + bias;
}

static size_t float_bytes(enum atom_cuda_float t) { return t == ATOM_CUDA_F32 ? 4 : 2; }

static double element(enum atom_cuda_float type, const void *y, size_t i)
{
    uint16_t h;
    float f;
    if (type == ATOM_CUDA_F32) {
        memcpy(&f, (const uint8_t *)y + 4 * i, 4);
        return (double)f;
    }
    memcpy(&h, (const uint8_t *)y + 2 * i, 2);
    return (double)wide(type, h);
}

static double step_of(enum atom_cuda_float t)
{
    return t == ATOM_CUDA_F32 ? 0x1p-24 : t == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
}

struct trial {
    const struct problem *p;
    enum atom_cuda_float type;
    size_t stride;
    bool silu;
    void *add, *got; /* host */
};

/* silu(g) * u; its slopes are within 1.1 |u| and |silu(g)|. */
static double silu_formula(const struct trial *c, int t, int r, double *bound)
{
    double of_g, of_u, g = formula(c->p, t, r / 8 * 16 + r % 8, &of_g),
                       u = formula(c->p, t, r / 8 * 16 + 8 + r % 8, &of_u);
    double s = g / (1 + exp(-g));
    *bound = 1.1 * of_g * (fabs(u) + of_u) + (fabs(s) + 1.1 * of_g) * of_u + 0x1p-21 * (fabs(g) + 4) * fabs(s * u) +
             0x1p-100;
    return s * u;
}

static void check_element(const struct trial *c, int t, int r)
{
    double bound, want = c->silu ? silu_formula(c, t, r, &bound) : formula(c->p, t, r, &bound);
    size_t at = (size_t)t * c->stride + (size_t)r;
    if (c->add) {
        double add = element(c->type, c->add, at);
        want += add;
        bound += 0x1p-23 * (fabs(add) + fabs(want));
    }
    bound += (fabs(want) + bound) * step_of(c->type) + (c->type == ATOM_CUDA_F16 ? 0x1p-25 : 0);
    double got = element(c->type, c->got, at);
    bool over = c->type == ATOM_CUDA_F16 && fabs(want) > 65000;
    if (!over && !(fabs(got - want) <= bound))
        fail_msg("%s, x of type %d, y %d, k %d, rows %d, %d tokens: token %d, row %d is %.9g, not %.9g +- %g",
                 c->silu ? "silu" : "plain", (int)c->p->x_type, (int)c->type, c->p->k, c->p->n, c->p->n_tok, t, r, got,
                 want, bound);
}

static void check_results(const struct trial *c)
{
    const struct problem *p = c->p;
    int columns = c->silu ? p->n / 2 : p->n;
    size_t size = float_bytes(c->type);
    for (int t = 0; t < p->n_tok; t++) {
        for (int r = t % 5; r < columns; r += 1 + (t + r) % 13)
            check_element(c, t, r);
        for (size_t i = ((size_t)t * c->stride + (size_t)columns) * size; i < (size_t)(t + 1) * c->stride * size; i++)
            assert_int_equal(((uint8_t *)c->got)[i], 0xFF);
    }
}

static void *random_rows(enum atom_cuda_float type, size_t n)
{
    uint8_t *p = malloc(n * float_bytes(type));
    for (size_t i = 0; i < n; i++) {
        float x = unit();
        uint16_t h = narrow(type == ATOM_CUDA_F16 ? ATOM_CUDA_F16 : ATOM_CUDA_BF16, x);
        memcpy(p + i * float_bytes(type), type == ATOM_CUDA_F32 ? (void *)&x : (void *)&h, float_bytes(type));
    }
    return p;
}

static void check_problem(struct problem *p)
{
    struct trial c = {.p = p, .type = (enum atom_cuda_float)between(0, 2), .silu = p->by_turns && between(0, 1)};
    c.stride = (size_t)((p->n + 7) / 8 * 8 + 8 * between(0, 2));
    size_t n_y = (size_t)p->n_tok * c.stride, n_bytes = n_y * float_bytes(c.type),
           ws_bytes = atom_cuda_w4a16_workspace(p->w);
    void *y = on_device(NULL, n_bytes), *add = NULL, *bias = NULL, *ws = on_device(NULL, ws_bytes),
         *before = malloc(n_bytes);
    c.got = malloc(n_bytes);
    if (!c.silu && between(0, 1)) {
        c.add = random_rows(c.type, n_y);
        add = on_device(c.add, n_bytes);
    }
    if (p->bias)
        bias = on_device(p->bias, (size_t)p->n * sizeof(float));
    cuda_ok(atom_cuda_fill(ws, 0, ws_bytes, &cuda_err));
    const struct atom_cuda_w4a16 job = {p->w, p->x_type, p->x_device, p->x_stride, p->n_tok, c.type,
                                        y,    c.stride,  bias,        add,         c.silu,   ws};
    for (int run = 0; run < 2; run++) { /* a second run finds the workspace as the first left it: the same bits */
        cuda_ok(atom_cuda_fill(y, 0xFF, n_bytes, &cuda_err));
        cuda_ok(atom_cuda_w4a16_run(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
        cuda_ok(atom_cuda_download(c.got, y, n_bytes, &cuda_err));
        if (run)
            assert_memory_equal(c.got, before, n_bytes);
        memcpy(before, c.got, n_bytes);
    }
    check_results(&c);
    atom_cuda_free(y);
    atom_cuda_free(add);
    atom_cuda_free(bias);
    atom_cuda_free(ws);
    free(before);
    free(c.got);
    free(c.add);
}

static void linears_are_the_formula(void **state)
{
    (void)state;
    need_device();
    static const int toks[] = {1, 7, 16, 17, 33, 64, 65, 96, 128, 129, 192, 200, 385, 512};
    seed = 71;
    for (int round = 0; round < 56; round++) {
        struct problem p;
        make_problem(&p, between(1, 700), between(1, 400), toks[round % 14]);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* As a model has them: rings that turn several times, tiles that are cut, more tiles than blocks. */
static void large_linears(void **state)
{
    (void)state;
    need_device();
    static const struct {
        int k, n, n_tok;
    } sizes[] = {{4096, 3000, 1},   {2048, 20000, 16}, {2048, 20000, 64}, {11000, 600, 40},
                 {1024, 20000, 65}, {2048, 3000, 256}, {500, 9000, 700}};
    seed = 72;
    for (size_t round = 0; round < sizeof sizes / sizeof *sizes; round++) {
        struct problem p;
        make_problem(&p, sizes[round].k, sizes[round].n, sizes[round].n_tok);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* A token's bits are the same in company of up to 64. */
static void company_does_not_show(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    seed = 73;
    make_problem(&p, 3000, 3000, 64);
    size_t stride = (size_t)((p.n + 7) / 8 * 8), ws_bytes = atom_cuda_w4a16_workspace(p.w);
    float *all = malloc(64 * stride * sizeof(float)), *some = malloc(64 * stride * sizeof(float));
    void *y = on_device(NULL, 64 * stride * sizeof(float)), *ws = on_device(NULL, ws_bytes);
    cuda_ok(atom_cuda_fill(ws, 0, ws_bytes, &cuda_err));
    struct atom_cuda_w4a16 job = {.w = p.w, .x_type = p.x_type, .x = p.x_device, .x_stride = p.x_stride, .n_tok = 64};
    job.y = y, job.y_stride = stride, job.workspace = ws;
    cuda_ok(atom_cuda_w4a16_run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    cuda_ok(atom_cuda_download(all, y, 64 * stride * sizeof(float), &cuda_err));
    for (job.n_tok = 1; job.n_tok < 64; job.n_tok += 9) {
        cuda_ok(atom_cuda_w4a16_run(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
        cuda_ok(atom_cuda_download(some, y, 64 * stride * sizeof(float), &cuda_err));
        for (int t = 0; t < job.n_tok; t++)
            assert_memory_equal(some + (size_t)t * stride, all + (size_t)t * stride, (size_t)p.n * sizeof(float));
    }
    atom_cuda_free(y);
    atom_cuda_free(ws);
    free(all);
    free(some);
    drop_problem(&p);
}

/* What is not finite stays with its token. */
static void bad_tokens_stay_alone(void **state)
{
    (void)state;
    need_device();
    seed = 74;
    for (int n_tok = 40; n_tok <= 100; n_tok += 60) {
        struct problem p;
        make_problem(&p, 300, 200, n_tok);
        size_t stride = (size_t)((p.n + 7) / 8 * 8), ws_bytes = atom_cuda_w4a16_workspace(p.w);
        float *got = malloc((size_t)n_tok * stride * sizeof(float));
        void *y = on_device(NULL, (size_t)n_tok * stride * sizeof(float)), *ws = on_device(NULL, ws_bytes);
        uint16_t nan = 0x7FFF;
        cuda_ok(atom_cuda_fill(ws, 0, ws_bytes, &cuda_err));
        cuda_ok(atom_cuda_upload((uint16_t *)p.x_device + 7 * p.x_stride + 130, &nan, 2, &cuda_err));
        struct atom_cuda_w4a16 job = {.w = p.w, .x_type = p.x_type, .x = p.x_device, .x_stride = p.x_stride};
        job.n_tok = n_tok, job.y = y, job.y_stride = stride, job.workspace = ws;
        cuda_ok(atom_cuda_w4a16_run(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
        cuda_ok(atom_cuda_download(got, y, (size_t)n_tok * stride * sizeof(float), &cuda_err));
        for (int t = 0; t < n_tok; t++)
            for (int r = 0; r < p.n; r++)
                assert_int_equal(!isfinite(got[(size_t)t * stride + (size_t)r]), t == 7);
        atom_cuda_free(y);
        atom_cuda_free(ws);
        free(got);
        drop_problem(&p);
    }
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    seed = 75;
    make_problem(&p, 256, 64, 5);
    float *y = on_device(NULL, 4 * 5 * 512);
    struct atom_cuda_w4a16 good = {.w = p.w, .x_type = p.x_type, .x = p.x_device, .x_stride = p.x_stride, .n_tok = 5};
    good.y = y, good.y_stride = 512;
    struct atom_cuda_w4a16 bad = good;
    struct atom_error why = {0};
    bad.x_type = ATOM_CUDA_F32;
    assert_fails(atom_cuda_w4a16_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "F16 or BF16");
    bad = good, why = (struct atom_error){0};
    bad.x_stride = 128;
    assert_fails(atom_cuda_w4a16_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "256 channels, 128 apart");
    bad = good, why = (struct atom_error){0};
    bad.silu = true, bad.add = y;
    assert_fails(atom_cuda_w4a16_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "silu");
    bad = good, why = (struct atom_error){0};
    bad.n_tok = 0;
    assert_fails(atom_cuda_w4a16_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "0 tokens");
    struct atom_cuda_w4a16_weights *w = NULL;
    struct atom_cuda_tensors t = {.n = 8, .rows_per_scale = 1};
    why = (struct atom_error){0};
    assert_fails(atom_cuda_w4a16_weights_create(64, &t, 1, false, NULL, &w, &why), &why, ATOM_ERR_INVALID, "tensor");
    atom_cuda_free(y);
    drop_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(linears_are_the_formula), cmocka_unit_test(large_linears),
                                       cmocka_unit_test(company_does_not_show), cmocka_unit_test(bad_tokens_stay_alone),
                                       cmocka_unit_test(bad_jobs_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda w4a16", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
