/* SPDX-License-Identifier: Apache-2.0 */
#include "scheme_rows.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEM = 18 };

/* A file's name without its folder and what follows the first dot, cut to fit a column. */
static const char *stem(const char *file, char text[STEM + 1])
{
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    snprintf(text, STEM + 1, "%.*s", (int)strcspn(name, "."), name);
    return text;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *text_json(const char *file, const struct scheme_text *t)
{
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "file", file, "tokens", (json_int_t)t->tokens, "ppl",
                     number(t->ppl), "kl", number(t->kl), "kl_standard_error", number(t->kl_standard_error), "top1",
                     number(t->top1));
}

static json_t *task_json(const char *file, const struct atom_task_score *s)
{
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "file", file, "n", (json_int_t)s->n, "acc", number(s->acc),
                     "acc_stderr", number(s->acc_stderr), "acc_norm", number(s->acc_norm), "ppl", number(s->ppl));
}

static bool print_json(const struct scheme_table *t, const struct scheme_row *r)
{
    json_t *texts = json_array(), *tasks = json_array();
    int failed = 0;
    for (int i = 0; i < t->n_texts; i++)
        failed |= json_array_append_new(texts, text_json(t->texts[i], &r->texts[i]));
    for (int i = 0; i < t->tasks->n; i++)
        failed |= json_array_append_new(tasks, task_json(t->tasks->at[i], &r->tasks[i]));
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:I, s:f, s:f, s:f, s:f, s:o, s:o}", "scheme", r->name, "wbits",
                          r->scheme.wbits, "abits", r->scheme.abits, "kvbits", r->scheme.kvbits, "bytes",
                          (json_int_t)r->bytes, "bits_per_weight", r->bits_per_weight, "kv_bytes_per_token",
                          r->kv_bytes_per_token, "quantize_seconds", r->quantize_seconds, "prefill_tokens_a_second",
                          r->tokens_a_second, "texts", texts, "tasks", tasks);
    char *line = o && !failed ? json_dumps(o, JSON_REAL_PRECISION(12)) : NULL;
    if (line)
        puts(line);
    free(line);
    json_decref(o);
    return line != NULL;
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

void scheme_rows_head(const struct scheme_table *t)
{
    char name[STEM + 1];
    if (t->json)
        return;
    printf("%-12s  %-8s  %9s  %7s  %8s", "scheme", "W/A/KV", "MB", "bits/w", "tokens/s");
    for (int i = 0; i < t->n_texts; i++)
        printf("  %*s", STEM, stem(t->texts[i], name));
    for (int i = 0; i < t->tasks->n; i++)
        printf("  %*s", STEM, stem(t->tasks->at[i], name));
    printf("\n%-12s  %-8s  %9s  %7s  %8s", "", "", "", "", "prefill");
    for (int i = 0; i < t->n_texts; i++)
        printf("  %*s", STEM, "ppl         KL");
    for (int i = 0; i < t->tasks->n; i++)
        printf("  %*s", STEM, "acc %");
    putchar('\n');
    fflush(stdout);
}

static void print_row(const struct scheme_table *t, const struct scheme_row *r)
{
    char bits[32];
    snprintf(bits, sizeof bits, "%d/%d/%d", r->scheme.wbits, r->scheme.abits, r->scheme.kvbits);
    printf("%-12s  %-8s  %9.2f  %7.3f  %8.0f", r->name, bits, r->bytes / 1e6, r->bits_per_weight, r->tokens_a_second);
    for (int i = 0; i < t->n_texts; i++)
        printf("  %9.3f %8.5f", r->texts[i].ppl, r->texts[i].kl);
    for (int i = 0; i < t->tasks->n; i++) {
        const struct atom_task_score *s = &r->tasks[i];
        printf("  %*.2f +- %4.2f", STEM - 8, 100 * s->acc, isnan(s->acc_stderr) ? 0 : 100 * s->acc_stderr);
    }
    putchar('\n');
}

bool scheme_rows_print(const struct scheme_table *t, const struct scheme_row *row)
{
    bool ok = true;
    if (t->json)
        ok = print_json(t, row);
    else
        print_row(t, row);
    fflush(stdout);
    return ok;
}
