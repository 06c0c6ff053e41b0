/* SPDX-License-Identifier: Apache-2.0 */
/* Formats that are simulated, from floats to a checkpoint's tensors and back: each step against its definition. */
#include "backend.h"

#include "base/half.h"
#include "quant/gptq.h"
#include "quant/pack.h"

static const enum atom_format formats[] = {ATOM_FORMAT_FP4, ATOM_FORMAT_NVFP4, ATOM_FORMAT_MXFP4};
enum { N_FORMATS = 3 };

/* ---- the definitions, in doubles --------------------------------------------------------------------------------- */

/* Of `n` numbers ascending, the one nearest to x; of two, that with the even index. */
static double nearest(const double *numbers, int n, double x)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        double d = fabs(numbers[i] - fabs(x)), was = fabs(numbers[best] - fabs(x));
        if (d < was || (d == was && i % 2 == 0))
            best = i;
    }
    return copysign(numbers[best], x);
}

static double e2m1(double x)
{
    static const double numbers[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    return nearest(numbers, 8, x);
}

static double e4m3(double x)
{
    static double numbers[127];
    for (int i = 0; i < 127; i++)
        numbers[i] = i < 8 ? i * 0x1p-9 : ldexp(8 + i % 8, i / 8 - 10);
    return nearest(numbers, 127, x);
}

/* A group's scale; `half`: FP4's is stored as F16. */
static float scale_of(enum atom_format format, float max, float tensor, bool half)
{
    if (format == ATOM_FORMAT_MXFP4)
        return max > 0 ? (float)exp2(fmax(floor(log2((double)max)) - 2, -127)) : 0x1p-127f;
    if (format == ATOM_FORMAT_NVFP4)
        return (float)e4m3((double)(max / 6 / tensor)) * tensor;
    if (half)
        return atom_f16_float(atom_float_f16(fmaxf(max / 6, 0x1p-24f)));
    return max < 0x1p-100f ? 1 : max / 6;
}

static float largest(const float *x, int n)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = fmaxf(max, fabsf(x[i]));
    return max;
}

static void round_group(enum atom_format format, float tensor, bool half, float *x, int n)
{
    float s = scale_of(format, largest(x, n), tensor, half);
    for (int i = 0; i < n; i++)
        x[i] = s > 0 ? (float)e2m1((double)(x[i] / s)) * s : 0;
}

/* Outliers in E4M3 under one scale. */
static void round_eighths(bool half, float *x, int n)
{
    float max = largest(x, n), s = max < 0x1p-100f ? 1 : max / 448;
    if (half)
        s = atom_f16_float(atom_float_f16(fmaxf(max / 448, 0x1p-24f)));
    for (int i = 0; i < n; i++)
        x[i] = (float)e4m3((double)(x[i] / s)) * s;
}

