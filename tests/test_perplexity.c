/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity: bytes and words of tokens, windows that overlap against sums from a session's logits, refusals. */
#include "helpers.h"

#include "eval/text_counts.h"

#include <math.h>

enum { WINDOW = 40, VOCAB = 4096 };

static struct atom_error err;
static struct atom_model *tiny;
static char *text;
static size_t n_text_bytes;

static int start(void **state)
{
    FILE *f = fopen("models/tiny/eval.txt", "rb");
    (void)state;
    assert_ok(atom_runtime_init(NULL, &err), &err);
    assert_ok(atom_model_open("models/tiny", &tiny, &err), &err);
    assert_non_null(f);
    text = malloc(4000);
    assert_non_null(text);
    n_text_bytes = fread(text, 1, 4000, f);
    fclose(f);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    free(text);
    atom_model_close(tiny);
    atom_runtime_fini();
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    return 0;
}

static struct atom_ids encode(const char *s, size_t n_bytes)
{
    struct atom_ids ids;
    assert_ok(atom_tokenizer_encode(atom_model_tokenizer(tiny), s, n_bytes, ATOM_ENCODE_POST, &ids, &err), &err);
    return ids;
}

static void expect_near(double got, double want, double relative)
{
    if (!(fabs(got - want) <= relative * fabs(want)))
        fail_msg("got %.17g, wanted %.17g", got, want);
}

/* ---- bytes and words --------------------------------------------------------------------------------------------- */

static void expect_counts(const char *s, size_t n_bytes, int words)
{
    struct atom_ids ids = encode(s, n_bytes);
    struct atom_text_counts *counts = malloc(ids.n * sizeof *counts), sum = {0};
    assert_non_null(counts);
    assert_ok(atom_text_counts_of(atom_model_tokenizer(tiny), 1, ids.ids, ids.n, counts, &err), &err);
    assert_true(counts[0].bytes == 0 && counts[0].words == 0); /* BOS */
    for (size_t i = 0; i < ids.n; i++) {
        sum.bytes += counts[i].bytes;
        sum.words += counts[i].words;
    }
    assert_int_equal(sum.bytes, n_bytes);
    assert_int_equal(sum.words, words);
    free(counts);
    atom_ids_free(&ids);
}

static void counts_add_up_to_the_text(void **state)
{
    static const struct {
        const char *s;
        int words;
    } all[] = {{"one", 1},
               {"one two  three\n\nfour.", 4},
               {" in front and behind \t\n.", 5},
               {"\tw\vo\fr\rd\n", 4},
               {"unbelievably-long-winded", 1},
               {"caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82.", 3},
               {"the end</s>", 2}};
    int words = 0;
    bool in_word = false;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        expect_counts(all[i].s, strlen(all[i].s), all[i].words);
    for (size_t i = 0; i < n_text_bytes; i++) {
        bool space = text[i] == ' ' || text[i] == '\n';
        words += !space && !in_word;
        in_word = !space;
    }
    expect_counts(text, n_text_bytes, words);
}

/* This tokenizer decodes a space behind a special token inside a text, whether there was one or not. */
static void counts_are_of_the_decoded_text(void **state)
{
    struct atom_ids ids = encode("the <unk>of", 11);
    struct atom_text_counts counts[8];
    char *decoded;
    size_t n_bytes, bytes = 0;
    (void)state;
    assert_in_range(ids.n, 3, 8);
    const struct atom_tokenizer *tok = atom_model_tokenizer(tiny);
    assert_ok(atom_tokenizer_decode(tok, ids.ids + 1, ids.n - 1, 0, &decoded, &n_bytes, &err), &err);
    assert_string_equal(decoded, "the <unk> of");
    assert_ok(atom_text_counts_of(tok, 1, ids.ids, ids.n, counts, &err), &err);
    for (size_t i = 0; i < ids.n; i++)
        bytes += (size_t)counts[i].bytes;
    assert_int_equal(bytes, n_bytes);
    free(decoded);
    atom_ids_free(&ids);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

/* -log p of ids[i] after ids[from..i), a forward pass of its own. */
static double nll_of(const int32_t *ids, int from, int i, struct atom_session *s, float *logits)
{
    int seq, row = i - from - 1;
    assert_ok(atom_session_add(s, &seq, &err), &err);
    struct atom_step_seq step = {.sequence = seq, .tokens = ids + from, .n_tokens = i - from};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, &row, 1, logits, &err), &err);
    atom_session_remove(s, seq);
    double max = logits[0], sum = 0;
    for (int k = 1; k < VOCAB; k++)
        max = logits[k] > max ? logits[k] : max;
    for (int k = 0; k < VOCAB; k++)
        sum += exp(logits[k] - max);
    return max + log(sum) - logits[ids[i]];
}

