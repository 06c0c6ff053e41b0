/* SPDX-License-Identifier: Apache-2.0 */
/* atom_quantize from checkpoint to checkpoint: every ingredient in turn on models of odd shapes, quality that falls in
 * the right order, runs that stop and go on, refusals. */
#include "llama.h"

#include "model/model.h"

#include <dirent.h>

static struct atom_error err;
static char *home;
static char calib[1024];
static int made;

/* Query heads that share keys, heads wider than the hidden size has room for, biases, a head of its own, two files. */
static const struct llama odd = {.hidden = 40,
                                 .intermediate = 54,
                                 .layers = 2,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .head_dim = 24,
                                 .attention_bias = true,
                                 .llama3 = true,
                                 .sharded = true,
                                 .dtype = ATOM_BF16};

static const char *place(const char *name)
{
    static char paths[4][1024];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", home, name);
    return path;
}

static const char *new_place(void)
{
    char name[32];
    snprintf(name, sizeof name, "out-%d", made++);
    return place(name);
}

static int start(void **state)
{
    (void)state;
    home = make_dir();
    assert_ok(atom_runtime_init(NULL, &err), &err);
    put_calibration(home);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    assert_int_equal(mkdir(place("odd"), 0777), 0);
    put_llama(place("odd"), &odd);
    return 0;
}

static int finish(void **state)
{
    (void)state;
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

static struct atom_quantize_options short_options(const char *model, const char *out)
{
    struct atom_quantize_options o = quick_options(model, out, calib);
    o.samples = 2;
    o.window = 32;
    return o;
}

/* ---- every ingredient
 * ------------------------------------------------------------------------------------------------ */

enum { N_TOK = 20 };

static void logits_of(const char *dir, float *logits, struct atom_scheme *scheme)
{
    struct atom_model *m;
    struct atom_session *s;
    const struct atom_session_options opt = {.max_positions = 64, .step_tokens = 32};
    int sequence, rows[N_TOK];
    int32_t tokens[N_TOK];
    assert_ok(atom_model_open(dir, &m, &err), &err);
    *scheme = atom_model_info(m)->scheme;
    assert_ok(atom_session_create(m, &opt, &s, &err), &err);
    assert_ok(atom_session_add(s, &sequence, &err), &err);
    for (int i = 0; i < N_TOK; i++) {
        rows[i] = i;
        tokens[i] = i ? 100 + i * 97 : 1;
    }
    struct atom_step_seq step = {.sequence = sequence, .tokens = tokens, .n_tokens = N_TOK};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, rows, N_TOK, logits, &err), &err);
    atom_session_free(s);
    atom_model_close(m);
}

/* ||a - b|| / ||b|| */
static double distance(const float *a, const float *b)
{
    double off = 0, all = 0;
    for (int i = 0; i < N_TOK * LLAMA_VOCAB; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / all);
}

static float exact[N_TOK * LLAMA_VOCAB], got[N_TOK * LLAMA_VOCAB];

/* Quantizes, opens, runs; returns how far the logits are from those of the float model in `exact`. */
static double try_scheme(const char *model, const struct atom_scheme *scheme)
{
    const char *out = new_place();
    struct atom_scheme back;
    struct atom_quantize_options o = short_options(model, out);
    o.scheme = *scheme;
    assert_ok(atom_quantize(&o, &err), &err);
    logits_of(out, got, &back);
    assert_true(back.wbits == scheme->wbits && back.abits == scheme->abits && back.kvbits == scheme->kvbits);
    assert_true(back.group <= scheme->group && back.rows_per_scale == scheme->rows_per_scale);
    assert_true(back.outliers <= scheme->outliers || scheme->outliers < 0);
    assert_true(back.kv_rope == scheme->kv_rope && back.rotate == scheme->rotate &&
                back.lm_head_bits == scheme->lm_head_bits);
    return distance(got, exact);
}