/* A row of k channels; tensor 0: the row is its own tensor. */
static void round_row(const struct atom_number_form *form, const struct atom_layout *lay, float tensor, float *x)
{
    int normal = lay->k - lay->outliers, group = lay->group ? lay->group : normal;
    bool weights = tensor > 0;
    if (!weights)
        tensor = largest(x, normal) < 0x1p-100f ? 1 : largest(x, normal) / (6 * 448);
    for (int first = 0; first < normal; first += group)
        round_group(form->format, tensor, weights, x + first, normal - first < group ? normal - first : group);
    if (form->outlier_bits != 16)
        round_eighths(weights, x + normal, lay->outliers);
    else
        for (int c = normal; c < lay->k && weights; c++)
            x[c] = atom_f16_float(atom_float_f16(x[c]));
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static void rows_are_rounded(void **state)
{
    (void)state;
    for (int i = 0; i < 600; i++) {
        struct atom_layout lay = random_layout(200);
        const struct atom_number_form form = {formats[i % N_FORMATS], i % 2 ? 16 : 8};
        float *x = random_floats(lay.k, i / 6 % N_STYLES), *want = room((size_t)lay.k * sizeof *want);
        memcpy(want, x, (size_t)lay.k * sizeof *want);
        round_row(&form, &lay, 0, want);
        assert_true(atom_round_row(&form, &lay, 1.0f, x));
        for (int c = 0; c < lay.k; c++)
            if (x[c] != want[c])
                fail_msg("%s, round %d, channel %d of %d: %.9g, not %.9g", atom_format_name(form.format), i, c, lay.k,
                         (double)x[c], (double)want[c]);
        x[between(0, lay.k - 1)] = i % 2 ? NAN : INFINITY;
        assert_false(atom_round_row(&form, &lay, 1.0f, x));
        free(want);
        drop_all();
        atom_layout_fini(&lay);
    }
}

static void known_rows(void **state)
{
    struct atom_layout lay;
    (void)state;
    /* 7 = 1.75 * 2^2: the power of two is 1, and 7 saturates; ties at 2.5 and 0.25 go to even */
    float mx[8] = {7, -6, 2.5f, 0.25f, 0.3f, -3.5f, 0, 5};
    const float mx_want[8] = {6, -6, 2, 0, 0.5f, -4, 0, 4};
    assert_ok(atom_layout_init(&lay, 8, 32, 0, &err), &err);
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_MXFP4, 8}, &lay, 1, mx));
    assert_memory_equal(mx, mx_want, sizeof mx);
    /* clipped to half, 3.5 makes a power of 2^-1: 7 and 6 saturate at 3 */
    float cut[8] = {7, -6, 2.5f, 0.25f, 0.3f, -3.5f, 0, 5};
    const float cut_want[8] = {3, -3, 2, 0.25f, 0.25f, -3, 0, 3};
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_MXFP4, 8}, &lay, 0.5f, cut));
    assert_memory_equal(cut, cut_want, sizeof cut);
    /* the last float below a power of two is scaled by the one before */
    float below[8] = {nextafterf(8, 0)}, at[8] = {8};
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_MXFP4, 8}, &lay, 1, below) && below[0] == 6);
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_MXFP4, 8}, &lay, 1, at) && at[0] == 8);
    atom_layout_fini(&lay);
    /* the tensor's largest, 2688, makes its scale 1: blocks have 448 and, from 60, 10 */
    float nv[18] = {2688, [16] = 60, -13};
    assert_ok(atom_layout_init(&lay, 18, 16, 0, &err), &err);
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_NVFP4, 8}, &lay, 1, nv));
    assert_true(nv[0] == 2688 && nv[1] == 0 && nv[16] == 60 && nv[17] == -15);
    /* a block so small beside the tensor that its scale is 0 is all zeros, not NaN */
    float tiny[18] = {2688, [16] = 0.001f, -0.0005f};
    assert_true(atom_round_row(&(struct atom_number_form){ATOM_FORMAT_NVFP4, 8}, &lay, 1, tiny));
    assert_true(tiny[0] == 2688 && tiny[16] == 0 && tiny[17] == 0);
    atom_layout_fini(&lay);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

struct stored {
    struct atom_layout lay;
    struct atom_qlinear *q;
    struct atom_pack pack;
    float *w, *back; /* [n, k] */
    int n;
};

static void store(struct stored *s, const struct atom_weight_options *opt, int n, int k)
{
    memset(s, 0, sizeof *s);
    s->n = n;
    s->w = room((size_t)(n * k) * sizeof *s->w);
    s->back = room((size_t)(n * k) * sizeof *s->back);
    for (int i = 0; i < n * k; i++)
        s->w[i] = unit() * ldexpf(1, between(-6, 3));
    assert_ok(atom_layout_init(&s->lay, k, opt->group, opt->outliers, &err), &err);
    assert_ok(atom_quantize_rtn("w", s->w, n, k, opt, NULL, &s->q, &err), &err);
    assert_ok(atom_pack_linear(&s->pack, "w", s->q, &err), &err);
    atom_qlinear_floats(s->q, 0, n, s->back);
}

static void drop_stored(struct stored *s)
{
    atom_pack_fini(&s->pack);
    atom_qlinear_free(s->q);
    atom_layout_fini(&s->lay);
    free(s->w);
    free(s->back);
}

static struct atom_weight_options options_of(int i, int *k)
{
    const enum atom_format format = i % 4 ? formats[i % 4 - 1] : ATOM_FORMAT_INT;
    const int group = atom_format_group(format);
    *k = between(1, 150);
    return (struct atom_weight_options){.bits = format || i % 8 ? 4 : 8,
                                        .group = group ? group : i % 3 * 20,
                                        .outliers = between(0, 2) * *k / 3,
                                        .rows_per_scale = group ? 1 : 1 + i % 3,
                                        .clip = 1,
                                        .form = {format, format && i % 5 ? 8 : 16}};
}

