/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum kind { PREPEND, REPLACE, REPLACE_REGEX, FORM, LOWERCASE, STRIP };

struct atom_normalizer_step {
    enum kind kind;
    enum atom_form form;
    bool strip_left, strip_right;
    struct atom_text pattern, content; /* content: what to put in front, or in the pattern's place */
    struct atom_regex *regex;
};

static enum atom_status copy_string(const struct atom_node *n, const char *key, struct atom_text *out,
                                    struct atom_error *err)
{
    const char *text;
    size_t n_bytes;
    enum atom_status st = atom_node_string(n, key, &text, &n_bytes, err);
    if (st)
        return st;
    atom_text_add(out, text, n_bytes);
    return out->failed ? atom_fail_nomem(err, n_bytes) : ATOM_OK;
}

static enum atom_status load_prepend(struct atom_normalizer_step *s, const struct atom_node *n, struct atom_error *err)
{
    enum atom_status st = atom_node_keys(n, "type prepend", err);
    s->kind = PREPEND;
    return st ? st : copy_string(n, "prepend", &s->content, err);
}

static enum atom_status load_replace(struct atom_normalizer_step *s, const struct atom_node *n, struct atom_error *err)
{
    const char *pattern;
    size_t n_bytes;
    bool is_regex;
    enum atom_status st;
    if ((st = atom_node_keys(n, "type pattern content", err)) || (st = copy_string(n, "content", &s->content, err)) ||
        (st = atom_node_pattern(n, "pattern", &is_regex, &pattern, &n_bytes, err)))
        return st;
    s->kind = is_regex ? REPLACE_REGEX : REPLACE;
    if (is_regex)
        return atom_regex_create(n, pattern, n_bytes, &s->regex, err);
    atom_text_add(&s->pattern, pattern, n_bytes);
    return s->pattern.failed ? atom_fail_nomem(err, n_bytes) : ATOM_OK;
}

static enum atom_status load_strip(struct atom_normalizer_step *s, const struct atom_node *n, struct atom_error *err)
{
    enum atom_status st;
    s->kind = STRIP;
    if ((st = atom_node_keys(n, "type strip_left strip_right", err)) ||
        (st = atom_node_bool(n, "strip_left", true, &s->strip_left, err)))
        return st;
    return atom_node_bool(n, "strip_right", true, &s->strip_right, err);
}

static enum atom_status load_step(void *ctx, const struct atom_node *n, const char *type, struct atom_error *err)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    struct atom_normalizer *nz = ctx;
    void *steps = realloc(nz->steps, (nz->n + 1) * sizeof *nz->steps);
    if (!steps)
        return atom_fail_nomem(err, (nz->n + 1) * sizeof *nz->steps);
    nz->steps = steps;
    struct atom_normalizer_step *s = &nz->steps[nz->n++];
    *s = (struct atom_normalizer_step){0};
    if (strcmp(type, "Prepend") == 0)
        return load_prepend(s, n, err);
    if (strcmp(type, "Replace") == 0)
        return load_replace(s, n, err);
    if (strcmp(type, "Strip") == 0)
        return load_strip(s, n, err);
    for (int f = 0; f < 4; f++)
        if (strcmp(type, forms[f]) == 0) {
            s->kind = FORM;
            s->form = (enum atom_form)f;
            return atom_node_keys(n, "type", err);
        }
    if (strcmp(type, "Lowercase") != 0)
        return atom_node_refuse(n, "type", type, err);
    s->kind = LOWERCASE;
    return atom_node_keys(n, "type", err);
}

enum atom_status atom_normalizer_load(struct atom_normalizer *nz, const struct atom_node *node, struct atom_error *err)
{
    return atom_node_steps(node, "normalizers", load_step, nz, err);
}

void atom_normalizer_fini(struct atom_normalizer *nz)
{
    for (size_t i = 0; i < nz->n; i++) {
        atom_text_free(&nz->steps[i].pattern);
        atom_text_free(&nz->steps[i].content);
        atom_regex_free(nz->steps[i].regex);
    }
    free(nz->steps);
    *nz = (struct atom_normalizer){0};
}

static void replace_literal(const struct atom_normalizer_step *s, const struct atom_text *in, struct atom_text *out)
{
    size_t at = 0;
    for (;;) {
        size_t hit = atom_text_find(in->data, in->n, at, s->pattern.data, s->pattern.n);
        atom_text_add(out, in->data + at, hit - at);
        if (hit == in->n)
            return;
        atom_text_add(out, s->content.data, s->content.n);
        at = hit + s->pattern.n;
    }
}

static enum atom_status replace_regex(const struct atom_normalizer_step *s, const struct atom_text *in,
                                      struct atom_text *out, struct atom_error *err)
{
    struct atom_regex_run run = {0};
    size_t at = 0, start, end;
    bool found;
    enum atom_status st = atom_regex_start(s->regex, in->data, in->n, &run, err);
    while (!st && !(st = atom_regex_next(&run, &start, &end, &found, err)) && found) {
        atom_text_add(out, in->data + at, start - at);
        atom_text_add(out, s->content.data, s->content.n);
        at = end;
    }
    atom_text_add(out, in->data + at, in->n - at);
    atom_regex_stop(&run);
    return st;
}

static void lower(const struct atom_text *in, struct atom_text *out)
{
    for (size_t at = 0, len; at < in->n; at += len) {
        uint32_t cp = atom_utf8_get(in->data + at, &len);
        if (cp == 0x130) /* the one character whose lower case is two */
            atom_text_add(out, "i\xCC\x87", 3);
        else
            atom_text_add_cp(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
    }
}

static void strip(const struct atom_normalizer_step *s, const struct atom_text *in, struct atom_text *out)
{
    size_t start = 0, end = in->n, len;
    while (s->strip_left && start < end && atom_cp_is_space(atom_utf8_get(in->data + start, &len)))
        start += len;
    while (s->strip_right && end > start) {
        size_t back = atom_utf8_back(in->data, end);
        if (!atom_cp_is_space(atom_utf8_get(in->data + back, &len)))
            break;
        end = back;
    }
    atom_text_add(out, in->data + start, end - start);
}

static enum atom_status apply_step(const struct atom_normalizer_step *s, const struct atom_text *in,
                                   struct atom_text *out, struct atom_error *err)
{
    switch (s->kind) {
    case PREPEND:
        atom_text_add(out, s->content.data, s->content.n);
        atom_text_add(out, in->data, in->n);
        break;
    case REPLACE:
        replace_literal(s, in, out);
        break;
    case REPLACE_REGEX:
        return replace_regex(s, in, out, err);
    case FORM:
        if (!atom_text_to_form(s->form, in->data, in->n, out))
            return atom_fail_nomem(err, in->n);
        break;
    case LOWERCASE:
        lower(in, out);
        break;
    case STRIP:
        strip(s, in, out);
        break;
    }
    return ATOM_OK;
}

enum atom_status atom_normalizer_apply(const struct atom_normalizer *nz, struct atom_text *text,
                                       struct atom_text *spare, struct atom_error *err)
{
    for (size_t i = 0; i < nz->n && text->n > 0; i++) {
        spare->n = 0;
        enum atom_status st = apply_step(&nz->steps[i], text, spare, err);
        if (st)
            return st;
        if (spare->failed)
            return atom_fail_nomem(err, text->n);
        struct atom_text was = *text;
        *text = *spare;
        *spare = was;
    }
    return ATOM_OK;
}