static void every_ingredient(void **state)
{
    static const int wbits[] = {2, 3, 4, 8, 16}, bits[] = {3, 4, 8, 16}, groups[] = {0, 32, 100, 7},
                     outliers[] = {0, 5, 1000, 16};
    struct atom_scheme s;
    (void)state;
    logits_of(place("odd"), exact, &s);
    for (int i = 0; i < 28; i++) {
        s = (struct atom_scheme){.wbits = wbits[i % 5],
                                 .abits = bits[i / 2 % 4],
                                 .kvbits = bits[(i * 7 + i / 4) % 4],
                                 .group = groups[i / 3 % 4],
                                 .outliers = outliers[(i + i / 4) % 4],
                                 .rows_per_scale = 1 + i % 3,
                                 .act_clip = bits[i / 2 % 4] < 8 && i % 2 ? 0.9f : 1.0f,
                                 .weight_clip = wbits[i % 5] > 4 || i % 3 ? 1.0f : 0.85f,
                                 .kv_clip = bits[(i * 7 + i / 4) % 4] > 4 || i % 7 ? 1.0f : 0.95f,
                                 .clip_search = i / 2 % 2,
                                 .kv_rope = i % 4 == 0 ? ATOM_KV_PRE : ATOM_KV_POST,
                                 .rotate = i % 4 == 0 ? (unsigned)(i % 8 ? ATOM_ROTATE_V : 0) : (unsigned)(i % 4),
                                 .lm_head_bits = i % 5 == 3 ? 8 : 16,
                                 .gptq = i % 3 != 1};
        double off = try_scheme(place("odd"), &s);
        /* Eight bits throughout stay near; what is 16 bits throughout, but for its cache, nearer still. */
        bool fine = s.wbits >= 8 && s.abits >= 8 && s.kvbits >= 8;
        if (!(off < (fine ? 0.08 : 1.5)))
            fail_msg("w%da%dkv%d, group %d, outliers %d: logits are off by %g", s.wbits, s.abits, s.kvbits, s.group,
                     s.outliers, off);
    }
}

/* Query heads that share keys, biases: what is divided in one place is multiplied in the other. */
static void searched_smoothing_leaves_the_function(void **state)
{
    static const char *const names[] = {"w8a8-smooth", "w4a16-awq"};
    struct atom_scheme s;
    (void)state;
    logits_of(place("odd"), exact, &s);
    for (int i = 0; i < 2; i++) {
        assert_ok(atom_scheme_named(names[i], &s, &err), &err);
        s.wbits = 8;
        double off = try_scheme(place("odd"), &s);
        if (!(off < 0.04))
            fail_msg("%s at 8 bits: logits are off by %g", names[i], off);
    }
}

static void other_shapes(void **state)
{
    static const struct llama shapes[] = {{.hidden = 33,
                                           .intermediate = 47,
                                           .layers = 1,
                                           .heads = 3,
                                           .kv_heads = 1,
                                           .head_dim = 10,
                                           .tied = true,
                                           .dtype = ATOM_F32},
                                          {.hidden = 64,
                                           .intermediate = 20,
                                           .layers = 2,
                                           .heads = 2,
                                           .kv_heads = 2,
                                           .head_dim = 2,
                                           .mlp_bias = true,
                                           .dtype = ATOM_F16},
                                          {.hidden = 24,
                                           .intermediate = 300,
                                           .layers = 1,
                                           .heads = 1,
                                           .kv_heads = 1,
                                           .head_dim = 160,
                                           .tied = true,
                                           .marker = true,
                                           .dtype = ATOM_BF16}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct atom_scheme s;
        char dir[1024];
        snprintf(dir, sizeof dir, "%s", new_place());
        assert_int_equal(mkdir(dir, 0777), 0);
        put_llama(dir, &shapes[i]);
        logits_of(dir, exact, &s);
        int n;
        const struct atom_named_scheme *named = atom_named_schemes(&n);
        for (int j = 0; j < n; j++) {
            s = named[j].scheme;
            if (i == 0)
                s.rotate = 0; /* heads of 10 have no such matrix */
            double off = try_scheme(dir, &s), limit = s.wbits >= 8 && s.abits >= 8 && s.kvbits >= 8 ? 0.1 : 1;
            if (!(off < limit))
                fail_msg("%s: logits of shape %d are off by %g", named[j].name, i, off);
        }
    }
}

