/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "model/config.h"
#include "quant/fingerprint.h"

#include <jansson.h>
#include <sys/stat.h>

#define BASE                                                                                                           \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"                    \
    "\"num_attention_heads\":4,\"vocab_size\":100"

#define ATOM_Q                                                                                                         \
    "\"quant_method\":\"atom\",\"version\":1,\"wbits\":4,\"abits\":4,\"kvbits\":4,\"group\":128,\"outliers\":128,"     \
    "\"outlier_bits\":8,\"rows_per_scale\":2,\"act_clip\":0.9,\"weight_clip\":0.85,\"kv_clip\":1.0,"                   \
    "\"kv_rope\":\"pre\",\"rotate\":[],\"lm_head_bits\":16,\"gptq\":true"

static struct atom_config good(const char *text)
{
    struct atom_error err = {0};
    struct atom_config c;
    assert_ok(atom_config_parse(text, strlen(text), &c, &err), &err);
    return c;
}

static void bad(const char *text, enum atom_status code, const char *words)
{
    struct atom_error err = {0};
    struct atom_config c, before;
    memset(&c, 0x5a, sizeof c);
    before = c;
    assert_fails(atom_config_parse(text, strlen(text), &c, &err), &err, code, words);
    assert_memory_equal(&c, &before, sizeof c);
}

#define GOOD(more)               good("{" BASE "," more "}")
#define UNSUPPORTED(more, words) bad("{" BASE "," more "}", ATOM_ERR_UNSUPPORTED, words)
#define DAMAGED(more, words)     bad("{" BASE "," more "}", ATOM_ERR_FORMAT, words)

static void test_defaults(void **state)
{
    (void)state;
    struct atom_config c = good("{" BASE "}");
    assert_true(c.hidden == 64 && c.intermediate == 96 && c.layers == 2 && c.heads == 4 && c.vocab == 100);
    assert_true(c.kv_heads == 4 && c.head_dim == 16 && !c.tied && !c.attention_bias && !c.mlp_bias);
    assert_true(c.rope.kind == ATOM_ROPE_DEFAULT && c.rope.theta == 10000);
    assert_true(c.bos == -1 && c.n_eos == 0 && !c.quantized);
    assert_true(c.scheme.wbits == 16 && c.scheme.abits == 16 && c.scheme.kvbits == 16 && c.scheme.lm_head_bits == 16);
}

static void test_fields(void **state)
{
    (void)state;
    struct atom_config c =
        GOOD("\"num_key_value_heads\":2,\"head_dim\":32,\"tie_word_embeddings\":true,\"attention_bias\":true,"
             "\"mlp_bias\":true,\"rms_norm_eps\":1e-5,\"max_position_embeddings\":4096,\"hidden_act\":\"swish\","
             "\"bos_token_id\":1,\"eos_token_id\":[2,3,2],\"pad_token_id\":-1,\"pretraining_tp\":2,"
             "\"sliding_window\":null,\"something_new\":null,\"layer_types\":[\"full_attention\",\"full_attention\"]");
    assert_true(c.kv_heads == 2 && c.head_dim == 32 && c.tied && c.attention_bias && c.mlp_bias);
    assert_true(c.rms_eps == 1e-5f && c.max_position == 4096 && c.bos == 1);
    assert_true(c.n_eos == 2 && c.eos[0] == 2 && c.eos[1] == 3);
    assert_int_equal(GOOD("\"eos_token_id\":7").eos[0], 7);
    assert_int_equal(GOOD("\"eos_token_id\":null").n_eos, 0);
}

