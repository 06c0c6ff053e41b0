/* SPDX-License-Identifier: Apache-2.0 */
/* Smoothing: its factors, and that a smoothed float layer is the same function. */
#include "llama.h"

#include "base/thread.h"
#include "model/model.h"
#include "quant/smooth.h"
#include "quant/smooth_search.h"

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

enum { ROWS = 40 };

struct rig {
    struct atom_config cfg;
    struct atom_scheme scheme;
    struct atom_tensors *tensors;
    struct atom_calib_seen seen;
    int32_t *orders[ATOM_N_SITES];
};

static void rig_init(struct rig *r, const char *dir)
{
    struct atom_error err = {0};
    uint32_t seed = 1;
    assert_ok(atom_config_load(dir, &r->cfg, &err), &err);
    assert_ok(atom_tensors_open(dir, &r->tensors, &err), &err);
    assert_ok(atom_scheme_named("default", &r->scheme, &err), &err);
    r->scheme.outliers = r->cfg.hidden / 4;
    r->seen.n_rows = ROWS;
    for (int s = 0; s < ATOM_N_SITES; s++) {
        int k = atom_site_channels(&r->cfg, (enum atom_site_id)s);
        r->seen.energy[s] = malloc((size_t)k * sizeof(double));
        r->orders[s] = malloc((size_t)k * sizeof(int32_t));
        r->seen.peak[s] = malloc((size_t)k * sizeof(float));
        r->seen.rows[s] = malloc((size_t)ROWS * (size_t)k * sizeof(float));
        for (int i = 0; i < k; i++) {
            seed = seed * 1664525u + 1013904223u;
            r->seen.energy[s][i] = exp((double)(seed >> 8) / 0x1p24 * 8 - 4);
            r->orders[s][i] = (i * 7 + s) % k; /* 7 divides no k here */
            r->seen.peak[s][i] = 2.0f * (float)sqrt(r->seen.energy[s][i] / ROWS);
        }
        for (int i = 0; i < ROWS * k; i++)
            r->seen.rows[s][i] = r->seen.peak[s][i % k] * (float)sin(i * 0.71 + i / k) / 1.5f;
    }
}