static void weights_are_rounded(void **state)
{
    (void)state;
    for (int i = 0; i < 120; i++) {
        struct stored s;
        int k, n = between(1, 70);
        struct atom_weight_options opt = options_of(i, &k);
        opt.rows_per_scale = 1;
        store(&s, &opt, n, k);
        float max = 0;
        for (int r = 0; r < n; r++)
            max = fmaxf(max, largest(s.w + r * k, k - opt.outliers));
        float tensor = opt.form.format == ATOM_FORMAT_NVFP4 && max > 0 ? max / 2688 : 1;
        assert_true(s.q->tensor_scale == tensor);
        for (int r = 0; r < n && opt.form.format; r++) {
            round_row(&opt.form, &s.lay, tensor, s.w + r * k);
            for (int c = 0; c < k; c++)
                if (s.w[r * k + c] != s.back[r * k + c])
                    fail_msg("%s, round %d, [%d, %d]: %.9g, not %.9g", atom_format_name(opt.form.format), i, r, c,
                             (double)s.back[r * k + c], (double)s.w[r * k + c]);
        }
        size_t n_bytes = 0;
        for (int t = 0; t < s.pack.n; t++)
            n_bytes += s.pack.at[t].n_bytes;
        assert_true(fabs(atom_qlinear_bits(s.q) * n * k - 8 * (double)n_bytes) < 1e-6);
        drop_stored(&s);
    }
}

static const void *part_of(const struct stored *s, const char *name)
{
    for (int i = 0; i < s->pack.n; i++)
        if (strcmp(s->pack.at[i].name + 2, name) == 0)
            return s->pack.at[i].data;
    return NULL;
}

/* What the backend reads from the packed tensors is what the quantizer meant, and its product one chain of fma: on
 * the scalar tier and the best, for one thread and two. */
static void simulated_linears(void **state)
{
    (void)state;
    for (int i = 0; i < 48; i++) {
        struct stored s;
        int k, n = between(1, 70), n_tok = between(1, 30);
        const struct atom_weight_options opt = options_of(i, &k);
        store(&s, &opt, n, k);
        struct atom_site site = {.lay = s.lay, .gathers = true, .bits = i % 3 ? 4 : 16, .clip = 0.9f, .form = opt.form};
        const struct atom_linear_part part = {.name = "w",
                                              .n = n,
                                              .kind = opt.bits == 8 ? ATOM_W_BYTE : ATOM_W_NIBBLE,
                                              .qweight = part_of(&s, "qweight"),
                                              .scales = part_of(&s, "scales"),
                                              .rows_per_scale = s.q->rows_per_scale,
                                              .outlier_qweight = part_of(&s, "outlier_qweight"),
                                              .outlier_scales = part_of(&s, "outlier_scales"),
                                              .outlier_weight = part_of(&s, "outlier_weight"),
                                              .tensor_scale = s.q->tensor_scale};
        const struct atom_work_shape shape = {.max_tok = n_tok,
                                              .hidden = k,
                                              .qkv_rows = n,
                                              .att_width = k,
                                              .gate_up_rows = 2 * k,
                                              .max_row_bytes = s.lay.row_bytes,
                                              .max_scales = s.lay.n_scales,
                                              .max_runs = s.lay.n_runs,
                                              .head_dim = 2};
        float *x = room((size_t)(n_tok * k) * sizeof *x), *acts = room((size_t)(n_tok * k) * sizeof *acts);
        fill(x, (size_t)(n_tok * k), 3);
        for (int way = 0; way < 2; way++) {
            struct atom_work *w;
            struct atom_linear *lin;
            atom_cpu_use(way ? 0 : ~(unsigned)ATOM_CPU_BF16);
            atom_pool_stop();
            assert_ok(atom_pool_start(1 + way, &err), &err);
            assert_ok(cpu->work_create(&shape, &w, &err), &err);
            assert_ok(cpu->linear_create(&site, &part, 1, &lin, &err), &err);
            cpu->set_x(w, x, n_tok);
            memcpy(w->buf[ATOM_BUF_ATT], x, (size_t)(n_tok * k) * sizeof *x);
            cpu->gather(w, &site, 1);
            cpu->get_acts(w, acts);
            cpu->linear(w, lin, ATOM_BUF_QKV, false);
            for (int t = 0; t < n_tok; t++)
                for (int r = 0; r < n; r++) {
                    float y = 0;
                    for (int c = 0; c < k; c++)
                        y = fmaf(acts[t * k + c], s.back[r * k + c], y);
                    if (opt.form.format || opt.outliers) /* else the packed kernel's sums */
                        assert_true(y == w->buf[ATOM_BUF_QKV][t * n + r]);
                }
            cpu->linear_free(lin);
            cpu->work_free(w);
        }
        free(x);
        free(acts);
        drop_stored(&s);
    }
}

/* ---- outliers of 16 bits beside integers --------------------------------------------------------------------------
 */

