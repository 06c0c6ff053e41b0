/* SPDX-License-Identifier: Apache-2.0 */
/* Order, rounding and GPTQ, the latter against a plain double-precision version of the paper's algorithm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/half.h"
#include "base/thread.h"
#include "quant/gptq.h"
#include "quant/order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng;

static double uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return ((double)(rng >> 11) + 0.5) / 9007199254740992.0;
}

static double gauss(void) { return sqrt(-2 * log(uniform())) * cos(2 * 3.14159265358979323846 * uniform()); }

static float *random_weights(int n, int k)
{
    float *w = malloc((size_t)n * (size_t)k * sizeof *w);
    for (int i = 0; i < n * k; i++)
        w[i] = (float)(gauss() * 0.05);
    return w;
}

/* sum x x' of correlated tokens whose channels grow in energy, whole. With a dead channel the others are faint, so that
 * what stands in for its diagonal decides the damping. */
static double *random_sum(int k, int tokens, int dead)
{
    double *sum = calloc((size_t)k * (size_t)k, sizeof *sum), *x = malloc((size_t)k * sizeof *x);
    for (int t = 0; t < tokens; t++) {
        double common = gauss(), last = 0;
        for (int i = 0; i < k; i++) {
            last = 0.6 * last + gauss();
            x[i] = i == dead ? 0 : (last + 0.8 * common) * (0.5 + 3.0 * i / k) * (dead < 0 ? 1 : 0.01);
        }
        for (int i = 0; i < k; i++)
            for (int j = 0; j < k; j++)
                sum[i * k + j] += x[i] * x[j];
    }
    free(x);
    return sum;
}

static float *upper_floats(const double *sum, int k)
{
    float *f = malloc((size_t)k * (size_t)k * sizeof *f);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++)
            f[i * k + j] = j >= i ? (float)sum[i * k + j] : NAN;
    return f;
}

static void check(enum atom_status st, const struct atom_error *err)
{
    if (st)
        fail_msg("%s: %s", atom_status_name(st), err->message);
}

/* ---- order ---- */

static void order_ranks(void **state)
{
    (void)state;
    const double energy[6] = {3, 1, 2, 1, 0, 3};
    const int32_t want[6] = {4, 1, 3, 2, 0, 5};
    int32_t order[6];
    struct atom_error err = {0};
    check(atom_order_rank("s", energy, 6, 2, order, &err), &err);
    assert_memory_equal(order, want, sizeof want);
    check(atom_order_rank("s", energy, 6, 0, order, &err), &err);
    for (int i = 0; i < 6; i++)
        assert_int_equal(order[i], i);
    const double bad[2] = {1, NAN};
    assert_int_equal(atom_order_rank("down_in", bad, 2, 1, order, &err), ATOM_ERR_NUMERIC);
    assert_non_null(strstr(err.message, "down_in"));
    assert_int_equal(atom_outliers_of(128, 100), 100);
    assert_int_equal(atom_outliers_of(128, 256), 128);
    assert_int_equal(atom_outliers_quarter(128, 256), 64);
    assert_int_equal(atom_outliers_quarter(128, 3), 0);
}

static void order_gathers(void **state)
{
    (void)state;
    const float w[6] = {1, 2, 3, 4, 5, 6};
    const int32_t columns[3] = {2, 0, 1}, rows[2] = {1, 0};
    float out[6];
    atom_order_columns(w, 2, 3, columns, out);
    assert_memory_equal(out, ((float[6]){3, 1, 2, 6, 4, 5}), sizeof out);
    atom_order_rows(w, 2, 3, rows, out);
    assert_memory_equal(out, ((float[6]){4, 5, 6, 1, 2, 3}), sizeof out);
}

/* ---- round to nearest ---- */

static float rounded_scale(float s)
{
    float r = atom_f16_float(atom_float_f16(s));
    return r < 0x1p-24f ? 0x1p-24f : r;
}

static int rounded(double x, double s, int bits)
{
    double lo = -ldexp(1, bits - 1), y = nearbyint(x / s);
    return (int)(y < lo ? lo : y > -lo - 1 ? -lo - 1 : y);
}

