/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions of tokenizer.json: written for Oniguruma (Ruby's syntax), run by PCRE2. What the two read alike,
 * or can be put in the other's words, is translated; the rest is refused by name. */
#ifndef ATOM_MODEL_TOKENIZER_REGEX_H
#define ATOM_MODEL_TOKENIZER_REGEX_H

#include "model/tokenizer_json.h"
#include "model/tokenizer_text.h"

struct atom_regex;

/* `where` names the field in sentences. */
enum atom_status atom_regex_create(const struct atom_node *where, const char *pattern, size_t n,
                                   struct atom_regex **out, struct atom_error *err);
void atom_regex_free(struct atom_regex *re);

/* Matches one after another; belongs to one thread. An empty match right after a match does not count. */
struct atom_regex_run {
    const struct atom_regex *re;
    void *match_data, *context;
    const char *text;
    size_t n, from, last_end;
    bool matched;
};

/* text[n] is valid UTF-8 and stays the caller's. The run may be started again on another text, and is stopped once. */
enum atom_status atom_regex_start(const struct atom_regex *re, const char *text, size_t n, struct atom_regex_run *run,
                                  struct atom_error *err);
enum atom_status atom_regex_next(struct atom_regex_run *run, size_t *start, size_t *end, bool *found,
                                 struct atom_error *err);
void atom_regex_stop(struct atom_regex_run *run);

/* The pattern in PCRE2's words, appended to out (exposed for tests). */
enum atom_status atom_regex_translate(const struct atom_node *where, const char *pattern, size_t n,
                                      struct atom_text *out, struct atom_error *err);

#endif
