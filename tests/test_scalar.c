/* SPDX-License-Identifier: Apache-2.0 */
/* The scalar kernels, which every other tier equals, against the formulas of docs/design.md, section 3, written out
 * here: integers and single roundings exactly, sums within bounds from their terms. And Hadamard transforms. */
#include "inputs.h"

#include "base/half.h"
#include "kernels/hadamard.h"
#include "kernels/kernels.h"

static struct atom_kernels scalar;
static const int act_bits[] = {8, 4, 3}, kv_bits[] = {8, 4, 3};

/* ---- scalar against the specification ------------------------------------------------------------------------------
 */

static float largest(const float *x, int n)
{
    float m = 0;
    for (int i = 0; i < n; i++)
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

static void quantize_is_the_formula(void **state)
{
    (void)state;
    seed = 7;
    for (int round = 0; round < 2000; round++, drop_all()) {
        struct atom_layout lay = random_layout(600);
        int bits = act_bits[between(0, 2)], normal = lay.k - lay.outliers;
        float clip = between(0, 1) ? 1.0f : 0.9f, *x = random_floats(lay.k, between(0, N_STYLES - 1));
        int8_t *q = take((size_t)lay.k_padded, 1);
        float *s = floats(lay.n_scales);
        int32_t *sums = take((size_t)lay.n_runs * sizeof *sums, sizeof *sums);
        assert_true(scalar.quantize(x, &lay, bits, clip, q, s, sums));
        int group = lay.group ? lay.group : normal;
        for (int i = 0, padded = 0; i < lay.n_runs; i++) {
            const struct atom_run *run = &lay.runs[i];
            bool outlier = run->first >= normal;
            int first = outlier ? normal : run->first / group * group;
            int end = outlier ? lay.k : first + group < normal ? first + group : normal;
            float m = largest(x + first, end - first), top = outlier ? 127.0f : (float)((1 << (bits - 1)) - 1);
            float scale = m < 0x1p-100f ? 1.0f : outlier ? m / 127.0f : clip * m / top;
            assert_true(s[run->scale] == scale);
            assert_true(run->len <= 128 && run->first + run->len <= end && run->offset == padded);
            padded += run->padded;
            int32_t sum = 0;
            for (int c = 0; c < run->padded; c++) {
                float v = c < run->len ? rintf(x[run->first + c] * (1.0f / scale)) : 0.0f;
                v = v > top ? top : v < -top - 1 ? -top - 1 : v;
                assert_int_equal(q[run->offset + c], (int)v);
                sum += (int32_t)v;
            }
            assert_int_equal(sums[i], sum);
        }
        atom_layout_fini(&lay);
    }
}

static void kv_quantize_is_the_formula(void **state)
{
    (void)state;
    seed = 8;
    for (int round = 0; round < 3000; round++, drop_all()) {
        int n = between(1, 260), bits = kv_bits[between(0, 2)], style = between(0, N_STYLES - 1);
        float clip = between(0, 1) ? 1.0f : 0.93f, *x = random_floats(n, style), min = 0, max = 0;
        float top = (float)((1 << bits) - 1), shift = between(0, 2) ? 0 : 4 * unit();
        uint8_t *q = take((size_t)n, 1), zero;
        uint16_t h;
        for (int i = 0; i < n; i++) {
            x[i] = style == ORDINARY ? x[i] + shift : x[i];
            max = fmaxf(max, x[i]);
            min = fminf(min, x[i]);
        }
        assert_true(scalar.kv_quantize(x, n, bits, clip, q, &h, &zero));
        float lo = clip * min, hi = clip * max;
        float wide = fmaxf(hi - lo, 1e-5f) / top, s = atom_f16_float(atom_float_f16(fminf(wide, 65504.0f)));
        float z = fminf(rintf(fminf(-lo / s, 1e6f)), top);
        assert_true(s > 0 && atom_f16_float(h) == s);
        assert_int_equal(zero, (int)z);
        for (int i = 0; i < n; i++) {
            float v = rintf(fmaxf(fminf(x[i] / s, 1e6f), -1e6f)) + z;
            assert_int_equal(q[i], (int)fmaxf(0, fminf(v, top)));
            /* Clipping aside, no further than half a step, and half of one more where zero had to be rounded. */
            if (clip == 1.0f && wide < 65504.0f)
                assert_true(fabs((double)s * (q[i] - zero) - (double)x[i]) <= (double)s * 1.01 + 1e-12);
        }
    }
}

/* |got - want| for a sum of n terms in float32 whose magnitudes add up to `terms`. */
static double sum_bound(int n, double terms) { return (double)(n / 16 + 5) * FLT_EPSILON * terms; }

static void sums_are_close(void **state)
{
    (void)state;
    seed = 9;
    for (int round = 0; round < 500; round++, drop_all()) {
        int n = between(1, 3000);
        float *x = random_floats(n, ORDINARY);
        double want = 0, e = 0;
        for (int i = 0; i < n; i++) {
            want += (double)x[i] * (double)x[i];
            e += exp((double)x[i]);
        }
        assert_true(fabs((double)scalar.sum_squares(x, n) - want) <= sum_bound(n, want));
        /* exp is off by 2 ulp and its argument by one of |x| <= 6; log is off by 1 ulp of the result. */
        double bound =
            (double)(n / 16 + 5) * FLT_EPSILON + 8 * FLT_EPSILON + FLT_EPSILON * fabs(log(e)) + 3 * FLT_EPSILON;
        assert_true(fabs((double)scalar.logsumexp(x, n) - log(e)) <= bound);
    }
}

static void exp_is_close(void **state)
{
    (void)state;
    seed = 10;
    for (int round = 0; round < 2000; round++, drop_all()) {
        int n = between(2, 256), up = (n + 15) / 16 * 16;
        float *s = floats(up), *was = floats(up), max, sum;
        for (int i = 0; i < up; i++)
            was[i] = s[i] = 90 * unit();
        float m = was[0];
        for (int i = 1; i < n; i++)
            m = fmaxf(m, was[i]);
        scalar.softmax(s, n, up, &max, &sum);
        assert_true(max == m);
        double total = 0;
        for (int i = 0; i < up; i++) {
            float arg = was[i] - m; /* rounded, as the kernel does it */
            double want = i >= n || arg < -87.0f ? 0 : exp((double)arg);
            assert_true(fabs((double)s[i] - want) <= 2 * FLT_EPSILON * want);
            total += (double)s[i];
        }
        assert_true(fabs((double)sum - total) <= sum_bound(n, total));
    }
}

static void silu_is_close(void **state)
{
    (void)state;
    seed = 11;
    for (int round = 0; round < 500; round++, drop_all()) {
        int n = between(1, 300);
        float *gate = random_floats(n, ORDINARY), *up = random_floats(n, ORDINARY), *y = floats(n);
        for (int i = 0; i < n; i++)
            gate[i] *= (float)between(1, 40);
        scalar.silu_mul(gate, up, n, y);
        for (int i = 0; i < n; i++) {
            double g = (double)gate[i], want = g / (1 + exp(-g)) * (double)up[i];
            /* exp 2 ulp, then +, /, * one half each; past 87 exp is 0 or stands still, and silu below 1e-35. */
            assert_true(fabs((double)y[i] - want) <= 5 * FLT_EPSILON * fabs(want) + 1e-33);
        }
    }
    float edge[4] = {INFINITY, -INFINITY, NAN, 200}, one[4] = {1, 1, 1, 1}, y[4];
    scalar.silu_mul(edge, one, 4, y);
    assert_false(isfinite(y[0]) || isfinite(y[1]) || isfinite(y[2]));
    assert_true(y[3] == 200);
}

static void norm_is_the_formula(void **state)
{
    (void)state;
    seed = 12;
    for (int round = 0; round < 300; round++, drop_all()) {
        int n = between(1, 300);
        float *x = random_floats(n, ORDINARY), *w = random_floats(n, ORDINARY), *y = floats(n), r = fabsf(unit());
        int32_t *order = take((size_t)n * sizeof *order, 4);
        for (int i = 0; i < n; i++)
            order[i] = between(0, n - 1);
        scalar.norm(x, order, w, r, n, y);
        for (int i = 0; i < n; i++)
            assert_true(y[i] == x[order[i]] * r * w[i]);
        scalar.norm(x, NULL, w, r, n, y);
        for (int i = 0; i < n; i++)
            assert_true(y[i] == x[i] * r * w[i]);
    }
}

static void gemm_is_a_chain(void **state)
{
    (void)state;
    seed = 16;
    for (int round = 0; round < 100; round++, drop_all()) {
        int m = between(1, 5), n = between(1, 140);
        float *a = random_floats(m * n, ORDINARY), *b = random_floats(n * 32, ORDINARY),
              *c = random_floats(m * 32, ORDINARY);
        float *y = floats(m * 32);
        memcpy(y, c, (size_t)(m * 32) * sizeof *c);
        bool add = between(0, 1);
        scalar.gemm(&(struct atom_gemm_job){a, b, y, n, 32, m, n, 1, 0, add});
        for (int t = 0; t < m; t++)
            for (int r = 0; r < 32; r++) {
                float want = add ? c[t * 32 + r] : 0.0f;
                for (int i = 0; i < n; i++)
                    want = fmaf(a[t * n + i], b[i * 32 + r], want);
                assert_true(y[t * 32 + r] == want);
            }
    }
}

static void rope_turns_pairs(void **state)
{
    (void)state;
    seed = 13;
    for (int round = 0; round < 300; round++, drop_all()) {
        int half = between(1, 128);
        float *x = random_floats(2 * half, ORDINARY), *y = floats(2 * half), *c = floats(half), *s = floats(half);
        for (int i = 0; i < half; i++) {
            c[i] = cosf(9 * unit());
            s[i] = sinf(9 * unit());
        }
        memcpy(y, x, (size_t)(2 * half) * sizeof *x);
        scalar.rope(y, c, s, half);
        for (int i = 0; i < half; i++) {
            double a = (double)x[i], b = (double)x[half + i], terms = fabs(a) + fabs(b);
            assert_true(fabs((double)y[i] - (a * (double)c[i] - b * (double)s[i])) <= 2 * FLT_EPSILON * terms);
            assert_true(fabs((double)y[half + i] - (a * (double)s[i] + b * (double)c[i])) <= 2 * FLT_EPSILON * terms);
        }
    }
}

static void merge_is_close(void **state)
{
    (void)state;
    seed = 14;
    for (int round = 0; round < 300; round++, drop_all()) {
        float *a = random_floats(16, ORDINARY), *b = random_floats(16, ORDINARY), was[16];
        struct atom_partial sum = {a, 5 * unit(), 1.25f}, part = {b, 5 * unit(), 3.5f};
        memcpy(was, a, sizeof was);
        double m = fmax((double)sum.max, (double)part.max), ea = exp((double)sum.max - m),
               eb = exp((double)part.max - m);
        scalar.merge(&sum, &part, 16);
        assert_true((double)sum.max == m);
        /* Each weight: its argument half an ulp of at most 10, exp 2 ulp; then product and sum. */
        double unit_bound = (5 + 2 + 1) * FLT_EPSILON;
        assert_true(fabs((double)sum.total - (1.25 * ea + 3.5 * eb)) <= unit_bound * (1.25 * ea + 3.5 * eb));
        for (int i = 0; i < 16; i++) {
            double want = (double)was[i] * ea + (double)b[i] * eb,
                   terms = fabs((double)was[i]) * ea + fabs((double)b[i]) * eb;
            assert_true(fabs((double)a[i] - want) <= unit_bound * terms);
        }
        float kept = a[3];
        struct atom_partial none = {b, 99, 0};
        scalar.merge(&sum, &none, 16);
        assert_true(a[3] == kept && (double)sum.max == m);
    }
}

/* ---- Hadamard ------------------------------------------------------------------------------------------------------
 */

static void hadamard_sizes(void **state)
{
    (void)state;
    for (int n = -1; n <= 2048; n++) {
        int odd = n;
        while (odd > 1 && odd % 2 == 0)
            odd /= 2;
        bool want =
            n > 0 && n <= ATOM_HADAMARD_MAX && (odd == 1 || (odd == 3 && n % 12 == 0) || (odd == 5 && n % 20 == 0));
        assert_int_equal(atom_hadamard_has(n), want);
    }
}

static void hadamard_is_orthonormal(void **state)
{
    (void)state;
    seed = 15;
    for (int n = 1; n <= ATOM_HADAMARD_MAX; n++) {
        if (!atom_hadamard_has(n) || (n > 160 && n != ATOM_HADAMARD_MAX))
            continue;
        float *m = malloc((size_t)n * (size_t)n * sizeof *m), flat = 1.0f / sqrtf((float)n);
        assert_non_null(m);
        memset(m, 0, (size_t)n * (size_t)n * sizeof *m);
        for (int i = 0; i < n; i++) { /* row i: the transform of unit vector i, entries +-1/sqrt(n) */
            m[i * n + i] = 1;
            atom_hadamard(m + i * n, n);
            for (int j = 0; j < n; j++)
                assert_true(fabsf(m[i * n + j]) == flat);
        }
        for (int i = 0; i < n && n <= 160; i++)
            for (int j = 0; j < i; j++) {
                int dot = 0;
                for (int l = 0; l < n; l++)
                    dot += (m[i * n + l] > 0) == (m[j * n + l] > 0) ? 1 : -1;
                assert_int_equal(dot, 0);
            }
        float x[ATOM_HADAMARD_MAX], y[ATOM_HADAMARD_MAX];
        double norm = 0;
        for (int i = 0; i < n; i++) {
            x[i] = y[i] = unit();
            norm += (double)x[i] * (double)x[i];
        }
        atom_hadamard(y, n);
        for (int j = 0; j < n; j++) { /* linear: the same matrix for any vector */
            double want = 0, terms = 0;
            for (int i = 0; i < n; i++) {
                want += (double)x[i] * (double)m[i * n + j];
                terms += fabs((double)x[i]) * (double)flat;
            }
            assert_true(fabs((double)y[j] - want) <= 32 * FLT_EPSILON * terms);
        }
        atom_hadamard_undo(y, n);
        for (int i = 0; i < n; i++)
            assert_true(fabs((double)y[i] - (double)x[i]) <= 64 * FLT_EPSILON * sqrt(norm));
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantize_is_the_formula), cmocka_unit_test(kv_quantize_is_the_formula),
        cmocka_unit_test(sums_are_close),          cmocka_unit_test(exp_is_close),
        cmocka_unit_test(silu_is_close),           cmocka_unit_test(norm_is_the_formula),
        cmocka_unit_test(gemm_is_a_chain),         cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(merge_is_close),          cmocka_unit_test(hadamard_sizes),
        cmocka_unit_test(hadamard_is_orthonormal),
    };
    atom_kernels_scalar(&scalar);
    return cmocka_run_group_tests_name("scalar kernels", tests, NULL, NULL);
}
