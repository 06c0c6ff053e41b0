/* SPDX-License-Identifier: Apache-2.0 */
/* Linears packed, written, read back; and what a damaged file is told. */
#include "helpers.h"

#include "quant/pack.h"

#include <math.h>

static struct atom_error err;
static char *dir;

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    dir = make_dir();
    return 0;
}

static int gone(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

static struct atom_qlinear *make_linear(int n, int k, const struct atom_weight_options *opt)
{
    struct atom_qlinear *q = NULL;
    float *w = malloc((size_t)n * (size_t)k * sizeof *w);
    for (int i = 0; i < n * k; i++)
        w[i] = (float)sin(i * 1.7) * 0.1f;
    assert_ok(atom_quantize_rtn("w", w, n, k, opt, NULL, &q, &err), &err);
    free(w);
    return q;
}

static void write_pack(const struct atom_pack *p)
{
    assert_ok(atom_safetensors_write(in_dir(dir, "model.safetensors"), p->at, p->n, &err), &err);
}

static struct atom_tensors *open_dir(void)
{
    struct atom_tensors *t = NULL;
    assert_ok(atom_tensors_open(dir, &t, &err), &err);
    return t;
}

static void assert_same(const struct atom_qlinear *a, const struct atom_qlinear *b)
{
    const size_t n = (size_t)a->n, main = (size_t)(a->k - a->outliers), o = (size_t)a->outliers;
    const size_t sets = (n - 1) / (size_t)a->rows_per_scale + 1;
    assert_int_equal(a->groups, b->groups);
    assert_memory_equal(a->q, b->q, n * main);
    assert_memory_equal(a->scales, b->scales, sets * (size_t)a->groups * 2);
    if (o) {
        assert_memory_equal(a->outlier_q, b->outlier_q, n * o);
        assert_memory_equal(a->outlier_scales, b->outlier_scales, n * 2);
    }
}

static void linears_come_back(void **state)
{
    (void)state;
    static const struct {
        int n, k;
        struct atom_weight_options opt;
    } rows[] = {
        {5, 37, {4, 16, 4, 2, 0.85f, false}}, {3, 8, {8, 4, 2, 2, 1.0f, false}},  {1, 1, {4, 128, 0, 1, 1.0f, false}},
        {4, 6, {4, 128, 6, 2, 1.0f, false}},  {7, 21, {3, 0, 0, 3, 1.0f, false}}, {2, 10, {2, 4, 1, 8, 1.0f, false}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct atom_pack p = {0};
        struct atom_qlinear *q = make_linear(rows[i].n, rows[i].k, &rows[i].opt), *back = NULL;
        const int32_t order[3] = {2, 0, 1};
        int32_t order_back[3];
        assert_ok(atom_pack_linear(&p, "model.layers.0.x", q, &err), &err);
        assert_ok(atom_pack_order(&p, "model.layers.0.attn_in", order, 3, &err), &err);
        assert_int_equal(p.n, rows[i].opt.outliers ? 5 : 3);
        write_pack(&p);
        size_t n_bytes = 0;
        for (int t = 0; t < p.n - 1; t++)
            n_bytes += p.at[t].n_bytes;
        assert_true(fabs(atom_qlinear_bits(q) * q->n * q->k - 8 * (double)n_bytes) < 1e-6);
        struct atom_tensors *t = open_dir();
        assert_ok(atom_unpack_linear(t, "model.layers.0.x", q->n, q->k, &rows[i].opt, &back, &err), &err);
        assert_same(q, back);
        assert_ok(atom_unpack_order(t, "model.layers.0.attn_in", 3, order_back, &err), &err);
        assert_memory_equal(order, order_back, sizeof order);
        atom_tensors_close(t);
        atom_qlinear_free(q);
        atom_qlinear_free(back);
        atom_pack_fini(&p);
    }
}

static void nibbles_lie_as_drawn(void **state)
{
    (void)state;
    struct atom_pack p = {0};
    const struct atom_weight_options opt = {4, 3, 0, 1, 1.0f, false};
    struct atom_qlinear *q = make_linear(1, 3, &opt);
    memcpy(q->q, ((int8_t[3]){-8, 7, 1}), 3);
    assert_ok(atom_pack_linear(&p, "a", q, &err), &err);
    assert_string_equal(p.at[0].name, "a.qweight");
    assert_int_equal(p.at[0].dtype, ATOM_U8);
    assert_memory_equal(p.at[0].data, ((uint8_t[2]){0xf0, 0x89}), 2);
    atom_qlinear_free(q);
    atom_pack_fini(&p);
}

static void heads_come_back(void **state)
{
    (void)state;
    struct atom_pack p = {0};
    const struct atom_weight_options opt = {8, 0, 0, 1, 1.0f, false}, wrong = {8, 2, 0, 1, 1.0f, false};
    struct atom_qlinear *q = make_linear(9, 4, &opt), *bad = make_linear(9, 4, &wrong), *back = NULL;
    assert_ok(atom_pack_head(&p, "lm_head", q, &err), &err);
    assert_int_equal(p.at[1].n_dims, 1);
    write_pack(&p);
    struct atom_tensors *t = open_dir();
    assert_ok(atom_unpack_head(t, "lm_head", 9, 4, &back, &err), &err);
    assert_same(q, back);
    assert_int_equal(atom_pack_head(&p, "lm_head", bad, NULL), ATOM_ERR_INVALID);
    atom_tensors_close(t);
    atom_qlinear_free(q);
    atom_qlinear_free(bad);
    atom_qlinear_free(back);
    atom_pack_fini(&p);
}

static void plain_tensors_are_borrowed(void **state)
{
    (void)state;
    struct atom_pack p = {0};
    const float norm[2] = {1, 2};
    const struct atom_tensor t = {
        .name = "norm", .dtype = ATOM_F32, .n_dims = 1, .dims = {2}, .data = norm, .n_bytes = sizeof norm, .file = ""};
    assert_ok(atom_pack_tensor(&p, &t, NULL, &err), &err);
    assert_ok(atom_pack_tensor(&p, &t, "other", &err), &err);
    assert_string_equal(p.at[0].name, "norm");
    assert_string_equal(p.at[1].name, "other");
    assert_ptr_equal(p.at[1].data, norm);
    atom_pack_fini(&p);
}

/* Packs a sound linear, lets `spoil` at the tensors, and wants `words`. */
static void expect_refusal(void (*spoil)(struct atom_pack *p), int bits, const char *words)
{
    struct atom_pack p = {0};
    struct atom_weight_options opt = {bits, 4, 2, 2, 1.0f, false};
    struct atom_qlinear *q = make_linear(4, 9, &opt), *back = NULL;
    memset(&err, 0, sizeof err);
    assert_ok(atom_pack_linear(&p, "w", q, &err), &err);
    spoil(&p);
    write_pack(&p);
    struct atom_tensors *t = open_dir();
    assert_fails(atom_unpack_linear(t, "w", 4, 9, &opt, &back, &err), &err, ATOM_ERR_FORMAT, words);
    assert_null(back);
    atom_tensors_close(t);
    atom_qlinear_free(q);
    atom_pack_fini(&p);
}

static uint8_t *bytes_of(struct atom_pack *p, int i)
{
    union {
        const void *in;
        uint8_t *out;
    } data = {p->at[i].data};
    return data.out;
}

static void spoil_padding(struct atom_pack *p) { bytes_of(p, 0)[3] = (uint8_t)(bytes_of(p, 0)[3] ^ 0x10); }
static void spoil_value(struct atom_pack *p) { bytes_of(p, 0)[4] = 0x80; }
static void spoil_scale(struct atom_pack *p) { memset(bytes_of(p, 1), 0, 2); }
static void spoil_outlier_scale(struct atom_pack *p) { memcpy(bytes_of(p, 3), "\0\x7e", 2); }
static void spoil_shape(struct atom_pack *p) { p->at[1].dims[0] = 4, p->at[1].dims[1] = 1; }
static void spoil_dtype(struct atom_pack *p) { p->at[2].dtype = ATOM_U8; }
static void spoil_name(struct atom_pack *p) { p->at[3].name = "w.scale"; }

static void damage_is_told(void **state)
{
    (void)state;
    expect_refusal(spoil_padding, 4, "padding");
    expect_refusal(spoil_value, 3, "w.qweight");
    expect_refusal(spoil_scale, 4, "w.scales");
    expect_refusal(spoil_outlier_scale, 4, "w.outlier_scales");
    expect_refusal(spoil_shape, 4, "w.scales");
    expect_refusal(spoil_dtype, 4, "w.outlier_qweight");
    expect_refusal(spoil_name, 4, "w.outlier_scales");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(linears_come_back, fresh, gone),
        cmocka_unit_test_setup_teardown(nibbles_lie_as_drawn, fresh, gone),
        cmocka_unit_test_setup_teardown(heads_come_back, fresh, gone),
        cmocka_unit_test_setup_teardown(plain_tensors_are_borrowed, fresh, gone),
        cmocka_unit_test_setup_teardown(damage_is_told, fresh, gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
