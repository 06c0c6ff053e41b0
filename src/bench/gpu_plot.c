/* SPDX-License-Identifier: Apache-2.0 */
/* Curves of operations a second by tokens, a panel for each linear. */
#include "bench/gpu_bench.h"

#include "base/gnuplot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PANEL_WIDTH = 560, PANEL_HEIGHT = 420, FRAME_HEIGHT = 60 };

/* Ours in strong colours, cuBLASLt's dashed. */
static const char *const styles[ATOM_GPU_N_SCHEMES] = {
    "lw 3 pt 7 ps 0.7 lc rgb '#D62728'",      "lw 3 pt 7 ps 0.7 lc rgb '#FF9E4A'",
    "lw 3 pt 7 ps 0.7 lc rgb '#2CA02C'",      "lw 3 pt 7 ps 0.7 lc rgb '#1F77B4'",
    "lw 2 dt 2 pt 6 ps 0.7 lc rgb '#1F77B4'", "lw 2 dt 2 pt 6 ps 0.7 lc rgb '#2CA02C'",
    "lw 2 dt 2 pt 6 ps 0.7 lc rgb '#9467BD'",
};

static bool drawn(const struct atom_gpu_line *l) { return l->what == ATOM_GPU_LINEAR && l->cold && l->median_s > 0; }

static bool starts_panel(const struct atom_gpu_line *lines, int i)
{
    if (!drawn(&lines[i]))
        return false;
    for (int j = 0; j < i; j++)
        if (drawn(&lines[j]) && strcmp(lines[j].shape, lines[i].shape) == 0)
            return false;
    return true;
}

static double tops(const struct atom_gpu_line *l) { return l->ops / l->median_s * 1e-12; }

/* A block of data for each scheme that the panel has; the bits of those it has. */
static unsigned put_data(FILE *f, const struct atom_gpu_line *lines, int n, const char *shape)
{
    unsigned there = 0;
    for (int s = 0; s < ATOM_GPU_N_SCHEMES; s++) {
        fprintf(f, "$s%d << EOD\n", s);
        for (int i = 0; i < n; i++)
            if (drawn(&lines[i]) && strcmp(lines[i].shape, shape) == 0 &&
                strcmp(lines[i].name, atom_gpu_scheme_names[s]) == 0) {
                fprintf(f, "%d %.6g\n", lines[i].tokens, tops(&lines[i]));
                there |= 1u << s;
            }
        fputs("EOD\n", f);
    }
    return there;
}

static void put_panel(FILE *f, const struct atom_gpu_line *lines, int n, const struct atom_gpu_line *first)
{
    unsigned there = put_data(f, lines, n, first->shape);
    fprintf(f, "set title \"{/:Bold %d rows, %d channels}%s", first->n, first->k, *first->whose ? "\\n" : "");
    for (const char *at = first->whose; *at; at++) /* gate_up: no subscript */
        fprintf(f, *at == '_' ? "\\\\%c" : "%c", strchr("\"\\\n", *at) ? ' ' : *at);
    fputs("\" font ',13'\nplot", f);
    const char *between = " ";
    for (int s = 0; s < ATOM_GPU_N_SCHEMES; s++)
        if (there >> s & 1) {
            fprintf(f, "%s$s%d using 1:2 with linespoints %s title '%s%s'", between, s, styles[s],
                    s >= ATOM_GPU_BLAS_FP16 ? "cuBLASLt " : "", atom_gpu_scheme_names[s]);
            between = ", ";
        }
    fputc('\n', f);
}

/* gnuplot's own range would begin and end anywhere: powers of ten hold all panels. */
static void put_axes(FILE *f, const struct atom_gpu_line *lines, int n)
{
    double least = INFINITY, most = 0;
    int first = 1 << 30, last = 1;
    for (int i = 0; i < n; i++)
        if (drawn(&lines[i])) {
            least = fmin(least, tops(&lines[i]));
            most = fmax(most, tops(&lines[i]));
            first = lines[i].tokens < first ? lines[i].tokens : first;
            last = lines[i].tokens > last ? lines[i].tokens : last;
        }
    if (first == last)
        last = 2 * first;
    fprintf(f, "set logscale x 2\nset logscale y 10\nset xrange [%g:%g]\nset yrange [%g:%g]\n", first * 0.85,
            last * 1.18, pow(10, floor(log10(least))), most * 1.6);
    fputs(
        "set xtics (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768) rotate by -40 scale 0 "
        "textcolor rgb '#333333'\nset ytics scale 0 nomirror textcolor rgb '#333333'\n"
        "set xlabel 'tokens' offset 0,0.6 textcolor rgb '#333333'\nset ylabel 'TOPS' offset 1,0 textcolor rgb "
        "'#333333'\n",
        f);
}

static void put_script(FILE *f, const void *data, int n)
{
    const struct atom_gpu_line *lines = data;
    int panels = 0;
    for (int i = 0; i < n; i++)
        panels += starts_panel(lines, i);
    int columns = panels > 4 ? 3 : panels > 1 ? 2 : 1, rows = (panels + columns - 1) / columns;
    char device[256];
    snprintf(device, sizeof device, "%s", lines[0].machine ? lines[0].machine->device : "");
    for (char *at = device; (at = strpbrk(at, "'\\\n"));)
        *at = ' ';
    fprintf(f, "set terminal svg size %d,%d font 'sans-serif,12' background 'white'\n", PANEL_WIDTH * columns,
            PANEL_HEIGHT * rows + FRAME_HEIGHT);
    fputs("set encoding utf8\nset style line 9 lc rgb '#DDDDDD' lt 1\nset grid xtics ytics ls 9 back\n"
          "set border 3 lc rgb '#888888'\nset key bottom right samplen 2 spacing 1.1 textcolor rgb '#333333'\n",
          f);
    put_axes(f, lines, n);
    fprintf(f,
            "set multiplot layout %d,%d title '%s: linears, weights from memory, median operations a second' "
            "font ',14' noenhanced\n",
            rows, columns, device);
    for (int i = 0; i < n; i++)
        if (starts_panel(lines, i))
            put_panel(f, lines, n, &lines[i]);
    fputs("unset multiplot\n", f);
}

enum atom_status atom_gpu_plot(const struct atom_gpu_line *lines, int n, const char *path, struct atom_error *err)
{
    const struct atom_drawing drawing = {put_script, lines, n};
    return atom_gnuplot(&drawing, path, err);
}