static void test_rope(void **state)
{
    (void)state;
#define LLAMA3                                                                                                         \
    "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192"
    const struct atom_config same[] = {
        GOOD("\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3 "}"),
        GOOD("\"rope_theta\":500000,\"rope_scaling\":{\"type\":\"llama3\",\"rope_type\":\"llama3\"," LLAMA3 "}"),
        GOOD("\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\"," LLAMA3 "}"),
    };
    for (int i = 0; i < 3; i++) {
        assert_true(same[i].rope.kind == ATOM_ROPE_LLAMA3 && same[i].rope.theta == 500000 && same[i].rope.factor == 8);
        assert_true(same[i].rope.low_freq_factor == 1 && same[i].rope.high_freq_factor == 4);
        assert_int_equal(same[i].rope.original_max_position, 8192);
    }
    struct atom_config c = GOOD("\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}");
    assert_true(c.rope.kind == ATOM_ROPE_LINEAR && c.rope.factor == 4 && c.rope.theta == 10000);
    c = GOOD(
        "\"rope_scaling\":null,\"rope_theta\":1e6,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6}");
    assert_true(c.rope.kind == ATOM_ROPE_DEFAULT && c.rope.theta == 1e6);

    UNSUPPORTED("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}", "'dynamic'");
    UNSUPPORTED("\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0}", "'yarn'");
    UNSUPPORTED("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0,\"beta_fast\":1}", "'beta_fast'");
    UNSUPPORTED("\"rope_scaling\":{\"factor\":2.0}", "scaling factors");
    UNSUPPORTED("\"rope_parameters\":{\"partial_rotary_factor\":0.5}", "'partial_rotary_factor'");
    DAMAGED("\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":\"llama3\",\"factor\":2.0}", "rope_type is 'llama3'");
    DAMAGED("\"rope_scaling\":{\"type\":\"linear\"}", "linear takes");
    DAMAGED("\"rope_scaling\":{\"type\":\"linear\",\"factor\":-1}", "'factor' is -1");
    DAMAGED("\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "llama3 takes");
    DAMAGED("\"rope_scaling\":[1]", "rope_scaling is a list");
    DAMAGED("\"rope_scaling\":{},\"rope_parameters\":{}", "both");
    DAMAGED("\"rope_theta\":1e4,\"rope_parameters\":{\"rope_theta\":5e5}", "500000");
    DAMAGED("\"rope_theta\":0", "rope_theta");
}

static void test_refused(void **state)
{
    (void)state;
    bad("{\"model_type\":\"mistral\",\"sliding_window\":4096}", ATOM_ERR_UNSUPPORTED, "'mistral'");
    bad("{\"hidden_size\":64}", ATOM_ERR_FORMAT, "model_type");
    UNSUPPORTED("\"clip_qkv\":8.0", "'clip_qkv'");
    UNSUPPORTED("\"hidden_act\":\"gelu\"", "\"gelu\"");
    UNSUPPORTED("\"sliding_window\":4096", "'sliding_window' is 4096");
    UNSUPPORTED("\"partial_rotary_factor\":0.5", "0.5");
    UNSUPPORTED("\"rope_interleaved\":true", "rope_interleaved");
    UNSUPPORTED("\"layer_types\":[\"sliding_attention\"]", "layer_types");
    UNSUPPORTED("\"pruned_heads\":{\"0\":[1]}", "pruned_heads");
    UNSUPPORTED("\"eos_token_id\":[1,2,3,4,5,6,7,8,9]", "more than 8");
    bad("{\"model_type\":\"llama\"}", ATOM_ERR_FORMAT, "'hidden_size' is missing");
    bad("{\"model_type\":\"llama\",\"hidden_size\":null}", ATOM_ERR_FORMAT, "'hidden_size' is missing");
}

static void test_damaged(void **state)
{
    (void)state;
    DAMAGED("\"num_key_value_heads\":3", "3 key-value heads");
    DAMAGED("\"num_key_value_heads\":0", "num_key_value_heads");
    DAMAGED("\"head_dim\":15", "odd");
    DAMAGED("\"head_dim\":-16", "-16");
    DAMAGED("\"head_dim\":1000000", "more than");
    DAMAGED("\"max_position_embeddings\":99999999999", "99999999999");
    DAMAGED("\"max_position_embeddings\":2048.0", "not an integer");
    DAMAGED("\"rms_norm_eps\":\"1e-5\"", "not a number");
    DAMAGED("\"rms_norm_eps\":0", "rms_norm_eps");
    DAMAGED("\"tie_word_embeddings\":1", "not true or false");
    DAMAGED("\"eos_token_id\":100", "vocabulary of 100");
    DAMAGED("\"eos_token_id\":\"2\"", "eos_token_id");
    DAMAGED("\"bos_token_id\":100", "vocabulary of 100");
    DAMAGED("\"head_dim\":16,\"head_dim\":32", "duplicate");
    DAMAGED("\"_name_or_path\":\"\xff\"", "0xff");
    bad("{" BASE, ATOM_ERR_FORMAT, "line 1");
    bad("", ATOM_ERR_FORMAT, "JSON");
    bad("[1]", ATOM_ERR_FORMAT, "not a JSON object");
    bad("{\"model_type\":\"llama\",\"hidden_size\":65,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"vocab_size\":100}",
        ATOM_ERR_FORMAT, "no multiple of 4");
}

/* ---- schemes ------------------------------------------------------------------------------------------------------
 */

#define QUANT(fields) "\"quantization_config\":{" fields "}"

static void test_quantized(void **state)
{
    (void)state;
    struct atom_config c = GOOD(QUANT(ATOM_Q));
    assert_true(c.quantized && c.scheme.wbits == 4 && c.scheme.abits == 4 && c.scheme.kvbits == 4);
    assert_true(c.scheme.group == 128 && c.scheme.outliers == 128 && c.scheme.rows_per_scale == 2);
    assert_true(c.scheme.act_clip == 0.9f && c.scheme.weight_clip == 0.85f && c.scheme.kv_clip == 1);
    assert_true(!c.scheme.clip_search && c.scheme.kv_rope == ATOM_KV_PRE && !c.scheme.rotate && c.scheme.gptq);
    c = GOOD(QUANT(ATOM_Q ",\"clip_search\":true"));
    assert_true(c.scheme.clip_search && c.scheme.smooth_search == ATOM_SMOOTH_FIXED);
    c = GOOD(QUANT(ATOM_Q ",\"smooth\":1,\"smooth_search\":\"rms\""));
    assert_true(c.scheme.smooth == 1 && c.scheme.smooth_search == ATOM_SMOOTH_RMS);
    DAMAGED(QUANT(ATOM_Q ",\"smooth_search\":\"best\""), "smooth_search");
    DAMAGED(QUANT(ATOM_Q ",\"smooth_search\":1"), "smooth_search");
    assert_false(GOOD("\"quantization_config\":null").quantized);
    UNSUPPORTED(QUANT("\"quant_method\":\"awq\",\"bits\":4"), "'awq'");
    UNSUPPORTED(QUANT("\"quant_method\":\"atom\",\"version\":2,\"new\":4"), "version 2");
    UNSUPPORTED(QUANT(ATOM_Q ",\"new\":4"), "'new'");
    DAMAGED(QUANT("\"quant_method\":\"atom\",\"version\":1,\"wbits\":4"), "'abits' is missing");
    DAMAGED(QUANT("\"quant_method\":1"), "quant");
    DAMAGED("\"quantization_config\":3", "not an object");
}

#define GPTQ_Q   "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"sym\":true"
#define PACKED_Q "\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":"
#define BYTES_Q  "\"quant_method\":\"compressed-tensors\",\"format\":\"int-quantized\",\"config_groups\":"
#define ACTS_Q   "\"input_activations\":{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true}"

/* Other programs' words become a scheme that runs here. */
static void test_foreign(void **state)
{
    (void)state;
    struct atom_config c = GOOD(QUANT(GPTQ_Q));
    assert_true(c.quantized && c.foreign.format == &atom_foreign_gptq && c.foreign.zero_offset == 1);
    assert_true(c.scheme.wbits == 4 && c.scheme.abits == 16 && c.scheme.kvbits == 16 && c.scheme.group == 128);
    assert_true(c.scheme.gptq && !c.scheme.outliers && !c.scheme.rotate && c.foreign.symmetric && !c.foreign.ordered);
    c = GOOD(QUANT(GPTQ_Q ",\"checkpoint_format\":\"gptq_v2\",\"desc_act\":true,\"dynamic\":{},\"lm_head\":false"));
    assert_true(c.foreign.zero_offset == 0 && c.foreign.ordered);
    DAMAGED(QUANT("\"quant_method\":\"gptq\",\"bits\":4,\"sym\":true"), "'group_size' is missing");
    DAMAGED(QUANT("\"quant_method\":\"gptq\",\"bits\":16,\"group_size\":128,\"sym\":true"), "'bits' is 16");
    c = GOOD(QUANT(PACKED_Q "{\"g\":{\"weights\":{\"num_bits\":4,\"group_size\":64}}}"));
    assert_true(c.foreign.format == &atom_foreign_compressed && c.foreign.symmetric && c.scheme.group == 64);
    c = GOOD(QUANT(BYTES_Q "{\"g\":{\"weights\":{\"num_bits\":8,\"group_size\":-1}," ACTS_Q "}}"));
    assert_true(c.foreign.bytes && c.scheme.wbits == 8 && c.scheme.abits == 8 && c.scheme.group == 0);
    assert_true(c.scheme.act_clip == 127 / 127.5f);
    c = GOOD(QUANT(BYTES_Q "{\"g\":{\"weights\":{\"num_bits\":8},\"input_activations\":null}}"));
    assert_true(c.foreign.whole_scale && c.scheme.abits == 16);
    DAMAGED(QUANT(PACKED_Q "{\"g\":{}}"), "'weights' is missing");
    DAMAGED(QUANT(PACKED_Q "{\"g\":3}"), "not an object");
    UNSUPPORTED(QUANT(PACKED_Q "[]"), "0 config_groups");
    UNSUPPORTED(QUANT(BYTES_Q "{\"g\":{\"weights\":{\"num_bits\":8,\"symmetric\":false}}}"), "asymmetric bytes");
}

static void test_scheme_check(void **state)
{
    (void)state;
    struct atom_scheme s;
    struct atom_error err = {0};
    assert_ok(atom_scheme_named("paper", &s, &err), &err);
    assert_ok(atom_scheme_check(&s, 128, &err), &err);
    assert_true(s.kv_rope == ATOM_KV_PRE && s.rotate == 0 && s.rows_per_scale == 2 && !s.clip_search);
    assert_fails(atom_scheme_named("best", &s, &err), &err, ATOM_ERR_INVALID, "'best'");
    memset(&err, 0, sizeof err);
    assert_ok(atom_scheme_named("default", &s, &err), &err);
    assert_int_equal(s.outliers, -1);
    s.outliers = 128;
    const int good_sizes[] = {0, 1, 2, 12, 20, 24, 40, 48, 64, 80, 96, 128, 160},
              bad_sizes[] = {3, 6, 10, 36, 100, 112};
    for (size_t i = 0; i < sizeof good_sizes / sizeof *good_sizes; i++)
        assert_ok(atom_scheme_check(&s, good_sizes[i], &err), &err);
    for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++)
        assert_int_equal(atom_scheme_check(&s, bad_sizes[i], NULL), ATOM_ERR_UNSUPPORTED);
    s.kv_rope = ATOM_KV_PRE;
    assert_fails(atom_scheme_check(&s, 0, &err), &err, ATOM_ERR_INVALID, "rotate qk needs kv_rope post");
    s.rotate = ATOM_ROTATE_V;
    assert_int_equal(atom_scheme_check(&s, 0, NULL), ATOM_OK);
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        struct atom_scheme other = s;                                                                                  \
        other.change;                                                                                                  \
        assert_int_equal(atom_scheme_check(&other, 0, NULL), ATOM_ERR_INVALID);                                        \
    } while (0)
    REFUSED(wbits = 5);
    REFUSED(abits = 2);
    REFUSED(kvbits = 2);
    REFUSED(lm_head_bits = 4);
    REFUSED(group = -1);
    REFUSED(outliers = -1);
    REFUSED(rows_per_scale = 0);
    REFUSED(act_clip = 0);
    REFUSED(weight_clip = 1.5f);
    REFUSED(kv_clip = 0.0f / 0.0f);
    REFUSED(rotate = 8);
    REFUSED(outlier_bits = 4);
    REFUSED(format = (enum atom_format)4);
    REFUSED(smooth_search = (enum atom_smooth_search)3);
    REFUSED(smooth = 1.5f);
}

