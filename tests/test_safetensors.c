/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "base/half.h"
#include "model/config.h"
#include "model/safetensors.h"

#include <math.h>
#include <sys/stat.h>

static struct atom_error err;

static int fresh(void **state)
{
    memset(&err, 0, sizeof err);
    *state = make_dir();
    return 0;
}

static int done(void **state)
{
    remove_dir(*state);
    return 0;
}

/* A file of this header and n_data bytes that count up; `announced` is the header's length as the file has it. */
static void put_announced(const char *dir, const char *name, uint64_t announced, const char *header, size_t n_data)
{
    size_t length = strlen(header), n_bytes = 8 + length + n_data;
    uint8_t *bytes = malloc(n_bytes);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(announced >> (8 * i));
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + length + i] = (uint8_t)i;
    put_bytes(dir, name, bytes, n_bytes);
    free(bytes);
}

static void put_file(const char *dir, const char *name, const char *header, size_t n_data)
{
    put_announced(dir, name, strlen(header), header, n_data);
}

static void fails(const char *dir, enum atom_status code, const char *words)
{
    struct atom_tensors *t = (struct atom_tensors *)&err;
    memset(&err, 0, sizeof err);
    assert_fails(atom_tensors_open(dir, &t, &err), &err, code, words);
    assert_ptr_equal(t, &err);
    memset(&err, 0, sizeof err);
}

/* model.safetensors with this header is refused. */
static void refused(const char *dir, const char *header, size_t n_data, const char *words)
{
    put_file(dir, "model.safetensors", header, n_data);
    fails(dir, ATOM_ERR_FORMAT, words);
}

#define ENTRY(name, dtype, shape, begin, end)                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

/* ---- one file -----------------------------------------------------------------------------------------------------
 */

static void test_good(void **state)
{
    struct atom_tensors *t = NULL;
    const struct atom_tensor *x = NULL;
    put_file(
        *state, "model.safetensors",
        "{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("b", "U8", "3", 0, 3) "," ENTRY(
            "a", "F32", "2,2", 3, 19) "," ENTRY("empty", "F16", "0,7", 19,
                                                19) "," ENTRY("scalar", "I64", "", 19,
                                                              27) "," ENTRY("odd", "NEWTYPE99", "5", 27, 30) "} \n ",
        30);
    assert_ok(atom_tensors_open(*state, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 5);
    assert_string_equal(atom_tensors_at(t, 0)->name, "a");
    assert_string_equal(atom_tensors_at(t, 4)->name, "scalar");
    assert_null(atom_tensors_at(t, 5));
    assert_null(atom_tensors_find(t, "c"));
    x = atom_tensors_find(t, "odd");
    assert_true(x && x->dtype == ATOM_OTHER && x->n_bytes == 3);
    assert_string_equal(x->dtype_text, "NEWTYPE");
    x = atom_tensors_find(t, "b");
    assert_true(x && x->dtype == ATOM_U8 && x->n_dims == 1 && x->dims[0] == 3 && *(const uint8_t *)x->data == 0);
    assert_string_equal(x->file, "model.safetensors");
    assert_ok(atom_tensors_need(t, "a", 1u << ATOM_F32 | 1u << ATOM_F16, 2, 2, &x, &err), &err);
    assert_int_equal(*(const uint8_t *)x->data, 3);
    assert_fails(atom_tensors_need(t, "c", 1, 2, 2, &x, &err), &err, ATOM_ERR_FORMAT, "'c' is missing");
    memset(&err, 0, sizeof err);
    assert_fails(atom_tensors_need(t, "a", 1u << ATOM_F16 | 1u << ATOM_BF16, 2, 2, &x, &err), &err, ATOM_ERR_FORMAT,
                 "dtype F32, F16 or BF16");
    memset(&err, 0, sizeof err);
    assert_fails(atom_tensors_need(t, "a", 1, 2, 3, &x, &err), &err, ATOM_ERR_FORMAT, "[2, 2], [2, 3]");
    memset(&err, 0, sizeof err);
    assert_fails(atom_tensors_need(t, "a", 1, 4, -1, &x, &err), &err, ATOM_ERR_FORMAT, "[2, 2], [4]");
    memset(&err, 0, sizeof err);
    assert_ok(atom_tensors_check(t, &err), &err);
    atom_tensors_close(t);
    atom_tensors_close(NULL);
}

