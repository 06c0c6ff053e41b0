/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_items.h"

#include "eval/task_csv.h"
#include "model/json_read.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is an item --------------------------------------------------------------------------------------------- */

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
    if (!context && !contexts)
        return bad(item, err, "neither 'context' nor 'contexts' (a data set's own file wants its --format)");
    if (context && contexts)
        return bad(item, err, "both 'context' and 'contexts'");
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

/* The newest item of all, whose root is there. */
static enum atom_status check_item(struct atom_task_items *items, struct atom_error *err)
{
    static const char *const kinds[] = {"choices", "contexts", "a continuation"};
    struct atom_task_source *item = &items->at[items->n - 1];
    enum atom_task_kind kind = ATOM_TASK_CHOICES;
    enum atom_status st = find_kind(item, &kind, err);
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

/* ---- records --------------------------------------------------------------------------------------------------------
 */

struct reader {
    const struct atom_task_file *file;
    const struct atom_task_format *format;
    const char *at, *end; /* what is left of the records */
    int line;             /* that begins at `at` */
    bool csv;
    const char *label, *labels_end; /* what is left of the labels; label NULL: there are none */
    bool in_labels;                 /* that is where the error is */
};

static enum atom_status next_record(struct reader *r, json_t **record, struct atom_error *err)
{
    const char *begin = r->at, *stop = memchr(begin, '\n', (size_t)(r->end - begin));
    char where[32];
    struct atom_error why = {0};
    snprintf(where, sizeof where, "line %d", r->line);
    if (!r->csv) {
        stop = stop ? stop : r->end;
        r->at = stop < r->end ? stop + 1 : r->end;
        r->line++;
        return atom_json_parse(where, begin, (size_t)(stop - begin), record, err);
    }
    enum atom_status st = atom_task_csv_record(&r->at, r->end, record, &why);
    for (; begin < r->at; begin++)
        r->line += *begin == '\n';
    return st ? atom_fail(err, st, "%s: %.900s", where, why.message) : ATOM_OK;
}

static bool is_number(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return n > 0;
}

/* The label of this record, from the labels' own line. */
static enum atom_status put_label(struct reader *r, const struct atom_task_source *item, int number,
                                  struct atom_error *err)
{
    const char *name = r->format->label, *begin = r->label;
    if (!begin)
        return ATOM_OK;
    if (json_object_get(item->record, name))
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: a '%s' of its own, and there is a file of labels", item->line,
                         name);
    r->in_labels = true;
    if (begin == r->labels_end)
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: there is none; expected a label for each record", number);
    const char *stop = memchr(begin, '\n', (size_t)(r->labels_end - begin));
    stop = stop ? stop : r->labels_end;
    size_t n = (size_t)(stop - begin);
    n -= n > 0 && begin[n - 1] == '\r';
    r->label = stop < r->labels_end ? stop + 1 : r->labels_end;
    if (!is_number(begin, n))
        return atom_fail(err, ATOM_ERR_FORMAT, "line %d: \"%.*s\"; expected a whole number", number,
                         (int)(n < 40 ? n : 40), begin);
    r->in_labels = false;
    return json_object_set_new(item->record, name, json_stringn(begin, n)) ? atom_fail_nomem(err, n) : ATOM_OK;
}

/* item->root from item->record. */
static enum atom_status convert(const struct reader *r, struct atom_task_source *item, struct atom_error *err)
{
    struct atom_task_record in = {
        .json = item->record, .line = item->line, .subject = r->file->subject, .kept = json_array(), .err = err};
    item->root = r->format->read ? r->format->read(&in) : json_incref(item->record);
    if (!item->root && !in.status)
        in.status = atom_fail_nomem(err, 64);
    if (r->format->read)
        item->description = json_string_value(json_object_get(item->root, "description"));
    json_decref(in.kept);
    return in.status;
}

static enum atom_status read_items(struct reader *r, struct atom_task_items *items, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    while (r->at < r->end && !st) {
        struct atom_task_source *item = &items->at[items->n];
        *item = (struct atom_task_source){.line = r->line};
        st = next_record(r, &item->record, err);
        if (st)
            return st;
        items->n++; /* fini frees it from here on */
        st = put_label(r, item, items->n, err);
        st = st ? st : convert(r, item, err);
        st = st ? st : check_item(items, err);
    }
    if (!st && r->label && r->label < r->labels_end) {
        r->in_labels = true;
        st = atom_fail(err, ATOM_ERR_FORMAT, "line %d: one label more than there are records", items->n + 1);
    }
    return st;
}

/* As many as there are lines; a last one may do without its end. */
static int count_lines(const char *text, size_t n_bytes)
{
    int n = n_bytes && text[n_bytes - 1] != '\n';
    for (size_t i = 0; i < n_bytes; i++)
        n += text[i] == '\n';
    return n;
}

static enum atom_status check_file(const struct atom_task_file *file, const struct atom_task_format *format,
                                   struct atom_error *err)
{
    if (file->records.n_bytes == 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "line 1: there is none; expected a JSON object a line");
    if (file->records.n_bytes > 1 << 30)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%zu bytes of items; a gibibyte is the most",
                         file->records.n_bytes);
    if (file->labels.text && !format->label)
        return atom_fail(err, ATOM_ERR_INVALID, "records of '%s' have their labels with them", format->name);
    return ATOM_OK;
}

/* The name of the file in front of its sentence. */
static enum atom_status fail_in(const struct reader *r, const struct atom_error *why, struct atom_error *err)
{
    const char *name = r->in_labels ? r->file->labels.name : r->file->records.name;
    if (r->in_labels && !name)
        name = "labels";
    return atom_fail(err, why->code, "%s%s%.900s", name ? name : "", name ? ": " : "", why->message);
}

enum atom_status atom_task_items_parse(const struct atom_task_file *file, const struct atom_task_format *format,
                                       struct atom_task_items *out, struct atom_error *err)
{
    const struct atom_task_text *records = &file->records, *labels = &file->labels;
    struct reader r = {
        .file = file, .format = format, .at = records->text, .end = records->text + records->n_bytes, .line = 1};
    struct atom_task_items items = {0};
    struct atom_error why = {0};
    if (check_file(file, format, &why))
        return fail_in(&r, &why, err);
    r.csv = format->csv && *records->text != '{';
    r.label = labels->text;
    r.labels_end = labels->text ? labels->text + labels->n_bytes : NULL;
    size_t n = (size_t)count_lines(records->text, records->n_bytes);
    items.at = calloc(n, sizeof *items.at);
    if (!items.at)
        return atom_fail_nomem(err, n * sizeof *items.at);
    if (read_items(&r, &items, &why)) {
        atom_task_items_fini(&items);
        return fail_in(&r, &why, err);
    }
    *out = items;
    return ATOM_OK;
}

void atom_task_items_fini(struct atom_task_items *items)
{
    for (int i = 0; i < items->n; i++) {
        json_decref(items->at[i].record);
        json_decref(items->at[i].root);
        free(items->at[i].front);
    }
    free(items->at);
    memset(items, 0, sizeof *items);
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

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
