/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_split.h"

#include <stdlib.h>
#include <string.h>

enum kind { SPLIT_REGEX, SPLIT_STRING, DIGITS, BYTE_LEVEL, METASPACE };
enum behavior { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum scheme { ALWAYS, FIRST, NEVER };

struct atom_split_step {
    enum kind kind;
    enum behavior behavior;
    enum scheme scheme; /* METASPACE: which pieces get `string` in front */
    bool invert;        /* what does not match is what matches */
    bool cut;           /* METASPACE, BYTE_LEVEL: also split */
    bool add_space;     /* BYTE_LEVEL: pieces get a space in front */
    struct atom_text string;
    struct atom_regex *regex;
};

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static enum atom_status load_name(const struct atom_node *n, const char *key, const char *const *names, int n_names,
                                  int *out, struct atom_error *err)
{
    const char *text;
    size_t n_bytes;
    enum atom_status st = atom_node_string(n, key, &text, &n_bytes, err);
    if (st)
        return st;
    for (int i = 0; i < n_names; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return ATOM_OK;
        }
    return atom_node_refuse(n, key, text, err);
}

static enum atom_status load_split(struct atom_split_step *s, const struct atom_node *n, struct atom_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *pattern;
    size_t n_bytes;
    bool is_regex;
    int behavior = ISOLATED;
    enum atom_status st;
    if ((st = atom_node_keys(n, "type pattern behavior invert", err)) ||
        (st = load_name(n, "behavior", names, 5, &behavior, err)) ||
        (st = atom_node_bool(n, "invert", false, &s->invert, err)) ||
        (st = atom_node_pattern(n, "pattern", &is_regex, &pattern, &n_bytes, err)))
        return st;
    s->behavior = (enum behavior)behavior;
    s->kind = is_regex ? SPLIT_REGEX : SPLIT_STRING;
    if (is_regex)
        return atom_regex_create(n, pattern, n_bytes, &s->regex, err);
    atom_text_add(&s->string, pattern, n_bytes);
    return s->string.failed ? atom_fail_nomem(err, n_bytes) : ATOM_OK;
}

static enum atom_status load_digits(struct atom_split_step *s, const struct atom_node *n, struct atom_error *err)
{
    bool individual;
    enum atom_status st = atom_node_keys(n, "type individual_digits", err);
    if (st || (st = atom_node_bool(n, "individual_digits", false, &individual, err)))
        return st;
    s->kind = DIGITS;
    s->behavior = individual ? ISOLATED : CONTIGUOUS;
    return ATOM_OK;
}

static enum atom_status load_byte_level(struct atom_split_step *s, const struct atom_node *n, struct atom_error *err)
{
    /* GPT-2's split, which the library applies when told to and no pattern is given. */
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    enum atom_status st;
    s->kind = BYTE_LEVEL;
    if ((st = atom_node_keys(n, "type add_prefix_space trim_offsets use_regex", err)) ||
        (st = atom_node_bool(n, "add_prefix_space", true, &s->add_space, err)) ||
        (st = atom_node_bool(n, "use_regex", true, &s->cut, err)))
        return st;
    return s->cut ? atom_regex_create(n, gpt2, sizeof gpt2 - 1, &s->regex, err) : ATOM_OK;
}

static enum atom_status load_metaspace(struct atom_split_step *s, const struct atom_node *n, struct atom_error *err)
{
    static const char *const schemes[] = {"always", "first", "never"};
    uint32_t cp;
    int scheme = ALWAYS;
    bool add_prefix_space;
    enum atom_status st;
    s->kind = METASPACE;
    s->behavior = MERGED_WITH_NEXT;
    if ((st = atom_node_keys(n, "type replacement prepend_scheme split add_prefix_space str_rep", err)) ||
        (st = atom_node_char(n, "replacement", &cp, err)) || (st = atom_node_bool(n, "split", true, &s->cut, err)) ||
        (st = atom_node_bool(n, "add_prefix_space", true, &add_prefix_space, err)))
        return st;
    if (atom_node_field(n, "prepend_scheme").value) {
        if ((st = load_name(n, "prepend_scheme", schemes, 3, &scheme, err)))
            return st;
        if (!add_prefix_space && scheme != NEVER)
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s: add_prefix_space is false, but prepend_scheme is '%s'",
                             n->file, n->path, schemes[scheme]);
    }
    s->scheme = add_prefix_space ? (enum scheme)scheme : NEVER;
    atom_text_add_cp(&s->string, cp);
    return s->string.failed ? atom_fail_nomem(err, 4) : ATOM_OK;
}

