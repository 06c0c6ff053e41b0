/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom bench gpu` asks for and says: plans, lines, tables, pictures, random numbers. No test needs a device. */
#include "helpers.h"

#include "base/file.h"
#include "bench/gpu/gpu_random.h"
#include "bench/gpu_plan.h"

#include <math.h>

static struct atom_error err;

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    return 0;
}

/* ---- plans --------------------------------------------------------------------------------------------------------
 */

static struct atom_gpu_plan plan_of(const char *const *shapes, int n, const char *schemes)
{
    static struct atom_gpu_plan plan;
    const struct atom_gpu_options opt = {.shapes = shapes, .n_shapes = n, .schemes = schemes};
    assert_ok(atom_gpu_plan_make(&opt, &plan, &err), &err);
    return plan;
}

static void usual_plan(void **state)
{
    (void)state;
    const struct atom_gpu_plan p = plan_of(NULL, 0, NULL);
    assert_int_equal(p.n_models, 2);
    assert_int_equal(p.n_matrices, 7); /* both have an o of 4096x4096 */
    assert_string_equal(p.matrices[0].shape, "12288x4096");
    assert_string_equal(p.matrices[0].whose, "7b qkv");
    assert_string_equal(p.matrices[1].whose, "7b o, 8b o");
    assert_string_equal(p.matrices[3].shape, "4096x11008");
    assert_string_equal(p.matrices[4].shape, "6144x4096");
    assert_int_equal(p.max_tok, 4096);
    for (int i = 0; i < ATOM_GPU_N_SCHEMES; i++)
        assert_true(p.schemes[i]);
}

static void chosen_plan(void **state)
{
    (void)state;
    const char *const shapes[] = {"100x12", "70b", "100x12"};
    const struct atom_gpu_plan p = plan_of(shapes, 3, "fp8,w4a4");
    assert_int_equal(p.n_matrices, 5);
    assert_int_equal(p.n_models, 1);
    assert_int_equal(p.matrices[0].n, 100);
    assert_int_equal(p.matrices[0].k, 12);
    assert_int_equal(p.matrices[0].outliers, 3);
    assert_string_equal(p.matrices[0].whose, "");
    assert_string_equal(p.matrices[3].shape, "57344x8192");
    assert_int_equal(p.matrices[3].outliers, 128);
    for (int i = 0; i < ATOM_GPU_N_SCHEMES; i++)
        assert_int_equal(p.schemes[i], i == ATOM_GPU_W4A4 || i == ATOM_GPU_BLAS_FP8);
}

static void wrong_plans(void **state)
{
    (void)state;
    static const char *const shapes[] = {"9b", "", "x", "1x", "x1", "0x5", "5x0", "1x2x3", "1 x2", "-1x2", "2000000x1"};
    static const char *const schemes[] = {"", "w4a4,", ",w4a4", "w4", "w4a44", "w4a4 ", "all"};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct atom_gpu_options opt = {.shapes = &shapes[i], .n_shapes = 1};
        err = (struct atom_error){0};
        assert_fails(atom_gpu_check(&opt, &err), &err, ATOM_ERR_INVALID, "11008x4096");
    }
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        const struct atom_gpu_options opt = {.schemes = schemes[i]};
        err = (struct atom_error){0};
        assert_fails(atom_gpu_check(&opt, &err), &err, ATOM_ERR_INVALID, "no scheme");
    }
}

/* ---- lines --------------------------------------------------------------------------------------------------------
 */

static const struct atom_gpu_machine machine = {"Some 'GPU'", "9.0", "580.1", "13.0", "nvcc 13.0.88"};

static struct atom_gpu_line linear(const char *scheme, int tokens, bool cold, double us)
{
    struct atom_gpu_line l = {.what = ATOM_GPU_LINEAR,
                              .machine = &machine,
                              .n = 11008,
                              .k = 4096,
                              .tokens = tokens,
                              .cold = cold,
                              .launches = 3,
                              .repeats = 21,
                              .median_s = us * 1e-6,
                              .fastest_s = us * 0.9e-6,
                              .ops = 2.0 * tokens * 11008 * 4096,
                              .bytes = 25e6,
                              .bound = tokens < 100 ? ATOM_GPU_READ : ATOM_GPU_INT8,
                              .share = 0.5,
                              .checked = 49};
    strcpy(l.name, scheme);
    strcpy(l.shape, "11008x4096");
    strcpy(l.whose, "7b up");
    return l;
}

static void lines_as_json(void **state)
{
    (void)state;
    struct atom_gpu_line l = linear("w4a4", 16, true, 15);
    l.quantize_s = 2e-6;
    char *text = atom_gpu_json(&l);
    static const char *const parts[] = {"\"what\": \"linear\"",
                                        "\"scheme\": \"w4a4\"",
                                        "\"shape\": \"11008x4096\"",
                                        "\"of\": \"7b up\"",
                                        "\"tokens\": 16",
                                        "\"median_us\": 15.0",
                                        "\"fastest_us\": 13.5",
                                        "\"quantize_us\": 2.0",
                                        "\"bound\": \"read\"",
                                        "\"share\": 0.5",
                                        "\"cold\": true",
                                        "\"checked\": 49",
                                        "\"launches\": 3",
                                        "\"device\": \"Some 'GPU'\"",
                                        "\"driver\": \"580.1\"",
                                        "\"cuda\": \"13.0\"",
                                        "\"compiler\": \"nvcc 13.0.88\""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(text, parts[i]))
            fail_msg("no %s in %s", parts[i], text);
    free(text);
    l = (struct atom_gpu_line){
        .what = ATOM_GPU_CEILING, .name = "int8", .how = "wgmma", .ops = 2e15, .clock_hz = 1.8e9};
    text = atom_gpu_json(&l);
    assert_non_null(strstr(text, "\"tops\": 2000.0"));
    assert_non_null(strstr(text, "\"clock_mhz\": 1800.0"));
    free(text);
}

static struct atom_gpu_line back[4];
static int n_back;

static void take_back(void *user, const struct atom_gpu_line *line)
{
    (void)user;
    back[n_back++] = *line;
}

static void put_lines(const char *dir, const struct atom_gpu_line *lines, int n)
{
    char all[4096] = "";
    for (int i = 0; i < n; i++) {
        char *text = atom_gpu_json(&lines[i]);
        strcat(strcat(all, text), "\n");
        free(text);
    }
    put_text(dir, "lines.jsonl", all);
}

static void lines_read_back(void **state)
{
    (void)state;
    struct atom_gpu_line lines[] = {
        {.what = ATOM_GPU_CEILING, .machine = &machine, .name = "read", .how = "loads", .bytes = 3e12},
        linear("w8a8", 64, true, 20),
        linear("prefill", 512, false, 300)};
    lines[1].quantize_s = 3e-6;
    lines[2].what = ATOM_GPU_ATTENTION;
    lines[2].context = 7;
    lines[2].kvbits = 4;
    char *dir = make_dir();
    put_lines(dir, lines, 3);
    n_back = 0;
    assert_ok(atom_gpu_read(in_dir(dir, "lines.jsonl"), take_back, NULL, &err), &err);
    assert_int_equal(n_back, 3);
    for (int i = 0; i < 3; i++) {
        char *was = atom_gpu_json(&lines[i]), *is = atom_gpu_json(&back[i]);
        assert_string_equal(was, is);
        free(was);
        free(is);
    }
    put_text(dir, "lines.jsonl", "{\"what\": \"model\"}\n");
    assert_fails(atom_gpu_read(in_dir(dir, "lines.jsonl"), take_back, NULL, &err), &err, ATOM_ERR_FORMAT, "line 1");
    err = (struct atom_error){0};
    assert_fails(atom_gpu_read(in_dir(dir, "none"), take_back, NULL, &err), &err, ATOM_ERR_IO, "none");
    remove_dir(dir);
}

/* Numbers of several types are one number in several spellings. */
static void random_numbers(void **state)
{
    (void)state;
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < 4096; i++) {
        uint32_t h = atom_gpu_hash(3, i);
        assert_true(atom_f16_float((uint16_t)atom_gpu_half_bell(h)) == atom_gpu_bell(h));
        uint16_t half = (uint16_t)(atom_gpu_word(ATOM_GPU_HALVES, 3, i / 2) >> (16 * (i % 2)));
        assert_true(atom_gpu_half_at(ATOM_GPU_HALVES, 3, i) == atom_f16_float(half));
        int q = (int8_t)atom_gpu_byte_at(ATOM_GPU_NIBBLES, 3, i);
        assert_true(q >= -8 && q <= 7);
        float s = atom_gpu_half_at(ATOM_GPU_SCALES, 3, i), f = atom_gpu_float_at(ATOM_GPU_FSCALES, 3, i);
        assert_true(s >= 0x1p-7f && s < 0x1p-6f && f >= 0x1p-7f && f < 0x1p-6f);
        int e = atom_gpu_byte_at(ATOM_GPU_E4M3, 3, i) >> 3 & 15;
        assert_true(e >= 4 && e <= 7);
        sum += (double)atom_gpu_bell(h);
        squares += (double)atom_gpu_bell(h) * (double)atom_gpu_bell(h);
    }
    assert_true(fabs(sum / 4096) < 0.1 && fabs(squares / 4096 - 1.33) < 0.1);
}

static void tables_of_linears(void **state)
{
    (void)state;
    struct atom_gpu_line lines[] = {linear("w4a4", 1, true, 13.9), linear("w4a4", 1, false, 10),
                                    linear("w4a4", 256, true, 45), linear("fp16", 1, true, 34.5),
                                    linear("fp8", 0, false, 0)};
    lines[0].quantize_s = 2.04e-6;
    strcpy(lines[4].how, "there is no library");
    for (int i = 1; i < 5; i++)
        assert_true(atom_gpu_same_table(&lines[0], &lines[i]));
    char *text = atom_gpu_text(lines, 5);
    static const char *const parts[] = {"linear of 11008 rows, 4096 channels: 7b up",
                                        "no fp8: there is no library",
                                        "13.9 +2.0",
                                        "       1      13.9 +2.0           34.5",
                                        "513  50%",
                                        "50%m",
                                        "     256           45.0              -",
                                        "warm"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (!strstr(text, parts[i]))
            fail_msg("no '%s' in\n%s", parts[i], text);
    free(text);
}

static void tables_of_the_rest(void **state)
{
    (void)state;
    struct atom_gpu_line lines[] = {linear("decode", 16, true, 40), linear("decode", 16, false, 30),
                                    linear("decode", 64, true, 160), linear("prefill", 64, false, 0)};
    for (int i = 0; i < 4; i++) {
        lines[i].what = ATOM_GPU_ATTENTION;
        lines[i].context = 1024;
        strcpy(lines[i].shape, "7b");
        strcpy(lines[i].whose, "4 bits");
    }
    strcpy(lines[3].how, "too large");
    char *text = atom_gpu_text(lines, 4);
    assert_non_null(strstr(text, "attention of 7b"));
    assert_non_null(strstr(text, "no prefill 4 bits: too large"));
    assert_non_null(strstr(text, "1024      40.00      625  50.0 %      30.00"));
    free(text);
    struct atom_gpu_line ceiling = {
        .what = ATOM_GPU_CEILING, .machine = &machine, .name = "copy", .how = "loads", .bytes = 3e12};
    assert_false(atom_gpu_same_table(&ceiling, &lines[0]));
    text = atom_gpu_text(&ceiling, 1);
    assert_non_null(strstr(text, "Some 'GPU', compute capability 9.0, driver 580.1, CUDA 13.0"));
    assert_non_null(strstr(text, "3000 GB/s"));
    free(text);
}

static void pictures(void **state)
{
    (void)state;
    if (system("command -v gnuplot >/dev/null"))
        skip_because("there is no gnuplot");
    struct atom_gpu_line lines[64];
    static const int speed[] = {800, 700, 1000, 600, 750, 1400, 1450};
    int n = 0;
    for (int s = 0; s < ATOM_GPU_N_SCHEMES; s++)
        for (int t = 1; t <= 4096; t *= 8)
            lines[n++] = linear(atom_gpu_scheme_names[s], t, true,
                                10 + 90e6 * t / (speed[s] * 1e6)); /* 90 Mop a token: 90/TOPS us */
    lines[n++] = linear("w4a4", 8, false, 1);
    lines[n] = lines[0];
    strcpy(lines[n++].shape, "64x64");
    char *dir = make_dir();
    const char *path = in_dir(dir, "plot.svg");
    assert_ok(atom_gpu_plot(NULL, 0, path, &err), &err);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_ok(atom_gpu_plot(lines, n, path, &err), &err);
    assert_int_equal(access(path, F_OK), 0);
    if (getenv("ATOM_KEEP"))
        assert_int_equal(rename(path, getenv("ATOM_KEEP")), 0);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(usual_plan, fresh),        cmocka_unit_test_setup(chosen_plan, fresh),
        cmocka_unit_test_setup(wrong_plans, fresh),       cmocka_unit_test_setup(lines_as_json, fresh),
        cmocka_unit_test_setup(lines_read_back, fresh),   cmocka_unit_test_setup(random_numbers, fresh),
        cmocka_unit_test_setup(tables_of_linears, fresh), cmocka_unit_test_setup(tables_of_the_rest, fresh),
        cmocka_unit_test_setup(pictures, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
