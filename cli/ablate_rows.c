/* SPDX-License-Identifier: Apache-2.0 */
#include "ablate_rows.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WANTED_OUTLIERS = 128 };

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void print_head(const struct ablate_rows *r, const struct atom_ablate_row *row)
{
    const struct atom_ablate_options *o = r->opt;
    printf("%s%s at %d bits: perplexity of %s, %lld windows of %d tokens, calibrated on %d windows of %s\n\n",
           r->n ? "\n" : "", base_name(r->model), row->bits, base_name(r->text), (long long)row->ppl.windows, o->window,
           o->samples, base_name(o->calib));
    printf("%-35s %-8s %4s %9s %2s  %-12s %10s %10s  %s\n", "", "W/A/KV", "G", "O", "C", "clip a/w", "perplexity",
           "change", "recipe");
}

static void put_number(double x, bool sign)
{
    double size = x < 0 ? -x : x;
    const char *form = size < 1000  ? (sign ? " %+10.2f" : " %10.2f")
                       : size < 1e7 ? (sign ? " %+10.0f" : " %10.0f")
                                    : (sign ? " %+10.2e" : " %10.2e");
    printf(form, x);
}

static void put_scheme(const struct atom_scheme *s)
{
    char text[48];
    snprintf(text, sizeof text, "%d/%d/%d", s->wbits, s->abits, s->kvbits);
    printf(" %-8s", text);
    if (s->wbits == 16 && s->abits == 16) {
        printf(" %4s %9s %2s  %-12s", "", "", "", "");
        return;
    }
    snprintf(text, sizeof text, s->group ? "%d" : "row", s->group);
    printf(" %4s", text);
    snprintf(text, sizeof text, s->outliers ? "%d %s" : "0", s->outliers, s->outlier_bits == 16 ? "FP16" : "INT8");
    printf(" %9s %2d", text, s->rows_per_scale);
    snprintf(text, sizeof text, s->clip_search ? "%g / search" : "%g / %g", (double)s->act_clip,
             (double)s->weight_clip);
    printf("  %-12s", text);
}

static void print_row(const struct atom_ablate_row *row, const struct atom_ablate_row *before)
{
    int n;
    const struct atom_rung *rung = &atom_rungs(&n)[row->rung];
    printf("%-35s", rung->adds);
    put_scheme(&row->scheme);
    if (row->why)
        printf(" %10s %10s", "not finite", "");
    else
        put_number(row->ppl.ppl, false);
    if (!row->why && before && !before->why)
        put_number(row->ppl.ppl - before->ppl.ppl, true);
    else if (!row->why)
        printf(" %10s", "");
    if (rung->recipe && row->bits == 4)
        printf("  %s", rung->recipe);
    putchar('\n');
}

/* 0.9, not what a float makes of it. */
static double decimal(float x) { return round((double)x * 1e6) / 1e6; }

static json_t *scheme_fields(const struct atom_scheme *s)
{
    static const char *const rotations[] = {"none", "qk", "v", "qkv"};
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:b, s:s, s:s, s:f, s:f}", "wbits", s->wbits,
                     "abits", s->abits, "kvbits", s->kvbits, "group", s->group, "outliers", s->outliers, "outlier_bits",
                     s->outlier_bits == 16 ? 16 : 8, "rows_per_scale", s->rows_per_scale, "act_clip",
                     decimal(s->act_clip), "weight_clip", decimal(s->weight_clip), "clip_search", s->clip_search,
                     "gptq", s->gptq, "kv_rope", s->kv_rope == ATOM_KV_PRE ? "pre" : "post", "rotate",
                     rotations[s->rotate & 3], "smooth", decimal(s->smooth), "asymmetric", decimal(s->asymmetric));
}

static void print_json(const struct ablate_rows *r, const struct atom_ablate_row *row,
                       const struct atom_ablate_row *before)
{
    int n;
    const struct atom_rung *rung = &atom_rungs(&n)[row->rung];
    bool change = !row->why && before && !before->why && isfinite(row->ppl.ppl - before->ppl.ppl);
    json_t *o = json_pack("{s:s, s:i, s:s?, s:o, s:o, s:o, s:I, s:I, s:i, s:i, s:f, s:f, s:b}", "rung", rung->name,
                          "bits", row->bits, "recipe", row->bits == 4 ? rung->recipe : NULL, "ppl",
                          row->why || isinf(row->ppl.ppl) ? json_null() : json_real(row->ppl.ppl), "nll",
                          row->why ? json_null() : json_real(row->ppl.nll), "change",
                          change ? json_real(row->ppl.ppl - before->ppl.ppl) : json_null(), "tokens",
                          (json_int_t)row->ppl.tokens, "windows", (json_int_t)row->ppl.windows, "window",
                          r->opt->window, "samples", r->opt->samples, "quantize_seconds", row->quantize_seconds,
                          "eval_seconds", row->eval_seconds, "remembered", row->remembered);
    json_t *scheme = scheme_fields(&row->scheme);
    json_object_set_new(o, "scheme", scheme);
    char *text = o && scheme ? json_dumps(o, JSON_REAL_PRECISION(9)) : NULL;
    puts(text ? text : "{\"rung\": null}");
    free(text);
    json_decref(o);
}

void ablate_rows_add(struct ablate_rows *r, const struct atom_ablate_row *row)
{
    const struct atom_ablate_row *before = r->begins_ladder || r->n == 0 ? NULL : &r->at[r->n - 1];
    if (r->json)
        print_json(r, row, before);
    else {
        if (r->begins_ladder)
            print_head(r, row);
        print_row(row, before);
    }
    if (row->damage)
        fprintf(stderr, "atom: %s; it was made anew\n", row->damage);
    if (row->why)
        fprintf(stderr, "atom: %s\n", row->why);
    r->begins_ladder = false;
    struct atom_ablate_row *more = realloc(r->at, ((size_t)r->n + 1) * sizeof *more);
    if (!more)
        return; /* the plot lacks a row; memory this short ends the run itself */
    r->at = more;
    r->at[r->n] = *row;
    r->at[r->n].damage = NULL;
    r->at[r->n++].why = row->why ? "" : NULL;
}

void ablate_rows_title(const struct ablate_rows *r, char *buf, size_t n_bytes)
{
    snprintf(buf, n_bytes, "%s on %s", base_name(r->model), base_name(r->text));
}

void ablate_rows_end(const struct ablate_rows *r)
{
    puts(
        "\nG: channels a scale; O: outlier channels a site; C: output rows a weight scale; change: from the row above");
    for (int i = 0; i < r->n; i++) {
        int o = r->at[i].scheme.outliers;
        if (o > 0 && o < WANTED_OUTLIERS) {
            printf("O is a quarter of the narrowest site's channels, the recipes' cap: %d, not %d\n", o,
                   WANTED_OUTLIERS);
            break;
        }
    }
}
