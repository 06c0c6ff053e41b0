/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <jansson.h>

/* ---- small tokenizers -------------------------------------------------------------------------------------------- */

#define MARK  "\xE2\x96\x81" /* U+2581 */
#define SPACE "\xC4\xA0"     /* U+0120, the space of byte-level vocabularies */

#define SP_MODEL                                                                                                       \
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, "           \
    "\"vocab\": "                                                                                                      \
    "{\"<unk>\": 0, \"<s>\": 1, \"<0xC3>\": 2, \"<0xA9>\": 3, \"" MARK "\": 4, \"a\": 5, \"b\": 6, \"ab\": 7, \"" MARK \
    "a\": 8, \"" MARK "ab\": 9, \"" MARK MARK "\": 10, \"<0xF0>\": 11}, \"merges\": [\"a b\", [\"" MARK                \
    "\", \"ab\"], \"" MARK " a\", [\"" MARK "\", \"" MARK "\"]]}"
#define SP_ADDED                                                                                                       \
    "\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true, \"normalized\": false}, {\"id\": 12, "    \
    "\"content\": \"<x>\", \"lstrip\": true, \"rstrip\": true, \"single_word\": true, \"normalized\": false}]"
#define SP_NORMAL                                                                                                      \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"" MARK          \
    "\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}]}"
#define SP_DECODER                                                                                                     \
    "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK   \
    "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", "             \
    "\"content\": "                                                                                                    \
    "\" \", \"start\": 1, \"stop\": 0}]}"
#define SP_POST                                                                                                        \
    "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", "        \
    "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [], \"special_tokens\": {\"<s>\": " \
    "{\"id\": \"<s>\", \"ids\": [1], \"tokens\": [\"<s>\"]}}}"
#define SP "{\"version\": \"1.0\", " SP_ADDED ", " SP_NORMAL ", " SP_POST ", " SP_DECODER ", " SP_MODEL "}"

#define BL_MODEL                                                                                                       \
    "\"model\": {\"type\": \"BPE\", \"ignore_merges\": true, \"vocab\": {\"a\": 0, \"b\": 1, \"" SPACE                 \
    "\": 2, \"ab\": 3, \"\xC3\x83\": 4, \"\xC2\xA9\": 5, \"1\": 6, \"" SPACE "ab\": 7, \"2\": 8}, \"merges\": [\"a "   \
    "b\"]}"
#define BL_SPLIT(regex, behavior)                                                                                      \
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": "  \
    "\"" regex "\"}, \"behavior\": \"" behavior                                                                        \
    "\", \"invert\": false}, {\"type\": \"ByteLevel\", \"add_prefix_space\": "                                         \
    "false, \"trim_offsets\": true, \"use_regex\": false}]}"
#define BL "{" BL_SPLIT(" ?\\\\p{L}+|\\\\p{N}", "Isolated") ", \"decoder\": {\"type\": \"ByteLevel\"}, " BL_MODEL "}"

static char dir[] = "/tmp/atom-test-tokenizer-XXXXXX";
static char file[64];

static enum atom_status open_bytes(const char *json, size_t n, struct atom_tokenizer **tok, struct atom_error *err)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(json, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return atom_tokenizer_open(file, tok, err);
}

static struct atom_tokenizer *open_text(const char *json)
{
    struct atom_tokenizer *tok = NULL;
    struct atom_error err = {0};
    if (open_bytes(json, strlen(json), &tok, &err))
        fail_msg("%s", err.message);
    return tok;
}

