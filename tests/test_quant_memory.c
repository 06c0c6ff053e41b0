/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the quantization core fails once: the call must say so and leak nothing. */
#include "failing_malloc.h"

#include "quant/fingerprint.h"
#include "quant/gptq.h"
#include "quant/order.h"
#include "base/thread.h"
#include "quant/pack.h"
#include "quant/partial.h"
#include "quant/smooth_search.h"

enum { N = 3, K = 6 };

static const struct atom_weight_options options = {
    .bits = 4, .group = 2, .outliers = 2, .rows_per_scale = 2, .clip = 1, .search = true};
static float weights[N * K], sum[K * K];

static enum atom_status rank(const char *dir, struct atom_error *err)
{
    const double energy[3] = {3, 1, 2};
    int32_t order[3];
    (void)dir;
    return atom_order_rank("s", energy, 3, 1, order, err);
}

static enum atom_status round_nearest(const char *dir, struct atom_error *err)
{
    struct atom_qlinear *q = NULL;
    double e;
    (void)dir;
    enum atom_status st = atom_quantize_rtn("w", weights, N, K, &options, NULL, &q, err);
    if (!st)
        st = atom_qlinear_error(q, weights, NULL, &e, err);
    atom_qlinear_free(q);
    return st;
}

static enum atom_status gptq(const char *dir, struct atom_error *err)
{
    struct atom_qlinear *q = NULL;
    struct atom_hessian *hs = NULL;
    double e;
    (void)dir;
    for (int i = 0; i < K; i++)
        sum[i * K + i] = 1;
    enum atom_status st = atom_hessian_create("s", sum, K, 4, &hs, err);
    if (!st)
        st = atom_retarget(hs, sum, 4, 0.5f, weights, N, err);
    if (!st)
        st = atom_gptq("w", weights, N, K, &options, hs, &q, err);
    if (!st)
        st = atom_qlinear_error(q, weights, hs, &e, err);
    atom_qlinear_free(q);
    atom_hessian_free(hs);
    return st;
}

static enum atom_status search(const char *dir, struct atom_error *err)
{
    static const int32_t order[K] = {5, 4, 3, 2, 1, 0};
    static const double energy[K] = {1, 2, 3, 4, 5, 6};
    struct atom_scheme scheme;
    struct atom_layout lay;
    float f[K];
    (void)dir;
    enum atom_status st = atom_scheme_named("w4a16-awq", &scheme, err);
    scheme.group = 2;
    st = st ? st : atom_layout_init(&lay, K, scheme.group, 0, err);
    if (st)
        return st;
    const struct atom_smooth_site site = {.scheme = &scheme,
                                          .lay = &lay,
                                          .order = order,
                                          .energy = energy,
                                          .rows = weights,
                                          .n_rows = 2,
                                          .w = weights,
                                          .part_rows = {N},
                                          .n_parts = 1};
    st = atom_smooth_find(&site, f, NULL, err);
    atom_layout_fini(&lay);
    return st;
}

static struct atom_qlinear *sound; /* made before allocations fail */

static enum atom_status pack(const char *dir, struct atom_error *err)
{
    struct atom_pack p = {0};
    const int32_t order[2] = {1, 0};
    enum atom_status st = atom_pack_linear(&p, "w", sound, err);
    if (!st)
        st = atom_pack_order(&p, "s", order, 2, err);
    if (!st)
        st = atom_pack_tensor(&p, p.at, "again", err);
    if (!st)
        st = atom_safetensors_write(in_dir(dir, "model.safetensors"), p.at, p.n, err);
    atom_pack_fini(&p);
    return st;
}

/* Two turns of a run: what the first could not make is gone on from. */
static enum atom_status run_partial(const char *dir, struct atom_error *err)
{
    char out[1100];
    struct atom_partial *p = NULL;
    struct atom_scheme scheme;
    const float data[2] = {1, 2};
    const struct atom_tensor t = {
        .name = "x", .dtype = ATOM_F32, .n_dims = 1, .dims = {2}, .data = data, .n_bytes = 8, .file = ""};
    const struct atom_report_line line = {"x", 0.5, 4, 1};
    snprintf(out, sizeof out, "%s/out", dir);
    const struct atom_partial_run run = {"models/tiny", "models/tiny/reference.json", out, "options", 1, true, true,
                                         NULL};
    atom_scheme_named("paper", &scheme, NULL);
    enum atom_status st = atom_partial_open(&run, &p, err);
    if (!st && atom_partial_next(p) == 0)
        st = atom_partial_put_layer(p, 0, &t, 1, &line, 1, err);
    const struct atom_tensor rest = {
        .name = "y", .dtype = ATOM_F32, .n_dims = 1, .dims = {2}, .data = data, .n_bytes = 8, .file = ""};
    if (!st)
        st = atom_partial_finish(p, &scheme, &rest, 1, NULL, 0, err);
    atom_partial_close(p);
    struct atom_quantize_found found;
    if (!st)
        st = atom_partial_look(&run, &found, err);
    /* jansson may lose a letter of the report where it finds no memory: better damaged than taken for whole. */
    if (!st)
        assert_int_not_equal(found.out, ATOM_OUT_ABSENT);
    return st;
}

static void test_all(void **state)
{
#ifdef SANITIZED
    skip_because("a sanitizer has its own malloc");
#endif
    (void)state;
    struct atom_error err = {0};
    char *dir = make_dir();
    assert_int_equal(atom_pool_start(1, NULL), ATOM_OK); /* what other threads take is not counted aright */
    for (int i = 0; i < N * K; i++)
        weights[i] = (float)(i % 5) - 2;
    assert_ok(gptq(dir, &err), &err); /* BLAS keeps what it takes first */
    fail_each(dir, rank, false);
    fail_each(dir, round_nearest, false);
    fail_each(dir, gptq, false);
    fail_each(dir, search, false);
    assert_ok(atom_quantize_rtn("w", weights, N, K, &options, NULL, &sound, &err), &err);
    fail_each(dir, pack, false);
    atom_qlinear_free(sound);
    fail_each(dir, run_partial, true);
    remove_dir(dir);
}

int main(int argc, char **argv)
{
    (void)argc;
    /* BLAS starts its threads as it is loaded, and each maps memory of its own when it comes to it. */
    if (!getenv("OPENBLAS_NUM_THREADS")) {
        setenv("OPENBLAS_NUM_THREADS", "1", 1);
        execv("/proc/self/exe", argv);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
