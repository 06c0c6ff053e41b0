/* SPDX-License-Identifier: Apache-2.0 */
/* Each kernel of each tier that this machine has: bit for bit the scalar one, on inputs at odd addresses with guard
 * bytes around the outputs. test_scalar.c holds the scalar ones against the specification. */
#include "inputs.h"

#include "base/half.h"
#include "kernels/hadamard.h"
#include "kernels/kernels.h"

static void same_bytes(const void *want, const void *got, size_t n_bytes, const char *what, const char *tier)
{
    if (n_bytes && memcmp(want, got, n_bytes)) {
        size_t at = 0;
        while (((const uint8_t *)want)[at] == ((const uint8_t *)got)[at])
            at++;
        fail_msg("%s of tier %s differs from scalar at byte %zu of %zu", what, tier, at, n_bytes);
    }
}

static void same_floats(const float *want, const float *got, int n, const char *what, const char *tier)
{
    same_bytes(want, got, (size_t)n * sizeof *want, what, tier);
}

/* ---- tiers --------------------------------------------------------------------------------------------------------
 */

static struct atom_kernels scalar;
static const struct tier {
    const char *name;
    unsigned mask;
    const char *needs;
    const char *only; /* the kernel that it adds to the tier before; NULL: all are its own */
} tiers[] = {{"scalar", 0, "", NULL},
             {"avx2", ATOM_CPU_AVX2, "AVX2", NULL},
             {"avxvnni", ATOM_CPU_AVX2 | ATOM_CPU_AVXVNNI, "AVX-VNNI", "linear_int"},
             {"avx512", ATOM_CPU_AVX2 | ATOM_CPU_AVX512, "AVX-512 VNNI", NULL}};

/* Runs a check of one tier against scalar, `rounds` times. */
static void each_round(void **state, void (*check)(const struct atom_kernels *k), int rounds)
{
    const struct tier *tier = *state;
    struct atom_kernels k;
    if (tier->mask & ~atom_cpu_detect()) {
        print_message("skip: this processor has no %s\n", tier->needs);
        skip();
    }
    atom_kernels_init(&k, tier->mask);
    assert_string_equal(k.name, tier->name);
    seed = 12345;
    for (int i = 0; i < rounds; i++) {
        check(&k);
        drop_all();
    }
}

static void check_rows(const struct atom_kernels *k)
{
    int n = between(1, 300), style = between(0, N_STYLES - 1);
    float *x = random_floats(n, style), *w = random_floats(n, ORDINARY), *a = floats(n), *b = floats(n);
    int32_t *order = take((size_t)n * sizeof *order, sizeof *order);
    for (int i = 0; i < n; i++)
        order[i] = between(0, n - 1);
    float want = scalar.sum_squares(x, n), got = k->sum_squares(x, n);
    same_floats(&want, &got, 1, "sum_squares", k->name);
    scalar.norm(x, order, w, 0.37f, n, a), k->norm(x, order, w, 0.37f, n, b);
    same_floats(a, b, n, "norm with an order", k->name);
    scalar.norm(x, NULL, w, 1e-3f, n, a), k->norm(x, NULL, w, 1e-3f, n, b);
    same_floats(a, b, n, "norm", k->name);
    scalar.silu_mul(x, w, n, a), k->silu_mul(x, w, n, b);
    same_floats(a, b, n, "silu_mul", k->name);
    for (int i = 0; i < n; i++)
        x[i] = fmodf(x[i], 300.0f); /* finite logits */
    want = scalar.logsumexp(x, n), got = k->logsumexp(x, n);
    same_floats(&want, &got, 1, "logsumexp", k->name);
}

static void check_rope(const struct atom_kernels *k)
{
    int half = between(1, 128);
    float *x = random_floats(2 * half, between(0, N_STYLES - 1)), *y = floats(2 * half);
    float *cos = random_floats(half, ORDINARY), *sin = random_floats(half, ORDINARY);
    memcpy(y, x, (size_t)(2 * half) * sizeof *x);
    scalar.rope(x, cos, sin, half), k->rope(y, cos, sin, half);
    same_floats(x, y, 2 * half, "rope", k->name);
}