/* ---- models/tiny
 * ------------------------------------------------------------------------------------------------------ */

static double perplexity(const char *dir)
{
    struct atom_model *m;
    struct atom_ppl_result r;
    const struct atom_ppl_options opt = {.window = 64, .max_windows = 6};
    FILE *f = fopen(calib, "rb");
    static char text[20000];
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_ok(atom_model_open(dir, &m, &err), &err);
    assert_ok(atom_eval_ppl(m, text, n, &opt, &r, &err), &err);
    atom_model_close(m);
    return r.ppl;
}

static double quantized_perplexity(const char *recipe, int bits, bool head)
{
    const char *out = new_place();
    struct atom_quantize_options o = quick_options("models/tiny", out, calib);
    assert_ok(atom_scheme_named(recipe, &o.scheme, &err), &err);
    o.scheme.outliers = strcmp(recipe, "paper") ? -1 : 128;
    o.scheme.wbits = o.scheme.abits = o.scheme.kvbits = bits;
    if (bits > 4)
        o.scheme.act_clip = o.scheme.weight_clip = 1;
    o.scheme.lm_head_bits = head ? 8 : 16;
    assert_ok(atom_quantize(&o, &err), &err);
    return perplexity(out);
}

static void quality_falls_in_order(void **state)
{
    (void)state;
    double as_is = perplexity("models/tiny"), w8 = quantized_perplexity("paper", 8, true);
    double paper = quantized_perplexity("paper", 4, false), own = quantized_perplexity("default", 4, false);
    double w3 = quantized_perplexity("default", 3, false);
    print_message("perplexity: float %.3f, w8a8kv8 %.3f, w4a4kv4 paper %.3f, default %.3f, w3a3kv3 %.3f\n", as_is, w8,
                  paper, own, w3);
    assert_true(fabs(w8 / as_is - 1) < 0.02);
    assert_true(paper < 1.6 * as_is && own < 1.6 * as_is);
    assert_true(w3 > own && w3 > w8);
}

/* ---- stop and go on
 * ---------------------------------------------------------------------------------------------------- */

struct stop {
    double at; /* layers */
    int calls;
    double last;
};

static bool stop_there(void *user, const struct atom_progress *p)
{
    struct stop *s = user;
    assert_string_equal(p->phase, "quantize");
    assert_true(p->done >= s->last && p->done <= p->total + 1e-9);
    s->last = p->done;
    s->calls++;
    return p->done < s->at;
}

/* All files but the report, which holds seconds. */
static void same_checkpoint(const char *a, const char *b)
{
    char command[4096];
    snprintf(command, sizeof command, "diff -r -x atom_report.json '%s' '%s'", a, b);
    assert_int_equal(system(command), 0);
}

static void a_run_that_stopped_goes_on(void **state)
{
    (void)state;
    static const char *const recipes[] = {"default", "paper"};
    for (int i = 0; i < 4; i++) {
        char whole[1024], out[1024];
        snprintf(whole, sizeof whole, "%s", new_place());
        snprintf(out, sizeof out, "%s", new_place());
        struct atom_quantize_options o = short_options(place("odd"), whole);
        struct stop stop = {.at = i == 0 ? 0.3 : i == 1 ? 1.05 : i == 2 ? 1.6 : 1.0};
        assert_ok(atom_scheme_named(recipes[i % 2], &o.scheme, &err), &err);
        o.scheme.outliers = 10;
        if (i == 3)
            o.scheme.wbits = 16;
        assert_ok(atom_quantize(&o, &err), &err);
        o.out = out;
        o.progress = stop_there;
        o.user = &stop;
        o.resume = true; /* of nothing, at first */
        struct atom_error why = {0};
        assert_fails(atom_quantize(&o, &why), &why, ATOM_ERR_CANCELLED, "stopped");
        assert_int_equal(access(out, F_OK), -1);
        stop = (struct stop){.at = 99};
        assert_ok(atom_quantize(&o, &err), &err);
        assert_true(stop.calls > 2 && stop.last <= 2);
        same_checkpoint(whole, out);
    }
}

