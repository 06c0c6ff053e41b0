/* SPDX-License-Identifier: Apache-2.0 */
/* The page that shows a portrait. Above, a row for each layer: errors of its linears, where its outliers lie, the share
 * of energy they have. Below, channel sizes: a row of panels for each layer, a column for each site. */
#include "base/gnuplot.h"
#include "eval/portrait.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Pixels; from the top left. */
enum { WIDTH = 1280, LEFT = 70, RIGHT = 24, GAP = 14, SECTION_GAP = 44, TOP = 66, HEAD = 62, FOOT = 44 };
enum { ERROR_CELL = 54, SHARE_CELL = 56 };
enum { BINS = 128 };

static const char *const proj_heads[ATOM_N_PROJ] = {"q", "k", "v", "o", "gate", "up", "down"};

struct page {
    FILE *f;
    const struct atom_portrait *p;
    int height;
    int row, map_height;    /* of the table above: a layer's row, all of them; 0: there is no table */
    int panel, panels_from; /* of the panels below: height of a row, where they begin */
};

struct box {
    double x, y, w, h;
};

/* ---- what gnuplot is told --------------------------------------------------------------------------------------- */

static void put_frame(const struct page *g, const struct box *b)
{
    fprintf(g->f,
            "set lmargin at screen %.6f\nset rmargin at screen %.6f\nset tmargin at screen %.6f\nset bmargin at screen "
            "%.6f\n",
            b->x / WIDTH, (b->x + b->w) / WIDTH, 1 - b->y / g->height, 1 - (b->y + b->h) / g->height);
}

/* A label at a place of the page, drawn with the next plot. */
static void put_text(const struct page *g, double x, double y, const char *how, const char *text)
{
    fprintf(g->f, "set label '");
    atom_gnuplot_text(g->f, text);
    fprintf(g->f, "' at screen %.6f, screen %.6f %s noenhanced\n", x / WIDTH, 1 - y / g->height, how);
}

/* From white to dark blue. */
static unsigned shade(double share)
{
    static const double light[3] = {247, 251, 255}, middle[3] = {107, 174, 214}, dark[3] = {8, 48, 107};
    double t = share < 0 ? 0 : share > 1 ? 1 : share;
    unsigned color = 0;
    for (int i = 0; i < 3; i++) {
        double c =
            t < 0.5 ? light[i] + (middle[i] - light[i]) * 2 * t : middle[i] + (dark[i] - middle[i]) * (2 * t - 1);
        color = color << 8 | (unsigned)lrint(c);
    }
    return color;
}