static void test_frame(void **state)
{
    fails(*state, ATOM_ERR_IO, "neither");
    fails("/nowhere/at/all", ATOM_ERR_IO, "neither");
    put_text(*state, "model.safetensors", "");
    fails(*state, ATOM_ERR_FORMAT, "0 bytes");
    put_text(*state, "model.safetensors", "1234567");
    fails(*state, ATOM_ERR_FORMAT, "7 bytes");
    put_announced(*state, "model.safetensors", 0, "", 0);
    fails(*state, ATOM_ERR_FORMAT, "'{'");
    put_announced(*state, "model.safetensors", 3, "{}", 0);
    fails(*state, ATOM_ERR_FORMAT, "the file has 10");
    put_announced(*state, "model.safetensors", 1ull << 63, "{}", 0);
    fails(*state, ATOM_ERR_FORMAT, "9223372036854775808");
    put_announced(*state, "model.safetensors", UINT64_MAX - 7, "{}", 0);
    fails(*state, ATOM_ERR_FORMAT, "18446744073709551608");
    refused(*state, " {}", 0, "'{'");
    refused(*state, "{}", 4, "end at byte 0 of the data, which has 4");
    refused(*state, "{\"a\":", 0, "not valid JSON");
    refused(*state, "{} x", 0, "not valid JSON");
    refused(*state, "{\"\xff\":1}", 0, "not valid JSON");
    refused(*state, "{\"__metadata__\":[]}", 0, "__metadata__");
    refused(*state, "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__");
    assert_int_equal(unlink(in_dir(*state, "model.safetensors")), 0);
    assert_int_equal(mkdir(in_dir(*state, "model.safetensors"), 0777), 0);
    fails(*state, ATOM_ERR_IO, "not a regular file");
}