static void flip_a_byte(const char *file)
{
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    int c = getc(f);
    assert_int_equal(fseek(f, -1, SEEK_END), 0);
    putc(c ^ 16, f);
    assert_int_equal(fclose(f), 0);
}

static void what_is_made_is_looked_at(void **state)
{
    (void)state;
    char out[1024];
    struct atom_quantize_found found;
    snprintf(out, sizeof out, "%s", new_place());
    struct atom_quantize_options o = short_options(place("odd"), out);
    assert_ok(atom_quantize_check(&o, &found, &err), &err);
    assert_int_equal(found.out, ATOM_OUT_ABSENT);
    assert_ok(atom_quantize(&o, &err), &err);
    assert_ok(atom_quantize_check(&o, &found, &err), &err);
    assert_int_equal(found.out, ATOM_OUT_WHOLE);
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        flip_a_byte(in_dir(out, files[i]));
        assert_ok(atom_quantize_check(&o, &found, &err), &err);
        assert_int_equal(found.out, ATOM_OUT_DAMAGED);
        assert_non_null(strstr(found.damage, out));
        assert_non_null(strstr(found.damage, files[i]));
        flip_a_byte(in_dir(out, files[i]));
    }
    assert_int_equal(unlink(in_dir(out, files[4])), 0);
    assert_ok(atom_quantize_check(&o, &found, &err), &err);
    assert_non_null(strstr(found.damage, "is not there"));
    o.overwrite = true;
    assert_ok(atom_quantize(&o, &err), &err);
    assert_ok(atom_quantize_check(&o, &found, &err), &err);
    assert_int_equal(found.out, ATOM_OUT_WHOLE);
}

static void refuse_to_look(const struct atom_quantize_options *o, enum atom_status code, const char *words)
{
    struct atom_quantize_found found;
    assert_fails(atom_quantize_check(o, &found, &err), &err, code, words);
    memset(&err, 0, sizeof err);
}

static void what_was_made_otherwise_is_refused(void **state)
{
    (void)state;
    char out[1024];
    snprintf(out, sizeof out, "%s", new_place());
    struct atom_quantize_options o = short_options(place("odd"), out), other = o;
    assert_ok(atom_quantize(&o, &err), &err);
    other.scheme.smooth_search = ATOM_SMOOTH_RMS;
    refuse_to_look(&other, ATOM_ERR_INVALID, "was made with other options");
    other = o;
    other.samples = 1;
    refuse_to_look(&other, ATOM_ERR_INVALID, "was made with other options");
    other = o;
    other.model = "models/tiny";
    refuse_to_look(&other, ATOM_ERR_INVALID, "was made with another model");
    other = o;
    other.calib = "no/such.txt";
    refuse_to_look(&other, ATOM_ERR_IO, "no/such.txt");
    assert_fails(atom_quantize(&o, &err), &err, ATOM_ERR_INVALID, "is there already");
    memset(&err, 0, sizeof err);
    assert_int_equal(unlink(in_dir(out, "atom_report.json")), 0);
    refuse_to_look(&o, ATOM_ERR_INVALID, "does not say what it was made of");
}

