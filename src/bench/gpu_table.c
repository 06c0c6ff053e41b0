/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of a GPU as tables for people. */
#include "bench/gpu_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool atom_gpu_same_table(const struct atom_gpu_line *a, const struct atom_gpu_line *b)
{
    return a->what == b->what && strcmp(a->shape, b->shape) == 0;
}

/* Whether a rate is best told in bytes: memory bounds the operation, or it does nothing else. */
static bool in_bytes(const struct atom_gpu_line *l)
{
    return l->bound == ATOM_GPU_READ || l->bound == ATOM_GPU_COPY || !(l->ops > 0);
}

/* ---- ceilings ---------------------------------------------------------------------------------------------------- */

static void put_ceiling(FILE *f, const struct atom_gpu_line *l)
{
    fprintf(f, "  %-7s", l->name);
    if (l->bytes > 0)
        fprintf(f, "%9.0f GB/s", l->bytes * 1e-9);
    else if (l->ops > 1e9)
        fprintf(f, "%9.1f TOPS", l->ops * 1e-12);
    else if (l->ops > 0)
        fprintf(f, "%9.2f us  ", 1e6 / l->ops);
    else
        fprintf(f, "%9s     ", "-");
    if (l->clock_hz > 0)
        fprintf(f, "%6.0f MHz", l->clock_hz * 1e-6);
    else
        fprintf(f, "%10s", "");
    fprintf(f, "  %s\n", *l->how ? l->how : "not here");
}

static void put_ceilings(FILE *f, const struct atom_gpu_line *lines, int n)
{
    const struct atom_gpu_machine *m = lines[0].machine;
    if (m)
        fprintf(f, "%s, compute capability %s, driver %s, CUDA %s\n", m->device, m->capability, m->driver, m->cuda);
    fputs("\nceilings of this device\n", f);
    for (int i = 0; i < n; i++)
        put_ceiling(f, &lines[i]);
}

/* ---- linears ----------------------------------------------------------------------------------------------------- */

enum { MAX_ROWS = ATOM_BENCH_MAX_LIST };

/* Lines by number of tokens and scheme. */
struct grid {
    int tokens[MAX_ROWS], n_rows;
    const char *schemes[ATOM_GPU_N_SCHEMES];
    int n_columns;
    const struct atom_gpu_line *at[2][MAX_ROWS][ATOM_GPU_N_SCHEMES]; /* warm, cold */
};

static int row_of(struct grid *g, int tokens)
{
    int i = 0;
    while (i < g->n_rows && g->tokens[i] != tokens)
        i++;
    if (i == g->n_rows && i < MAX_ROWS)
        g->tokens[g->n_rows++] = tokens;
    return i;
}

static int column_of(struct grid *g, const char *scheme)
{
    int i = 0;
    while (i < g->n_columns && strcmp(g->schemes[i], scheme) != 0)
        i++;
    if (i == g->n_columns && i < ATOM_GPU_N_SCHEMES)
        g->schemes[g->n_columns++] = scheme;
    return i;
}

static void fill_grid(struct grid *g, const struct atom_gpu_line *lines, int n)
{
    memset(g, 0, sizeof *g);
    for (int i = 0; i < n; i++) {
        if (!(lines[i].median_s > 0))
            continue;
        int row = row_of(g, lines[i].tokens), column = column_of(g, lines[i].name);
        if (row < MAX_ROWS && column < ATOM_GPU_N_SCHEMES)
            g->at[lines[i].cold][row][column] = &lines[i];
    }
}

static void put_time(FILE *f, const struct atom_gpu_line *l)
{
    char text[32];
    if (l->quantize_s > 0)
        snprintf(text, sizeof text, "%.1f +%.1f", l->median_s * 1e6, l->quantize_s * 1e6);
    else
        snprintf(text, sizeof text, "%.1f", l->median_s * 1e6);
    fprintf(f, "  %13s", text);
}

static void put_rate(FILE *f, const struct atom_gpu_line *l)
{
    char text[32];
    snprintf(text, sizeof text, "%.*f %3.0f%%%s", l->ops / l->median_s < 1e13 ? 1 : 0, l->ops / l->median_s * 1e-12,
             100 * l->share, in_bytes(l) ? "m" : " ");
    fprintf(f, "  %13s", text);
}

