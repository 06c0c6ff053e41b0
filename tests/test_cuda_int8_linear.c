/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 linears, both kernels, against the formula of int8_linear.h: exactly. */
#include "cuda.h"
#include "cuda_floats.h"

#include "base/half.h"
#include "cuda/int8_linear.h"

struct part {
    int n, rows_per_scale;
    int8_t *q;
    float *scales; /* one a row */
};

struct problem {
    struct atom_cuda_site site;
    struct part parts[ATOM_CUDA_MAX_PARTS];
    int n_parts, n, n_tok, tok_stride;
    bool by_turns, saturated;
    int8_t *q;
    float *tok_scales, *bias;
    struct atom_cuda_int8_weights *w;
    struct atom_cuda_acts acts;
};

static bool copies; /* whether all results are such as may leave by tensor copies */

static int8_t byte_of(const struct problem *p) { return p->saturated ? -128 : (int8_t)draw(); }

static void make_part(struct problem *p, int i, int n, struct atom_cuda_int8_tensors *on)
{
    struct part *t = &p->parts[i];
    size_t n_bytes = (size_t)n * (size_t)p->site.k;
    bool wide = between(0, 1);
    t->n = n;
    t->rows_per_scale = between(1, 3);
    t->q = malloc(n_bytes);
    t->scales = malloc((size_t)n * sizeof(float));
    for (size_t j = 0; j < n_bytes; j++)
        t->q[j] = byte_of(p);
    size_t sets = (size_t)((n + t->rows_per_scale - 1) / t->rows_per_scale);
    uint16_t *half = malloc(2 * sets);
    float *full = malloc(4 * sets);
    for (size_t j = 0; j < sets; j++) {
        full[j] = 0.01f * (fabsf(unit()) + 0x1p-10f);
        half[j] = atom_float_f16(full[j]);
    }
    for (int r = 0; r < n; r++)
        t->scales[r] = wide ? full[r / t->rows_per_scale] : atom_f16_float(half[r / t->rows_per_scale]);
    *on = (struct atom_cuda_int8_tensors){n, t->rows_per_scale, on_device(t->q, n_bytes),
                                          wide ? NULL : on_device(half, 2 * sets),
                                          wide ? on_device(full, 4 * sets) : NULL};
    p->n += n;
    free(half);
    free(full);
}

static void make_acts(struct problem *p)
{
    size_t k = (size_t)p->site.k_padded, stride = (size_t)p->tok_stride;
    p->q = calloc(stride * k, 1);
    p->tok_scales = malloc(stride * sizeof(float));
    for (size_t t = 0; t < stride; t++) {
        for (int c = 0; c < p->site.k; c++)
            p->q[t * k + (size_t)c] = byte_of(p);
        p->tok_scales[t] = (int)t < p->n_tok ? 0.01f * (fabsf(unit()) + 0x1p-8f) : NAN;
    }
    p->acts = (struct atom_cuda_acts){.site = p->site,
                                      .n_tok = p->n_tok,
                                      .tok_stride = p->tok_stride,
                                      .q = on_device(p->q, stride * k),
                                      .scales = on_device(p->tok_scales, stride * sizeof(float)),
                                      .bits = 8};
}