static void test_entries(void **state)
{
    refused(*state, "{" ENTRY("a", "F32", "2", 0, 4) "}", 4, "ask for 8");
    refused(*state, "{" ENTRY("a", "F32", "2", 0, 8) "}", 7, "ends at byte 8 of the data, which has 7");
    refused(*state, "{" ENTRY("a", "U8", "4", 4, 0) "}", 4, "ends before it");
    refused(*state, "{" ENTRY("a", "U8", "4", 0, 4) "," ENTRY("b", "U8", "4", 2, 6) "}", 6, "inside tensor 'a'");
    refused(*state, "{" ENTRY("a", "U8", "4", 0, 4) "," ENTRY("b", "U8", "4", 0, 4) "}", 4, "inside tensor");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 2) "," ENTRY("b", "U8", "2", 3, 5) "}", 5, "bytes 2 to 3");
    refused(*state, "{" ENTRY("a", "U8", "2", 1, 3) "}", 3, "bytes 0 to 1");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 2) "}", 3, "end at byte 2");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 2) "," ENTRY("a", "U8", "2", 2, 4) "}", 4, "duplicate");
    refused(*state, "{" ENTRY("a", "U8", "-1,-2", 0, 2) "}", 2, "-1");
    refused(*state, "{" ENTRY("a", "U8", "2", -2, 0) "}", 2, "-2");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 2.0) "}", 2, "2");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 99999999999999999999) "}", 2, "not valid JSON");
    refused(*state, "{" ENTRY("a", "U8", "2", 0, 9223372036854775807) "}", 2, "9223372036854775807");
    refused(*state, "{" ENTRY("a", "F32", "4611686018427387904,4", 0, 0) "}", 0, "overflows");
    refused(*state, "{" ENTRY("a", "F32", "2305843009213693952", 0, 0) "}", 0, "overflows");
    refused(*state, "{" ENTRY("a", "U8", "4294967296,4294967296", 0, 0) "}", 0, "overflows");
    refused(*state, "{" ENTRY("a", "F4", "3", 0, 2) "}", 2, "ask for 2");
    refused(*state, "{" ENTRY("a", "F64", "1", 0, 4) "}", 4, "ask for 8");
    refused(*state, "{" ENTRY("a", "WHAT", "1", 0, 5) "}", 4, "ends at byte 5");
    refused(*state, "{\"a\":3}", 0, "'a'");
    refused(*state, "{\"a\":{}}", 0, "no dtype");
    refused(*state, "{\"a\":{\"dtype\":\"U8\"}}", 0, "no shape");
    refused(*state, "{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, "no data_offsets");
    refused(*state, "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0]}}", 0, "no data_offsets");
    refused(*state, "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0, "unknown field 'x'");
    put_file(*state, "model.safetensors", "{" ENTRY("a", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1);
    fails(*state, ATOM_ERR_UNSUPPORTED, "9 dimensions");
}

static void test_cut_short(void **state)
{
    struct atom_tensors *t = NULL;
    float x[2];
    put_file(*state, "model.safetensors", "{" ENTRY("a", "F32", "100000", 0, 400000) "}", 400000);
    assert_ok(atom_tensors_open(*state, &t, &err), &err);
    assert_int_equal(truncate(in_dir(*state, "model.safetensors"), 200), 0);
    atom_tensor_floats(atom_tensors_at(t, 0), 99998, 2, x);
    assert_true(x[0] == 0 && x[1] == 0);
    assert_fails(atom_tensors_check(t, &err), &err, ATOM_ERR_IO, "model.safetensors was cut short");
    atom_tensors_close(t);
}

/* ---- shards -------------------------------------------------------------------------------------------------------
 */

#define INDEX "model.safetensors.index.json"

static void bad_index(const char *dir, const char *text, enum atom_status code, const char *words)
{
    put_text(dir, INDEX, text);
    fails(dir, code, words);
}

static void test_shards(void **state)
{
    struct atom_tensors *t = NULL;
    char *dir = *state;
    put_file(dir, "one", "{" ENTRY("a", "U8", "2", 0, 2) "," ENTRY("c", "U8", "2", 2, 4) "}", 4);
    put_file(dir, "two", "{" ENTRY("b", "U8", "2", 0, 2) "}", 2);
    put_file(dir, "again", "{" ENTRY("b", "U8", "2", 0, 2) "}", 2);
    put_text(dir, INDEX,
             "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"one\"}}");
    assert_ok(atom_tensors_open(dir, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 3);
    assert_string_equal(atom_tensors_find(t, "b")->file, "two");
    assert_string_equal(atom_tensors_find(t, "c")->file, "one");
    atom_tensors_close(t);

    bad_index(dir, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", ATOM_ERR_FORMAT, "one: tensor 'c' is not in");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\",\"c\":\"one\",\"b\":\"two\",\"d\":\"two\"}}", ATOM_ERR_FORMAT,
              "two: tensor 'd'");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\",\"c\":\"two\",\"b\":\"two\"}}", ATOM_ERR_FORMAT, "belongs into two");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\",\"c\":\"one\",\"b\":\"two\",\"x\":\"again\"}}", ATOM_ERR_FORMAT,
              "'b' is in");
    bad_index(dir, "{\"weight_map\":{\"a\":\"three\"}}", ATOM_ERR_IO, "/three");
    bad_index(dir, "{\"weight_map\":{\"a\":\"../one\"}}", ATOM_ERR_FORMAT, "plain file name");
    bad_index(dir, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ATOM_ERR_FORMAT, "plain file name");
    bad_index(dir, "{\"weight_map\":{\"a\":\"..\"}}", ATOM_ERR_FORMAT, "plain file name");
    bad_index(dir, "{\"weight_map\":{\"a\":\"\"}}", ATOM_ERR_FORMAT, "plain file name");
    bad_index(dir, "{\"weight_map\":{\"a\":7}}", ATOM_ERR_FORMAT, "plain file name");
    bad_index(dir, "{\"weight_map\":{}}", ATOM_ERR_FORMAT, "no weight_map");
    bad_index(dir, "{\"weight_map\":[]}", ATOM_ERR_FORMAT, "no weight_map");
    bad_index(dir, "[]", ATOM_ERR_FORMAT, "not a JSON object");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\"", ATOM_ERR_FORMAT, "not valid JSON");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\\u0000\"}}", ATOM_ERR_FORMAT, "not valid JSON");
    put_text(dir, "two", "cut");
    bad_index(dir, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"one\"}}", ATOM_ERR_FORMAT, "two: 3 bytes");
    /* A single file goes before an index, whatever that says. */
    put_file(dir, "model.safetensors", "{" ENTRY("z", "U8", "2", 0, 2) "}", 2);
    assert_ok(atom_tensors_open(dir, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 1);
    atom_tensors_close(t);
}

static void test_many_shards(void **state)
{
    FILE *file = fopen(in_dir(*state, INDEX), "w");
    assert_non_null(file);
    fprintf(file, "{\"weight_map\":{\"t\":\"s\"");
    for (int i = 0; i < 100000; i++)
        fprintf(file, ",\"t%d\":\"s%d\"", i, i);
    fprintf(file, "}}");
    fclose(file);
    fails(*state, ATOM_ERR_UNSUPPORTED, "more than");
}

