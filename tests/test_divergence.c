/* SPDX-License-Identifier: Apache-2.0 */
/* Divergence of two models: single positions against sums in long double, spreads against counted numbers, and models
 * against what a session's logits give when they are taken token by token. */
#include "llama.h"

#include "eval/divergence.h"
#include "eval/spread.h"

#include <math.h>

enum { WINDOW = 32, WINDOWS = 3, VOCAB = 4096 };

static struct atom_error err;
static char *home;
static struct atom_model *tiny, *packed;
static char *text;
static size_t n_text_bytes;

static void read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    text = malloc(1 << 20);
    assert_non_null(text);
    n_text_bytes = fread(text, 1, 1 << 20, f);
    fclose(f);
}

static int start(void **state)
{
    const struct atom_runtime_options two = {.threads = 2};
    char out[1024], calib[1024];
    (void)state;
    home = make_dir();
    assert_ok(atom_runtime_init(&two, &err), &err);
    put_calibration(home);
    snprintf(out, sizeof out, "%s/packed", home);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    const struct atom_quantize_options o = quick_options("models/tiny", out, calib);
    assert_ok(atom_quantize(&o, &err), &err);
    assert_ok(atom_model_open("models/tiny", &tiny, &err), &err);
    assert_ok(atom_model_open(out, &packed, &err), &err);
    read_text("models/tiny/eval.txt");
    return 0;
}

static int finish(void **state)
{
    (void)state;
    free(text);
    atom_model_close(packed);
    atom_model_close(tiny);
    remove_dir(home);
    atom_runtime_fini();
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    return 0;
}

/* ---- one position ----------------------------------------------------------------------------------------------- */

static long double log_sum(const float *x, int n)
{
    long double max = x[0], sum = 0;
    for (int i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++)
        sum += expl(x[i] - max);
    return max + logl(sum);
}

/* The definition as it stands. */
static long double plain_kl(const float *a, const float *b, int n)
{
    long double sum_a = log_sum(a, n), sum_b = log_sum(b, n), kl = 0;
    for (int i = 0; i < n; i++)
        kl += expl(a[i] - sum_a) * ((a[i] - sum_a) - (b[i] - sum_b));
    return kl;
}

static void expect_near(double got, double want, double relative, double absolute)
{
    if (!(fabs(got - want) <= relative * fabs(want) + absolute))
        fail_msg("got %.17g, wanted %.17g", got, want);
}

static void position_like_the_definition(void **state)
{
    static const float steps[] = {1e-5f, 1e-3f, 0.1f, 1, 10, 80};
    float a[997], b[997];
    uint64_t seed = 5;
    (void)state;
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
        for (int n = 1; n <= 997; n = n * 3 + 1) {
            for (int i = 0; i < n; i++) {
                a[i] = 8 * llama_unit(&seed);
                b[i] = a[i] + steps[k] * llama_unit(&seed);
            }
            struct atom_divergence d = atom_divergence_of(a, b, n, n / 2);
            /* The definition in long double cancels to about 1e-19. */
            expect_near(d.kl, (double)plain_kl(a, b, n), 1e-9, 1e-17);
            expect_near(d.nll_a, (double)(log_sum(a, n) - a[n / 2]), 1e-13, 1e-13);
            expect_near(d.nll_b, (double)(log_sum(b, n) - b[n / 2]), 1e-13, 1e-13);
            assert_true(d.kl >= 0);
        }
    }
}

static void position_at_the_edges(void **state)
{
    const float even[] = {0, 0, 0, 0}, one[] = {0, -1000, -1000, -1000}, other[] = {-1000, 0, -1000, -1000};
    const float wide[] = {3e38f, -3e38f, 0, 0}, wide_too[] = {-3e38f, 3e38f, 0, 0};
    (void)state;
    expect_near(atom_divergence_of(one, even, 4, 0).kl, log(4), 1e-15, 0);
    expect_near(atom_divergence_of(one, other, 4, 1).kl, 1000, 1e-15, 0);
    expect_near(atom_divergence_of(even, one, 4, 1).kl, 750 - log(4), 1e-15, 0);
    expect_near(atom_divergence_of(wide, wide_too, 4, 1).kl, 2 * (double)3e38f, 1e-15, 0);
    assert_true(atom_divergence_of(wide, wide, 4, 1).kl == 0);
    assert_true(atom_divergence_of(even, other, 4, 0).same_top == false);
    assert_true(atom_divergence_of(even, one, 4, 0).same_top == true); /* of equals the first counts */
    assert_true(atom_divergence_of(one, one, 4, 3).nll_a == 1000);
}

/* ---- spreads ---------------------------------------------------------------------------------------------------- */