static void outliers_stay_floats(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        struct atom_site site = {.lay = random_layout(200), .gathers = true, .bits = i % 2 ? 4 : 8, .clip = 0.9f};
        int k = site.lay.k, normal = k - site.lay.outliers;
        const struct atom_work_shape shape = {.max_tok = 2,
                                              .hidden = k,
                                              .qkv_rows = 1,
                                              .att_width = k,
                                              .gate_up_rows = 2,
                                              .max_row_bytes = site.lay.row_bytes,
                                              .max_scales = site.lay.n_scales,
                                              .max_runs = site.lay.n_runs,
                                              .head_dim = 2};
        struct atom_work *w;
        float *x = room((size_t)k * 2 * sizeof *x), *acts[2] = {room((size_t)k * 8), room((size_t)k * 8)};
        fill(x, (size_t)k * 2, 5);
        assert_ok(cpu->work_create(&shape, &w, &err), &err);
        for (int way = 0; way < 2; way++) {
            site.form.outlier_bits = way ? 16 : 8;
            cpu->set_x(w, x, 2);
            memcpy(w->buf[ATOM_BUF_ATT], x, (size_t)k * 2 * sizeof *x);
            cpu->gather(w, &site, 1);
            cpu->get_acts(w, acts[way]);
        }
        for (int t = 0; t < 2; t++) {
            assert_memory_equal(acts[1] + t * k, acts[0] + t * k, (size_t)normal * sizeof *x);
            assert_memory_equal(acts[1] + t * k + normal, x + t * k + normal, (size_t)(k - normal) * sizeof *x);
        }
        w->buf[ATOM_BUF_ATT][k + k / 2] = NAN;
        cpu->gather(w, &site, 3);
        assert_int_equal(cpu->bad(w, 0), 0);
        assert_int_equal(cpu->bad(w, 1), 3);
        cpu->work_free(w);
        free(x);
        free(acts[0]);
        free(acts[1]);
        atom_layout_fini(&site.lay);
    }
}

/* ---- GPTQ and the search ------------------------------------------------------------------------------------------
 */

static void fitting_lowers_the_error(void **state)
{
    enum { N = 48, K = 160, TOKENS = 400 };
    static float w[N * K], x[TOKENS * K], sum[K * K];
    (void)state;
    fill(w, N * K, 1);
    fill(x, TOKENS * K, 1);
    for (int t = 0; t < TOKENS; t++) /* channels that move together */
        for (int c = 1; c < K; c++)
            x[t * K + c] += 0.8f * x[t * K + c - 1];
    for (int a = 0; a < K; a++)
        for (int b = 0; b < K; b++)
            for (int t = 0; t < TOKENS; t++)
                sum[a * K + b] += x[t * K + a] * x[t * K + b];
    struct atom_hessian *hs;
    assert_ok(atom_hessian_create("w", sum, K, TOKENS, &hs, &err), &err);
    for (int i = 0; i < N_FORMATS; i++) {
        double error[4];
        for (int way = 0; way < 4; way++) {
            struct atom_qlinear *q;
            int group = atom_format_group(formats[i]);
            const struct atom_weight_options opt = {.bits = 4,
                                                    .group = group ? group : 64,
                                                    .outliers = 16,
                                                    .rows_per_scale = 1,
                                                    .clip = 1,
                                                    .search = way % 2,
                                                    .form = {formats[i], 8}};
            enum atom_status st = way < 2 ? atom_quantize_rtn("w", w, N, K, &opt, hs, &q, &err)
                                          : atom_gptq("w", w, N, K, &opt, hs, &q, &err);
            assert_ok(st, &err);
            assert_ok(atom_qlinear_error(q, w, hs, &error[way], &err), &err);
            atom_qlinear_free(q);
        }
        print_message("%s: rounded %.4f, searched %.4f, GPTQ %.4f, both %.4f\n", atom_format_name(formats[i]), error[0],
                      error[1], error[2], error[3]);
        assert_true(error[1] < error[0] && error[2] < 0.8 * error[0] && error[3] < 0.8 * error[1]);
    }
    atom_hessian_free(hs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rows_are_rounded, start),     cmocka_unit_test_setup(known_rows, start),
        cmocka_unit_test_setup(weights_are_rounded, start),  cmocka_unit_test_setup(simulated_linears, start),
        cmocka_unit_test_setup(outliers_stay_floats, start), cmocka_unit_test_setup(fitting_lowers_the_error, start),
    };
    return cmocka_run_group_tests_name("formats", tests, NULL, NULL);
}
