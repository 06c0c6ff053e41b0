/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_items.h"

#include "eval/windows.h"
#include "model/json_read.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static enum atom_status bad(const struct atom_task_source *item, struct atom_error *err, const char *what)
{
    return atom_fail(err, ATOM_ERR_FORMAT, "line %d: %s", item->line, what);
}

static enum atom_status find_kind(const struct atom_task_source *item, enum atom_task_kind *kind,
                                  struct atom_error *err)
{
    bool context = json_object_get(item->root, "context"), contexts = json_object_get(item->root, "contexts");
    bool choices = json_object_get(item->root, "choices");
    bool continuation = json_object_get(item->root, "continuation");
    if (context == contexts)
        return bad(item, err, context ? "both 'context' and 'contexts'" : "neither 'context' nor 'contexts'");
    if (choices && continuation)
        return bad(item, err, "both 'choices' and 'continuation'");
    if (contexts && !continuation)
        return bad(item, err, "'contexts' without a 'continuation'");
    if (!choices && !continuation)
        return bad(item, err, "neither 'choices' nor 'continuation'");
    *kind = choices ? ATOM_TASK_CHOICES : contexts ? ATOM_TASK_CONTEXTS : ATOM_TASK_CONTINUATION;
    return ATOM_OK;
}

/* The string that an item has under `name`, or those of its list; may_be_empty: contexts. */
static enum atom_status check_strings(const struct atom_task_source *item, const char *name, bool list,
                                      bool may_be_empty, struct atom_error *err)
{
    const json_t *value = json_object_get(item->root, name);
    size_t n = list ? json_array_size(value) : 1;
    char text[64];
    if (list && n < 2)
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: '%s' is %s; expected a list of two strings or more",
                         item->line, name, json_is_array(value) ? "too short" : atom_json_spell(value, text));
    for (size_t i = 0; i < n; i++) {
        const json_t *one = list ? json_array_get(value, i) : value;
        const char *string = json_string_value(one);
        char where[32] = "";
        if (list)
            snprintf(where, sizeof where, " entry %zu", i);
        if (!string)
            return atom_fail(err, ATOM_ERR_FORMAT, "line %d: '%s'%s is %s; expected a string", item->line, name, where,
                             atom_json_spell(one, text));
        if (!may_be_empty && atom_task_characters(string) == 0)
            return atom_fail(err, ATOM_ERR_FORMAT, "line %d: '%s'%s is empty", item->line, name, where);
    }
    return ATOM_OK;
}

static enum atom_status read_gold(struct atom_task_source *item, enum atom_task_kind kind, struct atom_error *err)
{
    const json_t *gold = json_object_get(item->root, "gold");
    char text[64];
    item->gold = -1;
    if (kind == ATOM_TASK_CONTINUATION)
        return gold ? bad(item, err, "'gold' without 'choices' or 'contexts'") : ATOM_OK;
    if (!gold)
        return bad(item, err, "'gold' is missing");
    if (!json_is_integer(gold) || json_integer_value(gold) < 0 || json_integer_value(gold) >= item->n)
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: 'gold' is %s; expected a whole number from 0 to %d",
                         item->line, atom_json_spell(gold, text), item->n - 1);
    item->gold = (int)json_integer_value(gold);
    return ATOM_OK;
}

static enum atom_status read_subtask(struct atom_task_source *item, const struct atom_task_source *first,
                                     struct atom_error *err)
{
    const json_t *task = json_object_get(item->root, "task");
    item->subtask = json_string_value(task);
    if (task && !item->subtask)
        return bad(item, err, "'task' is not a string");
    if (!item->subtask != !first->subtask)
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: %s 'task', unlike line %d", item->line,
                         item->subtask ? "it has a" : "it has no", first->line);
    return ATOM_OK;
}

static enum atom_status read_item(struct atom_task_items *items, const char *text, size_t n_bytes,
                                  struct atom_error *err)
{
    static const char *const kinds[] = {"choices", "contexts", "a continuation"};
    struct atom_task_source *item = &items->at[items->n];
    enum atom_task_kind kind;
    char where[32];
    *item = (struct atom_task_source){.line = items->n + 1};
    snprintf(where, sizeof where, "line %d", item->line);
    enum atom_status st = atom_json_parse(where, text, n_bytes, &item->root, err);
    if (st)
        return st;
    items->n++; /* fini frees it from here on */
    st = find_kind(item, &kind, err);
    if (st)
        return st;
    items->kind = items->n == 1 ? kind : items->kind;
    if (kind != items->kind)
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: an item with %s; those before have %s", item->line,
                         kinds[kind], kinds[items->kind]);
    bool contexts = kind == ATOM_TASK_CONTEXTS, choices = kind == ATOM_TASK_CHOICES;
    st = check_strings(item, contexts ? "contexts" : "context", contexts, true, err);
    st = st ? st : check_strings(item, choices ? "choices" : "continuation", choices, false, err);
    if (st)
        return st;
    const json_t *list = json_object_get(item->root, contexts ? "contexts" : "choices");
    item->n = kind == ATOM_TASK_CONTINUATION ? 1 : (int)json_array_size(list);
    st = read_gold(item, kind, err);
    return st ? st : read_subtask(item, &items->at[0], err);
}

