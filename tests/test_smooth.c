/* SPDX-License-Identifier: Apache-2.0 */
/* Smoothing: its factors, and that a smoothed float layer is the same function. */
#include "helpers.h"

#include "base/thread.h"
#include "model/model.h"
#include "quant/smooth.h"

#include <math.h>

static void factors_follow_the_formula(void **state)
{
    (void)state;
    struct atom_layout lay;
    struct atom_error err = {0};
    const int32_t order[6] = {5, 0, 3, 1, 4, 2};
    const double energy[6] = {4, 16, 100, 0, 25, 1}; /* stored: 1 4 0 | 16 25 | 100, groups of 3, one outlier */
    float f[6];
    assert_ok(atom_layout_init(&lay, 6, 3, 1, &err), &err);
    atom_smooth_factors(&lay, order, energy, 0.5f, f);
    double mean = (log(1) + log(2)) / 2; /* of roots; the dead channel counts for nothing */
    assert_true(fabs((double)f[5] - exp(0.5 * (log(1) - mean))) < 1e-6);
    assert_true(fabs((double)f[0] - exp(0.5 * (log(2) - mean))) < 1e-6);
    assert_true(f[3] == 1.0f);
    mean = (log(4) + log(5)) / 2;
    assert_true(fabs((double)f[1] - exp(0.5 * (log(4) - mean))) < 1e-6);
    assert_true(f[2] == 1.0f); /* alone in its group */
    atom_layout_fini(&lay);
}

struct rig {
    struct atom_config cfg;
    struct atom_scheme scheme;
    struct atom_tensors *tensors;
    double *energy[ATOM_N_SITES];
    int32_t *orders[ATOM_N_SITES];
};

static void rig_init(struct rig *r)
{
    struct atom_error err = {0};
    uint32_t seed = 1;
    assert_ok(atom_config_load("models/tiny", &r->cfg, &err), &err);
    assert_ok(atom_tensors_open("models/tiny", &r->tensors, &err), &err);
    assert_ok(atom_scheme_recipe("default", &r->scheme, &err), &err);
    for (int s = 0; s < ATOM_N_SITES; s++) {
        int k = atom_site_channels(&r->cfg, (enum atom_site_id)s);
        r->energy[s] = malloc((size_t)k * sizeof(double));
        r->orders[s] = malloc((size_t)k * sizeof(int32_t));
        for (int i = 0; i < k; i++) {
            seed = seed * 1664525u + 1013904223u;
            r->energy[s][i] = exp((double)(seed >> 8) / 0x1p24 * 8 - 4);
            r->orders[s][i] = (i * 7 + s) % k; /* 7 divides no k here */
        }
    }
}

static void rig_fini(struct rig *r)
{
    for (int s = 0; s < ATOM_N_SITES; s++) {
        free(r->energy[s]);
        free(r->orders[s]);
    }
    atom_tensors_close(r->tensors);
}

/* X of layer 1 after n tokens of made input. */
static void run_layer(const struct rig *r, const struct atom_tensors *tensors, int n, float *x)
{
    enum { PAGES = 2 };
    const struct atom_backend *b = &atom_backend_cpu;
    struct atom_error err = {0};
    struct atom_layer layer;
    struct atom_work *work;
    struct atom_kv *kv;
    const int32_t pages[PAGES] = {0, 1};
    const struct atom_batch_seq seq = {0, n, 0, pages};
    const struct atom_batch batch = {.n_tok = n, .n_seqs = 1, .seqs = &seq};
    struct atom_layer_source src = {.cfg = &r->cfg, .tensors = tensors, .scheme = r->cfg.scheme};
    assert_ok(atom_layer_load(b, &src, 1, &layer, &err), &err);
    assert_ok(atom_model_work(&r->cfg, b, n, &work, &err), &err);
    assert_ok(atom_model_kv(&r->cfg, &r->cfg.scheme, b, 1, PAGES, PAGES * ATOM_PAGE, &kv, &err), &err);
    for (int i = 0; i < n * r->cfg.hidden; i++)
        x[i] = (float)sin(i * 0.37 + i / r->cfg.hidden);
    b->set_x(work, x, n);
    const struct atom_step step = {.work = work, .kv = kv, .batch = &batch, .rms_eps = r->cfg.rms_eps};
    atom_layer_step(&layer, 1, 0, &step);
    b->get_x(work, x);
    b->kv_free(kv);
    b->work_free(work);
    atom_layer_fini(&layer);
}

static void a_smoothed_layer_is_the_same_function(void **state)
{
    enum { TOKENS = 20 };
    struct rig r;
    struct atom_error err = {0};
    struct atom_smoothed *s;
    (void)state;
    rig_init(&r);
    const struct atom_smooth_input in = {
        &r.cfg, r.tensors, &r.scheme, 1, (const double *const *)r.energy, (const int32_t *const *)r.orders};
    assert_ok(atom_smooth(&in, &s, &err), &err);
    int n = TOKENS * r.cfg.hidden;
    float *before = malloc((size_t)n * sizeof *before), *after = malloc((size_t)n * sizeof *after);
    run_layer(&r, r.tensors, TOKENS, before);
    run_layer(&r, atom_smoothed_tensors(s), TOKENS, after);
    double diff = 0, all = 0;
    for (int i = 0; i < n; i++) {
        diff += ((double)before[i] - (double)after[i]) * ((double)before[i] - (double)after[i]);
        all += (double)before[i] * (double)before[i];
    }
    assert_true(sqrt(diff / all) < 1e-5);
    const char *name = "model.layers.1.input_layernorm.weight";
    const struct atom_tensor *was = atom_tensors_find(r.tensors, name);
    const struct atom_tensor *is = atom_tensors_find(atom_smoothed_tensors(s), name);
    assert_int_equal(is->dtype, was->dtype);
    assert_int_equal(is->n_bytes, was->n_bytes);
    assert_true(memcmp(is->data, was->data, is->n_bytes) != 0);
    free(before);
    free(after);
    atom_smoothed_free(s);
    rig_fini(&r);
}

static void a_missing_tensor_is_named(void **state)
{
    struct rig r;
    struct atom_error err = {0};
    struct atom_smoothed *s;
    (void)state;
    rig_init(&r);
    const struct atom_smooth_input in = {
        &r.cfg, r.tensors, &r.scheme, 4, (const double *const *)r.energy, (const int32_t *const *)r.orders};
    assert_fails(atom_smooth(&in, &s, &err), &err, ATOM_ERR_FORMAT, "model.layers.4.");
    rig_fini(&r);
}

int main(void)
{
    struct atom_error err = {0};
    if (atom_runtime_init(NULL, &err))
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(factors_follow_the_formula),
                                       cmocka_unit_test(a_smoothed_layer_is_the_same_function),
                                       cmocka_unit_test(a_missing_tensor_is_named)};
    int rc = cmocka_run_group_tests_name("smooth", tests, NULL, NULL);
    atom_runtime_fini();
    return rc;
}