static void spread_of_counted_numbers(void **state)
{
    double x[1001], four[] = {4, 1, 3, 2}, single[] = {-7};
    (void)state;
    for (int i = 0; i <= 1000; i++)
        x[i] = (i * 389) % 1001; /* 0 to 1000, each once */
    struct atom_spread s = atom_spread_of(x, 1001);
    expect_near(s.mean, 500, 1e-15, 0);
    expect_near(s.standard_error, sqrt(1001.0 * 1002 / 12 / 1001), 1e-12, 0);
    const double got[] = {s.min, s.p0_1, s.p1, s.p10, s.median, s.p90, s.p99, s.p99_9, s.max};
    const double want[] = {0, 1, 10, 100, 500, 900, 990, 999, 1000};
    for (int i = 0; i < 9; i++)
        expect_near(got[i], want[i], 1e-12, 0);
    s = atom_spread_of(four, 4);
    expect_near(s.median, 2.5, 0, 0);
    expect_near(s.p90, 3.7, 1e-15, 0);
    s = atom_spread_of(single, 1);
    assert_true(s.mean == -7 && s.standard_error == 0 && s.min == -7 && s.p99 == -7 && s.max == -7);
}

/* ---- models ----------------------------------------------------------------------------------------------------- */

static struct atom_kld_result measure(struct atom_model *a, struct atom_model *b)
{
    const struct atom_kld_options o = {.window = WINDOW, .max_windows = WINDOWS};
    struct atom_kld_result r;
    assert_ok(atom_eval_kld(a, b, text, n_text_bytes, &o, &r, &err), &err);
    return r;
}

static void itself(void **state)
{
    struct atom_model *const models[] = {tiny, packed};
    const struct atom_spread zeros = {0};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct atom_kld_result r = measure(models[i], models[i]);
        assert_memory_equal(&r.kl, &zeros, sizeof zeros);
        assert_memory_equal(&r.change, &zeros, sizeof zeros);
        assert_true(r.top1 == 1 && r.nll_a == r.nll_b);
        assert_int_equal(r.tokens, WINDOWS * (WINDOW - 1));
    }
}

/* Logits [n, VOCAB] after each of ids [n], a token at a time. */
static float *logits_one_by_one(struct atom_model *m, const int32_t *ids, int n)
{
    struct atom_session *s;
    int seq, row = 0;
    float *logits = malloc((size_t)n * VOCAB * sizeof *logits);
    assert_non_null(logits);
    assert_ok(atom_session_create(m, NULL, &s, &err), &err);
    assert_ok(atom_session_add(s, &seq, &err), &err);
    for (int i = 0; i < n; i++) {
        struct atom_step_seq step = {.sequence = seq, .tokens = ids + i, .n_tokens = 1};
        assert_ok(atom_session_step(s, &step, 1, &err), &err);
        assert_ok(atom_session_logits(s, &row, 1, logits + (size_t)i * VOCAB, &err), &err);
    }
    atom_session_free(s);
    return logits;
}

static int top_of(const float *x)
{
    int top = 0;
    for (int i = 1; i < VOCAB; i++)
        top = x[i] > x[top] ? i : top;
    return top;
}

struct totals {
    double kl[WINDOWS * (WINDOW - 1)], change[WINDOWS * (WINDOW - 1)];
    double nll_a, nll_b;
    int n, same;
};

static void add_window(struct totals *t, const int32_t *ids)
{
    float *a = logits_one_by_one(tiny, ids, WINDOW), *b = logits_one_by_one(packed, ids, WINDOW);
    for (int i = 0; i + 1 < WINDOW; i++) {
        const float *row_a = a + (size_t)i * VOCAB, *row_b = b + (size_t)i * VOCAB;
        double nll_a = (double)(log_sum(row_a, VOCAB) - row_a[ids[i + 1]]);
        double nll_b = (double)(log_sum(row_b, VOCAB) - row_b[ids[i + 1]]);
        t->kl[t->n] = (double)plain_kl(row_a, row_b, VOCAB);
        t->change[t->n++] = nll_a - nll_b;
        t->same += top_of(row_a) == top_of(row_b);
        t->nll_a += nll_a;
        t->nll_b += nll_b;
    }
    free(a);
    free(b);
}

static void expect_spread(const struct atom_spread *got, double *x, int n)
{
    const struct atom_spread want = atom_spread_of(x, n);
    const double *g = &got->mean, *w = &want.mean;
    for (size_t i = 0; i < sizeof want / sizeof *w; i++)
        expect_near(g[i], w[i], 1e-9, 1e-12);
}