/* Every scale and integer of q against the formulas, from w with the RTN rule. */
static void compare_rtn(const struct atom_qlinear *q, const float *w, const struct atom_weight_options *opt)
{
    const int n = q->n, k = q->k, main = k - opt->outliers, set = opt->rows_per_scale;
    const int group = opt->group ? opt->group : main;
    for (int r0 = 0; r0 < n; r0 += set)
        for (int j0 = 0, g = 0; j0 < main; j0 += group, g++) {
            float max = 0;
            for (int r = r0; r < r0 + set && r < n; r++)
                for (int j = j0; j < j0 + group && j < main; j++)
                    max = fmaxf(max, fabsf(w[r * k + j]));
            float s = rounded_scale(opt->clip * max / (float)((1 << (opt->bits - 1)) - 1));
            assert_true(atom_f16_float(q->scales[r0 / set * q->groups + g]) == s);
            for (int r = r0; r < r0 + set && r < n; r++)
                for (int j = j0; j < j0 + group && j < main; j++)
                    assert_int_equal(q->q[r * main + j], rounded((double)(w[r * k + j] / s), 1, opt->bits));
        }
    for (int r = 0; r < n && opt->outliers; r++) {
        float max = 0;
        for (int j = main; j < k; j++)
            max = fmaxf(max, fabsf(w[r * k + j]));
        float s = rounded_scale(max / 127.0f);
        assert_true(atom_f16_float(q->outlier_scales[r]) == s);
        for (int j = main; j < k; j++)
            assert_int_equal(q->outlier_q[r * opt->outliers + j - main], rounded((double)(w[r * k + j] / s), 1, 8));
    }
}