static void test_formats(void **state)
{
    (void)state;
    struct atom_scheme s;
    struct atom_error err = {0};
    assert_ok(atom_scheme_named("default", &s, &err), &err);
    s.outliers = 64;
    s.format = ATOM_FORMAT_FP4;
    assert_ok(atom_scheme_check(&s, 0, &err), &err);
    REFUSED(wbits = 3);
    REFUSED(abits = 8);
    s.format = ATOM_FORMAT_NVFP4;
    assert_fails(atom_scheme_check(&s, 0, &err), &err, ATOM_ERR_INVALID, "nvfp4: a group is 16 channels, not 128");
    memset(&err, 0, sizeof err);
    s.group = 16;
    s.rows_per_scale = 2;
    assert_fails(atom_scheme_check(&s, 0, &err), &err, ATOM_ERR_INVALID, "nvfp4: a scale is one row's");
    s.rows_per_scale = 1;
    assert_int_equal(atom_scheme_check(&s, 0, NULL), ATOM_OK);
    REFUSED(format = ATOM_FORMAT_MXFP4);
    s.format = ATOM_FORMAT_MXFP4;
    s.group = 32;
    assert_int_equal(atom_scheme_check(&s, 0, NULL), ATOM_OK);
    s.abits = 16;
    assert_int_equal(atom_scheme_check(&s, 0, NULL), ATOM_OK);
    /* What old checkpoints do not say is integers and 8 bits. */
    struct atom_config c = GOOD(QUANT(ATOM_Q));
    assert_true(c.scheme.format == ATOM_FORMAT_INT && c.scheme.outlier_bits == 8);
    c = GOOD(QUANT(ATOM_Q ",\"format\":\"fp4\""));
    assert_true(c.scheme.format == ATOM_FORMAT_FP4);
    UNSUPPORTED(QUANT(ATOM_Q ",\"format\":\"fp5\""), "\"fp5\"; int, fp4, nvfp4 and mxfp4");
    UNSUPPORTED(QUANT(ATOM_Q ",\"format\":4"), "'format' is 4");
    DAMAGED(QUANT(ATOM_Q ",\"format\":\"nvfp4\""), "a group is 16 channels, not 128");
}