/* ---- numbers ------------------------------------------------------------------------------------------------------
 */

/* Written apart from the code under test. */
static double half_value(unsigned h)
{
    double sign = h & 0x8000 ? -1 : 1;
    int exponent = (int)(h >> 10) & 31, fraction = (int)h & 0x3ff;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static void test_half(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float x = atom_f16_float((uint16_t)h);
        double want = half_value(h);
        if (want != want) {
            uint16_t back = atom_float_f16(x);
            assert_true(x != x && (back & 0x7c00) == 0x7c00 && (back & 0x3ff) && (back & 0x8000) == (h & 0x8000));
            continue;
        }
        assert_true((double)x == want && !signbit(x) == !(h & 0x8000));
        assert_int_equal(atom_float_f16(x), h);
    }
    assert_int_equal(atom_float_f16(65519.996f), 0x7bff);
    assert_int_equal(atom_float_f16(65520.0f), 0x7c00);
    assert_int_equal(atom_float_f16(-1e30f), 0xfc00);
    assert_int_equal(atom_float_f16(0x1p-149f), 0);
    /* Between neighbours: the half way goes to the even one, a little beside it to the nearer. */
    for (unsigned h = 0; h < 0x7bff; h++) {
        float middle = (float)((half_value(h) + half_value(h + 1)) / 2);
        assert_int_equal(atom_float_f16(middle), h + (h & 1));
        assert_int_equal(atom_float_f16(nextafterf(middle, 0)), h);
        assert_int_equal(atom_float_f16(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(atom_float_f16(-middle), 0x8000 | (h + (h & 1)));
    }
}

static void test_bf16(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 65536; b++) {
        float x = atom_bf16_float((uint16_t)b);
        if (x == x)
            assert_int_equal(atom_float_bf16(x), b);
        else
            assert_int_equal(atom_float_bf16(x), b | 0x40);
    }
    assert_int_equal(atom_float_bf16(atom_bits_float(0x3f808000)), 0x3f80);
    assert_int_equal(atom_float_bf16(atom_bits_float(0x3f818000)), 0x3f82);
    assert_int_equal(atom_float_bf16(atom_bits_float(0x3f808001)), 0x3f81);
    assert_int_equal(atom_float_bf16(atom_bits_float(0x7f7fffff)), 0x7f80);
}

/* Every F16 and BF16 there is, read from odd addresses, any part of them. */
static void test_floats(void **state)
{
    (void)state;
    enum { N = 65536 };
    uint8_t *bytes = malloc(4 * N + 1);
    float *out = malloc(N * sizeof *out);
    assert_true(bytes && out);
    for (unsigned i = 0; i < N; i++) {
        uint16_t h = (uint16_t)i;
        memcpy(bytes + 1 + 2 * i, &h, 2);
    }
    for (int dtype = ATOM_F16; dtype <= ATOM_BF16; dtype++) {
        struct atom_tensor t = {.dtype = (enum atom_dtype)dtype, .data = bytes + 1, .n_bytes = 2 * N};
        for (unsigned first = 0; first < 9; first++) {
            atom_tensor_floats(&t, first, N - 2 * first, out);
            for (unsigned i = 0; i < N - 2 * first; i++) {
                uint16_t h = (uint16_t)(first + i);
                float want = dtype == ATOM_F16 ? atom_f16_float(h) : atom_bf16_float(h);
                assert_int_equal(atom_float_bits(out[i]), atom_float_bits(want));
            }
        }
        atom_tensor_floats(&t, N, 0, out);
    }
    for (int i = 0; i < 100; i++)
        memcpy(bytes + 1 + 4 * i, &(float){(float)i / 3}, 4);
    struct atom_tensor t = {.dtype = ATOM_F32, .data = bytes + 1, .n_bytes = 400};
    atom_tensor_floats(&t, 10, 90, out);
    assert_true(out[0] == 10.0f / 3 && out[89] == 99.0f / 3);
    free(bytes);
    free(out);
}

/* ---- writer -------------------------------------------------------------------------------------------------------
 */

static void test_write(void **state)
{
    float weights[6] = {1, 2, 3, 4, 5, 6};
    uint8_t packed[3] = {7, 8, 9};
    struct atom_tensor in[] = {
        {.name = "z\"\\\n\xc3\xa4", .dtype = ATOM_U8, .n_dims = 1, .dims = {3}, .data = packed, .n_bytes = 3},
        {.name = "a", .dtype = ATOM_F32, .n_dims = 2, .dims = {2, 3}, .data = weights, .n_bytes = 24},
        {.name = "none", .dtype = ATOM_F16, .n_dims = 2, .dims = {0, 3}},
        {.name = "odd",
         .dtype = ATOM_OTHER,
         .dtype_text = "F64",
         .n_dims = 1,
         .dims = {2},
         .data = weights,
         .n_bytes = 16},
    };
    struct atom_tensors *t = NULL;
    const struct atom_tensor *x;
    char *path = strdup(in_dir(*state, "model.safetensors"));
    assert_ok(atom_safetensors_write(path, in, 4, &err), &err);
    assert_ok(atom_tensors_open(*state, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 4);
    assert_ok(atom_tensors_need(t, "a", 1u << ATOM_F32, 2, 3, &x, &err), &err);
    assert_memory_equal(x->data, weights, 24);
    assert_ok(atom_tensors_need(t, in[0].name, 1u << ATOM_U8, 3, -1, &x, &err), &err);
    assert_memory_equal(x->data, packed, 3);
    assert_int_equal((uintptr_t)x->data % 8, 0);
    assert_int_equal(atom_tensors_find(t, "odd")->n_bytes, 16);
    atom_tensors_close(t);

    assert_fails(atom_safetensors_write("/dev/full", in, 4, &err), &err, ATOM_ERR_NOSPACE, "/dev/full");
    memset(&err, 0, sizeof err);
    in[1].name = in[2].name;
    assert_fails(atom_safetensors_write(path, in, 4, &err), &err, ATOM_ERR_INVALID, "'none'");
    memset(&err, 0, sizeof err);
    in[1].name = "\xff";
    assert_int_not_equal(atom_safetensors_write(path, in, 4, NULL), ATOM_OK);
    in[1].name = "a";
    in[1].n_bytes = 23;
    assert_fails(atom_safetensors_write(path, in, 4, &err), &err, ATOM_ERR_INVALID, "ask for 24 bytes");
    memset(&err, 0, sizeof err);
    assert_fails(atom_safetensors_write(in_dir(*state, "no/where"), in, 1, &err), &err, ATOM_ERR_IO, "no/where");
    memset(&err, 0, sizeof err);
    assert_ok(atom_safetensors_write(path, NULL, 0, &err), &err);
    assert_ok(atom_tensors_open(*state, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), 0);
    assert_null(atom_tensors_find(t, "a"));
    atom_tensors_close(t);
    free(path);
}

/* ---- real models --------------------------------------------------------------------------------------------------
 */

static void open_model(const char *dir, size_t count)
{
    struct atom_config c;
    struct atom_tensors *t = NULL;
    const struct atom_tensor *w = NULL;
    assert_ok(atom_config_load(dir, &c, &err), &err);
    assert_ok(atom_tensors_open(dir, &t, &err), &err);
    assert_int_equal(atom_tensors_count(t), count);
    assert_ok(atom_tensors_need(t, "model.embed_tokens.weight", 1u << ATOM_BF16, c.vocab, c.hidden, &w, &err), &err);
    assert_ok(atom_tensors_need(t, "model.layers.1.self_attn.k_proj.weight", 1u << ATOM_BF16, c.kv_heads * c.head_dim,
                                c.hidden, &w, &err),
              &err);
    float *x = malloc((size_t)c.hidden * sizeof *x);
    assert_non_null(x);
    atom_tensor_floats(w, 0, (size_t)c.hidden, x);
    for (int i = 0; i < c.hidden; i++)
        assert_true(fabsf(x[i]) < 100);
    free(x);
    assert_ok(atom_tensors_check(t, &err), &err);
    atom_tensors_close(t);
}

static void test_tiny(void **state)
{
    (void)state;
    open_model("models/tiny", 38);
}

static void test_mid_28m(void **state)
{
    char dir[4096];
    (void)state;
    if (!shared_model("mid-28m", dir, sizeof dir))
        skip_because("models/mid-28m.tar.xz of the shared folder is not there");
    open_model(dir, 74);
}

int main(void)
{
#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, fresh, done)
    const struct CMUnitTest tests[] = {
        IN_DIR(test_good),           IN_DIR(test_frame),          IN_DIR(test_entries),
        IN_DIR(test_cut_short),      IN_DIR(test_shards),         IN_DIR(test_many_shards),
        cmocka_unit_test(test_half), cmocka_unit_test(test_bf16), cmocka_unit_test(test_floats),
        IN_DIR(test_write),          IN_DIR(test_tiny),           IN_DIR(test_mid_28m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
