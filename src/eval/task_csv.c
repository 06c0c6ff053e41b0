/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_csv.h"

#include <stdlib.h>
#include <string.h>

enum { FIELDS = 6 };

/* Where a record is read: what a field holds goes to `to`, which has room for all that is left of the text. */
struct csv {
    const char *at, *end;
    char *to;
};

static bool at_end_of_record(const struct csv *csv) { return csv->at == csv->end || *csv->at == '\n'; }

/* Up to the quote that closes; two are one. false: nothing closes it. */
static bool read_quoted(struct csv *csv)
{
    for (csv->at++; csv->at < csv->end; csv->at++) {
        if (*csv->at == '"') {
            if (++csv->at == csv->end || *csv->at != '"')
                return true;
        }
        *csv->to++ = *csv->at;
    }
    return false;
}

/* NULL, with a reason, when it is none. */
static const char *read_field(struct csv *csv, const char **why)
{
    const char *field = csv->to;
    if (csv->at < csv->end && *csv->at == '"') {
        if (!read_quoted(csv))
            *why = "a quote that nothing closes";
    } else {
        while (!at_end_of_record(csv) && *csv->at != ',')
            *csv->to++ = *csv->at++;
    }
    if (csv->at < csv->end && *csv->at == '\r' && csv->at + 1 < csv->end && csv->at[1] == '\n')
        csv->at++;
    else if (csv->to > field && at_end_of_record(csv) && csv->to[-1] == '\r')
        csv->to--;
    if (!*why && !at_end_of_record(csv) && *csv->at != ',')
        *why = "text after a quote that closes";
    *csv->to++ = 0;
    return field;
}

static enum atom_status make_record(const char *const f[FIELDS], json_t **record, struct atom_error *err)
{
    json_error_t why;
    *record = json_pack_ex(&why, 0, "{s:s, s:[s, s, s, s], s:s}", "question", f[0], "choices", f[1], f[2], f[3], f[4],
                           "answer", f[5]);
    if (*record)
        return ATOM_OK;
    return json_error_code(&why) == json_error_invalid_utf8 ? atom_fail(err, ATOM_ERR_FORMAT, "CSV: it is not UTF-8")
                                                            : atom_fail_nomem(err, 64);
}

enum atom_status atom_task_csv_record(const char **at, const char *end, json_t **record, struct atom_error *err)
{
    const char *fields[FIELDS] = {0}, *why = NULL;
    size_t room = (size_t)(end - *at) + FIELDS + 1; /* a NUL in the place of each comma and of the end */
    char *text = malloc(room);
    struct csv csv = {*at, end, text};
    enum atom_status st = ATOM_OK;
    int n = 0;
    if (!text)
        return atom_fail_nomem(err, room);
    for (bool more = true; more && !why; n++) {
        if (n == FIELDS) {
            why = "more than six fields";
            break;
        }
        fields[n] = read_field(&csv, &why);
        more = csv.at < end && *csv.at == ',';
        csv.at += more;
    }
    if (!why && memchr(*at, 0, (size_t)(csv.at - *at)))
        why = "a NUL byte";
    if (why)
        st = atom_fail(err, ATOM_ERR_FORMAT, "CSV: %s", why);
    else if (n < FIELDS)
        st = atom_fail(err, ATOM_ERR_FORMAT, "CSV: %d fields; expected question, four choices and a letter", n);
    else
        st = make_record(fields, record, err);
    *at = csv.at < end ? csv.at + 1 : end;
    free(text);
    return st;
}
