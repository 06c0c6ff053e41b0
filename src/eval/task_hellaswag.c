/* SPDX-License-Identifier: Apache-2.0 */
/* HellaSwag's texts come from WikiHow in part and carry its marks: "[header] How to ... [title] Buy ... [step] First".
 */
#include "eval/python_text.h"
#include "eval/task_formats.h"

#include <stdlib.h>
#include <string.h>

/* In place; `to` is no longer than `from`. */
static void replace(char *text, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to);
    char *out = text;
    for (const char *at = text; *at;) {
        if (strncmp(at, from, n_from) != 0) {
            *out++ = *at++;
            continue;
        }
        memcpy(out, to, n_to);
        out += n_to;
        at += n_from;
    }
    *out = 0;
}

/* In place; a bracket closes on its own line. */
static void drop_brackets(char *text)
{
    char *out = text;
    for (const char *at = text; *at; at++) {
        const char *end = *at == '[' ? at + strcspn(at, "]\n") : at;
        if (*at == '[' && *end == ']')
            at = end;
        else
            *out++ = *at;
    }
    *out = 0;
}

static const char *clean(struct atom_task_record *in, const char *text)
{
    char *out = atom_python_strip(text);
    if (out) {
        replace(out, " [title]", ". ");
        drop_brackets(out);
        replace(out, "  ", " ");
    }
    return atom_record_keep(in, out);
}

json_t *atom_hellaswag_read(struct atom_task_record *in)
{
    enum { ENDINGS = 4 };
    static const char *const paths[ENDINGS] = {"endings.0", "endings.1", "endings.2", "endings.3"};
    const char *endings[ENDINGS];
    const char *about = atom_record_text(in, "activity_label"), *a = atom_record_text(in, "ctx_a");
    const char *b = atom_record_keep(in, atom_python_capitalize(atom_record_text(in, "ctx_b")));
    for (int i = 0; i < ENDINGS; i++)
        endings[i] = clean(in, atom_record_choice(in, paths[i]));
    int gold = atom_record_index(in, "label", 0, ENDINGS);
    char *context;
    context = asprintf(&context, "%s: %s %s", about, a, b) < 0 ? NULL : context;
    const char *query = clean(in, atom_record_keep(in, context));
    return in->status ? NULL
                      : json_pack("{s:s, s:[s+, s+, s+, s+], s:i}", "context", query, "choices", " ", endings[0], " ",
                                  endings[1], " ", endings[2], " ", endings[3], "gold", gold);
}