static const int act_bits[] = {8, 4, 3};

static void check_quantize(const struct atom_kernels *k)
{
    struct atom_layout lay = random_layout(600);
    int bits = act_bits[between(0, 2)], bad = between(0, 7);
    float clip = between(0, 1) ? 1.0f : 0.9f, *x = random_floats(lay.k, between(0, N_STYLES - 1));
    if (bad < 3)
        x[between(0, lay.k - 1)] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
    int8_t *q[2];
    float *s[2];
    int32_t *sums[2];
    for (int i = 0; i < 2; i++) {
        q[i] = take((size_t)lay.k_padded, 1);
        s[i] = floats(lay.n_scales);
        sums[i] = take((size_t)lay.n_runs * sizeof(int32_t), sizeof(int32_t));
        assert_int_equal((i ? k : &scalar)->quantize(x, &lay, bits, clip, q[i], s[i], sums[i]), bad >= 3);
    }
    same_bytes(q[0], q[1], (size_t)lay.k_padded, "quantize's integers", k->name);
    same_floats(s[0], s[1], lay.n_scales, "quantize's scales", k->name);
    same_bytes(sums[0], sums[1], (size_t)lay.n_runs * sizeof(int32_t), "quantize's sums", k->name);
    atom_layout_fini(&lay);
}

static void check_softmax(const struct atom_kernels *k)
{
    int n = between(1, 256), up = (n + 15) / 16 * 16 + 16 * between(0, 2), bad = between(0, 9);
    float *a = floats(up), *b = floats(up), max[2], sum[2];
    for (int i = 0; i < up; i++)
        a[i] = unit() * ldexpf(1.0f, between(-2, 9));
    for (int i = 0; bad == 9 && i < n; i++) /* where exp ends */
        a[i] = i == n / 2 ? 0.0f : i % 2 ? -87.0f : nextafterf(-87.0f, -100.0f);
    if (bad < 3)
        a[between(0, n - 1)] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
    memcpy(b, a, (size_t)up * sizeof *a);
    scalar.softmax(a, n, up, &max[0], &sum[0]), k->softmax(b, n, up, &max[1], &sum[1]);
    same_floats(a, b, up, "softmax", k->name);
    same_floats(&max[0], &max[1], 1, "softmax's maximum", k->name);
    assert_int_equal(isnan(sum[1]) != 0, bad < 3);
    if (bad >= 3)
        same_floats(&sum[0], &sum[1], 1, "softmax's sum", k->name);
}

static void check_merge(const struct atom_kernels *k)
{
    int n = 16 * between(1, 16);
    float *o[2] = {random_floats(n, ORDINARY), floats(n)}, *more = random_floats(n, ORDINARY);
    memcpy(o[1], o[0], (size_t)n * sizeof(float));
    struct atom_partial part = {more, 20 * unit(), between(0, 3) ? 1.5f : 0.0f};
    struct atom_partial sum[2] = {{o[0], 20 * unit(), between(0, 3) ? 2.5f : 0.0f}, {.o = o[1]}};
    sum[1].max = sum[0].max;
    sum[1].total = sum[0].total;
    scalar.merge(&sum[0], &part, n), k->merge(&sum[1], &part, n);
    same_floats(o[0], o[1], n, "merge", k->name);
    same_floats(&sum[0].max, &sum[1].max, 1, "merge's maximum", k->name);
    same_floats(&sum[0].total, &sum[1].total, 1, "merge's total", k->name);
}

static void check_hadamard(const struct atom_kernels *k)
{
    int n = 16 << between(0, 6);
    float *x = random_floats(n, ORDINARY), *y = floats(n), *z = floats(n);
    memcpy(y, x, (size_t)n * sizeof *x);
    memcpy(z, x, (size_t)n * sizeof *x);
    scalar.hadamard(x, n), k->hadamard(y, n), atom_hadamard(z, n);
    same_floats(x, y, n, "hadamard", k->name);
    same_floats(z, y, n, "hadamard beside the plain one", k->name);
}