/* Each token once, in the first window that has it and does not begin with it. */
static void expect_windows(int stride, int max_windows)
{
    struct atom_ids ids = encode(text, n_text_bytes);
    struct atom_text_counts *counts = malloc(ids.n * sizeof *counts);
    float *logits = malloc(VOCAB * sizeof *logits);
    struct atom_session *s;
    const struct atom_ppl_options o = {.window = WINDOW, .stride = stride, .max_windows = max_windows};
    struct atom_ppl_result r;
    double nll = 0;
    int tokens = 0, bytes = 0, words = 0, next = 1, step = stride ? stride : WINDOW;
    assert_true(counts && logits);
    assert_ok(atom_session_create(tiny, NULL, &s, &err), &err);
    assert_ok(atom_text_counts_of(atom_model_tokenizer(tiny), 1, ids.ids, ids.n, counts, &err), &err);
    for (int w = 0; w < max_windows; w++)
        for (int i = next > w * step ? next : w * step + 1; i < w * step + WINDOW; i++) {
            nll += nll_of(ids.ids, w * step, i, s, logits);
            tokens++;
            bytes += counts[i].bytes;
            words += counts[i].words;
            next = i + 1;
        }
    assert_ok(atom_eval_ppl(tiny, text, n_text_bytes, &o, &r, &err), &err);
    assert_int_equal(r.tokens, tokens);
    assert_int_equal(r.windows, max_windows);
    assert_int_equal(r.dropped, ((int)ids.n - WINDOW) % step);
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.words, words);
    expect_near(r.nll, nll / tokens, 1e-6);
    expect_near(r.ppl, exp(r.nll), 1e-15);
    expect_near(r.byte_ppl, exp(r.nll * tokens / bytes), 1e-12);
    expect_near(r.word_ppl, exp(r.nll * tokens / words), 1e-12);
    expect_near(r.bits_per_byte, log2(r.byte_ppl), 1e-12);
    atom_session_free(s);
    free(logits);
    free(counts);
    atom_ids_free(&ids);
}

static void windows_that_do_not_overlap(void **state)
{
    (void)state;
    expect_windows(0, 3);
    expect_windows(WINDOW, 3);
}

static void windows_that_overlap(void **state)
{
    (void)state;
    expect_windows(WINDOW - 1, 3);
    expect_windows(16, 4);
    expect_windows(1, 6);
}

static void every_window(void **state)
{
    struct atom_ids ids = encode(text, n_text_bytes);
    struct atom_ppl_options o = {.window = 200, .stride = 64};
    struct atom_ppl_result r;
    (void)state;
    assert_ok(atom_eval_ppl(tiny, text, n_text_bytes, &o, &r, &err), &err);
    assert_int_equal(r.windows, 1 + (ids.n - 200) / 64);
    assert_int_equal(r.tokens + r.dropped + 1, ids.n);
    atom_ids_free(&ids);
}

static void refusals(void **state)
{
    struct atom_ppl_options o = {.window = 32, .stride = 33};
    struct atom_ppl_result r;
    (void)state;
    assert_fails(atom_eval_ppl(tiny, text, n_text_bytes, &o, &r, &err), &err, ATOM_ERR_INVALID, "stride of 33");
    memset(&err, 0, sizeof err);
    o.stride = -1;
    assert_fails(atom_eval_ppl(tiny, text, n_text_bytes, &o, &r, &err), &err, ATOM_ERR_INVALID, "stride of -1");
    memset(&err, 0, sizeof err);
    assert_fails(atom_eval_ppl(tiny, "x", 1, NULL, &r, &err), &err, ATOM_ERR_INVALID, "less than one window");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(counts_add_up_to_the_text, fresh),
        cmocka_unit_test_setup(counts_are_of_the_decoded_text, fresh),
        cmocka_unit_test_setup(windows_that_do_not_overlap, fresh),
        cmocka_unit_test_setup(windows_that_overlap, fresh),
        cmocka_unit_test_setup(every_window, fresh),
        cmocka_unit_test_setup(refusals, fresh),
    };
    return cmocka_run_group_tests_name("perplexity", tests, start, finish);
}