static void put_layer_axis(const struct page *g, bool named)
{
    int layers = g->p->cfg.layers;
    fprintf(g->f, "set yrange [%.1f:-0.5]\n", layers - 0.5);
    if (named)
        fprintf(g->f, "set ytics 0,%d,%d scale 0 nomirror offset 0.5,0 font ',11' tc rgb '#333333'\n",
                g->row < 14 && layers > 1 ? 2 : 1, layers);
    else
        fputs("unset ytics\n", g->f);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

struct cells {
    const char *title;
    const char *const *heads;
    int columns;
    const double *at; /* [layers, columns], shown as percent */
    double dark;      /* the value of the darkest cell */
};

static void put_cells(const struct page *g, const struct box *b, const struct cells *c, bool named)
{
    put_frame(g, b);
    put_text(g, b->x, b->y - 30, "left font ',13'", c->title);
    put_layer_axis(g, named);
    fprintf(g->f, "set xrange [-0.5:%.1f]\nunset xtics\n", c->columns - 0.5);
    for (int i = 0; i < c->columns; i++)
        put_text(g, b->x + (i + 0.5) * b->w / c->columns, b->y - 10, "center font ',11' tc rgb '#333333'", c->heads[i]);
    fputs("$cells << EOD\n", g->f);
    for (int i = 0; i < g->p->cfg.layers * c->columns; i++) {
        double v = c->at[i], share = v / c->dark;
        if (isfinite(v))
            fprintf(g->f, "%d %d %u %.*f %u\n", i % c->columns, i / c->columns, shade(0.85 * share), v < 0.0995 ? 2 : 1,
                    100 * v, share > 0.68 ? 0xFFFFFFu : 0x222222u);
    }
    fputs("EOD\n"
          "plot $cells using 1:2:($1-0.48):($1+0.48):($2-0.46):($2+0.46):3 with boxxyerror fs solid noborder lc rgb "
          "variable notitle, '' using 1:2:4:5 with labels font ',11' tc rgb variable notitle\nunset label\n",
          g->f);
}

static void put_errors(const struct page *g, const struct box *b)
{
    struct cells c = {"Error of each linear, %", proj_heads, ATOM_N_PROJ, g->p->errors, 1e-9};
    for (int i = 0; i < g->p->cfg.layers * ATOM_N_PROJ; i++)
        c.dark = fmax(c.dark, isfinite(c.at[i]) ? c.at[i] : 0);
    put_cells(g, b, &c, true);
}

static void put_shares(const struct page *g, const struct box *b, double *at)
{
    for (int i = 0; i < g->p->cfg.layers * ATOM_N_SITES; i++)
        at[i] = g->p->sites[i].outlier_share;
    const struct cells c = {"Energy in the outliers, %", atom_site_names, ATOM_N_SITES, at, 1};
    put_cells(g, b, &c, false);
}

/* How many of a site's outliers lie in each of `bins` shares of its channels. */
static void put_places(FILE *f, const struct atom_site_portrait *s, int layer, int bins)
{
    int *count = calloc((size_t)bins, sizeof *count);
    if (!count)
        return;
    for (int i = s->k - s->outliers; i < s->k; i++)
        count[(int64_t)s->order[i] * bins / s->k]++;
    double width = (double)s->k / bins;
    for (int i = 0; i < bins; i++)
        if (count[i])
            fprintf(f, "%.1f %.1f %d %u\n", i * width, (i + 1) * width, layer,
                    shade(0.35 + 0.65 * fmin(1, count[i] / fmax(1, width))));
    free(count);
}

static void put_map(const struct page *g, const struct box *b, int site, bool named)
{
    const struct atom_portrait *p = g->p;
    int k = p->sites[site].k, bins = k < (int)b->w ? k : (int)b->w;
    char head[64];
    put_frame(g, b);
    snprintf(head, sizeof head, "%s, %d", atom_site_names[site], k);
    put_text(g, b->x + b->w / 2, b->y - 10, "center font ',11' tc rgb '#333333'", head);
    put_layer_axis(g, named);
    fprintf(g->f, "set xrange [0:%d]\nunset xtics\n$places << EOD\n", k);
    for (int l = 0; l < p->cfg.layers; l++)
        put_places(g->f, &p->sites[l * ATOM_N_SITES + site], l, bins);
    fputs("EOD\nset border 15 lc rgb '#BBBBBB'\n"
          "plot $places using 1:3:1:2:($3-0.46):($3+0.46):4 with boxxyerror fs solid noborder lc rgb variable "
          "notitle\nunset label\nset border 0\n",
          g->f);
}

static void put_maps(const struct page *g, const struct box *b, bool named)
{
    struct box one = {b->x, b->y, (b->w - 3 * GAP) / ATOM_N_SITES, b->h};
    put_text(g, b->x, b->y - 30, "left font ',13'", "Which channels are outliers (darker: more of them)");
    for (int i = 0; i < ATOM_N_SITES; i++) {
        put_map(g, &one, i, named && i == 0);
        one.x += one.w + GAP;
    }
}

static void put_table(const struct page *g, double *scratch)
{
    const struct atom_portrait *p = g->p;
    double errors = p->errors ? ERROR_CELL * ATOM_N_PROJ : 0;
    double shares = p->measured && p->ordered ? SHARE_CELL * ATOM_N_SITES : 0;
    struct box b = {LEFT, TOP + HEAD, errors, g->map_height};
    put_text(g, LEFT - 8, TOP + HEAD - 10, "right font ',11' tc rgb '#333333'", "layer");
    if (p->errors) {
        put_errors(g, &b);
        b.x += b.w + SECTION_GAP;
    }
    if (!p->ordered)
        return;
    b.w = WIDTH - RIGHT - b.x - (shares > 0 ? shares + SECTION_GAP : 0);
    put_maps(g, &b, !p->errors);
    if (shares > 0) {
        b.x += b.w + SECTION_GAP;
        b.w = shares;
        put_shares(g, &b, scratch);
    }
}

/* ---- panels ------------------------------------------------------------------------------------------------------ */

struct range {
    double from, to;
};

/* Of a site in all layers. Channels that are hardly ever anything but 0 would make the rest flat. */
static struct range range_of(const struct atom_portrait *p, int site)
{
    struct range r = {INFINITY, 0};
    for (int l = 0; l < p->cfg.layers; l++) {
        const struct atom_site_portrait *s = &p->sites[l * ATOM_N_SITES + site];
        for (int i = 0; i < s->k; i++)
            r.to = fmax(r.to, s->rms[i]);
    }
    r.to = r.to > 0 ? r.to : 1;
    for (int l = 0; l < p->cfg.layers; l++) {
        const struct atom_site_portrait *s = &p->sites[l * ATOM_N_SITES + site];
        for (int i = 0; i < s->k; i++)
            if (s->rms[i] > 1e-4 * r.to)
                r.from = fmin(r.from, s->rms[i]);
    }
    return (struct range){r.from * 0.7, r.to * 1.6};
}

/* Powers of ten times each of `steps` [n] that lie in the range; *marks has room for as many as there are. */
static int find_ticks(const struct range *r, const double *steps, int n, double marks[64])
{
    int found = 0;
    for (double ten = pow(10, floor(log10(r->from))); ten <= r->to; ten *= 10)
        for (int i = 0; i < n; i++)
            if (ten * steps[i] >= r->from && ten * steps[i] <= r->to && found < 64)
                marks[found++] = ten * steps[i];
    return found;
}

/* One label alone says nothing of a logarithmic axis: where a range has fewer than two powers of ten, what lies between
 * them. Every range is wide enough for two of the last row. */
static void put_ticks(FILE *f, const struct range *r)
{
    static const double steps[][10] = {{1}, {1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9}};
    static const int n_steps[] = {1, 3, 10};
    double marks[64];
    int row = 0, n = find_ticks(r, steps[0], 1, marks);
    while (n < 2 && row < 2) {
        row++;
        n = find_ticks(r, steps[row], n_steps[row], marks);
    }
    int most = row < 2 ? 5 : 3, every = (n - 1) / most + 1; /* the last row's are not evenly apart */
    fputs("set ytics (", f);
    for (int i = 0; i < n; i += every) {
        int exponent = (int)floor(log10(marks[i]) + 1e-9);
        bool plain = row > 0 && exponent >= -2 && exponent <= 3;
        fprintf(f, i ? ", '" : "'");
        if (plain)
            fprintf(f, "%g", marks[i]);
        else if (row > 0)
            fprintf(f, "%g·10^{%d}", marks[i] / pow(10, exponent), exponent);
        else
            fprintf(f, "10^{%d}", exponent);
        fprintf(f, "' %.6g", marks[i]);
    }
    fputs(") scale 0 nomirror font ',10' offset 0.7,0 tc rgb '#333333'\n", f);
}

/* The largest of each share of n channels: place, size. */
static void put_curve(FILE *f, const struct atom_site_portrait *s, bool by_size, int first, int last,
                      const struct range *r)
{
    int n = last - first, bins = n < BINS ? n : BINS;
    for (int i = 0; i < bins; i++) {
        int from = first + (int)((int64_t)i * n / bins), to = first + (int)((int64_t)(i + 1) * n / bins);
        double most = r->from;
        for (int j = from; j < to; j++)
            most = fmax(most, s->rms[by_size ? s->order[j] : j]);
        fprintf(f, "%.1f %.5g\n", (double)from, most);
        if (!by_size || i == bins - 1)
            fprintf(f, "%.1f %.5g\n", (double)to, most);
    }
}

static void put_panel(const struct page *g, const struct box *b, int layer, int site, const struct range *r)
{
    const struct atom_site_portrait *s = &g->p->sites[layer * ATOM_N_SITES + site];
    char text[64];
    put_frame(g, b);
    if (site == 0) {
        snprintf(text, sizeof text, "%d", layer);
        put_text(g, b->x - 40, b->y + b->h / 2, "right font ',12'", text);
    }
    fputs("$natural << EOD\n", g->f);
    put_curve(g->f, s, false, 0, s->k, r);
    fputs("EOD\n$sorted << EOD\n", g->f);
    put_curve(g->f, s, true, 0, s->k - s->outliers, r);
    fputs("EOD\n$outliers << EOD\n", g->f);
    put_curve(g->f, s, true, s->k - s->outliers, s->k, r);
    fputs("EOD\n", g->f);
    fprintf(g->f, "set xrange [0:%d]\nset yrange [%.4g:%.4g]\n", s->k, r->from, r->to);
    fprintf(g->f,
            "plot $natural using 1:2:(%.4g) with filledcurves fs solid noborder lc rgb '#C8C8C8' notitle, $sorted with "
            "lines lw 2 lc rgb '#0072B2' notitle",
            r->from);
    if (s->outliers)
        fputs(", $outliers with lines lw 2.5 lc rgb '#D55E00' notitle", g->f);
    fputs("\nunset label\n", g->f);
}

static void put_legend(const struct page *g, double y)
{
    static const struct {
        const char *color, *text;
        double x;
    } entries[] = {{"#C8C8C8", "channels as the model has them (the largest of each column)", 0},
                   {"#0072B2", "in stored order", 420},
                   {"#D55E00", "outliers", 560}};
    for (int i = 0; i < (g->p->ordered ? 3 : 2); i++) {
        char how[64];
        snprintf(how, sizeof how, "left font ',16' tc rgb '%s'", entries[i].color);
        put_text(g, LEFT + entries[i].x, y, how, "■");
        put_text(g, LEFT + entries[i].x + 18, y, "left font ',11' tc rgb '#333333'", entries[i].text);
    }
}

static void put_panels(const struct page *g)
{
    const struct atom_portrait *p = g->p;
    double step = (WIDTH - LEFT - RIGHT + 40.0) / ATOM_N_SITES;
    char title[240];
    snprintf(title, sizeof title, "Root mean square of each channel on %s", p->text);
    put_text(g, LEFT, g->panels_from + 16, "left font ',13'", title);
    put_legend(g, g->panels_from + 38);
    put_text(g, 6, g->panels_from + HEAD + 12, "left font ',11' tc rgb '#333333'", "layer");
    fputs("set border 3 lc rgb '#BBBBBB'\nset yrange [1:10]\nset logscale y\n", g->f);
    for (int i = 0; i < ATOM_N_SITES; i++) {
        struct range r = range_of(p, i);
        struct box b = {LEFT + i * step, g->panels_from + HEAD + 24, step - 40, g->panel - 12};
        put_text(g, b.x + b.w / 2, b.y - 12, "center font ',12'", atom_site_names[i]);
        put_ticks(g->f, &r);
        for (int l = 0; l < p->cfg.layers; l++) {
            if (l == p->cfg.layers - 1)
                fprintf(g->f, "set xtics ('0' 0, 'channel' %g, '%d' %d) scale 0 nomirror font ',10' tc rgb '#333333'\n",
                        p->sites[i].k / 2.0, p->sites[i].k, p->sites[i].k);
            else
                fputs("unset xtics\n", g->f);
            put_panel(g, &b, l, i, &r);
            b.y += g->panel;
        }
    }
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void lay_out(struct page *g)
{
    int layers = g->p->cfg.layers;
    bool table = g->p->errors || g->p->ordered;
    g->row = layers <= 48 ? 22 : 14;
    g->map_height = table ? g->row * layers : 0;
    g->panel = layers <= 12 ? 84 : layers <= 40 ? 62 : 50;
    g->panels_from = TOP + (table ? HEAD + g->map_height + 30 : 0);
    g->height = g->panels_from + (g->p->measured ? HEAD + 24 + g->panel * layers : 0) + FOOT;
}

static void describe(const struct atom_portrait *p, char *buf, size_t n_bytes)
{
    const struct atom_scheme *s = &p->cfg.scheme;
    int n = p->cfg.quantized ? snprintf(buf, n_bytes, "%d / %d / %d bits", s->wbits, s->abits, s->kvbits)
                             : snprintf(buf, n_bytes, "float");
    if (p->ordered && n > 0 && (size_t)n < n_bytes)
        snprintf(buf + n, n_bytes - (size_t)n, ", %d outlier channels a site%s", p->sites[0].outliers,
                 p->cfg.quantized ? "" : " (as the recipes choose)");
}

void atom_portrait_put(FILE *script, const void *portrait, int n)
{
    struct page g = {.f = script, .p = portrait};
    char text[160];
    (void)n;
    double *scratch = malloc((size_t)g.p->cfg.layers * ATOM_N_SITES * sizeof *scratch);
    if (!scratch)
        return;
    lay_out(&g);
    fprintf(script, "set terminal svg size %d,%d font 'sans-serif,12' background 'white'\n", WIDTH, g.height);
    fputs("set encoding utf8\nset border 0\nunset key\nset multiplot\n", script);
    put_text(&g, LEFT, 24, "left font ',17'", g.p->name);
    describe(g.p, text, sizeof text);
    put_text(&g, LEFT, 46, "left font ',12' tc rgb '#333333'", text);
    if (g.map_height)
        put_table(&g, scratch);
    if (g.p->measured)
        put_panels(&g);
    fputs("unset multiplot\n", script);
    free(scratch);
}
