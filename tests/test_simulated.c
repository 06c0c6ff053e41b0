/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of formats that are simulated: made, opened, run, and resumed as any other; the same bits whatever the
 * threads, the tier and the batch. */
#include "llama.h"

#include "kernels/kernels.h"

#include <math.h>

static struct atom_error err;
static char *home;
static char model[1024], calib[1024], out[1024];

static const struct llama like = {.hidden = 72,
                                  .intermediate = 100,
                                  .layers = 2,
                                  .heads = 3,
                                  .kv_heads = 1,
                                  .head_dim = 24,
                                  .attention_bias = true,
                                  .dtype = ATOM_BF16};

static int begin(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    home = make_dir();
    assert_ok(atom_runtime_init(NULL, &err), &err);
    put_calibration(home);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    snprintf(model, sizeof model, "%s/float", home);
    snprintf(out, sizeof out, "%s/out", home);
    assert_int_equal(mkdir(model, 0777), 0);
    put_llama(model, &like);
    return 0;
}

static int end(void **state)
{
    (void)state;
    remove_dir(home);
    atom_runtime_fini();
    return 0;
}

static struct atom_scheme scheme_of(enum atom_format format, int outliers, int outlier_bits)
{
    struct atom_scheme s;
    assert_ok(atom_scheme_named("default", &s, &err), &err);
    s.format = format;
    s.outliers = outliers;
    s.outlier_bits = outlier_bits;
    s.group = format == ATOM_FORMAT_NVFP4 ? 16 : 32;
    s.smooth = 0;
    return s;
}

static void quantize(const struct atom_scheme *s)
{
    struct atom_quantize_options o = quick_options(model, out, calib);
    o.scheme = *s;
    o.samples = 3;
    o.window = 48;
    o.overwrite = true;
    assert_ok(atom_quantize(&o, &err), &err);
}

enum { N_TOK = 24 };

/* Logits of one text, alone or beside another, in steps of `step_tokens`. */
static void logits_of(const char *dir, int others, float *logits)
{
    struct atom_model *m;
    struct atom_session *s;
    const struct atom_session_options opt = {.max_sequences = 3, .max_positions = 256, .step_tokens = 128};
    struct atom_step_seq steps[3];
    int32_t tokens[3][N_TOK];
    int rows[N_TOK];
    assert_ok(atom_model_open(dir, &m, &err), &err);
    assert_ok(atom_session_create(m, &opt, &s, &err), &err);
    for (int i = 0; i <= others; i++) {
        for (int t = 0; t < N_TOK; t++)
            tokens[i][t] = t ? 100 + t * 97 + (others - i) * 31 : 1;
        steps[i] = (struct atom_step_seq){.tokens = tokens[i], .n_tokens = N_TOK};
        assert_ok(atom_session_add(s, &steps[i].sequence, &err), &err);
    }
    for (int t = 0; t < N_TOK; t++)
        rows[t] = others * N_TOK + t;
    assert_ok(atom_session_step(s, steps, others + 1, &err), &err);
    assert_ok(atom_session_logits(s, rows, N_TOK, logits, &err), &err);
    atom_session_free(s);
    atom_model_close(m);
}

static double distance(const float *a, const float *b)
{
    double off = 0, all = 0;
    for (int i = 0; i < N_TOK * LLAMA_VOCAB; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / all);
}

static float exact[N_TOK * LLAMA_VOCAB], got[N_TOK * LLAMA_VOCAB], again[N_TOK * LLAMA_VOCAB];

static void every_format(void **state)
{
    (void)state;
    logits_of(model, 0, exact);
    for (int i = 0; i < 16; i++) {
        struct atom_scheme s = scheme_of((enum atom_format)(i % 4), i / 4 % 2 ? 18 : 0, i % 3 ? 16 : 8);
        s.gptq = i % 5 != 1;
        s.asymmetric = s.gptq && i % 2 ? 0.5f : 0;
        s.clip_search = i % 3 == 1;
        s.smooth = i % 7 == 2 ? 0.5f : 0;
        s.abits = i < 12 ? 4 : 16;
        s.wbits = i == 13 ? 16 : 4;
        s.kvbits = i % 2 ? 4 : 16;
        quantize(&s);
        logits_of(out, 0, got);
        double off = distance(got, exact);
        if (!(off < 0.6) || (off == 0 && i != 13))
            fail_msg("round %d, format %d, %d outliers of %d bits: logits are off by %g", i, (int)s.format, s.outliers,
                     s.outlier_bits, off);
    }
}

static void same_bits(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct atom_scheme s = scheme_of((enum atom_format)i, 18, i ? 8 : 16);
        assert_ok(atom_runtime_init(NULL, &err), &err);
        quantize(&s);
        logits_of(out, 0, got);
        logits_of(out, 2, again);
        assert_memory_equal(got, again, sizeof got);
        for (int threads = 1; threads < 4; threads++) {
            const struct atom_runtime_options opt = {.threads = threads, .cpu = threads == 2 ? "scalar" : NULL};
            assert_ok(atom_runtime_init(&opt, &err), &err);
            logits_of(out, 1, again);
            assert_memory_equal(got, again, sizeof got);
        }
    }
}

static void other_groups_are_refused(void **state)
{
    (void)state;
    struct atom_quantize_options o = quick_options(model, out, calib);
    o.scheme = scheme_of(ATOM_FORMAT_NVFP4, 0, 8);
    o.scheme.group = 17;
    assert_fails(atom_quantize(&o, &err), &err, ATOM_ERR_INVALID, "nvfp4: a group is 16 channels, not 17");
    assert_true(access(out, F_OK) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(every_format, begin, end),
                                       cmocka_unit_test_setup_teardown(same_bits, begin, end),
                                       cmocka_unit_test_setup_teardown(other_groups_are_refused, begin, end)};
    return cmocka_run_group_tests_name("simulated", tests, NULL, NULL);
}