static void expect_ids(const struct atom_tokenizer *tok, const char *text, unsigned flags, const char *want)
{
    struct atom_ids ids = {0};
    struct atom_error err = {0};
    char got[4096] = "";
    if (atom_tokenizer_encode(tok, text, strlen(text), flags, &ids, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0, at = 0; i < ids.n && at < sizeof got - 16; i++)
        at += (size_t)sprintf(got + at, "%s%d", i ? " " : "", ids.ids[i]);
    assert_string_equal(got, want);
    atom_ids_free(&ids);
}

static void expect_text(const struct atom_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags,
                        const char *want)
{
    struct atom_error err = {0};
    char *text = NULL;
    size_t n_bytes = 0;
    if (atom_tokenizer_decode(tok, ids, n, flags, &text, &n_bytes, &err))
        fail_msg("%s", err.message);
    assert_int_equal(n_bytes, strlen(want));
    assert_string_equal(text, want);
    free(text);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static void whole_text_family(void **state)
{
    struct atom_tokenizer *tok = open_text(SP);
    assert_int_equal(atom_tokenizer_vocab_size(tok), 13);
    assert_int_equal(atom_tokenizer_token_id(tok, "<x>"), 12);
    assert_int_equal(atom_tokenizer_token_id(tok, "none"), -1);
    assert_true(atom_tokenizer_adds_bos(tok));
    expect_ids(tok, "", 0, "");
    expect_ids(tok, "", ATOM_ENCODE_POST, "1");
    expect_ids(tok, "ab a", 0, "9 8");
    expect_ids(tok, "  ab", 0, "10 9");
    expect_ids(tok, "ab", ATOM_ENCODE_POST, "1 9");
    expect_ids(tok, "\xC3\xA9", 0, "4 2 3");    /* bytes */
    expect_ids(tok, "zzb", 0, "4 0 6");         /* unknown, fused */
    expect_ids(tok, "a<s>b", 0, "8 1 4 6");     /* each stretch is normalized on its own */
    expect_ids(tok, "a <x>  b", 0, "8 12 4 6"); /* takes the spaces on both sides */
    expect_ids(tok, "a<x>", 0, "8 0");          /* no word of its own */
    expect_ids(tok, "<s>", ATOM_ENCODE_NO_ADDED, "4 0");
    atom_tokenizer_close(tok);
    (void)state;
}

static void byte_level_family(void **state)
{
    static const struct {
        const char *regex, *behavior, *ids;
    } cases[] = {{"1", "Isolated", "3 6 6 3"},
                 {"1", "Removed", "3 3"},
                 {"1+b?", "MergedWithPrevious", "3 6 6 3"},
                 {"1a", "MergedWithNext", "3 6 6 3"},
                 {"(?<=1)", "Contiguous", "3 6 6 3"}};
    struct atom_tokenizer *tok = open_text(BL);
    expect_ids(tok, "ab ab12", 0, "3 7 6 8");
    expect_ids(tok,
               "a\xC3\xA9"
               "b",
               0, "0 4 5 1");
    expect_ids(tok, "z", 0, ""); /* no unknown token: it vanishes */
    assert_false(atom_tokenizer_adds_bos(tok));
    atom_tokenizer_close(tok);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[2048];
        snprintf(json, sizeof json, "{" BL_SPLIT("%s", "%s") ", " BL_MODEL "}", cases[i].regex, cases[i].behavior);
        tok = open_text(json);
        expect_ids(tok, "ab11ab", 0, cases[i].ids);
        atom_tokenizer_close(tok);
    }
    (void)state;
}

static void metaspace_form(void **state)
{
    static const char form[] =
        "{" SP_ADDED ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"" MARK
        "\", \"prepend_scheme\": \"%s\", \"split\": true}, \"decoder\": {\"type\": \"Metaspace\", "
        "\"replacement\": \"" MARK "\", \"prepend_scheme\": \"%s\"}, " SP_MODEL "}";
    static const struct {
        const char *scheme, *ids, *text;
    } cases[] = {
        {"always", "9 1 8 8", "ab<s> a a"}, {"first", "9 1 5 8", "ab<s>a a"}, {"never", "7 1 5 8", "ab<s>a a"}};
    for (size_t i = 0; i < 3; i++) {
        char json[4096];
        snprintf(json, sizeof json, form, cases[i].scheme, cases[i].scheme);
        struct atom_tokenizer *tok = open_text(json);
        expect_ids(tok, "ab<s>a a", 0, cases[i].ids);
        const int32_t ids[] = {i == 2 ? 7 : 9, 1, i == 0 ? 8 : 5, 8};
        expect_text(tok, ids, 4, 0, cases[i].text);
        atom_tokenizer_close(tok);
    }
    (void)state;
}

static void normalizers(void **state)
{
    static const struct {
        const char *json, *text, *ids;
    } cases[] = {{"{\"type\": \"NFC\"}", "ae\xCC\x81", "0 4 5"},
                 {"{\"type\": \"NFKC\"}", "\xC2\xB9\xE2\x82\x82", "6 8"},
                 {"{\"type\": \"Lowercase\"}", "AB", "3"},
                 {"{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": false}",
                  " \xE2\x80\x83"
                  "ab ",
                  "3 2"},
                 {"{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[xy]+\"}, \"content\": \"b\"}", "axyx", "3"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[2048];
        snprintf(json, sizeof json,
                 "{\"normalizer\": %s, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
                 "\"add_prefix_space\": false, \"use_regex\": true}, " BL_MODEL "}",
                 cases[i].json);
        struct atom_tokenizer *tok = open_text(json);
        expect_ids(tok, cases[i].text, 0, cases[i].ids);
        atom_tokenizer_close(tok);
    }
    (void)state;
}

static void bad_text_is_refused(void **state)
{
    static const struct {
        const char *text, *at;
    } cases[] = {{"ab\xFF", "byte 2"}, {"\xC3", "byte 0"}, {"a\xED\xA0\x80", "byte 1"}, {"\xF4\x90\x80\x80", "byte 0"}};
    struct atom_tokenizer *tok = open_text(SP);
    struct atom_ids ids = {NULL, 77};
    struct atom_error err = {0};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(atom_tokenizer_encode(tok, cases[i].text, strlen(cases[i].text), 0, &ids, &err),
                         ATOM_ERR_INVALID);
        assert_non_null(strstr(err.message, cases[i].at));
        assert_int_equal(ids.n, 77);
    }
    char *text = NULL;
    size_t n;
    assert_int_equal(atom_tokenizer_decode(tok, (const int32_t[]){13}, 1, 0, &text, &n, &err), ATOM_ERR_INVALID);
    assert_int_equal(atom_tokenizer_decode(tok, (const int32_t[]){-1}, 1, 0, &text, &n, &err), ATOM_ERR_INVALID);
    assert_int_equal(atom_tokenizer_encode(tok, "a", 1, 64, &ids, NULL), ATOM_ERR_INVALID);
    atom_tokenizer_close(tok);
    (void)state;
}