static void sizes_beyond_a_layers_are_refused_or_fitted(void **state)
{
    (void)state;
    struct atom_scheme s;
    const char *out = new_place();
    struct atom_quantize_options o = short_options(place("odd"), out);
    o.fit = false;
    o.scheme.group = 40; /* attn_in has as many channels */
    o.scheme.outliers = 41;
    refuse_to_look(&o, ATOM_ERR_INVALID, "41 outliers are more than the 40 channels of attn_in");
    o.scheme.outliers = 40;
    o.scheme.group = 41;
    refuse_to_look(&o, ATOM_ERR_INVALID, "a group of 41 is more than the 40 channels of attn_in");
    o.scheme.group = 0;
    o.scheme.rows_per_scale = 49;
    refuse_to_look(&o, ATOM_ERR_INVALID, "49 rows per scale are more than the 40 rows of self_attn.o_proj");
    o.fit = true;
    o.scheme.group = 128;
    o.scheme.outliers = 1000;
    assert_ok(atom_quantize(&o, &err), &err);
    logits_of(out, got, &s);
    assert_true(s.group == 40 && s.outliers == 40 && s.rows_per_scale == 40);
    o.fit = false;
    o.scheme.wbits = o.scheme.abits = 16; /* none of it is used */
    o.out = new_place();
    assert_ok(atom_quantize(&o, &err), &err);
}

static void ids_are_as_good_as_text(void **state)
{
    (void)state;
    char a[1024], b[1024], ids[1024], text[20000];
    struct atom_tokenizer *tok;
    struct atom_ids all;
    snprintf(a, sizeof a, "%s", new_place());
    snprintf(b, sizeof b, "%s", new_place());
    snprintf(ids, sizeof ids, "%s/ids.jsonl", home);
    struct atom_quantize_options o = short_options(place("odd"), a);
    assert_ok(atom_quantize(&o, &err), &err);
    FILE *f = fopen(calib, "rb");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_ok(atom_tokenizer_open("models/tiny", &tok, &err), &err);
    assert_ok(atom_tokenizer_encode(tok, text, n, ATOM_ENCODE_POST, &all, &err), &err);
    atom_tokenizer_close(tok);
    f = fopen(ids, "w");
    assert_non_null(f);
    for (int i = 0; i < 3 * 32; i++)
        fprintf(f, "%s%d%s", i % 32 ? "" : "{\"ids\": [", all.ids[i], i % 32 == 31 ? "]}\n" : ", ");
    fclose(f);
    atom_ids_free(&all);
    o.calib = NULL;
    o.calib_ids = ids;
    o.out = b;
    assert_ok(atom_quantize(&o, &err), &err);
    same_checkpoint(a, b);
}

/* ---- refusals
 * ------------------------------------------------------------------------------------------------------------ */

static void refused(const struct atom_quantize_options *o, enum atom_status code, const char *words)
{
    struct atom_error why = {0};
    assert_fails(atom_quantize(o, &why), &why, code, words);
    assert_int_equal(access(o->out ? o->out : "no such", F_OK), -1);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    char model[1024], out[1024], path[1024];
    snprintf(model, sizeof model, "%s", place("odd"));
    snprintf(out, sizeof out, "%s", new_place());
    const struct atom_quantize_options good = short_options(model, out);
    struct atom_quantize_options o = good;
    o.samples = 4000;
    refused(&o, ATOM_ERR_INVALID, "4000 samples were asked for");
    o = good, o.samples = 0;
    refused(&o, ATOM_ERR_INVALID, "out of range");
    o = good, o.window = 1;
    refused(&o, ATOM_ERR_INVALID, "out of range");
    o = good, o.window = 1025;
    refused(&o, ATOM_ERR_INVALID, "1024 positions at most");
    o = good, o.calib = NULL;
    refused(&o, ATOM_ERR_INVALID, "one calibration file");
    o = good, o.calib_ids = calib;
    refused(&o, ATOM_ERR_INVALID, "one calibration file");
    o = good, o.model = "no-such-model";
    refused(&o, ATOM_ERR_IO, "no-such-model");
    o = good, o.calib = "no-such-text";
    refused(&o, ATOM_ERR_IO, "no-such-text");
    o = good, o.scheme.wbits = 5;
    refused(&o, ATOM_ERR_INVALID, "wbits");
    o = good, o.scheme.kv_rope = ATOM_KV_PRE;
    refused(&o, ATOM_ERR_INVALID, "rotate qk needs");
    static const struct {
        const char *lines, *words;
        enum atom_status code;
    } bad[] = {
        {"{\"ids\": [1, 2, 3]}\n", "at least 32 ids", ATOM_ERR_FORMAT},
        {"not json\n", "line 1 is not JSON", ATOM_ERR_FORMAT},
        {"{\"ids\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,4096]}\n",
         "entry 31 is no id under 4096", ATOM_ERR_FORMAT},
        {"{\"ids\": [1,2,3,4,5,6,7,8,9,10,-1,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32]}\n",
         "entry 10 is no id", ATOM_ERR_FORMAT},
        {"", "holds 0 windows", ATOM_ERR_INVALID}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_text(home, "bad.jsonl", bad[i].lines);
        snprintf(path, sizeof path, "%s/bad.jsonl", home);
        o = good, o.calib = NULL, o.calib_ids = path;
        refused(&o, bad[i].code, bad[i].words);
    }
}

