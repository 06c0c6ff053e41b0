/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt's products against sums in double: integers exactly, floats within what float32 sums in any order and the
 * result's type round. */
#include "cuda.h"
#include "cuda_floats.h"

#include "base/half.h"
#include "cuda/blas.h"

static struct atom_cuda_blas *blas;

/* A test's reason to skip, besides a device: no library. */
static bool have_blas(void) { return blas || atom_cuda_blas_open(&blas, &cuda_err) == ATOM_OK; }

#define need_blas()                                                                                                    \
    do {                                                                                                               \
        need_device();                                                                                                 \
        if (!have_blas())                                                                                              \
            skip_because(cuda_err.message);                                                                            \
    } while (0)

/* n random elements, and the same on the device. */
static void *floats_of(enum atom_cuda_float type, size_t n, void **device)
{
    void *p = malloc(n * type_bytes(type));
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        put_element(type, p, i, unit());
    *device = on_device(p, n * type_bytes(type));
    return p;
}

struct product {
    struct atom_cuda_blas_shape shape;
    enum atom_cuda_float in;
    int n_tok;
    void *x, *w, *bias, *add, *got;
};

/* Relative rounding of a type. */
static double step_of(enum atom_cuda_float t)
{
    return t == ATOM_CUDA_F32 ? 0x1p-24 : t == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
}

static void check_floats(const struct product *p)
{
    const struct atom_cuda_blas_shape *s = &p->shape;
    for (int t = 0; t < p->n_tok; t += 1 + t % 3)
        for (int r = 0; r < s->n; r += 1 + r % 5) {
            double want = 0, terms = 0, got;
            size_t at = (size_t)t * s->y_stride + (size_t)r;
            for (int c = 0; c < s->k; c++) {
                double term = (double)element(p->in, p->x, (size_t)t * s->x_stride + (size_t)c) *
                              (double)element(p->in, p->w, (size_t)r * (size_t)s->k + (size_t)c);
                want += term;
                terms += fabs(term);
            }
            double bias = s->bias ? (double)element(s->out, p->bias, (size_t)r) : 0;
            double add = s->add ? (double)element(s->out, p->add, at) : 0;
            want += bias + add;
            terms += fabs(bias) + fabs(add);
            got = (double)element(s->out, p->got, at);
            /* Each of k additions may lose 2^-23 of what stands there (tensor cores cut); what is split over K may pass
             * through the result's type once, and the result is rounded to it */
            double bound = (s->k + 4) * 0x1p-23 * terms + 3 * step_of(s->out) * (fabs(want) + fabs(add)) + 0x1p-24;
            if (!(fabs(got - want) <= bound))
                fail_msg("type %d to %d, n %d, k %d, %d tokens of %d: token %d, row %d is %g, not %g", (int)s->type,
                         (int)s->out, s->n, s->k, p->n_tok, s->n_tok, t, r, got, want);
        }
}

/* Bytes between the rows are as they were. */
static void check_gaps(const struct product *p, size_t size)
{
    for (int t = 0; t < p->shape.n_tok; t++)
        for (size_t i = (t < p->n_tok ? (size_t)p->shape.n : 0) * size; i < p->shape.y_stride * size; i++)
            assert_int_equal(((uint8_t *)p->got)[(size_t)t * p->shape.y_stride * size + i], 0xFF);
}

