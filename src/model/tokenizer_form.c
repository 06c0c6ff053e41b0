/* SPDX-License-Identifier: Apache-2.0 */
/* Unicode normalization forms. utf8proc knows the tables; the order of combining marks is sorted here, because its own
 * sort takes quadratic time on long runs of marks, which anyone may send. */
#include "model/tokenizer_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct cps {
    utf8proc_int32_t *data;
    size_t n, cap;
};

static utf8proc_option_t options_of(enum atom_form form)
{
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == ATOM_FORM_KC || form == ATOM_FORM_KD)
        options |= UTF8PROC_COMPAT;
    return (utf8proc_option_t)options;
}

static bool decompose(enum atom_form form, const char *text, size_t n, struct cps *out)
{
    enum { LONGEST = 32 }; /* U+FDFA becomes 18 */
    int boundary = 0;
    out->n = 0;
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t cp = atom_utf8_get(text + at, &len);
        if (out->cap - out->n < LONGEST) {
            size_t cap = out->cap ? out->cap * 2 : 256;
            void *data = realloc(out->data, cap * sizeof *out->data);
            if (!data)
                return false;
            out->data = data;
            out->cap = cap;
        }
        utf8proc_ssize_t got =
            utf8proc_decompose_char((utf8proc_int32_t)cp, out->data + out->n, LONGEST, options_of(form), &boundary);
        if (got < 0 || got > LONGEST)
            return false;
        out->n += (size_t)got;
    }
    return true;
}

static int combining_class(utf8proc_int32_t cp) { return utf8proc_get_property(cp)->combining_class; }

/* Stable counting sort of marks[n] by combining class. */
static void sort_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *spare)
{
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        at[c] += at[c - 1];
    for (size_t i = 0; i < n; i++)
        spare[at[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

static bool order_marks(struct cps *text)
{
    utf8proc_int32_t *spare = NULL;
    for (size_t i = 0, end; i < text->n; i = end) {
        bool sorted = true;
        for (end = i; end < text->n && combining_class(text->data[end]) != 0; end++)
            if (end > i && combining_class(text->data[end - 1]) > combining_class(text->data[end]))
                sorted = false;
        if (!sorted) {
            if (!spare && !(spare = malloc(text->n * sizeof *spare)))
                return false;
            sort_marks(text->data + i, end - i, spare);
        }
        end += end == i;
    }
    free(spare);
    return true;
}

/* Appends the form of a stretch whose neighbours cannot combine with it. */
static bool convert(enum atom_form form, const char *text, size_t n, struct cps *cps, struct atom_text *out)
{
    if (!decompose(form, text, n, cps) || !order_marks(cps))
        return false;
    utf8proc_ssize_t count = (utf8proc_ssize_t)cps->n;
    if (form == ATOM_FORM_C || form == ATOM_FORM_KC)
        count = utf8proc_normalize_utf32(cps->data, count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < count; i++)
        atom_text_add_cp(out, (uint32_t)cps->data[i]);
    return count >= 0 && !out->failed;
}

bool atom_text_to_form(enum atom_form form, const char *text, size_t n, struct atom_text *out)
{
    struct cps cps = {0};
    bool ok = true;
    size_t at = 0;
    while (ok && at < n) {
        /* ASCII stays as it is in every form and combines with nothing before it; only the last of a run may take
         * marks from what follows. */
        size_t plain = at;
        while (plain < n && (uint8_t)text[plain] < 0x80)
            plain++;
        if (plain < n && plain > at)
            plain--;
        atom_text_add(out, text + at, plain - at);
        size_t end = plain + (plain < n);
        while (end < n && (uint8_t)text[end] >= 0x80)
            end++;
        ok = !out->failed && convert(form, text + plain, end - plain, &cps, out);
        at = end;
    }
    free(cps.data);
    return ok;
}