static void what_is_there_is_kept(void **state)
{
    (void)state;
    char first[1024];
    snprintf(first, sizeof first, "%s", new_place());
    struct atom_quantize_options o = short_options(place("odd"), first);
    assert_ok(atom_quantize(&o, &err), &err);
    struct atom_error why = {0};
    assert_true(atom_quantize(&o, &why) != ATOM_OK && strstr(why.message, first));
    o.overwrite = true;
    assert_ok(atom_quantize(&o, &err), &err);
    const char *second = new_place();
    o = short_options(first, second);
    refused(&o, ATOM_ERR_INVALID, "is quantized already");
}

static void bad_weights_are_refused(void **state)
{
    static const char *const names[] = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
                                        "model.layers.1.self_attn.o_proj.weight",
                                        "model.layers.0.input_layernorm.weight"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *dir = make_dir();
        put_patched(place("odd"), dir, names[i], 11, i % 2 ? NAN : INFINITY);
        struct atom_quantize_options o = short_options(dir, new_place());
        refused(&o, ATOM_ERR_NUMERIC, names[i]);
        remove_dir(dir);
    }
}

/* Finite weights whose scale no F16 holds. */
static void giant_weights_are_refused(void **state)
{
    static const char *const names[] = {"model.layers.1.mlp.down_proj", "lm_head.weight"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        char *dir = make_dir(), tensor[64];
        snprintf(tensor, sizeof tensor, "%s%s", names[i / 2], i < 2 ? ".weight" : "");
        put_patched(place("odd"), dir, tensor, 60, 1e8f);
        struct atom_quantize_options o = short_options(dir, new_place());
        o.scheme.lm_head_bits = 8;
        o.scheme.gptq = i % 2;
        refused(&o, ATOM_ERR_NUMERIC, names[i / 2]);
        remove_dir(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_ingredient, fresh),
        cmocka_unit_test_setup(searched_smoothing_leaves_the_function, fresh),
        cmocka_unit_test_setup(other_shapes, fresh),
        cmocka_unit_test_setup(quality_falls_in_order, fresh),
        cmocka_unit_test_setup(a_run_that_stopped_goes_on, fresh),
        cmocka_unit_test_setup(what_is_made_is_looked_at, fresh),
        cmocka_unit_test_setup(sizes_beyond_a_layers_are_refused_or_fitted, fresh),
        cmocka_unit_test_setup(what_was_made_otherwise_is_refused, fresh),
        cmocka_unit_test_setup(ids_are_as_good_as_text, fresh),
        cmocka_unit_test_setup(bad_options_are_refused, fresh),
        cmocka_unit_test_setup(what_is_there_is_kept, fresh),
        cmocka_unit_test_setup(bad_weights_are_refused, fresh),
        cmocka_unit_test_setup(giant_weights_are_refused, fresh),
    };
    return cmocka_run_group_tests_name("quantize", tests, start, finish);
}