/* Long texts without a place to split stay near-linear; a quadratic merge would take minutes. */
static void long_texts(void **state)
{
    const char *const jsons[] = {SP, BL};
    enum { N = 400000 };
    char *text = malloc(N);
    assert_non_null(text);
    for (int i = 0; i < 6; i++) {
        struct atom_tokenizer *tok = open_text(jsons[i % 2]);
        struct atom_ids ids = {0};
        struct atom_error err = {0};
        memset(text, i < 2 ? 'a' : i < 4 ? ' ' : 0, N);
        if (atom_tokenizer_encode(tok, text, N, 0, &ids, &err))
            fail_msg("%s", err.message);
        atom_ids_free(&ids);
        atom_tokenizer_close(tok);
    }
    free(text);
    (void)state;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static void decoders(void **state)
{
    struct atom_tokenizer *tok = open_text(SP);
    expect_text(tok, (const int32_t[]){9, 8}, 2, 0, "ab a");
    expect_text(tok, (const int32_t[]){1, 9}, 2, 0, "<s> ab");
    expect_text(tok, (const int32_t[]){1, 9}, 2, ATOM_DECODE_SKIP_SPECIAL, "ab");
    expect_text(tok, (const int32_t[]){2, 3, 5}, 3, 0,
                "\xC3\xA9"
                "a");
    expect_text(tok, (const int32_t[]){2, 3, 11, 5}, 4, 0,
                "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                "a");
    expect_text(tok, (const int32_t[]){2}, 1, 0, "\xEF\xBF\xBD");
    expect_text(tok, NULL, 0, 0, "");
    atom_tokenizer_close(tok);
    tok = open_text(BL);
    expect_text(tok, (const int32_t[]){7, 4, 5, 4, 0, 4}, 6, 0,
                " ab\xC3\xA9\xEF\xBF\xBD"
                "a\xEF\xBF\xBD");
    atom_tokenizer_close(tok);
    tok = open_text("{" BL_MODEL "}");
    expect_text(tok, (const int32_t[]){0, 3}, 2, 0, "a ab"); /* no decoder: spaces between */
    atom_tokenizer_close(tok);
    (void)state;
}

static bool is_utf8(const char *text, size_t n)
{
    json_t *s = json_stringn(text, n);
    json_decref(s);
    return s != NULL;
}

static void expect_stream(const struct atom_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags)
{
    struct atom_stream_decoder *dec = NULL;
    char *whole = NULL, *all = NULL;
    const char *piece;
    size_t n_whole, n_piece, at = 0;
    assert_int_equal(atom_tokenizer_decode(tok, ids, n, flags, &whole, &n_whole, NULL), ATOM_OK);
    assert_int_equal(atom_stream_decoder_create(tok, flags, &dec, NULL), ATOM_OK);
    for (size_t i = 0; i <= n; i++) {
        if (i < n)
            assert_int_equal(atom_stream_decoder_push(dec, ids[i], &piece, &n_piece, NULL), ATOM_OK);
        else
            assert_int_equal(atom_stream_decoder_finish(dec, &piece, &n_piece, NULL), ATOM_OK);
        assert_true(is_utf8(piece, n_piece));
        all = realloc(all, at + n_piece + 1);
        assert_non_null(all);
        memcpy(all + at, piece, n_piece);
        at += n_piece;
    }
    assert_int_equal(at, n_whole);
    assert_memory_equal(all, whole, at);
    atom_stream_decoder_free(dec);
    free(whole);
    free(all);
}

static void expect_random_streams(const struct atom_tokenizer *tok, int rounds)
{
    int32_t ids[40];
    for (int round = 0; round < rounds; round++) {
        size_t n = (size_t)rand() % 40;
        int range = round % 2 ? atom_tokenizer_vocab_size(tok) : 259;
        if (range > atom_tokenizer_vocab_size(tok))
            range = atom_tokenizer_vocab_size(tok);
        for (size_t i = 0; i < n; i++)
            ids[i] = rand() % range;
        expect_stream(tok, ids, n, round % 3 ? 0 : ATOM_DECODE_SKIP_SPECIAL);
    }
}

static void stream_equals_whole(void **state)
{
    const char *const jsons[] = {
        SP, BL, "{" BL_MODEL "}",
        "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, "
        "{\"type\": \"Strip\", \"content\": \"a\", \"start\": 2, \"stop\": 2}]}, " SP_MODEL "}"};
    for (size_t i = 0; i < sizeof jsons / sizeof jsons[0]; i++) {
        struct atom_tokenizer *tok = open_text(jsons[i]);
        expect_random_streams(tok, 500);
        atom_tokenizer_close(tok);
    }
    (void)state;
}

/* ---- damaged files ----------------------------------------------------------------------------------------------- */

static void expect_refused(const char *json, enum atom_status status, const char *word)
{
    struct atom_tokenizer *tok = NULL;
    struct atom_error err = {0};
    enum atom_status got = open_bytes(json, strlen(json), &tok, &err);
    if (got != status || !strstr(err.message, word) || !strstr(err.message, file))
        fail_msg("%.200s: status %d, sentence '%s', wanted %d and '%s'", json, (int)got, err.message, (int)status,
                 word);
    assert_null(tok);
}

#define WITH_MODEL(vocab, merges) "{\"model\": {\"type\": \"BPE\", \"vocab\": " vocab ", \"merges\": " merges "}}"
#define WITH(part)                "{" part ", " SP_MODEL "}"

static void damaged_files(void **state)
{
    static const struct {
        const char *json;
        enum atom_status status;
        const char *word;
    } cases[] = {
        {"", ATOM_ERR_FORMAT, "not JSON"},
        {"{\"model\": ", ATOM_ERR_FORMAT, "not JSON"},
        {"{\"a\": \"\xFF\"}", ATOM_ERR_FORMAT, "0xff"},
        {"{\"a\": 1, \"a\": 2}", ATOM_ERR_FORMAT, "duplicate"},
        {"[]", ATOM_ERR_FORMAT, "should be an object"},
        {"{}", ATOM_ERR_FORMAT, "model should be an object"},
        {WITH("\"version\": 2"), ATOM_ERR_UNSUPPORTED, "version"},
        {WITH("\"surprise\": 2"), ATOM_ERR_UNSUPPORTED, "surprise"},
        {"{\"model\": {\"type\": \"Unigram\"}}", ATOM_ERR_UNSUPPORTED, "Unigram"},
        {"{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {}, \"merges\": []}}", ATOM_ERR_UNSUPPORTED,
         "dropout"},
        {"{\"model\": {\"end_of_word_suffix\": \"x\", \"vocab\": {}, \"merges\": []}}", ATOM_ERR_UNSUPPORTED,
         "end_of_word_suffix"},
        {WITH_MODEL("[]", "[]"), ATOM_ERR_FORMAT, "model.vocab should be an object"},
        {WITH_MODEL("{\"a\": -1}", "[]"), ATOM_ERR_FORMAT, "'a'"},
        {WITH_MODEL("{\"a\": 4194304}", "[]"), ATOM_ERR_FORMAT, "4194303"},
        {WITH_MODEL("{\"a\": 99999999999999999999}", "[]"), ATOM_ERR_FORMAT, "too big"},
        {WITH_MODEL("{\"a\": 1.5}", "[]"), ATOM_ERR_FORMAT, "whole number"},
        {WITH_MODEL("{\"a\": 0, \"b\": 0}", "[]"), ATOM_ERR_FORMAT, "another token"},
        {WITH_MODEL("{\"a\": 0}", "{}"), ATOM_ERR_FORMAT, "model.merges should be an array"},
        {WITH_MODEL("{\"a\": 0}", "[\"a z\"]"), ATOM_ERR_FORMAT, "'z'"},
        {WITH_MODEL("{\"a\": 0, \"b\": 1}", "[[\"a\", \"b\"]]"), ATOM_ERR_FORMAT, "'ab'"},
        {WITH_MODEL("{\"a\": 0}", "[[\"a\"]]"), ATOM_ERR_FORMAT, "model.merges[0]"},
        {WITH_MODEL("{\"a\": 0}", "[\"a a a\"]"), ATOM_ERR_FORMAT, "model.merges[0]"},
        {"{\"model\": {\"unk_token\": \"u\", \"vocab\": {}, \"merges\": []}}", ATOM_ERR_FORMAT, "unk_token"},
        {WITH("\"added_tokens\": {}"), ATOM_ERR_FORMAT, "added_tokens"},
        {WITH("\"added_tokens\": [3]"), ATOM_ERR_FORMAT, "added_tokens[0]"},
        {WITH("\"added_tokens\": [{\"id\": 3, \"content\": \"a\"}]"), ATOM_ERR_FORMAT, "token 5 already"},
        {WITH("\"added_tokens\": [{\"id\": 5, \"content\": \"new\"}]"), ATOM_ERR_FORMAT, "another token"},
        {WITH("\"added_tokens\": [{\"id\": 2000000000, \"content\": \"n\"}]"), ATOM_ERR_FORMAT, "outside"},
        {WITH("\"added_tokens\": [{\"id\": 20, \"content\": \"\"}]"), ATOM_ERR_FORMAT, "empty"},
        {WITH("\"normalizer\": {\"type\": \"Precompiled\"}"), ATOM_ERR_UNSUPPORTED, "Precompiled"},
        {WITH("\"normalizer\": {\"type\": \"NFC\", \"odd\": 1}"), ATOM_ERR_UNSUPPORTED, "odd"},
        {WITH("\"normalizer\": []"), ATOM_ERR_FORMAT, "normalizer should be an object"},
        {WITH("\"pre_tokenizer\": {\"type\": \"Punctuation\"}"), ATOM_ERR_UNSUPPORTED, "Punctuation"},
        {"{" BL_SPLIT("(", "Isolated") ", " BL_MODEL "}", ATOM_ERR_FORMAT, "does not compile"},
        {"{" BL_SPLIT("\\\\h", "Isolated") ", " BL_MODEL "}", ATOM_ERR_UNSUPPORTED, "\\h"},
        {"{" BL_SPLIT("[a[b]]", "Isolated") ", " BL_MODEL "}", ATOM_ERR_UNSUPPORTED, "brackets in brackets"},
        {"{" BL_SPLIT("(?m:a)", "Isolated") ", " BL_MODEL "}", ATOM_ERR_UNSUPPORTED, "a group"},
        {"{" BL_SPLIT("a", "Sideways") ", " BL_MODEL "}", ATOM_ERR_UNSUPPORTED, "Sideways"},
        {WITH("\"post_processor\": {\"type\": \"BertProcessing\"}"), ATOM_ERR_UNSUPPORTED, "BertProcessing"},
        {WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [], \"special_tokens\": {}}"),
         ATOM_ERR_UNSUPPORTED, "0 times"},
        {WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
              "\"x\"}}], \"special_tokens\": {\"x\": {\"ids\": [900]}}}"),
         ATOM_ERR_FORMAT, "id of a token"},
        {WITH("\"decoder\": {\"type\": \"WordPiece\"}"), ATOM_ERR_UNSUPPORTED, "WordPiece"},
        {WITH("\"decoder\": {\"type\": \"Strip\", \"content\": \"ab\", \"start\": 1, \"stop\": 0}"), ATOM_ERR_FORMAT,
         "one character"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(cases[i].json, cases[i].status, cases[i].word);
    (void)state;
}

static void deep_nesting(void **state)
{
    static char json[200000];
    size_t n = 0;
    memset(json, '[', 100000);
    json[100000] = 0;
    expect_refused(json, ATOM_ERR_FORMAT, "not JSON");
    n += (size_t)sprintf(json, "{\"normalizer\": ");
    for (int i = 0; i < 20; i++)
        n += (size_t)sprintf(json + n, "{\"type\": \"Sequence\", \"normalizers\": [");
    n += (size_t)sprintf(json + n, "{\"type\": \"NFC\"}");
    for (int i = 0; i < 20; i++)
        n += (size_t)sprintf(json + n, "]}");
    sprintf(json + n, ", " SP_MODEL "}");
    expect_refused(json, ATOM_ERR_UNSUPPORTED, "Sequences");
    (void)state;
}

/* A file cut anywhere, or with any byte lost, is refused or works; it never crashes. */
static void cut_files(void **state)
{
    char json[sizeof SP];
    struct atom_tokenizer *tok;
    for (size_t n = 0; n < sizeof SP - 1; n++) {
        tok = NULL;
        assert_int_not_equal(open_bytes(SP, n, &tok, NULL), ATOM_OK);
        memcpy(json, SP, sizeof SP);
        json[n] = '7';
        struct atom_error err = {0};
        if (open_bytes(json, sizeof SP - 1, &tok, &err))
            assert_true(strlen(err.message) > 10);
        else
            atom_tokenizer_close(tok);
    }
    struct atom_error err = {0};
    assert_int_equal(atom_tokenizer_open("/nowhere/at/all", &tok, &err), ATOM_ERR_IO);
    (void)state;
}

static void directory(void **state)
{
    struct atom_tokenizer *tok = open_text(SP), *same = NULL;
    assert_int_equal(atom_tokenizer_open(dir, &same, NULL), ATOM_OK);
    expect_ids(same, "ab", 0, "9");
    atom_tokenizer_close(tok);
    atom_tokenizer_close(same);
    atom_tokenizer_close(NULL);
    (void)state;
}

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

static json_t *load_json(const char *path)
{
    json_error_t why;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &why);
    if (!json)
        fail_msg("%s: %s", path, why.text);
    return json;
}

static void expect_vector(const struct atom_tokenizer *tok, const char *name, const json_t *text, const json_t *want,
                          unsigned flags, const json_t *decoded)
{
    struct atom_ids ids = {0};
    struct atom_error err = {0};
    if (atom_tokenizer_encode(tok, json_string_value(text), json_string_length(text), flags, &ids, &err))
        fail_msg("%s: %s", name, err.message);
    bool same = ids.n == json_array_size(want);
    for (size_t i = 0; same && i < ids.n; i++)
        same = json_integer_value(json_array_get(want, i)) == ids.ids[i];
    if (!same)
        fail_msg("%s: other ids for '%s'", name, json_string_value(text));
    if (decoded) {
        char *back = NULL;
        size_t n = 0;
        assert_int_equal(atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &back, &n, &err), ATOM_OK);
        if (n != json_string_length(decoded) || memcmp(back, json_string_value(decoded), n) != 0)
            fail_msg("%s: '%s' comes back as '%s'", name, json_string_value(decoded), back);
        free(back);
        expect_stream(tok, ids.ids, ids.n, 0);
    }
    atom_ids_free(&ids);
}