/* By what makes a result another one, for a struct has padding. */
static bool same_scheme(const struct atom_scheme *a, const struct atom_scheme *b)
{
    char of_a[512], of_b[512];
    atom_fingerprint_options(a, 1, 1, of_a);
    atom_fingerprint_options(b, 1, 1, of_b);
    return strcmp(of_a, of_b) == 0;
}

static void test_scheme_names(void **state)
{
    (void)state;
    struct atom_error err = {0};
    struct atom_scheme s;
    int n;
    const struct atom_named_scheme *list = atom_named_schemes(&n);
    for (int i = 0; i < n; i++) {
        assert_ok(atom_scheme_named(list[i].name, &s, &err), &err);
        assert_true(same_scheme(&s, &list[i].scheme));
        if (list[i].also) {
            assert_ok(atom_scheme_named(list[i].also, &s, &err), &err);
            assert_true(same_scheme(&s, &list[i].scheme));
        }
        assert_true(strlen(list[i].about) > 10 && !strchr(list[i].about, '\n'));
        s.outliers = s.outliers < 0 ? 128 : s.outliers;
        assert_ok(atom_scheme_check(&s, 128, &err), &err);
        for (int j = 0; j < i; j++)
            assert_true(strcmp(list[i].name, list[j].name) && !same_scheme(&list[i].scheme, &list[j].scheme));
    }
    assert_fails(atom_scheme_named("", &s, &err), &err, ATOM_ERR_INVALID, "w4a16");
    for (int i = 0; i < n; i++) { /* all of them are named, by both names */
        assert_non_null(strstr(err.message, list[i].name));
        assert_non_null(strstr(err.message, list[i].also ? list[i].also : list[i].name));
    }
}