static void rtn_follows_the_formulas(void **state)
{
    (void)state;
    static const struct {
        int n, k;
        struct atom_weight_options opt;
    } rows[] = {
        {5, 37, {4, 16, 5, 2, 0.85f, false, {0}}}, {1, 1, {4, 128, 0, 1, 1.0f, false, {0}}},
        {3, 1, {4, 128, 1, 2, 1.0f, false, {0}}},  {130, 40, {3, 0, 8, 1, 0.9f, false, {0}}},
        {7, 33, {2, 8, 0, 3, 1.0f, false, {0}}},   {200, 20, {8, 7, 4, 100, 1.0f, false, {0}}},
        {9, 24, {4, 24, 24, 2, 1.0f, false, {0}}}, {2, 16, {4, 100, 3, 5, 1.0f, false, {0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct atom_error err = {0};
        struct atom_qlinear *q = NULL;
        float *w = random_weights(rows[i].n, rows[i].k);
        check(atom_quantize_rtn("w", w, rows[i].n, rows[i].k, &rows[i].opt, NULL, &q, &err), &err);
        compare_rtn(q, w, &rows[i].opt);
        atom_qlinear_free(q);
        free(w);
    }
}

static void rtn_ties_and_zeros(void **state)
{
    (void)state;
    struct atom_error err = {0};
    struct atom_qlinear *q = NULL;
    const struct atom_weight_options opt = {4, 4, 0, 1, 1.0f, false, {0}};
    const float w[8] = {7, 0.5f, 1.5f, -2.5f, 0, -0.0f, 0, 0};
    check(atom_quantize_rtn("w", w, 1, 8, &opt, NULL, &q, &err), &err);
    assert_memory_equal(q->q, ((int8_t[8]){7, 0, 2, -2, 0, 0, 0, 0}), 8);
    assert_int_equal(q->scales[1], 1); /* 2^-24 */
    double e = -1;
    check(atom_qlinear_error(q, w, NULL, &e, &err), &err);
    assert_true(fabs(e - sqrt(0.75 / (49 + 0.25 + 2.25 + 6.25))) < 1e-6);
    atom_qlinear_free(q);
    const float zeros[3] = {0};
    check(atom_quantize_rtn("w", zeros, 1, 3, &opt, NULL, &q, &err), &err);
    check(atom_qlinear_error(q, zeros, NULL, &e, &err), &err);
    assert_true(e == 0);
    atom_qlinear_free(q);
}

static void scales_that_no_half_holds_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct atom_weight_options opt;
        float large; /* at [1, 2] of [2, 4]; its scale just fits, twice that does not */
        const char *words;
    } cases[] = {{{4, 0, 0, 1, 1.0f, false, {0}}, 7 * 65000.0f, "weights of row 1 are too large for a scale"},
                 {{8, 2, 0, 1, 1.0f, false, {0}}, 127 * 65000.0f, "weights of row 1"},
                 {{4, 2, 0, 2, 1.0f, false, {0}}, 7 * 65000.0f, "weights of row 0"},
                 {{4, 0, 0, 1, 1.0f, false, {ATOM_FORMAT_FP4, 8}}, 6 * 65000.0f, "weights of row 1"},
                 {{4, 0, 2, 1, 1.0f, false, {0}}, 127 * 65000.0f, "outliers of row 1 are too large for a scale"},
                 {{4, 0, 2, 1, 1.0f, false, {ATOM_FORMAT_INT, 16}}, 65504.0f, "an outlier of row 1 is too large"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct atom_error err = {0};
        struct atom_qlinear *q = NULL;
        float w[8] = {1, 2, 3, 4, 5, 6, cases[i].large, 8};
        check(atom_quantize_rtn("giant", w, 2, 4, &cases[i].opt, NULL, &q, &err), &err);
        atom_qlinear_free(q);
        w[6] *= -2;
        assert_int_equal(atom_quantize_rtn("giant", w, 2, 4, &cases[i].opt, NULL, &q, &err), ATOM_ERR_NUMERIC);
        assert_non_null(strstr(err.message, "'giant'"));
        assert_non_null(strstr(err.message, cases[i].words));
    }
}

static void bad_weights_are_refused(void **state)
{
    (void)state;
    struct atom_qlinear *q = NULL;
    struct atom_weight_options opt = {4, 4, 1, 1, 1.0f, false, {0}};
    float w[8] = {1, 2, 3, NAN, 5, 6, 7, 8}, sum[16] = {0};
    struct atom_error err = {0};
    assert_int_equal(atom_quantize_rtn("model.x", w, 2, 4, &opt, NULL, &q, &err), ATOM_ERR_NUMERIC);
    assert_non_null(strstr(err.message, "model.x"));
    assert_non_null(strstr(err.message, "[0, 3]"));
    struct atom_hessian *hs = NULL;
    assert_int_equal(atom_hessian_create("s", sum, 4, 10, &hs, NULL), ATOM_OK);
    assert_int_equal(hs->n_dead, 4);
    w[3] = -INFINITY;
    assert_int_equal(atom_gptq("model.x", w, 2, 4, &opt, hs, &q, NULL), ATOM_ERR_NUMERIC);
    w[3] = 0;
    opt.bits = 5;
    assert_int_equal(atom_gptq("model.x", w, 2, 4, &opt, hs, &q, NULL), ATOM_ERR_INVALID);
    opt.bits = 4;
    opt.outliers = 5;
    assert_int_equal(atom_gptq("model.x", w, 2, 4, &opt, hs, &q, NULL), ATOM_ERR_INVALID);
    atom_hessian_free(hs);
    sum[1] = NAN;
    assert_int_equal(atom_hessian_create("s", sum, 4, 10, &hs, NULL), ATOM_ERR_NUMERIC);
}

/* ---- GPTQ ---- */

/* The inverse by Gauss and Jordan, then its upper Cholesky factor; a [k, k] is used up. */
static double *inverse_factor(double *a, int k)
{
    double *inv = calloc((size_t)k * (size_t)k, sizeof *inv);
    for (int i = 0; i < k; i++)
        inv[i * k + i] = 1;
    for (int i = 0; i < k; i++) {
        double p = a[i * k + i];
        for (int j = 0; j < k; j++) {
            a[i * k + j] /= p;
            inv[i * k + j] /= p;
        }
        for (int r = 0; r < k; r++) {
            double f = a[r * k + i];
            for (int j = 0; j < k && r != i; j++) {
                a[r * k + j] -= f * a[i * k + j];
                inv[r * k + j] -= f * inv[i * k + j];
            }
        }
    }
    double *u = calloc((size_t)k * (size_t)k, sizeof *u); /* inv = u'u */
    for (int i = 0; i < k; i++)
        for (int j = i; j < k; j++) {
            double x = inv[i * k + j];
            for (int m = 0; m < i; m++)
                x -= u[m * k + i] * u[m * k + j];
            u[i * k + j] = i == j ? sqrt(x) : x / u[i * k + i];
        }
    free(inv);
    return u;
}

static double *textbook_factor(const double *sum, int k, int tokens)
{
    double *h = malloc((size_t)k * (size_t)k * sizeof *h), mean = 0;
    for (int i = 0; i < k * k; i++)
        h[i] = sum[i] * 2 / tokens;
    for (int i = 0; i < k; i++) {
        if (h[i * k + i] == 0)
            h[i * k + i] = 1;
        mean += h[i * k + i] / k;
    }
    for (int i = 0; i < k; i++)
        h[i * k + i] += 0.01 * mean;
    double *u = inverse_factor(h, k);
    free(h);
    return u;
}

struct textbook {
    double *w;       /* [n, k], used up */
    const double *u; /* [k, k] */
    const struct atom_weight_options *opt;
    int n, k;
    int off, ties, close; /* integers that differ; those where a tie was near; scales that differ by an F16 step */
};

static void textbook_scales(struct textbook *b, const struct atom_qlinear *q, int g, double *s)
{
    const int main = b->k - q->outliers, set = q->rows_per_scale;
    for (int r = 0; r < b->n; r++) {
        double max = 0;
        for (int i = r / set * set; i < r / set * set + set && i < b->n; i++)
            for (int j = g * q->group; j < (g + 1) * q->group && j < main; j++)
                max = fmax(max, fabs(b->w[i * b->k + j]));
        float x = rounded_scale(2 * b->opt->clip * (float)max / (float)((1 << q->bits) - 1));
        float have = atom_f16_float(q->scales[r / set * q->groups + g]);
        assert_true(fabsf(have - x) <= fmaxf(x * 0x1p-10f, 0x1p-24f));
        b->close += have != x;
        s[r] = (double)have;
    }
}

/* One row and column: compares, then goes on from what the library chose, so that a tie is not followed by others. */
static void textbook_column(struct textbook *b, const struct atom_qlinear *q, int r, int j, double s)
{
    double *w = b->w + r * b->k, y = w[j] / s;
    int want = rounded(w[j], s, q->bits), have = q->q[r * (b->k - q->outliers) + j];
    bool near_tie = fabs(y - floor(y) - 0.5) < 1e-3;
    b->ties += near_tie;
    if (want != have) {
        b->off++;
        assert_true(near_tie);
    }
    double e = (w[j] - have * s) / b->u[j * b->k + j];
    for (int i = j + 1; i < b->k; i++)
        w[i] -= e * b->u[j * b->k + i];
}

static void compare_textbook(struct textbook *b, const struct atom_qlinear *q)
{
    const int k = b->k, main = k - q->outliers;
    double *s = malloc((size_t)b->n * sizeof *s);
    for (int j = 0; j < main; j++) {
        if (j % q->group == 0)
            textbook_scales(b, q, j / q->group, s);
        for (int r = 0; r < b->n; r++)
            textbook_column(b, q, r, j, s[r]);
    }
    for (int r = 0; r < b->n && q->outliers; r++) {
        double max = 0, scale = (double)atom_f16_float(q->outlier_scales[r]);
        for (int j = main; j < k; j++)
            max = fmax(max, fabs(b->w[r * k + j]));
        assert_true(fabs(scale - max / 127) <= max / 127 * 0x1p-10);
        for (int j = main; j < k; j++) {
            double y = b->w[r * k + j] / scale;
            if (fabs(y - floor(y) - 0.5) > 1e-2)
                assert_int_equal(q->outlier_q[r * q->outliers + j - main], rounded(y, 1, 8));
        }
    }
    free(s);
}

static void gptq_is_the_textbook(void **state)
{
    (void)state;
    static const struct {
        int n, k, dead;
        struct atom_weight_options opt;
    } rows[] = {
        {6, 24, -1, {4, 8, 4, 2, 0.85f, false, {0}}},    {5, 300, 17, {4, 128, 30, 2, 0.85f, false, {0}}},
        {67, 90, 3, {4, 0, 10, 1, 1.0f, false, {0}}},    {9, 77, -1, {3, 32, 0, 3, 0.9f, false, {0}}},
        {4, 200, 60, {8, 50, 20, 2, 1.0f, false, {0}}},  {3, 400, -1, {4, 190, 7, 1, 0.9f, false, {0}}},
        {200, 40, -1, {2, 16, 8, 70, 1.0f, false, {0}}}, {3, 1, -1, {4, 128, 0, 2, 1.0f, false, {0}}},
        {3, 8, -1, {4, 4, 8, 2, 1.0f, false, {0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int n = rows[i].n, k = rows[i].k, tokens = 3 * k + 20;
        struct atom_error err = {0};
        struct atom_hessian *hs = NULL;
        struct atom_qlinear *q = NULL;
        float *w = random_weights(n, k);
        double *sum = random_sum(k, tokens, rows[i].dead), *u = textbook_factor(sum, k, tokens);
        float *h = upper_floats(sum, k);
        check(atom_hessian_create("s", h, k, tokens, &hs, &err), &err);
        assert_int_equal(hs->n_dead, rows[i].dead >= 0);
        for (int a = 0; a < k * k; a++)
            assert_true(fabs((double)hs->u[a] - u[a]) <= 1e-4 * u[a / k * (k + 1)]);
        check(atom_gptq("w", w, n, k, &rows[i].opt, hs, &q, &err), &err);
        struct textbook b = {malloc((size_t)(n * k) * sizeof(double)), u, &rows[i].opt, n, k, 0, 0, 0};
        for (int a = 0; a < n * k; a++)
            b.w[a] = a % k == rows[i].dead ? 0 : (double)w[a];
        compare_textbook(&b, q);
        assert_true(b.off * 100 <= n * k && b.close * 50 <= n * q->groups + 50);
        free(b.w);
        atom_qlinear_free(q);
        atom_hessian_free(hs);
        free(h);
        free(u);
        free(sum);
        free(w);
    }
}

/* One linear with a Hessian, quantized in every way. */
struct fixture {
    int n, k;
    float *w, *h;
    struct atom_hessian *hs;
};

static void fixture_init(struct fixture *f, int n, int k)
{
    struct atom_error err = {0};
    double *sum = random_sum(k, 4 * k, -1);
    *f = (struct fixture){n, k, random_weights(n, k), upper_floats(sum, k), NULL};
    check(atom_hessian_create("s", f->h, k, 4 * k, &f->hs, &err), &err);
    free(sum);
}

static void fixture_fini(struct fixture *f)
{
    atom_hessian_free(f->hs);
    free(f->h);
    free(f->w);
}

static double error_of(const struct fixture *f, const struct atom_weight_options *opt, bool gptq)
{
    struct atom_error err = {0};
    struct atom_qlinear *q = NULL;
    double e = -1;
    check(gptq ? atom_gptq("w", f->w, f->n, f->k, opt, f->hs, &q, &err)
               : atom_quantize_rtn("w", f->w, f->n, f->k, opt, f->hs, &q, &err),
          &err);
    check(atom_qlinear_error(q, f->w, f->hs, &e, &err), &err);
    atom_qlinear_free(q);
    return e;
}

static void gptq_and_search_lower_the_error(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 100, 256);
    for (int bits = 2; bits <= 8; bits += bits == 4 ? 4 : 1) {
        struct atom_weight_options opt = {bits, 64, 32, 2, bits == 8 ? 1.0f : 0.9f, false, {0}};
        double rtn = error_of(&f, &opt, false), gptq = error_of(&f, &opt, true);
        assert_true(gptq < rtn);
        opt.search = true;
        opt.clip = 1;
        assert_true(error_of(&f, &opt, false) < rtn * 1.001);
        if (bits == 8)
            continue;
        assert_true(error_of(&f, &opt, true) < gptq);
    }
    fixture_fini(&f);
}

static void the_error_is_the_output_error(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 3, 20);
    struct atom_error err = {0};
    struct atom_qlinear *q = NULL;
    struct atom_weight_options opt = {3, 8, 4, 2, 1.0f, false, {0}};
    float read[60];
    double e = 0, top = 0, bottom = 0;
    check(atom_gptq("w", f.w, 3, 20, &opt, f.hs, &q, &err), &err);
    check(atom_qlinear_error(q, f.w, f.hs, &e, &err), &err);
    atom_qlinear_floats(q, 0, 3, read);
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 20; i++)
            for (int j = 0; j < 20; j++) {
                const float *w = f.w + r * 20;
                double h = (double)f.h[i * 20 + j];
                top += (double)(read[r * 20 + i] - w[i]) * h * (double)(read[r * 20 + j] - w[j]);
                bottom += (double)w[i] * h * (double)w[j];
            }
    assert_true(fabs(e - sqrt(top / bottom)) < 1e-5 * e + 1e-7);
    atom_qlinear_free(q);
    fixture_fini(&f);
}

static void blocks_change_nothing(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 70, 330);
    static const int groups[] = {0, 16, 48, 100, 128, 200};
    static const int blocks[] = {1, 7, 64, 128, 1000};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        const struct atom_weight_options opt = {4, groups[g], 30, 2, 0.9f, false, {0}};
        struct atom_error err = {0};
        struct atom_qlinear *q = NULL, *other = NULL;
        check(atom_gptq("w", f.w, f.n, f.k, &opt, f.hs, &q, &err), &err);
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
            check(atom_gptq_blocked("w", f.w, f.n, f.k, &opt, f.hs, blocks[b], &other, &err), &err);
            int off = 0;
            for (int i = 0; i < f.n * (f.k - 30); i++)
                off += q->q[i] != other->q[i];
            /* A tie that falls the other way moves what follows it in that pair of rows. */
            assert_true(off <= f.n * (f.k - 30) / 50);
            atom_qlinear_free(other);
        }
        atom_qlinear_free(q);
    }
    fixture_fini(&f);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 200, 160);
    const struct atom_weight_options opt = {4, 32, 16, 2, 1.0f, true, {0}};
    struct atom_error err = {0};
    struct atom_qlinear *q[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        check(atom_pool_start(1 + 2 * i, &err), &err);
        check(atom_gptq("w", f.w, f.n, f.k, &opt, f.hs, &q[i], &err), &err);
        atom_pool_stop();
    }
    assert_memory_equal(q[0]->q, q[1]->q, (size_t)(200 * 144));
    assert_memory_equal(q[0]->scales, q[1]->scales, (size_t)(100 * q[0]->groups) * 2);
    assert_memory_equal(q[0]->outlier_q, q[1]->outlier_q, (size_t)(200 * 16));
    atom_qlinear_free(q[0]);
    atom_qlinear_free(q[1]);
    fixture_fini(&f);
}