static void make_problem(struct problem *p, int k, int n, int n_tok)
{
    struct atom_cuda_int8_tensors on[ATOM_CUDA_MAX_PARTS];
    memset(p, 0, sizeof *p);
    atom_cuda_site_init_whole(&p->site, k);
    p->by_turns = between(0, 2) == 0;
    p->saturated = between(0, 7) == 0;
    p->n_parts = p->by_turns ? 2 : copies ? 1 : between(1, 3);
    for (int i = 0; i < p->n_parts; i++)
        make_part(p, i, p->by_turns ? (n / 2 + 8) / 8 * 8 : i ? between(1, 40) : n, &on[i]);
    p->n_tok = n_tok;
    p->tok_stride = (n_tok + 63) / 64 * 64 + 64 * between(0, 2);
    make_acts(p);
    if (between(0, 1)) {
        p->bias = malloc((size_t)p->n * sizeof(float));
        for (int i = 0; i < p->n; i++)
            p->bias[i] = unit();
    }
    cuda_ok(atom_cuda_int8_weights_create(&p->site, on, p->n_parts, p->by_turns, NULL, &p->w, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    for (int i = 0; i < p->n_parts; i++) {
        atom_cuda_free((void *)(uintptr_t)on[i].qweight);
        atom_cuda_free((void *)(uintptr_t)on[i].scales);
        atom_cuda_free((void *)(uintptr_t)on[i].scales_f32);
    }
}

static void drop_problem(struct problem *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        free(p->parts[i].q);
        free(p->parts[i].scales);
    }
    atom_cuda_int8_weights_free(p->w);
    atom_cuda_free(p->acts.q);
    atom_cuda_free(p->acts.scales);
    free(p->q);
    free(p->tok_scales);
    free(p->bias);
}

/* Token t, stacked row r, before anything is added. */
static float formula(const struct problem *p, int t, int r)
{
    const struct part *w = p->parts;
    if (p->by_turns) {
        w += r / 8 % 2;
        r = r / 16 * 8 + r % 8;
    } else
        while (r >= w->n)
            r -= w++->n;
    const int8_t *a = p->q + (size_t)t * (size_t)p->site.k_padded, *b = w->q + (size_t)r * (size_t)p->site.k;
    int sum = 0;
    for (int c = 0; c < p->site.k; c++)
        sum += a[c] * b[c];
    return (float)sum * (p->tok_scales[t] * w->scales[r]);
}

struct trial {
    const struct problem *p;
    enum atom_cuda_float type;
    size_t stride;
    bool silu;
    void *add, *got; /* host */
};

static void check_silu(const struct trial *c, int t, int r)
{
    const struct problem *p = c->p;
    int at = r / 8 * 16 + r % 8;
    double g = (double)formula(p, t, at), u = (double)formula(p, t, at + 8);
    if (p->bias) {
        g = (double)((float)g + p->bias[at]);
        u = (double)((float)u + p->bias[at + 8]);
    }
    double want = g / (1 + exp(-g)) * u, got = (double)element(c->type, c->got, (size_t)t * c->stride + (size_t)r);
    double step = c->type == ATOM_CUDA_F32 ? 0x1p-21 : c->type == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
    /* e^-g: its argument is rounded once, 2 ulp besides; then three roundings, and the type's. Where e^-g overflows,
     * the device has 0 for what is below 2^-120 */
    double bound = (1.01 * step + 0x1p-22 * (fabs(g) + 4)) * fabs(want) + 0x1p-24 * fabs(u) * 0x1p-90 +
                   (c->type == ATOM_CUDA_F16 ? 0x1p-25 : 0x1p-110);
    bool over = c->type == ATOM_CUDA_F16 && fabs(want) > 65000;
    if (!over && !(fabs(got - want) <= bound))
        fail_msg("silu, token %d, row %d: %g, not %g", t, r, got, want);
}

static void check_row(const struct trial *c, int t, int r)
{
    const struct problem *p = c->p;
    size_t at = (size_t)t * c->stride + (size_t)r;
    float want = formula(p, t, r);
    if (p->bias)
        want += p->bias[r];
    if (c->add)
        want += element(c->type, c->add, at);
    want = rounded(c->type, want);
    float got = element(c->type, c->got, at);
    if (got != want)
        fail_msg("type %d, k %d, rows %d, %d tokens: token %d, row %d is %.9g, not %.9g", (int)c->type, p->site.k, p->n,
                 p->n_tok, t, r, (double)got, (double)want);
}

static void check_results(const struct trial *c)
{
    const struct problem *p = c->p;
    int columns = c->silu ? p->n / 2 : p->n;
    size_t size = type_bytes(c->type);
    for (int t = 0; t < p->n_tok; t++) {
        for (int r = t % 5; r < columns; r += 1 + (t + r) % 7)
            if (c->silu)
                check_silu(c, t, r);
            else
                check_row(c, t, r);
        for (size_t i = ((size_t)t * c->stride + (size_t)columns) * size; i < (size_t)(t + 1) * c->stride * size; i++)
            assert_int_equal(((uint8_t *)c->got)[i], 0xFF);
    }
}

static void check_problem(struct problem *p)
{
    struct trial c = {.p = p, .type = (enum atom_cuda_float)between(0, 2), .silu = p->by_turns && between(0, 1)};
    if (copies && c.type == ATOM_CUDA_F32)
        c.type = ATOM_CUDA_F16;
    c.stride = (size_t)((p->n + 7) / 8 * 8 + 8 * between(0, 2));
    size_t n_y = (size_t)p->n_tok * c.stride, n_bytes = n_y * type_bytes(c.type);
    void *y = on_device(NULL, n_bytes), *add = NULL, *bias = NULL;
    c.got = malloc(n_bytes);
    if (!c.silu && !copies && between(0, 1)) {
        c.add = malloc(n_bytes);
        for (size_t i = 0; i < n_y; i++)
            put_element(c.type, c.add, i, unit());
        add = on_device(c.add, n_bytes);
    }
    if (p->bias)
        bias = on_device(p->bias, (size_t)p->n * sizeof(float));
    const struct atom_cuda_int8_linear job = {p->w, &p->acts, c.type, y, c.stride, bias, add, c.silu};
    for (int plain = 0; plain < 2; plain++) {
        cuda_ok(atom_cuda_fill(y, 0xFF, n_bytes, &cuda_err));
        cuda_ok(!plain ? atom_cuda_int8_linear_run(&job, NULL, &cuda_err)
                       : atom_cuda_int8_linear_run_plain(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
        cuda_ok(atom_cuda_download(c.got, y, n_bytes, &cuda_err));
        check_results(&c);
    }
    atom_cuda_free(y);
    atom_cuda_free(add);
    atom_cuda_free(bias);
    free(c.got);
    free(c.add);
}

static void int8_linears_are_the_formula(void **state)
{
    (void)state;
    need_device();
    static const int toks[] = {1, 7, 16, 17, 33, 64, 65, 128, 129, 192, 200, 385};
    seed = 61;
    for (int round = 0; round < 48; round++) {
        struct problem p;
        make_problem(&p, between(1, 900), between(1, 700), toks[round % 12]);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* More tiles than blocks, rings that turn several times, tiles that are cut. */
static void large_int8_linears(void **state)
{
    (void)state;
    need_device();
    static const struct {
        int k, n, n_tok;
    } sizes[] = {{2048, 3000, 1},   {2048, 3000, 16},  {2048, 20000, 64}, {1500, 3000, 100}, {2048, 3000, 256},
                 {2048, 5000, 250}, {3000, 600, 1000}, {300, 9000, 1030}, {1024, 9000, 600}, {300, 18000, 513}};
    seed = 62;
    for (size_t round = 0; round < sizeof sizes / sizeof *sizes; round++) {
        struct problem p;
        make_problem(&p, sizes[round].k, sizes[round].n, sizes[round].n_tok);
        check_problem(&p);
        drop_problem(&p);
    }
}

/* Tiles of every width that many tokens may have, whose results leave by tensor copies. */
static void tiles_of_every_width(void **state)
{
    (void)state;
    need_device();
    static const struct {
        int k, n, n_tok;
    } sizes[] = {{130, 1000, 129}, {130, 4400, 129}, {130, 8600, 129},   {130, 10600, 150},
                 {130, 4400, 260}, {260, 2000, 520}, {1000, 12800, 129}, {1536, 17000, 129}};
    seed = 65;
    copies = true;
    for (size_t round = 0; round < 2 * (sizeof sizes / sizeof *sizes); round++) {
        struct problem p;
        make_problem(&p, sizes[round / 2].k, sizes[round / 2].n, sizes[round / 2].n_tok);
        check_problem(&p);
        drop_problem(&p);
    }
    copies = false;
}

/* The largest sums there are, and zeros. */
static void extremes_are_exact(void **state)
{
    (void)state;
    need_device();
    seed = 63;
    for (int round = 0; round < 2; round++) {
        struct problem p;
        make_problem(&p, ATOM_CUDA_INT8_MAX_K, 24, 65 - 60 * round);
        size_t n_bytes = (size_t)p.tok_stride * (size_t)p.site.k_padded;
        for (int t = 0; t < p.n_tok; t++)
            memset(p.q + (size_t)t * (size_t)p.site.k_padded, t % 2 ? 0 : -128, (size_t)p.site.k);
        cuda_ok(atom_cuda_upload(p.acts.q, p.q, n_bytes, &cuda_err));
        check_problem(&p);
        drop_problem(&p);
    }
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    seed = 64;
    make_problem(&p, 256, 64, 5);
    float *y = on_device(NULL, 4 * 5 * 512);
    struct atom_cuda_int8_linear good = {.w = p.w, .a = &p.acts, .type = ATOM_CUDA_F32, .y = y, .y_stride = 512},
                                 bad = good;
    struct atom_error why = {0};
    bad.y_stride = 4;
    assert_fails(atom_cuda_int8_linear_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "apart");
    bad = good, why = (struct atom_error){0};
    bad.silu = true, bad.add = y;
    assert_fails(atom_cuda_int8_linear_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "silu");
    bad = good, why = (struct atom_error){0};
    struct atom_cuda_acts other = p.acts;
    other.site.whole = false;
    bad.a = &other;
    assert_fails(atom_cuda_int8_linear_run_plain(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "in groups");
    struct atom_cuda_site groups;
    struct atom_cuda_int8_weights *w = NULL;
    atom_cuda_site_init(&groups, 256, 0);
    why = (struct atom_error){0};
    assert_fails(atom_cuda_int8_weights_create(&groups, NULL, 1, false, NULL, &w, &why), &why, ATOM_ERR_INVALID,
                 "one scale a token");
    atom_cuda_free(y);
    drop_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(int8_linears_are_the_formula),
                                       cmocka_unit_test(large_int8_linears), cmocka_unit_test(tiles_of_every_width),
                                       cmocka_unit_test(extremes_are_exact), cmocka_unit_test(bad_jobs_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda int8 linear", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