/* ---- files --------------------------------------------------------------------------------------------------------
 */

static void test_generation_config(void **state)
{
    (void)state;
    char *dir = make_dir();
    struct atom_error err = {0};
    struct atom_config c;
    put_text(dir, "config.json", "{" BASE ",\"eos_token_id\":2}");
    put_text(dir, "generation_config.json", "{\"eos_token_id\":[2,5],\"temperature\":0.6}");
    assert_ok(atom_config_load(dir, &c, &err), &err);
    assert_true(c.n_eos == 2 && c.eos[0] == 2 && c.eos[1] == 5);
    put_text(dir, "generation_config.json", "{\"eos_token_id\":[2,500]}");
    assert_fails(atom_config_load(dir, &c, &err), &err, ATOM_ERR_FORMAT, "500");
    memset(&err, 0, sizeof err);
    put_text(dir, "generation_config.json", "{");
    assert_fails(atom_config_load(dir, &c, &err), &err, ATOM_ERR_FORMAT, "generation_config.json");
    memset(&err, 0, sizeof err);
    assert_int_equal(unlink(in_dir(dir, "config.json")), 0);
    assert_fails(atom_config_load(dir, &c, &err), &err, ATOM_ERR_IO, "config.json");
    memset(&err, 0, sizeof err);
    assert_int_equal(mkdir(in_dir(dir, "config.json"), 0777), 0);
    assert_fails(atom_config_load(dir, &c, &err), &err, ATOM_ERR_IO, "is a directory");
    remove_dir(dir);
}