/* As many as there are lines; a last one may do without its end. */
static int count_lines(const char *text, size_t n_bytes)
{
    int n = n_bytes && text[n_bytes - 1] != '\n';
    for (size_t i = 0; i < n_bytes; i++)
        n += text[i] == '\n';
    return n;
}

enum atom_status atom_task_items_parse(const char *text, size_t n_bytes, struct atom_task_items *out,
                                       struct atom_error *err)
{
    struct atom_task_items items = {0};
    enum atom_status st = ATOM_OK;
    if (n_bytes == 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "line 1: there is none; expected a JSON object a line");
    if (n_bytes > 1 << 30)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%zu bytes of items; a gibibyte is the most", n_bytes);
    size_t n = (size_t)count_lines(text, n_bytes);
    items.at = calloc(n, sizeof *items.at);
    if (!items.at)
        return atom_fail_nomem(err, n * sizeof *items.at);
    for (const char *at = text, *end = text + n_bytes; at < end && !st;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        st = read_item(&items, at, (size_t)(stop - at), err);
        at = stop + 1;
    }
    if (st) {
        atom_task_items_fini(&items);
        return st;
    }
    *out = items;
    return ATOM_OK;
}

void atom_task_items_fini(struct atom_task_items *items)
{
    for (int i = 0; i < items->n; i++)
        json_decref(items->at[i].root);
    free(items->at);
    memset(items, 0, sizeof *items);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static const char *string_of(const struct atom_task_source *item, const char *one, const char *list, int i)
{
    const json_t *value = json_object_get(item->root, one);
    return json_string_value(value ? value : json_array_get(json_object_get(item->root, list), (size_t)i));
}

const char *atom_task_context(const struct atom_task_source *item, int i)
{
    return string_of(item, "context", "contexts", i);
}

const char *atom_task_continuation(const struct atom_task_source *item, int i)
{
    return string_of(item, "continuation", "choices", i);
}

int atom_task_characters(const char *choice)
{
    int n = 0;
    for (choice += *choice == ' '; *choice; choice++)
        n += (*choice & 0xC0) != 0x80;
    return n;
}

/* Bytes of a text up to the white space that ends it; what that is, Python says (str.isspace). */
static size_t without_end(const char *text, size_t n)
{
    while (n > 0) {
        size_t at = n - 1;
        utf8proc_int32_t c;
        while (at > 0 && (text[at] & 0xC0) == 0x80)
            at--;
        if (utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c) < 1)
            break;
        const utf8proc_property_t *p = utf8proc_get_property(c);
        if (p->category != UTF8PROC_CATEGORY_ZS && p->bidi_class != UTF8PROC_BIDI_CLASS_WS &&
            p->bidi_class != UTF8PROC_BIDI_CLASS_B && p->bidi_class != UTF8PROC_BIDI_CLASS_S)
            break;
        n = at;
    }
    return n;
}

static enum atom_status encode(const struct atom_tokenizer *tok, int prefix, const char *text, size_t n_bytes,
                               struct atom_ids *out, struct atom_error *err)
{
    enum atom_status st = atom_tokenizer_encode(tok, text, n_bytes, ATOM_ENCODE_POST, out, err);
    return st ? st : atom_ids_put_bos(out, prefix, err);
}

enum atom_status atom_task_row_encode(const struct atom_tokenizer *tok, int prefix, const char *context,
                                      const char *continuation, struct atom_task_row *out, struct atom_error *err)
{
    struct atom_ids before = {0}, all = {0};
    size_t n = strlen(context), n_bytes = n + strlen(continuation);
    char *text = malloc(n_bytes + 1);
    if (!text)
        return atom_fail_nomem(err, n_bytes + 1);
    memcpy(text, context, n);
    memcpy(text + n, continuation, n_bytes - n + 1);
    enum atom_status st = encode(tok, prefix, text, without_end(context, n), &before, err);
    st = st ? st : encode(tok, prefix, text, n_bytes, &all, err);
    if (!st && before.n == 0)
        st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "an empty context, and the model has no token to put in front");
    if (!st && all.n <= before.n)
        st = atom_fail(err, ATOM_ERR_FORMAT, "the continuation adds no token to the %zu of its context", before.n);
    if (!st)
        *out = (struct atom_task_row){all, (int)before.n};
    else
        atom_ids_free(&all);
    atom_ids_free(&before);
    free(text);
    return st;
}