static void put_grid(FILE *f, const struct grid *g, bool cold, const char *title,
                     void (*put)(FILE *, const struct atom_gpu_line *))
{
    bool any = false;
    for (int r = 0; r < g->n_rows; r++)
        for (int c = 0; c < g->n_columns; c++)
            any |= g->at[cold][r][c] != NULL;
    if (!any)
        return;
    fprintf(f, "  %s\n  %6s", title, "tokens");
    for (int c = 0; c < g->n_columns; c++)
        fprintf(f, "  %13s", g->schemes[c]);
    for (int r = 0; r < g->n_rows; r++) {
        fprintf(f, "\n  %6d", g->tokens[r]);
        for (int c = 0; c < g->n_columns; c++)
            if (g->at[cold][r][c])
                put(f, g->at[cold][r][c]);
            else
                fprintf(f, "  %13s", "-");
    }
    fputc('\n', f);
}

static void put_linears(FILE *f, const struct atom_gpu_line *lines, int n)
{
    struct grid g;
    fill_grid(&g, lines, n);
    fprintf(f, "\nlinear of %d rows, %d channels%s%s\n", lines[0].n, lines[0].k, *lines[0].whose ? ": " : "",
            lines[0].whose);
    for (int i = 0; i < n; i++)
        if (!(lines[i].median_s > 0))
            fprintf(f, "  no %s: %s\n", lines[i].name, lines[i].how);
    put_grid(f, &g, true, "cold, microseconds; +: quantizing the activations", put_time);
    put_grid(f, &g, true, "cold, TOPS and share of the ceiling (m: of reading memory)", put_rate);
    put_grid(f, &g, false, "warm, microseconds", put_time);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static bool same_case(const struct atom_gpu_line *a, const struct atom_gpu_line *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->whose, b->whose) == 0 && a->tokens == b->tokens &&
           a->context == b->context && a->kvbits == b->kvbits;
}

static void put_cell(FILE *f, const struct atom_gpu_line *l, bool bytes)
{
    if (!l) {
        fprintf(f, "  %9s %8s", "-", "");
        return;
    }
    fprintf(f, "  %9.2f", l->median_s * 1e6);
    if (bytes)
        fprintf(f, " %8.0f", l->bytes / l->median_s * 1e-9);
    else
        fprintf(f, " %7.1fT", l->ops / l->median_s * 1e-12);
}

static void put_share(FILE *f, const struct atom_gpu_line *l)
{
    if (l && l->share > 0)
        fprintf(f, " %5.1f %%", 100 * l->share);
    else
        fprintf(f, " %7s", "");
}

static void put_operations(FILE *f, const struct atom_gpu_line *lines, int n)
{
    bool attention = lines[0].what == ATOM_GPU_ATTENTION;
    fprintf(f, "\n%s of %s\n  %-30s  %6s  %7s  %9s %8s %7s  %9s %8s\n", attention ? "attention" : "rows",
            lines[0].shape, "", "tokens", attention ? "context" : "", "cold us", "GB/s, T", "share", "warm us",
            "GB/s, T");
    for (int i = 0; i < n; i++) {
        const struct atom_gpu_line *l = &lines[i], *warm = NULL, *cold = NULL;
        char name[ATOM_GPU_NAME + ATOM_GPU_WHOSE + 2], context[16] = "";
        if (i && same_case(l, l - 1)) /* told with the one before */
            continue;
        for (int j = i; j < n && same_case(l, &lines[j]); j++)
            *(lines[j].cold ? &cold : &warm) = &lines[j];
        snprintf(name, sizeof name, "%s%s%s", l->name, *l->whose ? " " : "", l->whose);
        if (attention)
            snprintf(context, sizeof context, "%d", l->context);
        if (!(l->median_s > 0)) {
            fprintf(f, "  no %s: %s\n", name, l->how);
            continue;
        }
        fprintf(f, "  %-30s  %6d  %7s", name, l->tokens, context);
        put_cell(f, cold, in_bytes(l));
        put_share(f, cold);
        put_cell(f, warm, in_bytes(l));
        fputc('\n', f);
    }
}

char *atom_gpu_text(const struct atom_gpu_line *lines, int n)
{
    char *text = NULL;
    size_t n_bytes;
    FILE *f = open_memstream(&text, &n_bytes);
    if (!f)
        return NULL;
    if (lines[0].what == ATOM_GPU_CEILING)
        put_ceilings(f, lines, n);
    else if (lines[0].what == ATOM_GPU_LINEAR)
        put_linears(f, lines, n);
    else
        put_operations(f, lines, n);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
