/* SPDX-License-Identifier: Apache-2.0 */
#include "eval_scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct eval_task_name eval_name_task(const char *file)
{
    const char *slash = strrchr(file, '/'), *stem = slash ? slash + 1 : file, *dot = strrchr(stem, '.');
    return (struct eval_task_name){file, stem, dot && dot > stem ? (int)(dot - stem) : (int)strlen(stem)};
}

static json_t *number(double x) { return isnan(x) ? json_null() : json_real(x); }

json_t *eval_score_json(const struct eval_task_name *name, const struct atom_task_score *s)
{
    json_t *o = json_pack("{s:s%, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "task", name->stem,
                          (size_t)name->stem_bytes, "file", name->file, "n", (json_int_t)s->n, "acc", number(s->acc),
                          "acc_stderr", number(s->acc_stderr), "acc_norm", number(s->acc_norm), "acc_norm_stderr",
                          number(s->acc_norm_stderr), "ppl", number(s->ppl), "ppl_stderr", number(s->ppl_stderr));
    if (s->subtask && json_object_set_new(o, "subtask", json_string(s->subtask))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

bool eval_put_line(FILE *out, json_t *o, int digits)
{
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(digits)) : NULL;
    bool ok = text && fprintf(out, "%s\n", text) >= 0;
    free(text);
    json_decref(o);
    return ok;
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

static const char *spell(double value, double error, char text[64])
{
    if (isnan(value))
        return "-";
    if (isnan(error))
        snprintf(text, 64, "%.2f", value);
    else
        snprintf(text, 64, "%.2f +- %.2f", value, error);
    return text;
}

void eval_print_head(int widest)
{
    printf("%-*s  %7s  %16s  %16s  %s\n", widest, "task", "items", "acc %", "acc_norm %", "ppl");
}

void eval_print_row(const struct eval_task_name *name, int widest, const struct atom_task_score *s)
{
    char acc[64], acc_norm[64], ppl[64];
    if (s->subtask)
        printf("  %-*s", widest - 2, s->subtask);
    else
        printf("%-*.*s", widest, name->stem_bytes, name->stem);
    printf("  %7lld  %16s  %16s  %s\n", (long long)s->n, spell(100 * s->acc, 100 * s->acc_stderr, acc),
           spell(100 * s->acc_norm, 100 * s->acc_norm_stderr, acc_norm), spell(s->ppl, s->ppl_stderr, ppl));
}
