/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_json.h"

#include "model/tokenizer_text.h"

#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

static json_t *unless_null(json_t *v) { return json_is_null(v) ? NULL : v; }

struct atom_node atom_node_field(const struct atom_node *n, const char *key)
{
    struct atom_node out = {unless_null(json_object_get(n->value, key)), n->file, ""};
    snprintf(out.path, sizeof out.path, "%.*s%s%.60s", 96, n->path, n->path[0] ? "." : "", key);
    return out;
}

struct atom_node atom_node_item(const struct atom_node *n, size_t i)
{
    struct atom_node out = {unless_null(json_array_get(n->value, i)), n->file, ""};
    snprintf(out.path, sizeof out.path, "%.*s[%zu]", 130, n->path, i);
    return out;
}

static const char *type_name(json_type type)
{
    static const char *const names[] = {"an object", "an array", "a string", "a whole number",
                                        "a number",  "true",     "false",    "null"};
    return names[type];
}

static const char *found_name(const struct atom_node *n)
{
    return n->value ? type_name(json_typeof(n->value)) : "missing or null";
}

enum atom_status atom_node_is(const struct atom_node *n, json_type type, struct atom_error *err)
{
    if (n->value && json_typeof(n->value) == type)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s should be %s, but is %s", n->file,
                     n->path[0] ? n->path : "the whole", type_name(type), found_name(n));
}

static bool is_listed(const char *known, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = known; (p = strstr(p, key)); p += n)
        if (n > 0 && (p == known || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0))
            return true;
    return false;
}

enum atom_status atom_node_keys(const struct atom_node *n, const char *known, struct atom_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(n->value, key, value) if (!is_listed(known, key)) return atom_fail(
        err, ATOM_ERR_UNSUPPORTED, "%s: %s has a field '%.80s', which is not known here", n->file,
        n->path[0] ? n->path : "the whole", key);
    return ATOM_OK;
}

enum atom_status atom_node_type(const struct atom_node *n, const char **type, struct atom_error *err)
{
    size_t n_bytes;
    enum atom_status st = atom_node_is(n, JSON_OBJECT, err);
    return st ? st : atom_node_string(n, "type", type, &n_bytes, err);
}

enum atom_status atom_node_bool(const struct atom_node *n, const char *key, bool fallback, bool *out,
                                struct atom_error *err)
{
    struct atom_node f = atom_node_field(n, key);
    if (f.value && !json_is_boolean(f.value))
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s should be true or false, but is %s", f.file, f.path,
                         found_name(&f));
    *out = f.value ? json_is_true(f.value) : fallback;
    return ATOM_OK;
}

enum atom_status atom_node_string(const struct atom_node *n, const char *key, const char **text, size_t *n_bytes,
                                  struct atom_error *err)
{
    struct atom_node f = atom_node_field(n, key);
    enum atom_status st = atom_node_is(&f, JSON_STRING, err);
    if (st)
        return st;
    *text = json_string_value(f.value);
    *n_bytes = json_string_length(f.value);
    return ATOM_OK;
}

enum atom_status atom_node_int(const struct atom_node *n, const char *key, int lo, int hi, int *out,
                               struct atom_error *err)
{
    struct atom_node f = atom_node_field(n, key);
    enum atom_status st = atom_node_is(&f, JSON_INTEGER, err);
    if (st)
        return st;
    json_int_t v = json_integer_value(f.value);
    if (v < lo || v > hi)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s is %lld, outside %d to %d", f.file, f.path, (long long)v, lo,
                         hi);
    *out = (int)v;
    return ATOM_OK;
}

enum atom_status atom_node_char(const struct atom_node *n, const char *key, uint32_t *cp, struct atom_error *err)
{
    const char *text;
    size_t n_bytes, len = 0;
    enum atom_status st = atom_node_string(n, key, &text, &n_bytes, err);
    if (st)
        return st;
    if (n_bytes > 0)
        *cp = atom_utf8_get(text, &len);
    if (n_bytes == 0 || len != n_bytes)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s.%s should be one character, but has %zu bytes", n->file, n->path,
                         key, n_bytes);
    return ATOM_OK;
}

enum atom_status atom_node_pattern(const struct atom_node *n, const char *key, bool *is_regex, const char **text,
                                   size_t *n_bytes, struct atom_error *err)
{
    struct atom_node p = atom_node_field(n, key);
    enum atom_status st;
    if ((st = atom_node_is(&p, JSON_OBJECT, err)) || (st = atom_node_keys(&p, "String Regex", err)))
        return st;
    if (json_object_size(p.value) != 1)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s should have one field, String or Regex, but has %zu", p.file,
                         p.path, json_object_size(p.value));
    *is_regex = json_object_get(p.value, "Regex") != NULL;
    if ((st = atom_node_string(&p, *is_regex ? "Regex" : "String", text, n_bytes, err)))
        return st;
    return *n_bytes ? ATOM_OK : atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s is empty", p.file, p.path);
}

enum atom_status atom_node_refuse(const struct atom_node *n, const char *key, const char *what, struct atom_error *err)
{
    return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s%s%s is '%.80s', which is not done here", n->file, n->path,
                     n->path[0] ? "." : "", key, what);
}

static enum atom_status walk_steps(const struct atom_node *n, const char *list, atom_step_fn *step, void *ctx,
                                   int depth, struct atom_error *err)
{
    const char *type;
    enum atom_status st = atom_node_type(n, &type, err);
    if (st)
        return st;
    if (strcmp(type, "Sequence") != 0)
        return step(ctx, n, type, err);
    if (depth == MAX_DEPTH)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %.40s...: more than %d Sequences lie in one another", n->file,
                         n->path, MAX_DEPTH);
    char known[64];
    snprintf(known, sizeof known, "type %s", list);
    struct atom_node items = atom_node_field(n, list);
    if ((st = atom_node_keys(n, known, err)) || (st = atom_node_is(&items, JSON_ARRAY, err)))
        return st;
    for (size_t i = 0; i < json_array_size(items.value); i++) {
        struct atom_node item = atom_node_item(&items, i);
        if ((st = walk_steps(&item, list, step, ctx, depth + 1, err)))
            return st;
    }
    return ATOM_OK;
}

enum atom_status atom_node_steps(const struct atom_node *n, const char *list, atom_step_fn *step, void *ctx,
                                 struct atom_error *err)
{
    return n->value ? walk_steps(n, list, step, ctx, 0, err) : ATOM_OK;
}
