/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer of any size that reads every text: Llama's form, its tokens strings of letters. */
#include "bench/save.h"

#include <stdio.h>
#include <string.h>

enum { N_LETTERS = 27, LETTER_BYTES = 3 };

/* The first letter stands for a space. */
static const char *letter(int i, char buf[LETTER_BYTES + 1])
{
    if (i == 0)
        return strcpy(buf, "\xE2\x96\x81");
    buf[0] = (char)('a' + i - 1);
    buf[1] = 0;
    return buf;
}

/* The string number i of `length` letters. */
static void spell(int i, int length, char *out)
{
    int power = 1;
    for (int j = 1; j < length; j++)
        power *= N_LETTERS;
    for (*out = 0; length > 0; length--, power = power > 1 ? power / N_LETTERS : 1) {
        letter(i / power % N_LETTERS, out);
        out += strlen(out);
    }
}

static int add_bytes(json_t *vocab)
{
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    char text[16];
    int failed = 0, id = 0;
    for (; id < 3; id++)
        failed |= json_object_set_new(vocab, special[id], json_integer(id));
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        failed |= json_object_set_new(vocab, text, json_integer(id++));
    }
    return failed ? -1 : id;
}

/* Strings of one letter, of two, and so on until n_ids are there; each but a letter is one shorter and a letter. */
static int add_strings(json_t *vocab, json_t *merges, int n_ids, int id)
{
    int failed = 0;
    for (int length = 1, n = N_LETTERS; id < n_ids; length++, n *= N_LETTERS)
        for (int i = 0; i < n && id < n_ids; i++) {
            char text[8 * LETTER_BYTES], left[8 * LETTER_BYTES], right[LETTER_BYTES + 1];
            spell(i, length, text);
            failed |= json_object_set_new(vocab, text, json_integer(id++));
            if (length == 1)
                continue;
            spell(i / N_LETTERS, length - 1, left);
            failed |= json_array_append_new(merges, json_pack("[ss]", left, letter(i % N_LETTERS, right)));
        }
    return failed;
}

static json_t *special_tokens(void)
{
    return json_loads("[{\"id\": 0, \"content\": \"<unk>\", \"special\": true},"
                      " {\"id\": 1, \"content\": \"<s>\", \"special\": true},"
                      " {\"id\": 2, \"content\": \"</s>\", \"special\": true}]",
                      0, NULL);
}

static const char rest[] =
    "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,"
    " \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": ["
    "{\"type\": \"Prepend\", \"prepend\": \"\\u2581\"},"
    " {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\\u2581\"}]},"
    " \"pre_tokenizer\": null,"
    " \"post_processor\": {\"type\": \"TemplateProcessing\","
    " \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": "
    "0}}],"
    " \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 0}}],"
    " \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [1], \"tokens\": [\"<s>\"]}}},"
    " \"decoder\": {\"type\": \"Sequence\", \"decoders\": ["
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\\u2581\"}, \"content\": \" \"},"
    " {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"},"
    " {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}}";

json_t *atom_letters_tokenizer(int n_ids)
{
    json_t *vocab = json_object(), *merges = json_array(), *o = json_loads(rest, 0, NULL);
    int id = vocab ? add_bytes(vocab) : -1;
    int failed = id < 0 || !merges || !o || add_strings(vocab, merges, n_ids, id);
    json_t *model = failed
                        ? NULL
                        : json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "dropout",
                                    "unk_token", "<unk>", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                                    1, "byte_fallback", 1, "ignore_merges", 0, "vocab", vocab, "merges", merges);
    json_decref(vocab);
    json_decref(merges);
    failed |= !model || json_object_set_new(o, "model", model);
    failed |= !o || json_object_set_new(o, "added_tokens", special_tokens());
    if (!failed)
        return o;
    json_decref(o);
    return NULL;
}