static void check_gemm(const struct atom_kernels *k)
{
    int m = between(0, 30), n = between(1, 140), panels = between(1, 6), lda = n + between(0, 9);
    int ldc = 32 * panels + between(0, 17), stride = n * 32 + 16 * between(0, 3);
    float *a = random_floats(m * lda, ORDINARY), *b = random_floats(panels * stride, between(0, 1) ? ORDINARY : MIXED);
    float *c = random_floats(m * ldc, ORDINARY), *d = floats(m * ldc);
    memcpy(d, c, (size_t)(m * ldc) * sizeof *c);
    struct atom_gemm_job job = {a, b, c, lda, ldc, m, n, panels, (size_t)stride, between(0, 1)}, same = job;
    same.c = d;
    scalar.gemm(&job), k->gemm(&same);
    for (int i = 0; i < m * ldc; i++)
        if (!isnan(c[i]) || !isnan(d[i])) /* which NaN it is is no result */
            same_floats(c + i, d + i, 1, "gemm", k->name);
}

/* ---- weights -------------------------------------------------------------------------------------------------------
 */

/* A linear in natural form beside the packed one that kernels.h draws. */
struct weights {
    struct atom_layout lay;
    struct atom_packed p;
    int8_t *q;       /* [panels * 32][k] */
    uint16_t *scale; /* [panels * 32][n_scales] F16 */
    float *w;        /* [panels * 32][k] of the float kinds */
};

static bool nibbles_at(const struct weights *w, const struct atom_run *run)
{
    return w->p.kind == ATOM_W_NIBBLE && run->scale < w->lay.n_groups;
}

/* Numbers of [low, high]: any, those two by chance, or one of them again and again, which fills sums to the brim. */
struct range {
    int low, high, style;
};

static int in_range(const struct range *r)
{
    if (r->style == 0)
        return between(r->low, r->high);
    return r->style == 1 ? (between(0, 1) ? r->low : r->high) : r->style == 2 ? r->low : r->high;
}

static int some_style(void) { return between(0, 1) * between(0, 3); }

static void pack_int(struct weights *w, int row)
{
    uint8_t *to = w->p.data + (size_t)(row / 32) * w->p.panel_bytes + (size_t)(row % 32) * 4;
    for (int i = 0; i < w->lay.n_runs; i++) {
        const struct atom_run *run = &w->lay.runs[i];
        bool nibbles = nibbles_at(w, run);
        for (int c = 0; c < run->padded; c++) {
            int q = c < run->len ? w->q[row * w->lay.k + run->first + c] : 0;
            uint8_t *at = to + (nibbles ? c / 8 : c / 4) * 128 + c % 4;
            if (!nibbles)
                *at = (uint8_t)(q + 128);
            else
                *at = (uint8_t)(c % 8 < 4 ? (*at & 0xF0) | (q + 8) : (*at & 15) | (q + 8) << 4);
        }
        to += run->padded * (nibbles ? 16 : 32);
    }
    for (int g = 0; g < w->lay.n_scales; g++)
        w->p.scales[((size_t)(row / 32) * (size_t)w->lay.n_scales + (size_t)g) * 32 + (size_t)(row % 32)] =
            w->scale[row * w->lay.n_scales + g];
}

static void fill_int(struct weights *w, int rows)
{
    size_t n_bytes = 0;
    for (int i = 0; i < w->lay.n_runs; i++)
        n_bytes += (size_t)w->lay.runs[i].padded * (nibbles_at(w, &w->lay.runs[i]) ? 16 : 32);
    w->p.panel_bytes = n_bytes;
    w->p.data = take(n_bytes * (size_t)w->p.n_panels, 1);
    w->p.scales = take((size_t)(rows * w->lay.n_scales) * 2, 2);
    w->q = take((size_t)(rows * w->lay.k), 1);
    w->scale = take((size_t)(rows * w->lay.n_scales) * 2, 2);
    int style = some_style();
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < w->lay.n_runs; i++)
            for (int c = w->lay.runs[i].first; c < w->lay.runs[i].first + w->lay.runs[i].len; c++) {
                int half = nibbles_at(w, &w->lay.runs[i]) ? 8 : 128;
                w->q[r * w->lay.k + c] = (int8_t)in_range(&(struct range){-half, half - 1, style});
            }
        for (int g = 0; g < w->lay.n_scales; g++)
            w->scale[r * w->lay.n_scales + g] = atom_float_f16(between(0, 9) ? fabsf(unit()) : 0x1p-24f);
        pack_int(w, r);
    }
}