static enum atom_status load_step(void *ctx, const struct atom_node *n, const char *type, struct atom_error *err)
{
    struct atom_splitter *sp = ctx;
    if (sp->byte_level)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s comes after ByteLevel, which has to be the last", n->file,
                         n->path);
    void *steps = realloc(sp->steps, (sp->n + 1) * sizeof *sp->steps);
    if (!steps)
        return atom_fail_nomem(err, (sp->n + 1) * sizeof *sp->steps);
    sp->steps = steps;
    struct atom_split_step *s = &sp->steps[sp->n++];
    *s = (struct atom_split_step){0};
    if (strcmp(type, "Split") == 0)
        return load_split(s, n, err);
    if (strcmp(type, "Digits") == 0)
        return load_digits(s, n, err);
    if (strcmp(type, "Metaspace") == 0)
        return load_metaspace(s, n, err);
    if (strcmp(type, "ByteLevel") != 0)
        return atom_node_refuse(n, "type", type, err);
    sp->byte_level = true;
    return load_byte_level(s, n, err);
}

enum atom_status atom_splitter_load(struct atom_splitter *sp, const struct atom_node *node, struct atom_error *err)
{
    return atom_node_steps(node, "pretokenizers", load_step, sp, err);
}

void atom_splitter_fini(struct atom_splitter *sp)
{
    for (size_t i = 0; i < sp->n; i++) {
        atom_text_free(&sp->steps[i].string);
        atom_regex_free(sp->steps[i].regex);
    }
    free(sp->steps);
    *sp = (struct atom_splitter){0};
}

/* ---- cutting ----------------------------------------------------------------------------------------------------- */

/* Pieces of one piece as they come, matching and not in turn. */
struct cutter {
    struct atom_span_list *out;
    enum behavior behavior;
    bool invert, any, previous;
};

static void cut(struct cutter *c, size_t start, size_t end, bool matches)
{
    bool extend = false;
    matches ^= c->invert;
    if (c->behavior == CONTIGUOUS)
        extend = matches == c->previous;
    else if (c->behavior == MERGED_WITH_PREVIOUS)
        extend = matches && !c->previous;
    else if (c->behavior == MERGED_WITH_NEXT)
        extend = !matches && c->previous;
    c->previous = matches;
    if (c->behavior == REMOVED && matches)
        return;
    if (extend && c->any && c->out->n > 0)
        c->out->spans[c->out->n - 1].end = end;
    else
        atom_span_list_add(c->out, start, end, -1);
    c->any = true;
}

static enum atom_status cut_regex(struct cutter *c, struct atom_regex_run *run, const struct atom_split_step *s,
                                  const char *text, struct atom_span span, struct atom_error *err)
{
    size_t at = 0, start, end, n = span.end - span.start;
    bool found;
    enum atom_status st = atom_regex_start(s->regex, text + span.start, n, run, err);
    while (!st && !(st = atom_regex_next(run, &start, &end, &found, err)) && found) {
        if (at != start)
            cut(c, span.start + at, span.start + start, false);
        cut(c, span.start + start, span.start + end, true);
        at = end;
    }
    if (at != n)
        cut(c, span.start + at, span.end, false);
    return st;
}

static void cut_string(struct cutter *c, const struct atom_text *pattern, const char *text, struct atom_span span)
{
    size_t at = span.start;
    while (at < span.end) {
        size_t hit = atom_text_find(text, span.end, at, pattern->data, pattern->n);
        if (hit > at)
            cut(c, at, hit, false);
        if (hit < span.end)
            cut(c, hit, hit + pattern->n, true);
        at = hit < span.end ? hit + pattern->n : span.end;
    }
}

static void cut_digits(struct cutter *c, const char *text, struct atom_span span)
{
    size_t plain = span.start, len;
    for (size_t at = span.start; at < span.end; at += len) {
        if (!atom_cp_is_number(atom_utf8_get(text + at, &len)))
            continue;
        if (plain < at)
            cut(c, plain, at, false);
        cut(c, at, at + len, true);
        plain = at + len;
    }
    if (plain < span.end)
        cut(c, plain, span.end, false);
}

