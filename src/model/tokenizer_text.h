/* SPDX-License-Identifier: Apache-2.0 */
/* Text for the tokenizer: growing buffers, UTF-8, and the character classes its rules speak of. */
#ifndef ATOM_MODEL_TOKENIZER_TEXT_H
#define ATOM_MODEL_TOKENIZER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that grow. Valid when {0}. Running out of memory sets `failed` and turns later additions into nothing, so
 * that a whole run of additions is checked once. */
struct atom_text {
    char *data;
    size_t n, cap;
    bool failed;
};

bool atom_text_reserve(struct atom_text *t, size_t extra);
void atom_text_add(struct atom_text *t, const char *bytes, size_t n);
void atom_text_add_cp(struct atom_text *t, uint32_t cp);
void atom_text_free(struct atom_text *t);

/* Token ids that grow, with the same rule for failure. */
struct atom_id_list {
    int32_t *ids;
    size_t n, cap;
    bool failed;
};

void atom_id_list_add(struct atom_id_list *l, const int32_t *ids, size_t n);

/* Stretches [start, end) of a text; id is -1 for text, else the token it stands for. */
struct atom_span {
    size_t start, end;
    int32_t id;
};

struct atom_span_list {
    struct atom_span *spans;
    size_t n, cap;
    bool failed;
};

void atom_span_list_add(struct atom_span_list *l, size_t start, size_t end, int32_t id);

enum atom_utf8 { ATOM_UTF8_CHAR, ATOM_UTF8_BAD, ATOM_UTF8_CUT };

/* Looks at the first character of p[n], n > 0. CHAR: *len bytes make one. BAD: *len bytes (the longest start of a
 * character that goes wrong, at least 1) do not, and become one U+FFFD. CUT: all n bytes start a character that
 * goes on. */
enum atom_utf8 atom_utf8_scan(const char *p, size_t n, size_t *len);
/* The offset of the first byte that is not UTF-8; n if there is none. */
size_t atom_utf8_check(const char *p, size_t n);
/* The character at p, which is valid UTF-8; *len is its length. */
uint32_t atom_utf8_get(const char *p, size_t *len);
/* The offset where the character that ends at `end` > 0 starts. */
size_t atom_utf8_back(const char *p, size_t end);
/* dst has room for 4. */
size_t atom_utf8_put(uint32_t cp, char *dst);

/* Where `pattern` (n_pattern > 0) next occurs at or after `from`; n when it does not. */
size_t atom_text_find(const char *text, size_t n, size_t from, const char *pattern, size_t n_pattern);

bool atom_cp_is_space(uint32_t cp);  /* White_Space */
bool atom_cp_is_number(uint32_t cp); /* categories Nd, Nl, No */
bool atom_cp_is_word(uint32_t cp);   /* \w as UTS 18 has it */

/* A good mix of all bytes, the same in every process. */
uint64_t atom_text_hash(const char *p, size_t n);

#endif