static void fill_float(struct weights *w, int rows)
{
    size_t size = w->p.kind == ATOM_W_F32 ? 4 : 2;
    w->p.panel_bytes = (size_t)w->lay.k * 32 * size;
    w->p.data = take(w->p.panel_bytes * (size_t)w->p.n_panels, size);
    w->w = random_floats(rows * w->lay.k, between(0, 1) ? ORDINARY : MIXED);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < w->lay.k; c++) {
            float *x = &w->w[r * w->lay.k + c];
            uint8_t *to = w->p.data + (size_t)(r / 32) * w->p.panel_bytes + (size_t)(c * 32 + r % 32) * size;
            uint16_t h = w->p.kind == ATOM_W_F16 ? atom_float_f16(*x) : atom_float_bf16(*x);
            if (size == 2)
                *x = w->p.kind == ATOM_W_F16 ? atom_f16_float(h) : atom_bf16_float(h);
            memcpy(to, size == 4 ? (const void *)x : &h, size);
        }
}

/* A linear of one or two panels; kernels read whole panels. */
static void make_weights(struct weights *w, enum atom_weight_kind kind)
{
    memset(w, 0, sizeof *w);
    w->lay = random_layout(400);
    w->p.kind = kind;
    w->p.lay = &w->lay;
    w->p.n_panels = between(1, 2);
    w->p.n = w->p.n_panels * 32;
    if (kind == ATOM_W_NIBBLE || kind == ATOM_W_BYTE)
        fill_int(w, w->p.n);
    else
        fill_float(w, w->p.n);
}

static float weight_value(const struct weights *w, int row, const struct atom_run *run, int c)
{
    int at = row * w->lay.k + run->first + c;
    if (w->w)
        return w->w[at];
    return (float)w->q[at] * atom_f16_float(w->scale[row * w->lay.n_scales + run->scale]);
}

static void check_load_run(const struct atom_kernels *k)
{
    struct weights w;
    make_weights(&w, (enum atom_weight_kind)between(ATOM_W_F32, ATOM_W_BYTE));
    float *out = floats(ATOM_RUN_MAX * 32);
    for (int panel = 0; panel < w.p.n_panels; panel++)
        for (int i = 0; i < w.lay.n_runs; i++) {
            const struct atom_run *run = &w.lay.runs[i];
            k->load_run(&w.p, panel, run, out);
            for (int c = 0; c < run->len; c++)
                for (int r = 0; r < 32; r++) {
                    float want = weight_value(&w, panel * 32 + r, run, c);
                    same_floats(&want, &out[c * 32 + r], 1, "load_run", k->name);
                }
        }
    atom_layout_fini(&w.lay);
}

static void fill_acts(struct atom_acts *a, const struct atom_layout *lay, int n_tok)
{
    *a = (struct atom_acts){.lay = lay, .n_tok = n_tok, .bits = act_bits[between(0, 2)]};
    a->q = take((size_t)(n_tok * lay->row_bytes), 1);
    a->scales = floats(n_tok * lay->n_scales);
    a->sums = take((size_t)(n_tok * lay->n_runs) * sizeof *a->sums, sizeof *a->sums);
    memset(a->q, 0, (size_t)(n_tok * lay->row_bytes));
    int style = some_style();
    for (int t = 0; t < n_tok; t++) {
        for (int i = 0; i < lay->n_runs; i++) {
            int32_t sum = 0;
            int half = lay->runs[i].scale < lay->n_groups ? 1 << (a->bits - 1) : 128;
            for (int c = 0; c < lay->runs[i].len; c++) {
                int8_t q = (int8_t)in_range(&(struct range){-half, half - 1, style});
                a->q[t * lay->row_bytes + lay->runs[i].offset + c] = q;
                sum += q;
            }
            a->sums[t * lay->n_runs + i] = sum;
        }
        for (int g = 0; g < lay->n_scales; g++)
            a->scales[t * lay->n_scales + g] = fabsf(number(between(0, 3) ? ORDINARY : TINY));
    }
}