static void drop_empty(struct atom_span_list *list, size_t from)
{
    size_t n = from;
    for (size_t i = from; i < list->n; i++)
        if (list->spans[i].start < list->spans[i].end)
            list->spans[n++] = list->spans[i];
    list->n = n;
}

static enum atom_status cut_all(const struct atom_split_step *s, struct atom_pieces *p, struct atom_regex_run *run,
                                struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    struct atom_span_list *out = &p->spare_list;
    out->n = 0;
    for (size_t i = 0; i < p->list.n && !st; i++) {
        struct atom_span span = p->list.spans[i];
        struct cutter c = {out, s->behavior, s->invert, false, false};
        size_t first = out->n;
        if (s->regex)
            st = cut_regex(&c, run, s, p->text.data, span, err);
        else if (s->kind == DIGITS)
            cut_digits(&c, p->text.data, span);
        else
            cut_string(&c, &s->string, p->text.data, span);
        drop_empty(out, first);
    }
    if (!st && out->failed)
        st = atom_fail_nomem(err, out->n * sizeof *out->spans);
    struct atom_span_list was = p->list;
    p->list = *out;
    *out = was;
    return st;
}

/* ---- steps that write the text anew ------------------------------------------------------------------------------ */

static bool starts_with(const char *text, size_t n, const char *start, size_t n_start)
{
    return n >= n_start && memcmp(text, start, n_start) == 0;
}

static void write_metaspace(const struct atom_split_step *s, const char *text, size_t n, bool first,
                            struct atom_text *out)
{
    bool marked = n > 0 && (text[0] == ' ' || starts_with(text, n, s->string.data, s->string.n));
    if (!marked && (s->scheme == ALWAYS || (s->scheme == FIRST && first)))
        atom_text_add(out, s->string.data, s->string.n);
    for (size_t at = 0; at < n;) {
        size_t space = atom_text_find(text, n, at, " ", 1);
        atom_text_add(out, text + at, space - at);
        if (space < n)
            atom_text_add(out, s->string.data, s->string.n);
        at = space + 1;
    }
}

static enum atom_status rewrite(const struct atom_split_step *s, struct atom_pieces *p, bool at_start,
                                struct atom_error *err)
{
    struct atom_text *out = &p->spare_text;
    out->n = 0;
    for (size_t i = 0; i < p->list.n; i++) {
        struct atom_span *span = &p->list.spans[i];
        const char *text = p->text.data + span->start;
        size_t n = span->end - span->start;
        bool first = at_start && span->start == 0;
        span->start = out->n;
        if (s->kind == METASPACE) {
            write_metaspace(s, text, n, first, out);
        } else {
            if (text[0] != ' ')
                atom_text_add(out, " ", 1);
            atom_text_add(out, text, n);
        }
        span->end = out->n;
    }
    struct atom_text was = p->text;
    p->text = *out;
    *out = was;
    return p->text.failed ? atom_fail_nomem(err, was.n) : ATOM_OK;
}

enum atom_status atom_splitter_apply(const struct atom_splitter *sp, struct atom_pieces *p, bool at_start,
                                     struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    p->list.n = 0;
    if (p->text.n > 0)
        atom_span_list_add(&p->list, 0, p->text.n, -1);
    if (!p->runs && sp->n > 0) {
        if (!(p->runs = calloc(sp->n, sizeof *p->runs)))
            return atom_fail_nomem(err, sp->n * sizeof *p->runs);
        p->n_runs = sp->n;
    }
    for (size_t i = 0; i < sp->n && !st; i++) {
        const struct atom_split_step *s = &sp->steps[i];
        if (s->kind == METASPACE || (s->kind == BYTE_LEVEL && s->add_space))
            st = rewrite(s, p, at_start, err);
        if (!st && ((s->kind != METASPACE && s->kind != BYTE_LEVEL) || s->cut))
            st = cut_all(s, p, &p->runs[i], err);
    }
    return st ? st : p->list.failed ? atom_fail_nomem(err, p->list.n * sizeof *p->list.spans) : ATOM_OK;
}

void atom_pieces_fini(struct atom_pieces *p)
{
    for (size_t i = 0; i < p->n_runs; i++)
        atom_regex_stop(&p->runs[i]);
    free(p->runs);
    free(p->list.spans);
    free(p->spare_list.spans);
    atom_text_free(&p->text);
    atom_text_free(&p->spare_text);
    *p = (struct atom_pieces){0};
}