static void float_product(struct product *p)
{
    struct atom_cuda_blas_shape *s = &p->shape;
    struct atom_cuda_blas_plan *plan;
    size_t out = type_bytes(s->out), n_y = (size_t)s->n_tok * s->y_stride;
    void *x, *w, *y, *bias = NULL, *add = NULL;
    p->x = floats_of(p->in, (size_t)s->n_tok * s->x_stride, &x);
    p->w = floats_of(p->in, (size_t)s->n * (size_t)s->k, &w);
    p->bias = s->bias ? floats_of(s->out, (size_t)s->n, &bias) : NULL;
    p->add = s->add ? floats_of(s->out, n_y, &add) : NULL;
    p->got = malloc(n_y * out);
    y = on_device(NULL, n_y * out);
    cuda_ok(atom_cuda_blas_plan_create(blas, s, &plan, &cuda_err));
    const struct atom_cuda_blas_job job = {plan, p->n_tok, x, w, y, bias, add};
    cuda_ok(atom_cuda_blas_run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_download(p->got, y, n_y * out, &cuda_err));
    check_floats(p);
    check_gaps(p, out);
    atom_cuda_blas_plan_free(plan);
    void *const device[] = {x, w, y, bias, add};
    for (int i = 0; i < 5; i++)
        atom_cuda_free(device[i]);
    void *const host[] = {p->x, p->w, p->bias, p->add, p->got};
    for (int i = 0; i < 5; i++)
        free(host[i]);
}

static void float_products_are_sums(void **state)
{
    (void)state;
    need_blas();
    seed = 51;
    for (int round = 0; round < 24; round++) {
        bool half = round % 2, narrow = between(0, 1);
        int n = 8 * between(1, 60), k = 8 * between(1, 60), n_tok = between(1, 200);
        struct product p = {.shape = {.type = half ? ATOM_CUDA_BLAS_F16 : ATOM_CUDA_BLAS_BF16,
                                      .out = !narrow ? ATOM_CUDA_F32
                                             : half  ? ATOM_CUDA_F16
                                                     : ATOM_CUDA_BF16,
                                      .n = n,
                                      .k = k,
                                      .n_tok = n_tok,
                                      .x_stride = (size_t)(k + 8 * between(0, 2)),
                                      .y_stride = (size_t)(n + 8 * between(0, 2)),
                                      .bias = between(0, 1),
                                      .add = between(0, 1)},
                            .in = half ? ATOM_CUDA_F16 : ATOM_CUDA_BF16,
                            .n_tok = between(0, 1) ? n_tok : between(1, n_tok)};
        float_product(&p);
    }
}

/* Sizes that are multiples of nothing. */
static void odd_sizes(void **state)
{
    (void)state;
    need_blas();
    seed = 52;
    for (int round = 0; round < 6; round++) {
        int n = between(1, 99), k = between(1, 99), n_tok = between(1, 20);
        struct product p = {.shape = {.type = ATOM_CUDA_BLAS_F16,
                                      .out = round % 2 ? ATOM_CUDA_F16 : ATOM_CUDA_F32,
                                      .n = n,
                                      .k = k,
                                      .n_tok = n_tok,
                                      .x_stride = (size_t)k,
                                      .y_stride = (size_t)n},
                            .in = ATOM_CUDA_F16,
                            .n_tok = n_tok};
        float_product(&p);
    }
}