static void tiny_model(void **state)
{
    struct atom_tokenizer *tok = NULL;
    assert_int_equal(atom_tokenizer_open("models/tiny", &tok, NULL), ATOM_OK);
    json_t *reference = load_json("models/tiny/reference.json"), *item;
    const json_t *cases = json_object_get(reference, "cases");
    size_t i;
    assert_true(json_array_size(cases) > 0);
    json_array_foreach(cases, i, item) expect_vector(tok, "tiny", json_object_get(item, "prompt"),
                                                     json_object_get(item, "ids"), ATOM_ENCODE_POST, NULL);
    expect_random_streams(tok, 2000);
    json_decref(reference);
    atom_tokenizer_close(tok);
    (void)state;
}

static void check_vectors(const char *from, const char *name)
{
    char path[512];
    struct atom_tokenizer *tok = NULL;
    struct atom_error err = {0};
    json_t *item;
    size_t i;
    snprintf(path, sizeof path, "%s/%s.tokenizer.json", from, name);
    if (atom_tokenizer_open(path, &tok, &err))
        fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s/%s.vectors.dev.json", from, name);
    json_t *vectors = load_json(path);
    assert_true(json_array_size(vectors) > 0);
    json_array_foreach(vectors, i, item) expect_vector(
        tok, name, json_object_get(item, "text"), json_object_get(item, "ids"), 0, json_object_get(item, "decoded"));
    expect_random_streams(tok, 500);
    json_decref(vectors);
    atom_tokenizer_close(tok);
}

