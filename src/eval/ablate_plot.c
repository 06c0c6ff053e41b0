/* SPDX-License-Identifier: Apache-2.0 */
/* Bars of what perplexity a rung adds to the float model's, a panel for each ladder. */
#include "base/gnuplot.h"

#include <math.h>
#include <stdlib.h>

enum { PANEL_WIDTH = 660, ROW_HEIGHT = 27, FRAME_HEIGHT = 155 };

/* The range of a panel. Rounding to nearest alone is so far out that all others would be one: what is much larger than
 * the middle of them is cut off, and says so. */
struct range {
    double from, to;
};

static int panel_end(const struct atom_ablate_row *rows, int n, int first)
{
    int i = first;
    while (i < n && rows[i].bits == rows[first].bits && (i == first || rows[i].rung > rows[i - 1].rung))
        i++;
    return i;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct range range_of(const struct atom_ablate_row *rows, int n)
{
    double above[64];
    int count = 0;
    struct range r = {rows[0].rung == 0 && !rows[0].why ? rows[0].ppl.ppl : 0, 0};
    for (int i = 0; i < n && count < 64; i++)
        if (!rows[i].why && rows[i].ppl.ppl > r.from)
            above[count++] = rows[i].ppl.ppl - r.from;
    qsort(above, (size_t)count, sizeof above[0], compare);
    double most = 0;
    for (int i = 0; i < count && above[i] <= 5 * above[count / 2]; i++)
        most = above[i];
    r.to = r.from + (most > 0 ? most : 1) * 1.3;
    return r;
}

/* One bar: its place, end and colour, what it is, and a label beside it, or inside when it is cut off. */
static void put_row(FILE *f, const struct atom_ablate_row *row, int place, bool ours, double to)
{
    int n;
    const struct atom_rung *rung = &atom_rungs(&n)[row->rung];
    double ppl = row->why ? INFINITY : row->ppl.ppl;
    bool cut = ppl > to;
    char value[64] = "not finite", recipe[48] = "";
    if (!row->why)
        snprintf(value, sizeof value, ppl < 1000 ? "%.2f" : ppl < 1e7 ? "%.0f" : "%.2e", ppl);
    if (rung->recipe && row->bits == 4)
        snprintf(recipe, sizeof recipe, "  {/:Bold recipe %s}", rung->recipe);
    fprintf(f, "%d\t%.6g\t%d\t%s\t%s%s\t%s%s\n", place, cut ? to : ppl, ours ? 2 : 1, rung->adds, cut ? " " : value,
            cut ? "" : recipe, cut ? value : " ", cut ? " →" : "");
}

static void put_rows(FILE *f, const struct atom_ablate_row *rows, int n, double to)
{
    int n_rungs;
    const struct atom_rung *rungs = atom_rungs(&n_rungs);
    fprintf(f, "$rows << EOD\n");
    for (int i = 0; i < n; i++) {
        bool ours = false;
        for (int j = 0; j < rows[i].rung; j++)
            ours |= rungs[j].recipe != NULL;
        put_row(f, &rows[i], i, ours, to);
    }
    fprintf(f, "EOD\n");
}

static void put_panel(FILE *f, const struct atom_ablate_row *rows, int n)
{
    const struct range range = range_of(rows, n);
    put_rows(f, rows, n, range.to);
    fprintf(f, "set title '{/:Bold W%dA%d}' font ',14'\nset xrange [%.6g:%.6g]\nset yrange [%.1f:-0.6]\n", rows[0].bits,
            rows[0].bits, range.from, range.to, n - 0.4);
    fprintf(f, "set xlabel \"%s\" textcolor rgb '#333333'\n",
            range.from > 0 ? "perplexity; bars begin at the float model's" : "perplexity");
    fprintf(f,
            "plot $rows using (%.6g):1:(%.6g):2:($1-0.34):($1+0.34):($3):ytic(4) with boxxyerror fs solid noborder lc "
            "variable notitle, '' using 2:1:5 with labels left offset 0.6,0 tc rgb '#222222' notitle, "
            "'' using 2:1:6 with labels right offset -0.6,0 tc rgb 'white' notitle, "
            "NaN with boxes fs solid noborder lc 1 title \"up to the paper's recipe\", "
            "NaN with boxes fs solid noborder lc 2 title 'on to the default'\n",
            range.from, range.from);
}

struct ladders {
    const struct atom_ablate_row *rows;
    const char *title;
};

static void put_script(FILE *f, const void *data, int n)
{
    const struct ladders *l = data;
    const struct atom_ablate_row *rows = l->rows;
    int panels = 0, most = 0;
    for (int i = 0, end; i < n; i = end) {
        end = panel_end(rows, n, i);
        most = end - i > most ? end - i : most;
        panels++;
    }
    fprintf(f, "set terminal svg size %d,%d font 'sans-serif,13' background 'white'\n", PANEL_WIDTH * panels,
            FRAME_HEIGHT + ROW_HEIGHT * most);
    fputs("set encoding utf8\nset linetype 1 lc rgb '#0072B2'\nset linetype 2 lc rgb '#E69F00'\n"
          "set style line 9 lc rgb '#DDDDDD' lt 1\nset grid xtics ls 9 back\nset border 2 lc rgb '#888888'\n"
          "set xtics scale 0 textcolor rgb '#333333'\nset ytics scale 0 nomirror textcolor rgb '#333333'\n"
          "set key at screen 0.5, screen 0.03 center bottom horizontal Left reverse samplen 1 maxcols 2\nset datafile "
          "separator \"\\t\"\nset rmargin 6\nset "
          "bmargin 5\n",
          f);
    fprintf(f, "set multiplot layout 1,%d title '", panels);
    atom_gnuplot_text(f, l->title);
    fputs("' font ',14' noenhanced\n", f);
    for (int i = 0, end; i < n; i = end) {
        end = panel_end(rows, n, i);
        put_panel(f, &rows[i], end - i);
        fputs("unset key\n", f); /* one is enough */
    }
    fputs("unset multiplot\n", f);
}

enum atom_status atom_ablate_plot(const struct atom_ablate_row *rows, int n, const char *title, const char *path,
                                  struct atom_error *err)
{
    const struct ladders ladders = {rows, title};
    const struct atom_drawing drawing = {put_script, &ladders, n};
    return atom_gnuplot(&drawing, path, err);
}