static void rig_fini(struct rig *r)
{
    for (int s = 0; s < ATOM_N_SITES; s++) {
        free(r->seen.energy[s]);
        free(r->orders[s]);
        free(r->seen.peak[s]);
        free(r->seen.rows[s]);
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

static void put_notes(void *user, const char *line)
{
    strcat(user, line);
    strcat(user, "\n");
}

static void check_same_function(const char *dir)
{
    enum { TOKENS = 20 };
    struct rig r;
    struct atom_error err = {0};
    struct atom_smoothed *s;
    rig_init(&r, dir);
    int n = TOKENS * r.cfg.hidden;
    float *before = malloc((size_t)n * sizeof *before), *after = malloc((size_t)n * sizeof *after);
    run_layer(&r, r.tensors, TOKENS, before);
    for (int search = ATOM_SMOOTH_FIXED; search <= ATOM_SMOOTH_RMS; search++) {
        char notes[8192] = "";
        r.scheme.smooth_search = (enum atom_smooth_search)search;
        const struct atom_smooth_input in = {
            &r.cfg, r.tensors, &r.scheme, 1, &r.seen, (const int32_t *const *)r.orders, put_notes, notes};
        assert_ok(atom_smooth(&in, &s, &err), &err);
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
        /* o_in is for a search alone, which tells what it found. */
        const char *rows = "model.layers.1.self_attn.o_proj.weight";
        bool o_in = atom_tensors_find(atom_smoothed_tensors(s), rows)->data != atom_tensors_find(r.tensors, rows)->data;
        assert_int_equal(o_in, search != ATOM_SMOOTH_FIXED);
        assert_int_equal(strstr(notes, "o_in               smoothed by") != NULL, search != ATOM_SMOOTH_FIXED);
        atom_smoothed_free(s);
    }
    free(before);
    free(after);
    rig_fini(&r);
}

static void a_smoothed_layer_is_the_same_function(void **state)
{
    (void)state;
    check_same_function("models/tiny");
}

/* Biases everywhere, and query heads that share keys. */
static void so_is_one_with_biases(void **state)
{
    static const struct llama shape = {.hidden = 40,
                                       .intermediate = 54,
                                       .layers = 2,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_dim = 24,
                                       .attention_bias = true,
                                       .mlp_bias = true,
                                       .dtype = ATOM_F32};
    char *dir = make_dir();
    (void)state;
    put_llama(dir, &shape);
    check_same_function(dir);
    remove_dir(dir);
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

enum { K = 24, N = 20 };

/* Channels 3 and 17 stand out, and the weights that read them are as much smaller. */
struct made {
    double energy[K];
    float peak[K], rows[ROWS * K], w[N * K];
    int32_t order[K];
    struct atom_layout lay;
    struct atom_scheme scheme;
    struct atom_smooth_site site;
};

static void make_site(struct made *m, const char *scheme)
{
    struct atom_error err = {0};
    memset(m, 0, sizeof *m);
    assert_ok(atom_scheme_named(scheme, &m->scheme, &err), &err);
    for (int i = 0; i < ROWS * K; i++) {
        int j = i % K;
        float x = (float)sin(i * 1.7 + i / K * 0.3) * (j == 3 ? 60.0f : j == 17 ? 25.0f : 1.0f);
        m->rows[i] = x;
        m->energy[j] += (double)x * (double)x;
        m->peak[j] = fabsf(x) > m->peak[j] ? fabsf(x) : m->peak[j];
        m->order[j] = (j * 5 + 2) % K;
    }
    for (int i = 0; i < N * K; i++)
        m->w[i] = (float)cos(i * 0.9 + i / K) / (i % K == 3 ? 60.0f : i % K == 17 ? 25.0f : 1.0f);
    assert_ok(atom_layout_init(&m->lay, K, m->scheme.group ? 8 : 0, 0, &err), &err);
    m->scheme.group = m->scheme.group ? 8 : 0;
    m->site = (struct atom_smooth_site){.scheme = &m->scheme,
                                        .lay = &m->lay,
                                        .order = m->order,
                                        .energy = m->energy,
                                        .peak = m->peak,
                                        .rows = m->rows,
                                        .n_rows = ROWS,
                                        .w = m->w,
                                        .part_rows = {8, 12},
                                        .n_parts = 2};
}

static void a_search_finds_what_stands_out(void **state)
{
    static const char *const schemes[] = {"w8a8-smooth", "w4a16-awq"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct made m;
        struct atom_error err = {0};
        struct atom_smooth_found found;
        float f[K], again[K];
        make_site(&m, schemes[i]);
        assert_ok(atom_smooth_find(&m.site, f, &found, &err), &err);
        if (i == 0)
            assert_true(found.strength > 0 && found.error < found.error_before / 10);
        else
            assert_true(found.error <= found.error_before);
        double sum = 0;
        for (int j = 0; j < K; j++)
            sum += log((double)f[j]);
        assert_true(fabs(sum) < 1e-4);
        if (i == 0)
            for (int j = 0; j < K; j++)
                assert_true(j == 3 || (j == 17 ? f[j] < f[3] : f[j] < f[17]));
        assert_ok(atom_pool_start(3, &err), &err);
        assert_ok(atom_smooth_find(&m.site, again, NULL, &err), &err);
        assert_memory_equal(f, again, sizeof f);
        assert_ok(atom_pool_start(1, &err), &err);
        assert_ok(atom_smooth_find(&m.site, again, NULL, &err), &err);
        assert_memory_equal(f, again, sizeof f);
        assert_ok(atom_pool_start(0, &err), &err);
        atom_layout_fini(&m.lay);
    }
}

static void a_search_never_makes_it_worse(void **state)
{
    struct made m;
    struct atom_error err = {0};
    struct atom_smooth_found found;
    float f[K];
    (void)state;
    make_site(&m, "w8a8-smooth");
    for (int i = 0; i < ROWS * K; i++) /* integers within the scale: rounded exactly as they are */
        m.rows[i] = (float)(i * 37 % 255 - 127), m.peak[i % K] = 127;
    for (int t = 0; t < ROWS; t++)
        m.rows[t * K] = 127;
    for (int i = 0; i < N * K; i++)
        m.w[i] = i % K == 0 ? 127 : (float)(i * 29 % 255 - 127);
    assert_ok(atom_smooth_find(&m.site, f, &found, &err), &err);
    assert_true(found.error == found.error_before && found.error < 1e-12);
    for (int j = 0; j < K; j++)
        assert_true(f[j] == 1.0f);
    atom_layout_fini(&m.lay);
}

static void heads_that_share_a_kv_head_share_factors(void **state)
{
    struct made m;
    struct atom_error err = {0};
    float f[K];
    (void)state;
    make_site(&m, "w8a8-smooth");
    m.site.head_dim = 4;
    m.site.heads_per_kv = 3; /* heads 0 1 2 | 3 4 5 */
    assert_ok(atom_smooth_find(&m.site, f, NULL, &err), &err);
    for (int j = 0; j < K; j++)
        assert_true(f[j] == f[j / 12 * 12 + j % 4]);
    assert_true(f[3] > 2 * f[2] && f[17] > 2 * f[18]);
    atom_layout_fini(&m.lay);
}

static void a_missing_tensor_is_named(void **state)
{
    struct rig r;
    struct atom_error err = {0};
    struct atom_smoothed *s;
    (void)state;
    rig_init(&r, "models/tiny");
    const struct atom_smooth_input in = {&r.cfg, r.tensors, &r.scheme, 4, &r.seen, (const int32_t *const *)r.orders,
                                         NULL,   NULL};
    assert_fails(atom_smooth(&in, &s, &err), &err, ATOM_ERR_FORMAT, "model.layers.4.");
    rig_fini(&r);
}

int main(void)
{
    struct atom_error err = {0};
    if (atom_runtime_init(NULL, &err))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_follow_the_formula),    cmocka_unit_test(a_smoothed_layer_is_the_same_function),
        cmocka_unit_test(so_is_one_with_biases),         cmocka_unit_test(a_search_finds_what_stands_out),
        cmocka_unit_test(a_search_never_makes_it_worse), cmocka_unit_test(heads_that_share_a_kv_head_share_factors),
        cmocka_unit_test(a_missing_tensor_is_named)};
    int rc = cmocka_run_group_tests_name("smooth", tests, NULL, NULL);
    atom_runtime_fini();
    return rc;
}