/* With Xq = Xf + noise of our making, the moved weights must fit better. */
static void retarget_tracks_the_float_network(void **state)
{
    (void)state;
    enum { K = 24, N = 5, T = 400 };
    static float xf[T * K], xq[T * K], sum[K * K], cross[K * K], w[N * K], moved[N * K];
    struct atom_error err = {0};
    struct atom_hessian *hs = NULL;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < K; i++) {
            xf[t * K + i] = (float)(gauss() + (i ? 0.7 * (double)xf[t * K + i - 1] : 0));
            xq[t * K + i] = xf[t * K + i] * 0.9f + (float)(gauss() * 0.2);
        }
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++)
            for (int t = 0; t < T; t++) {
                sum[i * K + j] += xq[t * K + i] * xq[t * K + j];
                cross[i * K + j] += (xf[t * K + i] - xq[t * K + i]) * xq[t * K + j];
            }
    check(atom_hessian_create("s", sum, K, T, &hs, &err), &err);
    double misfit[3] = {0};
    for (int i = 0; i < N * K; i++)
        w[i] = (float)gauss();
    for (int step = 0; step < 3; step++) {
        memcpy(moved, w, sizeof w);
        check(atom_retarget(hs, cross, T, 0.5f * (float)step, moved, N, &err), &err);
        for (int t = 0; t < T; t++)
            for (int r = 0; r < N; r++) {
                double d = 0;
                for (int i = 0; i < K; i++)
                    d += (double)(w[r * K + i] * xf[t * K + i] - moved[r * K + i] * xq[t * K + i]);
                misfit[step] += d * d;
            }
    }
    assert_true(misfit[2] < misfit[1] && misfit[1] < misfit[0]);
    atom_hessian_free(hs);
}

static int start(void **state)
{
    (void)state;
    rng = 12345;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(order_ranks, start),
        cmocka_unit_test_setup(order_gathers, start),
        cmocka_unit_test_setup(rtn_follows_the_formulas, start),
        cmocka_unit_test_setup(rtn_ties_and_zeros, start),
        cmocka_unit_test_setup(scales_that_no_half_holds_are_refused, start),
        cmocka_unit_test_setup(bad_weights_are_refused, start),
        cmocka_unit_test_setup(gptq_is_the_textbook, start),
        cmocka_unit_test_setup(gptq_and_search_lower_the_error, start),
        cmocka_unit_test_setup(the_error_is_the_output_error, start),
        cmocka_unit_test_setup(blocks_change_nothing, start),
        cmocka_unit_test_setup(threads_change_nothing, start),
        cmocka_unit_test_setup(retarget_tracks_the_float_network, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