static void real_vocabularies(void **state)
{
    const char *shared = getenv("ATOM_SHARED");
    char command[1024], path[512];
    snprintf(path, sizeof path, "%s/tokenizers.tar.xz", shared ? shared : "../shared");
    if (access(path, R_OK) != 0)
        skip_because("tokenizers.tar.xz of the shared folder is not there");
    snprintf(command, sizeof command, "mkdir '%s/real' && tar -xJf '%s' -C '%s/real' --transform 's,.*/,,'", dir, path,
             dir);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/real", dir);
    check_vectors(path, "llama2");
    check_vectors(path, "llama3");
    check_vectors(path, "qwen2");
    (void)state;
}

static int enter_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/tokenizer.json", dir);
    return 0;
}

static int drop_dir(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_text_family), cmocka_unit_test(byte_level_family),   cmocka_unit_test(metaspace_form),
        cmocka_unit_test(normalizers),       cmocka_unit_test(bad_text_is_refused), cmocka_unit_test(long_texts),
        cmocka_unit_test(decoders),          cmocka_unit_test(stream_equals_whole), cmocka_unit_test(damaged_files),
        cmocka_unit_test(deep_nesting),      cmocka_unit_test(cut_files),           cmocka_unit_test(directory),
        cmocka_unit_test(tiny_model),        cmocka_unit_test(real_vocabularies),
    };
    return cmocka_run_group_tests(tests, enter_dir, drop_dir);
}
