/* SPDX-License-Identifier: Apache-2.0 */
/* Linears packed, written, and found in the file again. */
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

/* linear.part of the open file, of this type and shape. */
static const void *part_of(const struct atom_tensors *t, const char *linear, const char *part, enum atom_dtype dtype,
                           int64_t d0, int64_t d1)
{
    char name[64];
    const struct atom_tensor *tensor = NULL;
    snprintf(name, sizeof name, "%s.%s", linear, part);
    assert_ok(atom_tensors_need(t, name, 1u << dtype, d0, d1, &tensor, &err), &err);
    return tensor->data;
}

/* Under 8 bits, q of row r and column j < columns, which row_bytes hold; what is beyond is padding. */
static void check_nibbles(const uint8_t *packed, const struct atom_qlinear *q, int columns)
{
    int row_bytes = (columns + 1) / 2;
    for (int r = 0; r < q->n; r++)
        for (int j = 0; j < 2 * row_bytes; j++) {
            int x = (packed[r * row_bytes + j / 2] >> (j % 2 * 4) & 15) - 8;
            assert_int_equal(x, j < columns ? q->q[r * columns + j] : 0);
        }
}

static void check_linear(const struct atom_tensors *t, const char *linear, const struct atom_qlinear *q)
{
    const int n = q->n, main = q->k - q->outliers, o = q->outliers, sets = (n - 1) / q->rows_per_scale + 1;
    if (q->bits == 8)
        assert_memory_equal(part_of(t, linear, "qweight", ATOM_I8, n, main), q->q, (size_t)(n * main));
    else
        check_nibbles(part_of(t, linear, "qweight", ATOM_U8, n, (main + 1) / 2), q, main);
    const void *scales = part_of(t, linear, "scales", ATOM_F16, sets, q->groups);
    assert_memory_equal(scales, q->scales, (size_t)(sets * q->groups * 2));
    if (o) {
        assert_memory_equal(part_of(t, linear, "outlier_qweight", ATOM_I8, n, o), q->outlier_q, (size_t)(n * o));
        assert_memory_equal(part_of(t, linear, "outlier_scales", ATOM_F16, n, -1), q->outlier_scales, (size_t)(n * 2));
    }
}

static void linears_come_back(void **state)
{
    (void)state;
    static const struct {
        int n, k;
        struct atom_weight_options opt;
    } rows[] = {
        {5, 37, {4, 16, 4, 2, 0.85f, false, {0}}}, {3, 8, {8, 4, 2, 2, 1.0f, false, {0}}},
        {1, 1, {4, 128, 0, 1, 1.0f, false, {0}}},  {4, 6, {4, 128, 6, 2, 1.0f, false, {0}}},
        {7, 21, {3, 0, 0, 3, 1.0f, false, {0}}},   {2, 10, {2, 4, 1, 8, 1.0f, false, {0}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct atom_pack p = {0};
        struct atom_qlinear *q = make_linear(rows[i].n, rows[i].k, &rows[i].opt);
        const int32_t order[3] = {2, 0, 1};
        assert_ok(atom_pack_linear(&p, "model.layers.0.x", q, &err), &err);
        assert_ok(atom_pack_order(&p, "model.layers.0.attn_in", order, 3, &err), &err);
        assert_int_equal(p.n, rows[i].opt.outliers ? 5 : 3);
        write_pack(&p);
        size_t n_bytes = 0;
        for (int t = 0; t < p.n - 1; t++)
            n_bytes += p.at[t].n_bytes;
        assert_true(fabs(atom_qlinear_bits(q) * q->n * q->k - 8 * (double)n_bytes) < 1e-6);
        struct atom_tensors *t = open_dir();
        check_linear(t, "model.layers.0.x", q);
        assert_memory_equal(part_of(t, "model.layers.0.attn_in", "order", ATOM_I32, 3, -1), order, sizeof order);
        atom_tensors_close(t);
        atom_qlinear_free(q);
        atom_pack_fini(&p);
    }
}

static void nibbles_lie_as_drawn(void **state)
{
    (void)state;
    struct atom_pack p = {0};
    const struct atom_weight_options opt = {4, 3, 0, 1, 1.0f, false, {0}};
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
    const struct atom_weight_options opt = {8, 0, 0, 1, 1.0f, false, {0}}, wrong = {8, 2, 0, 1, 1.0f, false, {0}};
    struct atom_qlinear *q = make_linear(9, 4, &opt), *bad = make_linear(9, 4, &wrong);
    assert_ok(atom_pack_head(&p, "lm_head", q, &err), &err);
    assert_int_equal(p.at[1].n_dims, 1);
    write_pack(&p);
    struct atom_tensors *t = open_dir();
    assert_memory_equal(part_of(t, "lm_head", "qweight", ATOM_I8, 9, 4), q->q, 9 * 4);
    assert_memory_equal(part_of(t, "lm_head", "scales", ATOM_F16, 9, -1), q->scales, 9 * 2);
    assert_int_equal(atom_pack_head(&p, "lm_head", bad, NULL), ATOM_ERR_INVALID);
    atom_tensors_close(t);
    atom_qlinear_free(q);
    atom_qlinear_free(bad);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(linears_come_back, fresh, gone),
        cmocka_unit_test_setup_teardown(nibbles_lie_as_drawn, fresh, gone),
        cmocka_unit_test_setup_teardown(heads_come_back, fresh, gone),
        cmocka_unit_test_setup_teardown(plain_tensors_are_borrowed, fresh, gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