/* Integers in 64 bits; floats in the order of the specification, but a run at a time. */
static float linear_formula(const struct weights *w, const struct atom_acts *a, int t, int row)
{
    float y = 0.0f;
    for (int i = 0; i < w->lay.n_runs; i++) {
        const struct atom_run *run = &w->lay.runs[i];
        int64_t acc = 0;
        for (int c = 0; c < run->len; c++)
            acc += (int64_t)a->q[t * w->lay.row_bytes + run->offset + c] * w->q[row * w->lay.k + run->first + c];
        float s_w = atom_f16_float(w->scale[row * w->lay.n_scales + run->scale]);
        y = fmaf((float)acc, a->scales[t * w->lay.n_scales + run->scale] * s_w, y);
    }
    return y;
}

static void check_linear(const struct atom_kernels *k)
{
    static int n_tok = 0;
    struct weights w;
    struct atom_acts a;
    n_tok = n_tok % 30 + 1; /* every size of tile */
    make_weights(&w, between(0, 2) ? ATOM_W_NIBBLE : ATOM_W_BYTE);
    fill_acts(&a, &w.lay, n_tok);
    int tok0 = between(0, n_tok - 1) * between(0, 1), n = n_tok - tok0;
    int ld = 32 + between(0, 1) * between(0, 40);
    bool add = between(0, 1);
    float *y = floats((n - 1) * ld + 32), *before = random_floats((n - 1) * ld + 32, ORDINARY);
    for (int panel = 0; panel < w.p.n_panels; panel++) {
        const struct atom_linear_job job = {&w.p, &a, panel, tok0, n_tok, y, (size_t)ld, add};
        memcpy(y, before, (size_t)((n - 1) * ld + 32) * sizeof *y);
        k->linear_int(&job);
        for (int t = 0; t < n; t++)
            for (int r = 0; r < 32; r++) {
                float sum = linear_formula(&w, &a, tok0 + t, panel * 32 + r);
                float want = add ? before[t * ld + r] + sum : sum;
                same_floats(&want, &y[t * ld + r], 1, "linear_int against the formula", k->name);
            }
        for (int t = 0; t + 1 < n; t++)
            same_floats(before + t * ld + 32, y + t * ld + 32, ld - 32, "beside linear_int's rows", k->name);
    }
    atom_layout_fini(&w.lay);
}

/* bfloat16 products against doubles of the same rounded numbers: each of the k additions rounds once or twice, and what
 * is smaller than a normal number may be lost. */
static void bf16_sums_are_close(void **state)
{
    struct atom_kernels k;
    (void)state;
    if (!(atom_cpu_detect() & ATOM_CPU_BF16))
        skip_because("this processor has no AVX-512 BF16");
    atom_kernels_init(&k, atom_cpu_detect());
    assert_string_equal(k.name, "avx512bf16");
    seed = 77;
    for (int round = 0; round < 120; round++, drop_all()) {
        struct weights w;
        make_weights(&w, ATOM_W_BF16);
        int n = w.lay.k, n_tok = between(1, 20), tok0 = between(0, n_tok - 1), stride = n + n % 2 + between(0, 5);
        float *x = random_floats(n_tok * n, ORDINARY), *y = floats((n_tok - tok0) * 32);
        uint16_t *h = take((size_t)(n_tok * stride) * sizeof *h, sizeof *h);
        for (int t = 0; t < n_tok; t++) {
            k.to_bf16(x + t * n, n, h + t * stride);
            for (int c = 0; c < n; c++)
                assert_int_equal(h[t * stride + c], atom_float_bf16(x[t * n + c]));
            assert_true(n % 2 == 0 || h[t * stride + n] == 0);
        }
        for (int panel = 0; panel < w.p.n_panels; panel++) {
            k.linear_bf16(&(struct atom_bf16_job){&w.p, h, (size_t)stride, panel, tok0, n_tok, y});
            for (int i = 0; i < (n_tok - tok0) * 32; i++) {
                double want = 0, terms = 0;
                for (int c = 0; c < n; c++) {
                    double p = (double)w.w[(panel * 32 + i % 32) * n + c] *
                               (double)atom_bf16_float(h[(tok0 + i / 32) * stride + c]);
                    want += p;
                    terms += fabs(p);
                }
                if (terms > FLT_MAX / 2) /* sums on the way may be infinite */
                    continue;
                if (!(fabs((double)y[i] - want) <= 2 * n * 0x1p-24 * terms + n * 0x1p-125))
                    fail_msg("row %d: %g, not %g", i, (double)y[i], want);
            }
        }
        atom_layout_fini(&w.lay);
    }
}

