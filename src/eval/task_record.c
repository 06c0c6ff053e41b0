/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_record.h"

#include "model/json_read.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void atom_record_refuse(struct atom_task_record *in, const char *fmt, ...)
{
    char text[800];
    va_list ap;
    if (in->status)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    in->status = atom_fail(in->err, ATOM_ERR_FORMAT, "line %d: %s", in->line, text);
}

const json_t *atom_record_find(const struct atom_task_record *in, const char *path)
{
    const json_t *value = in->json;
    while (*path && value) {
        char name[64];
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        value = json_is_array(value) ? json_array_get(value, strtoul(name, NULL, 10)) : json_object_get(value, name);
        path += n + (path[n] == '.');
    }
    return value;
}

/* NULL, and a sentence, where nothing is. */
static const json_t *find(struct atom_task_record *in, const char *path)
{
    const json_t *value = atom_record_find(in, path);
    if (!value)
        atom_record_refuse(in, "'%s' is missing", path);
    return in->status ? NULL : value;
}

const char *atom_record_text(struct atom_task_record *in, const char *path)
{
    const json_t *value = find(in, path);
    char text[64];
    if (value && !json_is_string(value))
        atom_record_refuse(in, "'%s' is %s; expected a string", path, atom_json_spell(value, text));
    return value && !in->status ? json_string_value(value) : "";
}

const char *atom_record_choice(struct atom_task_record *in, const char *path)
{
    const char *text = atom_record_text(in, path);
    if (!in->status && atom_task_characters(text) == 0)
        atom_record_refuse(in, "'%s' is empty", path);
    return text;
}

int atom_record_index(struct atom_task_record *in, const char *path, int first, int n)
{
    const json_t *value = find(in, path);
    const char *string = json_string_value(value);
    json_int_t got = json_is_integer(value) ? json_integer_value(value) : first - 1;
    char text[64], *end;
    if (string && *string >= '0' && *string <= '9') {
        got = strtoll(string, &end, 10);
        got = *end ? first - 1 : got;
    }
    if (value && (got < first || got >= first + n))
        atom_record_refuse(in, "'%s' is %s; expected a whole number from %d to %d", path, atom_json_spell(value, text),
                           first, first + n - 1);
    return value && !in->status ? (int)got - first : 0;
}

int atom_record_entries(struct atom_task_record *in, const char *path)
{
    const json_t *value = find(in, path);
    char text[64];
    if (value && json_array_size(value) < 2)
        atom_record_refuse(in, "'%s' is %s; expected a list of two or more", path,
                           json_is_array(value) ? "too short" : atom_json_spell(value, text));
    return value && !in->status ? (int)json_array_size(value) : 0;
}

const char *atom_record_keep(struct atom_task_record *in, char *text)
{
    json_t *string = text ? json_string(text) : NULL;
    free(text);
    if (!json_array_append_new(in->kept, string))
        return json_string_value(string);
    in->status = in->status ? in->status : atom_fail_nomem(in->err, 64);
    return "";
}

int atom_task_characters(const char *choice)
{
    int n = 0;
    for (choice += *choice == ' '; *choice; choice++)
        n += (*choice & 0xC0) != 0x80;
    return n;
}