static void recomputed_from_logits(void **state)
{
    static struct totals t;
    struct atom_ids ids;
    (void)state;
    assert_ok(atom_tokenizer_encode(atom_model_tokenizer(tiny), text, n_text_bytes, ATOM_ENCODE_POST, &ids, &err),
              &err);
    assert_int_equal(ids.ids[0], 1);
    for (int i = 0; i < WINDOWS; i++)
        add_window(&t, ids.ids + (size_t)i * WINDOW);
    struct atom_kld_result r = measure(tiny, packed);
    assert_int_equal(r.tokens, t.n);
    assert_int_equal(r.windows, WINDOWS);
    assert_int_equal(r.dropped, ids.n % WINDOW);
    expect_spread(&r.kl, t.kl, t.n);
    expect_spread(&r.change, t.change, t.n);
    expect_near(r.top1, (double)t.same / t.n, 1e-15, 0);
    expect_near(r.nll_a, t.nll_a / t.n, 1e-12, 0);
    expect_near(r.nll_b, t.nll_b / t.n, 1e-12, 0);
    assert_true(r.kl.mean > 1e-4 && r.top1 < 1);
    atom_ids_free(&ids);
}

static void the_other_way_round(void **state)
{
    struct atom_kld_result r = measure(tiny, packed), back = measure(packed, tiny);
    (void)state;
    expect_near(back.change.mean, -r.change.mean, 1e-9, 1e-15);
    expect_near(back.change.max, -r.change.min, 0, 0);
    assert_true(back.top1 == r.top1 && back.nll_a == r.nll_b);
    assert_true(back.kl.mean != r.kl.mean);
}

#ifdef SANITIZED
static const char *const other_tier = NULL; /* scalar code takes minutes there */
#else
static const char *const other_tier = "scalar";
#endif

static void same_for_any_threads_and_tier(void **state)
{
    const struct atom_runtime_options one = {.threads = 1, .cpu = other_tier}, two = {.threads = 2};
    struct atom_kld_result r = measure(tiny, packed);
    (void)state;
    assert_ok(atom_runtime_init(&one, &err), &err);
    struct atom_kld_result again = measure(tiny, packed);
    assert_ok(atom_runtime_init(&two, &err), &err);
    assert_memory_equal(&r, &again, sizeof r);
}

static bool stop(void *user, const struct atom_progress *p)
{
    (void)p;
    return ++*(int *)user < 2;
}

static void refusals(void **state)
{
    int windows = 0;
    struct atom_kld_options o = {.window = 1 << 20}, stopped = {.window = WINDOW, .progress = stop, .user = &windows};
    struct atom_kld_result r;
    (void)state;
    assert_fails(atom_eval_kld(tiny, packed, text, n_text_bytes, &o, &r, &err), &err, ATOM_ERR_INVALID, "model A");
    memset(&err, 0, sizeof err);
    assert_fails(atom_eval_kld(tiny, packed, "x", 1, NULL, &r, &err), &err, ATOM_ERR_INVALID, "less than one window");
    memset(&err, 0, sizeof err);
    assert_fails(atom_eval_kld(tiny, packed, text, n_text_bytes, &stopped, &r, &err), &err, ATOM_ERR_CANCELLED,
                 "after 2 windows");
}

/* A copy of models/tiny whose tokenizer.json went through sed. */
static void expect_other(const char *name, const char *edit, const char *words)
{
    char command[2048];
    struct atom_model *other;
    struct atom_kld_options o = {.window = WINDOW};
    struct atom_kld_result r;
    const char *dir = in_dir(home, name);
    snprintf(command, sizeof command, "cp -r models/tiny '%s' && chmod u+w '%s'/* && sed -i '%s' '%s/tokenizer.json'",
             dir, dir, edit, dir);
    assert_int_equal(system(command), 0);
    assert_ok(atom_model_open(dir, &other, &err), &err);
    memset(&err, 0, sizeof err);
    assert_fails(atom_eval_kld(tiny, other, text, n_text_bytes, &o, &r, &err), &err, ATOM_ERR_INVALID, words);
    atom_model_close(other);
}

static void other_vocabularies(void **state)
{
    (void)state;
    expect_other("swapped", "s/\"N\": *300\\b/\"N\": 301/; s/\"O\": *301\\b/\"O\": 300/", "token 300 is 'N'");
    expect_other("merges-less", "/\"merges\"/{n;N;N;N;d}", "cut the text differently");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(position_like_the_definition, fresh),
        cmocka_unit_test_setup(position_at_the_edges, fresh),
        cmocka_unit_test_setup(spread_of_counted_numbers, fresh),
        cmocka_unit_test_setup(itself, fresh),
        cmocka_unit_test_setup(recomputed_from_logits, fresh),
        cmocka_unit_test_setup(the_other_way_round, fresh),
        cmocka_unit_test_setup(same_for_any_threads_and_tier, fresh),
        cmocka_unit_test_setup(refusals, fresh),
        cmocka_unit_test_setup(other_vocabularies, fresh),
    };
    return cmocka_run_group_tests_name("divergence", tests, start, finish);
}