/* ---- KV ------------------------------------------------------------------------------------------------------------
 */

static const int kv_bits[] = {8, 4, 3};

static void check_kv_quantize(const struct atom_kernels *k)
{
    int n = between(1, 260), bits = kv_bits[between(0, 2)], bad = between(0, 7);
    float clip = between(0, 1) ? 1.0f : 0.93f, *x = random_floats(n, between(0, N_STYLES - 1));
    if (bad < 3)
        x[between(0, n - 1)] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
    uint8_t *q[2] = {take((size_t)n, 1), take((size_t)n, 1)}, zero[2];
    uint16_t scale[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal((i ? k : &scalar)->kv_quantize(x, n, bits, clip, q[i], &scale[i], &zero[i]), bad >= 3);
    same_bytes(q[0], q[1], (size_t)n, "kv_quantize", k->name);
    assert_int_equal(scale[0], scale[1]);
    assert_int_equal(zero[0], zero[1]);
}

/* A page half with random contents, and what channel d of position p reads back as. */
struct page {
    struct atom_kv_shape shape;
    uint8_t *data;
    bool keys;
};

static float page_value(const struct page *pg, int d, int p)
{
    int hd = pg->shape.head_dim, half = hd / 2;
    bool nibble = pg->shape.kind == ATOM_KV_NIBBLE;
    int channel = nibble ? d % half : d, width = nibble ? half : hd;
    size_t at = (size_t)(pg->keys ? channel * 16 + p : p * width + channel);
    uint16_t h;
    float x;
    const uint8_t *tail = pg->data + pg->shape.half_bytes - 64;
    switch (pg->shape.kind) {
    case ATOM_KV_F32:
        memcpy(&x, pg->data + at * 4, 4);
        return x;
    case ATOM_KV_F16:
        memcpy(&h, pg->data + at * 2, 2);
        return atom_f16_float(h);
    default:
        break;
    }
    int q = pg->data[at];
    if (nibble)
        q = d < half ? q & 15 : q >> 4;
    memcpy(&h, tail + 2 * p, 2);
    return atom_f16_float(h) * (float)(q - tail[32 + p]);
}

static void make_page(struct page *pg, enum atom_kv_kind kind, bool keys)
{
    int hd = 2 * between(1, 128);
    size_t values = (size_t)hd * 16;
    const size_t bytes[] = {values * 4, values * 2, values + 64, values / 2 + 64};
    pg->keys = keys;
    pg->shape = (struct atom_kv_shape){kind, hd, 4, 1.0f, bytes[kind]};
    pg->data = take(bytes[kind], 4);
    for (size_t i = 0; i < bytes[kind]; i++)
        pg->data[i] = (uint8_t)draw();
    float x;
    uint16_t h;
    for (size_t i = 0; i < values && kind <= ATOM_KV_F16; i++) {
        x = number(MIXED);
        h = atom_float_f16(fmodf(x, 60000.0f));
        memcpy(pg->data + i * (kind == ATOM_KV_F32 ? 4 : 2), kind == ATOM_KV_F32 ? (void *)&x : (void *)&h,
               kind == ATOM_KV_F32 ? 4 : 2);
    }
    for (int p = 0; p < 16 && kind >= ATOM_KV_BYTE; p++) {
        h = atom_float_f16(fabsf(unit()) + 0x1p-24f);
        memcpy(pg->data + bytes[kind] - 64 + 2 * p, &h, 2);
        pg->data[bytes[kind] - 32 + (size_t)p] = (uint8_t)(kind == ATOM_KV_BYTE ? between(0, 255) : between(0, 15));
    }
}

static void check_keys(const struct atom_kernels *k)
{
    struct page pg;
    make_page(&pg, (enum atom_kv_kind)between(ATOM_KV_F32, ATOM_KV_NIBBLE), true);
    int hd = pg.shape.head_dim, half = hd / 2;
    float *cos = random_floats(half * 16, ORDINARY), *sin = random_floats(half * 16, ORDINARY), *out = floats(hd * 32);
    struct atom_rope_page rope = {cos, sin};
    for (int turned = 0; turned < 2; turned++) {
        memset(out, 0xA5, (size_t)(hd * 32) * sizeof *out);
        k->kv_keys(&pg.shape, pg.data, turned ? &rope : NULL, out);
        for (int d = 0; d < half; d++)
            for (int p = 0; p < 16; p++) {
                float a = page_value(&pg, d, p), b = page_value(&pg, d + half, p), c = cos[d * 16 + p],
                      s = sin[d * 16 + p];
                float want[2] = {turned ? a * c - b * s : a, turned ? fmaf(b, c, a * s) : b};
                for (int i = 0; i < 2; i++) /* 0 may have either sign */
                    if (want[i] != out[(d + i * half) * 32 + p] && !isnan(want[i]))
                        fail_msg("kv_keys of %s: kind %d, channel %d, position %d", k->name, (int)pg.shape.kind, d, p);
            }
        uint32_t guard[16];
        memset(guard, 0xA5, sizeof guard);
        for (int d = 0; d < hd - 1; d++)
            assert_memory_equal(out + d * 32 + 16, guard, sizeof guard);
    }
}

static void check_values(const struct atom_kernels *k)
{
    struct page pg;
    make_page(&pg, (enum atom_kv_kind)between(ATOM_KV_F32, ATOM_KV_NIBBLE), false);
    int hd = pg.shape.head_dim, n_pos = between(0, 16), panels = (hd + 31) / 32, stride = 32 * between(16, 20);
    float *out = floats(panels * stride);
    memset(out, 0xA5, (size_t)(panels * stride) * sizeof *out);
    k->kv_values(&pg.shape, pg.data, n_pos, (size_t)stride, out);
    for (int p = 0; p < 16; p++)
        for (int d = 0; d < panels * 32; d++) {
            float want = p < n_pos && d < hd ? page_value(&pg, d, p) : 0.0f;
            if (want != out[d / 32 * stride + p * 32 + d % 32])
                fail_msg("kv_values of %s: kind %d, channel %d, position %d", k->name, (int)pg.shape.kind, d, p);
        }
    uint32_t guard;
    memset(&guard, 0xA5, sizeof guard);
    for (int i = 0; i < panels * stride; i++)
        if (i % stride >= 512)
            assert_memory_equal(out + i, &guard, sizeof guard);
}

static void check_pages_equal_scalar(const struct atom_kernels *k)
{
    struct page pg;
    make_page(&pg, (enum atom_kv_kind)between(ATOM_KV_F32, ATOM_KV_NIBBLE), true);
    int hd = pg.shape.head_dim, n = (hd + 31) / 32 * 32 * 16;
    float *cos = random_floats(hd * 8, ORDINARY), *sin = random_floats(hd * 8, ORDINARY);
    float *a = floats(hd * 32), *b = floats(hd * 32), *c = floats(n), *d = floats(n);
    struct atom_rope_page rope = {cos, sin};
    for (int turned = 0; turned < 2; turned++) {
        scalar.kv_keys(&pg.shape, pg.data, turned ? &rope : NULL, a),
            k->kv_keys(&pg.shape, pg.data, turned ? &rope : NULL, b);
        for (int i = 0; i < hd * 32; i++)
            if (!isnan(a[i]) || !isnan(b[i]))
                same_floats(a + i, b + i, 1, "kv_keys", k->name);
    }
    scalar.kv_values(&pg.shape, pg.data, 16, 512, c), k->kv_values(&pg.shape, pg.data, 16, 512, d);
    same_floats(c, d, n, "kv_values", k->name);
}

#define ROUNDS(name, check, rounds)                                                                                    \
    static void name(void **state) { each_round(state, check, rounds); }
ROUNDS(rows_equal_scalar, check_rows, 1500)
ROUNDS(rope_equals_scalar, check_rope, 500)
ROUNDS(quantize_equals_scalar, check_quantize, 2000)
ROUNDS(softmax_equals_scalar, check_softmax, 1000)
ROUNDS(merge_equals_scalar, check_merge, 500)
ROUNDS(hadamard_equals_scalar, check_hadamard, 100)
ROUNDS(gemm_equals_scalar, check_gemm, 300)
ROUNDS(load_run_reads_panels, check_load_run, 120)
ROUNDS(linear_is_the_formula, check_linear, 180)
ROUNDS(kv_quantize_equals_scalar, check_kv_quantize, 2000)
ROUNDS(kv_keys_are_the_formula, check_keys, 150)
ROUNDS(kv_values_are_the_formula, check_values, 150)
ROUNDS(kv_pages_equal_scalar, check_pages_equal_scalar, 150)

static void the_strongest_tier_is_taken(void **state)
{
    struct atom_kernels k;
    unsigned cpu = atom_cpu_detect();
    (void)state;
    atom_kernels_init(&k, cpu & ~(unsigned)ATOM_CPU_BF16);
    assert_string_equal(k.name, cpu & ATOM_CPU_AVX512    ? "avx512"
                                : cpu & ATOM_CPU_AVXVNNI ? "avxvnni"
                                : cpu & ATOM_CPU_AVX2    ? "avx2"
                                                         : "scalar");
    atom_kernels_init(&k, 0);
    assert_string_equal(k.name, "scalar");
}

/* ---- the list ------------------------------------------------------------------------------------------------------
 */

typedef void test_fn(void **state);

int main(void)
{
    static const struct {
        const char *name;
        test_fn *fn;
    } tier_tests[] = {{"rows", rows_equal_scalar},           {"rope", rope_equals_scalar},
                      {"quantize", quantize_equals_scalar},  {"softmax", softmax_equals_scalar},
                      {"merge", merge_equals_scalar},        {"hadamard", hadamard_equals_scalar},
                      {"gemm", gemm_equals_scalar},          {"load_run", load_run_reads_panels},
                      {"linear_int", linear_is_the_formula}, {"kv_quantize", kv_quantize_equals_scalar},
                      {"kv_keys", kv_keys_are_the_formula},  {"kv_values", kv_values_are_the_formula},
                      {"kv_pages", kv_pages_equal_scalar}};
    const struct CMUnitTest plain[] = {cmocka_unit_test(the_strongest_tier_is_taken),
                                       cmocka_unit_test(bf16_sums_are_close)};
    enum { N_TIERS = sizeof tiers / sizeof tiers[0], N_EACH = sizeof tier_tests / sizeof tier_tests[0] };
    static char names[N_TIERS * N_EACH][64];
    struct CMUnitTest each[N_TIERS * N_EACH];
    int n = 0;
    atom_kernels_scalar(&scalar);
    for (int i = 0; i < N_TIERS * N_EACH; i++) {
        const struct tier *tier = &tiers[i / N_EACH];
        const char *kernel = tier_tests[i % N_EACH].name;
        if (tier->only && strcmp(tier->only, kernel) != 0)
            continue;
        snprintf(names[n], sizeof names[n], "%s of %s", kernel, tier->name);
        each[n] = (struct CMUnitTest){
            .name = names[n], .test_func = tier_tests[i % N_EACH].fn, .initial_state = (void *)tier};
        n++;
    }
    int failed = cmocka_run_group_tests_name("kernels", plain, NULL, NULL);
    return failed + _cmocka_run_group_tests("kernels of each tier", each, (size_t)n, NULL, NULL);
}