static int8_t *bytes_of(size_t n, void **device)
{
    int8_t *p = malloc(n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (int8_t)draw();
    *device = on_device(p, n);
    return p;
}

static void integers_are_exact(void **state)
{
    (void)state;
    need_blas();
    seed = 53;
    for (int round = 0; round < 6; round++) {
        struct atom_cuda_blas_shape s = {ATOM_CUDA_BLAS_INT8, ATOM_CUDA_F32,      16 * between(1, 30),
                                         16 * between(1, 30), 16 * between(2, 9), .x_stride = 0};
        struct atom_cuda_blas_plan *plan;
        void *x, *w, *y = on_device(NULL, 4 * (size_t)s.n * (size_t)s.n_tok);
        int8_t *hx = bytes_of((size_t)s.n_tok * (size_t)s.k, &x), *hw = bytes_of((size_t)s.n * (size_t)s.k, &w);
        int32_t *got = malloc(4 * (size_t)s.n * (size_t)s.n_tok);
        cuda_ok(atom_cuda_blas_plan_create(blas, &s, &plan, &cuda_err));
        const struct atom_cuda_blas_job job = {.plan = plan, .n_tok = s.n_tok, .x = x, .w = w, .y = y};
        cuda_ok(atom_cuda_blas_run(&job, NULL, &cuda_err));
        cuda_ok(atom_cuda_download(got, y, 4 * (size_t)s.n * (size_t)s.n_tok, &cuda_err));
        for (int t = 0; t < s.n_tok; t++)
            for (int r = 0; r < s.n; r++) {
                int want = 0;
                for (int c = 0; c < s.k; c++)
                    want += hx[t * s.k + c] * hw[r * s.k + c];
                assert_int_equal(got[t * s.n + r], want);
            }
        atom_cuda_blas_plan_free(plan);
        atom_cuda_free(x);
        atom_cuda_free(w);
        atom_cuda_free(y);
        free(hx);
        free(hw);
        free(got);
    }
}

/* e4m3 of a small power of two. */
static uint8_t e4m3(int exponent, bool negative) { return (uint8_t)((exponent + 7) << 3 | (negative ? 0x80 : 0)); }

/* Powers of two whose sums every accumulator holds. */
static void fp8_products_are_sums(void **state)
{
    (void)state;
    need_blas();
    if (cuda_device.major < 9 && !(cuda_device.major == 8 && cuda_device.minor == 9))
        skip_because("FP8 wants compute capability 8.9");
    seed = 54;
    enum { N = 48, K = 64, TOK = 32 };
    uint8_t hx[TOK * K], hw[N * K];
    uint16_t got[TOK * N];
    int ex[TOK * K], ew[N * K];
    for (int i = 0; i < TOK * K; i++)
        hx[i] = e4m3(ex[i] = between(0, 1), i % 3 == 0);
    for (int i = 0; i < N * K; i++)
        hw[i] = e4m3(ew[i] = between(0, 1), i % 5 == 0);
    void *x = on_device(hx, sizeof hx), *w = on_device(hw, sizeof hw), *y = on_device(NULL, sizeof got);
    const struct atom_cuda_blas_shape s = {
        .type = ATOM_CUDA_BLAS_FP8, .out = ATOM_CUDA_BF16, .n = N, .k = K, .n_tok = TOK};
    struct atom_cuda_blas_plan *plan;
    cuda_ok(atom_cuda_blas_plan_create(blas, &s, &plan, &cuda_err));
    const struct atom_cuda_blas_job job = {.plan = plan, .n_tok = TOK, .x = x, .w = w, .y = y};
    cuda_ok(atom_cuda_blas_run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_download(got, y, sizeof got, &cuda_err));
    for (int t = 0; t < TOK; t++)
        for (int r = 0; r < N; r++) {
            int want = 0;
            for (int c = 0; c < K; c++)
                want += ((t * K + c) % 3 == 0) == ((r * K + c) % 5 == 0) ? 1 << (ex[t * K + c] + ew[r * K + c])
                                                                         : -(1 << (ex[t * K + c] + ew[r * K + c]));
            assert_int_equal(got[t * N + r], atom_float_bf16((float)want));
        }
    atom_cuda_blas_plan_free(plan);
    atom_cuda_free(x);
    atom_cuda_free(w);
    atom_cuda_free(y);
}

static void weights_are_converted_and_gathered(void **state)
{
    (void)state;
    need_device();
    seed = 55;
    for (int round = 0; round < 18; round++) {
        struct atom_cuda_floats j = {.from_type = (enum atom_cuda_float)(round % 3),
                                     .to_type = (enum atom_cuda_float)(round / 3 % 3),
                                     .rows = between(1, 50),
                                     .columns = between(1, 600)};
        size_t n = (size_t)j.rows * (size_t)j.columns, out = type_bytes(j.to_type);
        void *from, *got = malloc(n * out), *host = floats_of(j.from_type, n, &from);
        int32_t *rows = malloc(4 * (size_t)j.rows), *columns = malloc(4 * (size_t)j.columns);
        for (int r = 0; r < j.rows; r++)
            rows[r] = (r + 3) % j.rows;
        for (int c = 0; c < j.columns; c++)
            columns[c] = j.columns - 1 - c;
        bool ordered = round % 2;
        void *row_order = on_device(rows, 4 * (size_t)j.rows), *order = on_device(columns, 4 * (size_t)j.columns);
        j.from = from;
        j.to = on_device(NULL, n * out);
        j.row_order = ordered ? row_order : NULL;
        j.order = ordered ? order : NULL;
        cuda_ok(atom_cuda_floats_run(&j, NULL, &cuda_err));
        cuda_ok(atom_cuda_download(got, j.to, n * out, &cuda_err));
        for (int r = 0; r < j.rows; r++)
            for (int c = 0; c < j.columns; c++) {
                size_t at = (size_t)r * (size_t)j.columns + (size_t)c;
                size_t source = ordered ? (size_t)rows[r] * (size_t)j.columns + (size_t)columns[c] : at;
                uint32_t want = 0, is = 0;
                put_element(j.to_type, &want, 0, element(j.from_type, host, source));
                memcpy(&is, (uint8_t *)got + at * out, out);
                assert_int_equal(is, want);
            }
        void *const device[] = {from, j.to, row_order, order};
        for (int i = 0; i < 4; i++)
            atom_cuda_free(device[i]);
        free(got);
        free(host);
        free(rows);
        free(columns);
    }
}

static void bad_products_are_refused(void **state)
{
    (void)state;
    need_blas();
    struct atom_cuda_blas_plan *plan = NULL;
    struct atom_error why = {0};
    struct atom_cuda_blas_shape s = {.type = ATOM_CUDA_BLAS_F16, .out = ATOM_CUDA_F16, .n = 16, .k = 0, .n_tok = 4};
    assert_fails(atom_cuda_blas_plan_create(blas, &s, &plan, &why), &why, ATOM_ERR_INVALID, "0 channels");
    why = (struct atom_error){0};
    s.k = 16, s.x_stride = 8;
    assert_fails(atom_cuda_blas_plan_create(blas, &s, &plan, &why), &why, ATOM_ERR_INVALID, "apart");
    why = (struct atom_error){0};
    s.x_stride = 0, s.out = ATOM_CUDA_BF16;
    assert_fails(atom_cuda_blas_plan_create(blas, &s, &plan, &why), &why, ATOM_ERR_UNSUPPORTED, "cuBLASLt has no F16");
    why = (struct atom_error){0};
    s.type = ATOM_CUDA_BLAS_INT8, s.k = 17;
    assert_fails(atom_cuda_blas_plan_create(blas, &s, &plan, &why), &why, ATOM_ERR_UNSUPPORTED, "INT8");
    why = (struct atom_error){0};
    s.add = true;
    assert_fails(atom_cuda_blas_plan_create(blas, &s, &plan, &why), &why, ATOM_ERR_INVALID, "neither");
    s = (struct atom_cuda_blas_shape){.type = ATOM_CUDA_BLAS_F16, .out = ATOM_CUDA_F16, .n = 16, .k = 16, .n_tok = 4};
    cuda_ok(atom_cuda_blas_plan_create(blas, &s, &plan, &cuda_err));
    why = (struct atom_error){0};
    struct atom_cuda_blas_job job = {.plan = plan, .n_tok = 5};
    assert_fails(atom_cuda_blas_run(&job, NULL, &why), &why, ATOM_ERR_INVALID, "5 tokens");
    why = (struct atom_error){0};
    job.n_tok = 4, job.add = job.bias = &s;
    assert_fails(atom_cuda_blas_run(&job, NULL, &why), &why, ATOM_ERR_INVALID, "as its plan says");
    atom_cuda_blas_plan_free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_products_are_sums),  cmocka_unit_test(odd_sizes),
        cmocka_unit_test(integers_are_exact),       cmocka_unit_test(fp8_products_are_sums),
        cmocka_unit_test(bad_products_are_refused), cmocka_unit_test(weights_are_converted_and_gathered)};
    int rc = cmocka_run_group_tests_name("cuda blas", tests, NULL, NULL);
    atom_cuda_blas_close(blas);
    atom_cuda_close();
    return rc;
}
