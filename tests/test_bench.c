/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom bench` computes and makes: plans, amounts, shares, lines, random models. No test looks at a speed. */
#include "helpers.h"

#include "backend/cpu.h"
#include "base/file.h"
#include "bench/amounts.h"
#include "bench/machine.h"
#include "bench/plan.h"
#include "bench/same_bits.h"
#include "bench/save.h"
#include "bench/timing.h"
#include "bench/whole_model.h"
#include "engine/session.h"
#include "model/tensor_names.h"

#include <math.h>

static struct atom_error err;

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    assert_ok(atom_runtime_init(&(struct atom_runtime_options){.threads = 2}, &err), &err);
    return 0;
}

static int done(void **state)
{
    (void)state;
    atom_runtime_fini();
    return 0;
}

static const struct atom_shape *shape(const char *name)
{
    const struct atom_shape *s = NULL;
    assert_ok(atom_shape_find(name, &s, &err), &err);
    return s;
}

static struct atom_config config(const char *name, int abits, int kvbits, int head_bits)
{
    const struct atom_bench_options opt = {.abits = abits, .kvbits = kvbits, .head_bits = head_bits};
    struct atom_scheme scheme;
    struct atom_config cfg;
    assert_ok(atom_bench_scheme(&opt, &scheme, &err), &err);
    atom_shape_config(shape(name), &scheme, &cfg);
    return cfg;
}

/* ---- what is asked for ---------------------------------------------------------------------------------------------
 */

static void lists(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      ",",
                                      "1,",
                                      ",1",
                                      "1,,2",
                                      "x",
                                      "1x",
                                      "-1",
                                      " 1",
                                      "1 2",
                                      "1;2",
                                      "+1",
                                      "101",
                                      "1.5",
                                      "1e2",
                                      "0x1",
                                      "1, 2",
                                      "99999999999999999999",
                                      "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"};
    const struct atom_bench_range range = {"--batch", 0, 100};
    struct atom_bench_list list = {0};
    assert_ok(atom_bench_parse_list(&range, "1,20,3", &list, &err), &err);
    assert_int_equal(list.n, 3);
    assert_int_equal(list.at[0], 1);
    assert_int_equal(list.at[1], 20);
    assert_int_equal(list.at[2], 3);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = (struct atom_error){0};
        assert_fails(atom_bench_parse_list(&range, bad[i], &list, &err), &err, ATOM_ERR_INVALID, "--batch");
        assert_int_equal(list.n, 3);
    }
}

static void shapes(void **state)
{
    (void)state;
    const struct atom_shape *s;
    assert_int_equal(shape("7b")->intermediate, 11008);
    assert_fails(atom_shape_find("9b", &s, &err), &err, ATOM_ERR_INVALID, "tiny, 1.1b, 7b, 13b, 70b, 8b");
    assert_int_equal(config("1.1b", 4, 4, 8).scheme.outliers, 128);
    assert_int_equal(config("tiny", 4, 4, 8).scheme.outliers, 64);
}

static void costs(void **state)
{
    (void)state;
    struct atom_config cfg = config("1.1b", 4, 4, 8);
    struct atom_cost c;
    assert_ok(atom_cost_of(&cfg, &c, &err), &err);
    assert_true(c.weights == 968884224.0);
    assert_true(c.kv_bytes == 22 * 2 * 4 * (32 + 4));
    assert_true(c.head_bytes == 32000.0 * (2048 + 2));
    assert_true(c.embedding_bytes == 32000.0 * 2048 * 2);
    /* 15 groups of 128 and an outlier group: a row of hidden inputs takes 960 + 128 + 2 * 16 bytes; 43 of them and an
     * outlier group make the 5632 of the MLP. */
    double rows = 2048 + 256 + 256 + 2048 + 2 * 5632;
    assert_true(c.layers_bytes == 22 * (rows * (960 + 128 + 32) + 2048 * (2752 + 128 + 2 * 44)));
    cfg = config("1.1b", 4, 16, 16);
    assert_ok(atom_cost_of(&cfg, &c, &err), &err);
    assert_true(c.kv_bytes == 22 * 2 * 4 * 128);
    assert_true(c.head_bytes == 32000.0 * 2048 * 2);
}

/* ---- plans ---------------------------------------------------------------------------------------------------------
 */

static int plan(const struct atom_bench_plan *p, struct atom_phase **out)
{
    int n;
    assert_ok(atom_plan_phases(p, shape("1.1b"), out, &n, &err), &err);
    return n;
}

static void assert_phase(const struct atom_phase *p, bool decode, int tokens, int depth, int batch)
{
    if (p->decode != decode || p->tokens != tokens || p->depth != depth || p->batch != batch)
        fail_msg("phase is %d, %d tokens, depth %d, batch %d", p->decode, p->tokens, p->depth, p->batch);
}

static void usual_plan(void **state)
{
    (void)state;
    struct atom_phase *p;
    int sequences, positions, n = plan(&(struct atom_bench_plan){.repeat = 3}, &p);
    assert_int_equal(n, 10);
    assert_phase(&p[0], false, 512, 0, 1);
    assert_phase(&p[1], true, 64, 0, 1);
    assert_phase(&p[3], true, 64, 0, 4);
    assert_phase(&p[6], true, 16, 0, 32);
    assert_phase(&p[7], false, 512, 1024, 1);
    assert_phase(&p[8], true, 64, 1024, 1);
    assert_phase(&p[9], true, 64, 4096, 1);
    atom_plan_room(p, n, &sequences, &positions);
    assert_int_equal(sequences, 32);
    assert_int_equal(positions, 4160 + 3 * 64 + 4 * 32 + 24 * 16);
    free(p);
}

static void chosen_plans(void **state)
{
    (void)state;
    struct atom_phase *p;
    const struct atom_bench_plan all = {
        .prefill = {2, {33, 7}}, .decode = {1, {5}}, .depth = {2, {100, 1}}, .batch = {2, {3, 2}}};
    int sequences, positions, n = plan(&all, &p);
    assert_int_equal(n, 8);
    assert_phase(&p[0], false, 7, 1, 1);
    assert_phase(&p[1], false, 33, 1, 1);
    assert_phase(&p[2], true, 5, 1, 2);
    assert_phase(&p[3], true, 5, 1, 3);
    assert_phase(&p[7], true, 5, 100, 3);
    atom_plan_room(p, n, &sequences, &positions);
    assert_int_equal(sequences, 3);
    assert_int_equal(positions, 144 + 112 + 112);
    free(p);
    n = plan(&(struct atom_bench_plan){.prefill = {1, {0}}, .depth = {1, {0}}, .batch = {1, {1}}}, &p);
    assert_int_equal(n, 1);
    assert_phase(&p[0], true, 64, 0, 1);
    free(p);
    n = plan(&(struct atom_bench_plan){.prefill = {1, {0}}, .decode = {1, {0}}}, &p);
    assert_int_equal(n, 0);
    free(p);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------
 */

static struct atom_ceilings made_up_ceilings(void)
{
    struct atom_ceilings c = {0};
    c.at[ATOM_CEIL_INT8].all = 1000;
    c.at[ATOM_CEIL_F32].all = 100;
    c.at[ATOM_CEIL_READ].all = 10;
    return c;
}

static void medians_and_shares(void **state)
{
    (void)state;
    const struct atom_ceilings ceilings = made_up_ceilings();
    struct atom_bench_line line = {.ops = 4000, .bytes = 5, .bound = ATOM_BOUND_INT8};
    assert_true(atom_median((double[]){5, 1, 3}, 3) == 3);
    assert_true(atom_median((double[]){4, 1, 3, 2}, 4) == 2.5);
    atom_line_times(&line, (double[]){10, 8, 30}, 3, &ceilings);
    assert_true(line.median_s == 10 && line.fastest_s == 8);
    assert_true(fabs(line.share - 0.4) < 1e-12);
    line.bound = ATOM_BOUND_READ;
    atom_line_times(&line, (double[]){2}, 1, &ceilings);
    assert_true(fabs(line.share - 0.25) < 1e-12);
    line.bound = ATOM_BOUND_NONE;
    atom_line_times(&line, (double[]){2}, 1, &ceilings);
    assert_true(line.share == 0);
}

static void amounts(void **state)
{
    (void)state;
    const struct atom_config cfg = config("1.1b", 4, 4, 8);
    const struct atom_ceilings ceilings = made_up_ceilings();
    struct atom_op_case one = {&cfg, 4, 4, 1, 1, 9}, many = {&cfg, 4, 8, 6, 2, 10};
    struct atom_bench_line line = {0};
    struct atom_amount a;
    assert_ok(atom_op_amount(ATOM_OP_DOWN, &one, &a, &err), &err);
    assert_true(a.ops == 2.0 * 2048 * 5632 && a.bytes == 2048 * (2752 + 128 + 2 * 44));
    assert_ok(atom_op_amount(ATOM_OP_QKV, &many, &a, &err), &err);
    assert_true(a.ops == 6 * 2.0 * 2560 * 2048 && a.bytes == 2560 * (960 + 128 + 32));
    assert_ok(atom_op_amount(ATOM_OP_ATTEND, &one, &a, &err), &err);
    assert_true(a.ops == 4 * 10 * 2048 && a.bytes == 10 * 2 * 4 * (32 + 4));
    /* Three tokens each, which see 11, 12 and 13 positions. */
    assert_ok(atom_op_amount(ATOM_OP_ATTEND, &many, &a, &err), &err);
    assert_true(a.ops == 4.0 * 2 * (11 + 12 + 13) * 2048 && a.bytes == 2 * 13 * 2 * 4 * (64 + 4));
    /* What takes longer by itself bounds. */
    atom_line_amount(&line, &(struct atom_amount){900, 10, ATOM_BOUND_INT8}, &ceilings);
    assert_int_equal(line.bound, ATOM_BOUND_READ);
    atom_line_amount(&line, &(struct atom_amount){1100, 10, ATOM_BOUND_INT8}, &ceilings);
    assert_int_equal(line.bound, ATOM_BOUND_INT8);
    atom_line_amount(&line, &(struct atom_amount){110, 10, ATOM_BOUND_F32}, &ceilings);
    assert_int_equal(line.bound, ATOM_BOUND_F32);
}

static void lines_as_json_and_text(void **state)
{
    (void)state;
    struct atom_bench_line line = {.what = ATOM_BENCH_MODEL,
                                   .shape = "1.1b",
                                   .name = "decode",
                                   .threads = 2,
                                   .tokens = 64,
                                   .depth = 1024,
                                   .batch = 4,
                                   .wbits = 4,
                                   .abits = 4,
                                   .kv = 8,
                                   .head = 8,
                                   .median_s = 2,
                                   .fastest_s = 1.5,
                                   .bytes = 1e9,
                                   .tok_s = 128,
                                   .bound = ATOM_BOUND_READ,
                                   .share = 0.5};
    char *text = atom_bench_json(&line);
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "what")), "model");
    assert_string_equal(json_string_value(json_object_get(o, "phase")), "decode");
    assert_int_equal(json_integer_value(json_object_get(o, "kv")), 8);
    assert_true(json_real_value(json_object_get(o, "bytes_s")) == 5e8);
    assert_true(json_real_value(json_object_get(o, "share")) == 0.5);
    assert_true(json_is_string(json_object_get(o, "machine")) && json_is_string(json_object_get(o, "compiler")));
    json_decref(o);
    free(text);
    text = atom_bench_text(&line, NULL);
    assert_non_null(strstr(text, "1.1b") && strstr(text, "128.0") ? strstr(text, "50.0 % of read bandwidth") : NULL);
    free(text);
    text = atom_bench_text(&line, &line); /* no heading again */
    assert_null(strstr(text, "1.1b"));
    free(text);
    line.share = 0;
    text = atom_bench_json(&line);
    assert_non_null(strstr(text, "\"share\": null"));
    free(text);
}

static void ceilings_by_tier(void **state)
{
    (void)state;
    struct atom_ceilings c;
    const struct atom_ceilings_options opt = {.one = true, .brief = true};
    assert_ok(atom_ceilings_measure(&opt, &c, &err), &err);
    assert_true(c.at[ATOM_CEIL_READ].one > 0 && c.at[ATOM_CEIL_READ].all > 0);
    bool scalar = strcmp(atom_runtime_cpu(), "scalar") == 0;
    assert_true((c.at[ATOM_CEIL_INT8].all > 0) == !scalar && (c.at[ATOM_CEIL_F32].one > 0) == !scalar);
    assert_ok(atom_runtime_init(&(struct atom_runtime_options){.threads = 1, .cpu = "scalar"}, &err), &err);
    assert_ok(atom_ceilings_measure(&opt, &c, &err), &err);
    assert_true(c.at[ATOM_CEIL_INT8].all == 0 && c.at[ATOM_CEIL_INT8].how[0] == 0);
    assert_true(c.at[ATOM_CEIL_READ].one == c.at[ATOM_CEIL_READ].all && c.at[ATOM_CEIL_READ].all > 0);
    assert_true(atom_machine_name()[0] && atom_machine_compiler()[0] && atom_machine_peak_bytes() > 0);
}

/* ---- random models -------------------------------------------------------------------------------------------------
 */

static struct atom_random *numbers(const struct atom_config *cfg, uint64_t seed)
{
    struct atom_random *r;
    assert_ok(atom_random_create(cfg, seed, &r, &err), &err);
    return r;
}

static void random_tensors_are_of_the_seed(void **state)
{
    (void)state;
    const struct atom_config cfg = config("tiny", 4, 4, 8);
    struct atom_random *a = numbers(&cfg, 5), *c = numbers(&cfg, 6);
    assert_ok(atom_runtime_init(&(struct atom_runtime_options){.threads = 1}, &err), &err);
    struct atom_random *b = numbers(&cfg, 5);
    int n, other, differ = 0;
    const struct atom_tensor *x = atom_random_list(a, &n), *y = atom_random_list(b, &other),
                             *z = atom_random_list(c, &other);
    assert_int_equal(n, other);
    for (int i = 0; i < n; i++) {
        assert_string_equal(x[i].name, y[i].name);
        assert_int_equal(x[i].n_bytes, y[i].n_bytes);
        assert_memory_equal(x[i].data, y[i].data, x[i].n_bytes);
        differ += memcmp(x[i].data, z[i].data, x[i].n_bytes) != 0;
    }
    assert_int_equal(differ, n);
    atom_random_free(a);
    atom_random_free(b);
    atom_random_free(c);
}

static void random_tensors_are_a_checkpoint(void **state)
{
    (void)state;
    const struct atom_config cfg = config("tiny", 4, 4, 8);
    struct atom_random *r = numbers(&cfg, 5);
    struct atom_tensors *t;
    int n;
    const struct atom_tensor *list = atom_random_list(r, &n);
    assert_int_equal(n, 2 * atom_random_per_layer(r) + 4);
    assert_ok(atom_tensors_wrap(list, (size_t)n, &t, &err), &err);
    assert_ok(atom_tensors_known(&cfg, t, &err), &err);
    const struct atom_tensor *q = atom_tensors_find(t, "model.layers.1.mlp.down_proj.qweight"),
                             *head = atom_tensors_find(t, "lm_head.qweight");
    assert_ptr_equal(q->data, atom_tensors_find(t, "model.layers.0.mlp.down_proj.qweight")->data);
    for (size_t i = 0; i < q->n_bytes; i++)
        assert_true((((const uint8_t *)q->data)[i] & 15) && (((const uint8_t *)q->data)[i] >> 4));
    for (size_t i = 0; i < head->n_bytes; i++)
        assert_true(((const int8_t *)head->data)[i] != -128);
    atom_tensors_close(t);
    atom_random_free(r);
}

enum { TOKENS = 40 };

/* Logits after TOKENS tokens, and after them once more when the last ten were cut off. */
static void run_model(const struct atom_config *cfg, float *logits)
{
    struct atom_model *model;
    struct atom_random *random;
    struct atom_session *s;
    int32_t tokens[TOKENS];
    int last = TOKENS - 1;
    float *again = malloc((size_t)cfg->vocab * sizeof *again);
    assert_ok(atom_random_model(cfg, 7, &model, &random, &err), &err);
    assert_ok(atom_session_create(model, &(struct atom_session_options){.max_positions = 64}, &s, &err), &err);
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = i * 31 % cfg->vocab;
    struct atom_step_seq step = {.tokens = tokens, .n_tokens = TOKENS};
    assert_ok(atom_session_add(s, &step.sequence, &err), &err);
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, &last, 1, logits, &err), &err);
    atom_session_cut(s, step.sequence, TOKENS - 10);
    assert_int_equal(atom_session_length(s, step.sequence), TOKENS - 10);
    step.tokens = tokens + TOKENS - 10;
    step.n_tokens = 10;
    last = 9;
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, &last, 1, again, &err), &err);
    assert_memory_equal(logits, again, (size_t)cfg->vocab * sizeof *again);
    atom_session_free(s);
    atom_model_close(model);
    atom_random_free(random);
    free(again);
}

/* Logits are about 2, whatever the bits; that they are finite a session sees to itself. */
static void random_models_are_sane(void **state)
{
    (void)state;
    static const int bits[][3] = {{4, 4, 8}, {8, 8, 16}, {4, 16, 8}};
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        const struct atom_config cfg = config("tiny", bits[i][0], bits[i][1], bits[i][2]);
        float *x = malloc((size_t)cfg.vocab * sizeof *x), *y = malloc((size_t)cfg.vocab * sizeof *y);
        double sum = 0;
        run_model(&cfg, x);
        run_model(&cfg, y);
        assert_memory_equal(x, y, (size_t)cfg.vocab * sizeof *x);
        for (int j = 0; j < cfg.vocab; j++)
            sum += (double)x[j] * (double)x[j];
        double size = sqrt(sum / cfg.vocab);
        if (!(size > 1 && size < 4))
            fail_msg("logits have a size of %f", size);
        free(x);
        free(y);
    }
}

/* ---- comparing tiers -----------------------------------------------------------------------------------------------
 */

static void wrong_silu(const float *gate, const float *up, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = gate[i] * up[i];
}

static void wrong_norm(const float *x, const int32_t *order, const float *weight, float r, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = x[order ? order[i] : i] * r * weight[i] * 1.5f;
}

static void tiers_are_compared(void **state)
{
    (void)state;
    const struct atom_config cfg = config("tiny", 4, 4, 8);
    struct atom_stage s;
    assert_ok(atom_stage_open(shape("tiny"), &cfg.scheme, &s, &err), &err);
    assert_ok(atom_same_bits(&s, 4, 4, &err), &err);
    assert_ok(atom_same_bits(&s, 8, 16, &err), &err);
    const char *tier = atom_cpu_name();
    atom_kern.silu_mul = wrong_silu;
    assert_fails(atom_same_bits(&s, 4, 4, &err), &err, ATOM_ERR_NUMERIC, "silu");
    assert_string_equal(atom_cpu_name(), tier);
    err = (struct atom_error){0};
    atom_kern.norm = wrong_norm;
    assert_fails(atom_same_bits(&s, 4, 4, &err), &err, ATOM_ERR_NUMERIC, "norm");
    atom_stage_close(&s);
}

/* ---- directories ---------------------------------------------------------------------------------------------------
 */

static void tokenizers_of_letters(void **state)
{
    (void)state;
    static const int sizes[] = {290, 512, 32000};
    char *dir = make_dir();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct atom_tokenizer *tok;
        struct atom_ids ids;
        char *back;
        size_t n;
        json_t *o = atom_letters_tokenizer(sizes[i]);
        char *text = json_dumps(o, 0);
        put_text(dir, "tokenizer.json", text);
        free(text);
        json_decref(o);
        assert_ok(atom_tokenizer_open(dir, &tok, &err), &err);
        assert_int_equal(atom_tokenizer_vocab_size(tok), sizes[i]);
        assert_ok(atom_tokenizer_encode(tok, "the cat, 3", 10, ATOM_ENCODE_POST, &ids, &err), &err);
        assert_int_equal(ids.ids[0], 1);
        assert_ok(atom_tokenizer_decode(tok, ids.ids, ids.n, ATOM_DECODE_SKIP_SPECIAL, &back, &n, &err), &err);
        assert_string_equal(back, "the cat, 3");
        free(back);
        atom_ids_free(&ids);
        atom_tokenizer_close(tok);
    }
    remove_dir(dir);
}

static void checkpoints_are_written_once(void **state)
{
    (void)state;
    const struct atom_bench_options opt = {
        .shapes = (const char *const[]){"tiny"}, .n_shapes = 1, .abits = 4, .kvbits = 4, .head_bits = 8};
    char *dir = make_dir();
    const char *out = in_dir(dir, "model");
    struct atom_model *model;
    assert_ok(atom_bench_write(&opt, out, &err), &err);
    assert_ok(atom_model_open(out, &model, &err), &err);
    assert_int_equal(atom_model_info(model)->vocab, 512);
    assert_int_equal(atom_model_info(model)->scheme.kvbits, 4);
    atom_model_close(model);
    assert_fails(atom_bench_write(&opt, out, &err), &err, ATOM_ERR_INVALID, "there already");
    err = (struct atom_error){0};
    assert_fails(atom_bench_write(&opt, in_dir(dir, "no/model"), &err), &err, ATOM_ERR_IO, "no/model");
    err = (struct atom_error){0};
    assert_fails(atom_bench_write(&opt, "", &err), &err, ATOM_ERR_INVALID, "no name");
    assert_int_not_equal(access(in_dir(dir, "model.partial"), F_OK), 0);
    char *inner = strdup(in_dir(dir, "model"));
    assert_ok(atom_dir_delete(inner, &err), &err);
    free(inner);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lists, fresh),
        cmocka_unit_test_setup(shapes, fresh),
        cmocka_unit_test_setup(costs, fresh),
        cmocka_unit_test_setup(usual_plan, fresh),
        cmocka_unit_test_setup(chosen_plans, fresh),
        cmocka_unit_test_setup(medians_and_shares, fresh),
        cmocka_unit_test_setup(amounts, fresh),
        cmocka_unit_test_setup(lines_as_json_and_text, fresh),
        cmocka_unit_test_setup(ceilings_by_tier, fresh),
        cmocka_unit_test_setup(random_tensors_are_of_the_seed, fresh),
        cmocka_unit_test_setup(random_tensors_are_a_checkpoint, fresh),
        cmocka_unit_test_setup(random_models_are_sane, fresh),
        cmocka_unit_test_setup(tiers_are_compared, fresh),
        cmocka_unit_test_setup(tokenizers_of_letters, fresh),
        cmocka_unit_test_setup(checkpoints_are_written_once, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, done);
}
