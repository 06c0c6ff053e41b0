/* SPDX-License-Identifier: Apache-2.0 */
/* Bars of shares, a panel for each shape. */
#include "bench/bench.h"

#include "base/gnuplot.h"
#include "bench/machine.h"

#include <stdio.h>
#include <string.h>

enum { PANEL_WIDTH = 620, ROW_HEIGHT = 30, FRAME_HEIGHT = 170 };

static bool same_shape(const struct atom_bench_line *a, const struct atom_bench_line *b)
{
    return strcmp(a->shape, b->shape) == 0;
}

/* The first line of the next panel. */
static int panel_end(const struct atom_bench_line *lines, int n, int first)
{
    int i = first;
    while (i < n && same_shape(&lines[i], &lines[first]))
        i++;
    return i;
}

static void put_row(FILE *f, const struct atom_bench_line *l, int row)
{
    bool decode = strcmp(l->name, "decode") == 0;
    char what[80];
    if (decode && l->batch > 1)
        snprintf(what, sizeof what, "decode %d at once, depth %d", l->batch, l->depth);
    else
        snprintf(what, sizeof what, "%s%.0d, depth %d", decode ? "decode" : "prefill ", decode ? 0 : l->tokens,
                 l->depth);
    fprintf(f, "%d\t%.2f\t%d\t%s\t%.1f %%   %.*f tok/s\n", row, 100 * l->share, decode ? 2 : 1, what, 100 * l->share,
            l->tok_s < 100 ? 1 : 0, l->tok_s);
}

static void put_rows(FILE *f, const struct atom_bench_line *lines, int n)
{
    int row = 0;
    fprintf(f, "$rows << EOD\n");
    for (int decode = 0; decode < 2; decode++)
        for (int i = 0; i < n; i++)
            if ((strcmp(lines[i].name, "decode") == 0) == decode)
                put_row(f, &lines[i], row++);
    fprintf(f, "EOD\n");
}

static void put_panel(FILE *f, const struct atom_bench_line *lines, int n)
{
    const struct atom_bench_line *l = lines;
    put_rows(f, lines, n);
    fprintf(f, "set title \"{/:Bold %s shape}, W%dA%dKV%d\" font ',14'\n", l->shape, l->wbits, l->abits, l->kv);
    fprintf(f, "set yrange [%.1f:-0.5]\n", n - 0.5);
    fputs("plot $rows using (0):1:(0):2:($1-0.34):($1+0.34):($3):ytic(4) with boxxyerror fs solid noborder lc variable "
          "notitle, '' using 2:1:5 with labels left offset 0.6,0 tc rgb '#333333' notitle, "
          "NaN with boxes fs solid noborder lc 1 title 'prefill, of int8 peak', "
          "NaN with boxes fs solid noborder lc 2 title 'decode, of read bandwidth'\n",
          f);
}

static void put_script(FILE *f, const void *data, int n)
{
    const struct atom_bench_line *lines = data;
    int panels = 0, rows = 0;
    char machine[64];
    snprintf(machine, sizeof machine, "%s", atom_machine_name());
    for (char *at = machine; (at = strpbrk(at, "'\\\n"));)
        *at = ' ';
    for (int i = 0, end; i < n; i = end) {
        end = panel_end(lines, n, i);
        rows = end - i > rows ? end - i : rows;
        panels++;
    }
    fprintf(f, "set terminal svg size %d,%d font 'sans-serif,13' background 'white'\n", PANEL_WIDTH * panels,
            FRAME_HEIGHT + ROW_HEIGHT * rows);
    fputs("set encoding utf8\nset linetype 1 lc rgb '#4C78A8'\nset linetype 2 lc rgb '#F58518'\n"
          "set style line 9 lc rgb '#DDDDDD' lt 1\nset grid xtics ls 9 back\nset border 2 lc rgb '#888888'\n"
          "set xrange [0:100]\nset xtics 0,20,100 scale 0 textcolor rgb '#333333'\n"
          "set ytics scale 0 nomirror textcolor rgb '#333333'\n"
          "set xlabel 'percent of the ceiling' textcolor rgb '#333333'\nset key below center horizontal samplen 1\n"
          "set datafile separator \"\\t\"\nset rmargin 14\nset bmargin 6\n",
          f);
    fprintf(f, "set multiplot layout 1,%d title '%s, %s, %d thread%s' font ',12' noenhanced\n", panels, machine,
            atom_runtime_cpu(), lines[0].threads, lines[0].threads == 1 ? "" : "s");
    for (int i = 0, end; i < n; i = end) {
        end = panel_end(lines, n, i);
        put_panel(f, &lines[i], end - i);
    }
    fputs("unset multiplot\n", f);
}

enum atom_status atom_bench_plot(const struct atom_bench_line *lines, int n, const char *path, struct atom_error *err)
{
    const struct atom_drawing drawing = {put_script, lines, n};
    return atom_gnuplot(&drawing, path, err);
}