static void round_trip(const char *dir, const char *recipe)
{
    struct atom_error err = {0};
    struct atom_scheme s;
    char *text = NULL;
    assert_ok(atom_scheme_named(recipe, &s, &err), &err);
    s.outliers = 32;
    s.act_clip = 0.87654321f;
    assert_ok(atom_config_quantized_text(dir, &s, &text, &err), &err);
    struct atom_config c = good(text);
    assert_true(c.quantized && c.scheme.act_clip == s.act_clip && c.scheme.weight_clip == s.weight_clip);
    assert_true(c.scheme.rotate == s.rotate && c.scheme.kv_rope == s.kv_rope && c.scheme.gptq == s.gptq);
    assert_true(c.scheme.smooth == s.smooth && c.scheme.smooth_search == s.smooth_search);
    assert_true(c.scheme.clip_search == s.clip_search && c.scheme.rows_per_scale == s.rows_per_scale);
    assert_non_null(strstr(text, "\"kv_clip\": 1.0"));
    free(text);
}

static void test_quantized_text(void **state)
{
    (void)state;
    char *dir = make_dir(), *text = NULL;
    struct atom_error err = {0};
    struct atom_scheme s;
    assert_ok(atom_scheme_named("paper", &s, &err), &err);
    round_trip("models/tiny", "paper");
    round_trip("models/tiny", "default");
    round_trip("models/tiny", "w8a8-smooth");
    round_trip("models/tiny", "w4a16-awq");
    put_text(dir, "config.json", "{" BASE ",\n  \"rms_norm_eps\": 1e-05, \"id2label\": {\"a\": \"}\"}\n}  \n");
    assert_ok(atom_config_quantized_text(dir, &s, &text, &err), &err);
    assert_non_null(strstr(text, "1e-05"));
    assert_non_null(strstr(text, "\"act_clip\": 0.9,"));
    assert_int_equal(good(text).scheme.outliers, 128);
    put_text(dir, "config.json", text);
    free(text);
    text = NULL;
    assert_fails(atom_config_quantized_text(dir, &s, &text, &err), &err, ATOM_ERR_INVALID, "quantized already");
    assert_null(text);
    memset(&err, 0, sizeof err);
    put_text(dir, "config.json", "{" BASE ",\"quantization_config\":null,\"use_cache\":true}");
    assert_ok(atom_config_quantized_text(dir, &s, &text, &err), &err);
    assert_true(good(text).quantized);
    free(text);
    remove_dir(dir);
}

static void test_tiny(void **state)
{
    (void)state;
    struct atom_error err = {0};
    struct atom_config c;
    assert_ok(atom_config_load("models/tiny", &c, &err), &err);
    assert_true(c.hidden == 256 && c.intermediate == 768 && c.layers == 4 && c.heads == 2 && c.head_dim == 128);
    assert_true(c.tied && c.vocab == 4096 && c.rope.theta == 10000 && c.bos == 1 && c.n_eos == 1 && c.eos[0] == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_scheme_check),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_scheme_names),
        cmocka_unit_test(test_generation_config),
        cmocka_unit_test(test_quantized_text),
        cmocka_unit_test(test_tiny),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
