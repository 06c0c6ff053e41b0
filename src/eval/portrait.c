/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/portrait.h"

#include "base/gnuplot.h"
#include "model/foreign_layer.h"
#include "model/json_read.h"
#include "model/tensor_names.h"
#include "quant/calib_windows.h"
#include "quant/calibrate.h"
#include "quant/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct painter {
    const struct atom_inspect_plot_options *opt;
    struct atom_portrait *p;
    struct atom_tensors *tensors;
    struct atom_windows windows;
    int samples, layer, ticks;
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static struct atom_site_portrait *site_of(const struct atom_portrait *p, int layer, int site)
{
    return &p->sites[layer * ATOM_N_SITES + site];
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* As atom_inspect reads them from the report; its lines come by layer and projection. */
static enum atom_status read_errors(struct painter *w, struct atom_error *err)
{
    char *text = NULL;
    json_t *root = NULL;
    size_t n = (size_t)w->p->cfg.layers * ATOM_N_PROJ;
    bool known = false;
    enum atom_status st = atom_inspect(w->opt->model, &text, err);
    st = st ? st : atom_json_parse("inspect", text, strlen(text), &root, err);
    double *errors = st ? NULL : malloc(n * sizeof *errors);
    if (!st && !errors)
        st = atom_fail_nomem(err, n * sizeof *errors);
    for (size_t i = 0; i < n && !st; i++) {
        const json_t *error = json_object_get(json_array_get(json_object_get(root, "linears"), i), "error");
        errors[i] = json_is_number(error) ? json_number_value(error) : (double)NAN;
        known |= json_is_number(error);
    }
    if (known)
        w->p->errors = errors;
    else
        free(errors);
    json_decref(root);
    free(text);
    return st;
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

static enum atom_status read_order(struct painter *w, int layer, int site, struct atom_error *err)
{
    struct atom_site_portrait *s = site_of(w->p, layer, site);
    const struct atom_tensor *t;
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.%s.order", layer, atom_site_names[site]);
    enum atom_status st = atom_tensors_need(w->tensors, name, 1u << ATOM_I32, s->k, -1, &t, err);
    s->order = st ? NULL : malloc((size_t)s->k * sizeof *s->order);
    if (!st && !s->order)
        st = atom_fail_nomem(err, (size_t)s->k * sizeof *s->order);
    if (st)
        return st;
    memcpy(s->order, t->data, (size_t)s->k * sizeof *s->order);
    for (int i = 0; i < s->k; i++)
        if (s->order[i] < 0 || s->order[i] >= s->k)
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s': %d is none of %d channels", t->file, name,
                             s->order[i], s->k);
    return ATOM_OK;
}

/* Another program's: by group where g_idx says so, else as the model has them. */
static enum atom_status read_foreign_orders(struct painter *w, int layer, struct atom_error *err)
{
    struct atom_foreign_layer foreign;
    enum atom_status st = atom_foreign_layer_open(&w->p->cfg, w->tensors, layer, &foreign, err);
    if (st)
        return st;
    for (int i = 0; i < ATOM_N_SITES; i++) {
        struct atom_site_portrait *s = site_of(w->p, layer, i);
        s->order = malloc((size_t)s->k * sizeof *s->order);
        if (!s->order)
            st = atom_fail_nomem(err, (size_t)s->k * sizeof *s->order);
        for (int j = 0; s->order && j < s->k; j++)
            s->order[j] = foreign.orders[i] ? foreign.orders[i][j] : j;
    }
    atom_foreign_layer_fini(&foreign);
    return st;
}

static enum atom_status read_orders(struct painter *w, struct atom_error *err)
{
    const struct atom_config *cfg = &w->p->cfg;
    enum atom_status st = ATOM_OK;
    bool stored = cfg->scheme.wbits < 16 || cfg->scheme.abits < 16;
    int outliers = cfg->quantized ? cfg->scheme.outliers : atom_outliers_quarter(128, atom_narrowest_site(cfg));
    w->p->ordered = outliers > 0 && (stored || !cfg->quantized);
    for (int l = 0; l < cfg->layers && !st; l++) {
        for (int i = 0; i < ATOM_N_SITES && !st; i++) {
            struct atom_site_portrait *s = site_of(w->p, l, i);
            s->k = atom_site_channels(cfg, (enum atom_site_id)i);
            s->outliers = w->p->ordered ? atom_outliers_of(outliers, s->k) : 0;
            if (stored && !cfg->foreign.format)
                st = read_order(w, l, i, err);
        }
        if (!st && cfg->foreign.format)
            st = read_foreign_orders(w, l, err);
    }
    return st;
}

/* ---- channels ---------------------------------------------------------------------------------------------------- */

static enum atom_status read_windows(struct painter *w, struct atom_error *err)
{
    const struct atom_inspect_plot_options *o = w->opt;
    const struct atom_config *cfg = &w->p->cfg;
    const struct atom_calib_file file = {.model = o->model,
                                         .cfg = cfg,
                                         .text = o->calib,
                                         .samples = o->samples ? o->samples : 8,
                                         .window = o->window                  ? o->window
                                                   : cfg->max_position < 1024 ? cfg->max_position
                                                                              : 1024,
                                         .or_fewer = true};
    enum atom_status st = atom_calib_windows(&file, &w->windows, err);
    if (st)
        return st;
    w->samples = (int)w->windows.n;
    snprintf(w->p->text, sizeof w->p->text, "%d window%s of %d tokens of %.100s", w->samples,
             w->samples == 1 ? "" : "s", file.window, base_name(o->calib));
    return ATOM_OK;
}

static bool on_tick(void *user)
{
    struct painter *w = user;
    w->ticks++;
    const struct atom_progress p = {
        .phase = "inspect", .unit = "layer", .done = (double)w->ticks / w->samples, .total = w->p->cfg.layers};
    return !w->opt->progress || w->opt->progress(w->opt->user, &p);
}

/* Energies of a layer's sites, as its acts lie, become each channel's root mean square. */
static enum atom_status keep_layer(struct painter *w, double *const energy[ATOM_N_SITES], bool stored,
                                   struct atom_error *err)
{
    double n_tok = (double)w->samples * w->windows.window;
    for (int i = 0; i < ATOM_N_SITES; i++) {
        struct atom_site_portrait *s = site_of(w->p, w->layer, i);
        char where[64];
        double all = 0, large = 0;
        s->rms = malloc((size_t)s->k * sizeof *s->rms);
        if (!s->rms)
            return atom_fail_nomem(err, (size_t)s->k * sizeof *s->rms);
        for (int j = 0; j < s->k; j++)
            s->rms[stored ? s->order[j] : j] = sqrt(energy[i][j] / n_tok);
        if (!s->order) {
            s->order = malloc((size_t)s->k * sizeof *s->order);
            snprintf(where, sizeof where, "layer %d, %s", w->layer, atom_site_names[i]);
            enum atom_status st = s->order ? atom_order_rank(where, energy[i], s->k, s->outliers, s->order, err)
                                           : atom_fail_nomem(err, (size_t)s->k * sizeof *s->order);
            if (st)
                return st;
        }
        for (int j = 0; j < s->k; j++) {
            double e = s->rms[s->order[j]] * s->rms[s->order[j]];
            all += e;
            large += j >= s->k - s->outliers ? e : 0;
        }
        s->outlier_share = all > 0 ? large / all : 0;
    }
    return ATOM_OK;
}

/* The text goes through layer by layer, weights as they are and activations not rounded. */
static enum atom_status measure(struct painter *w, struct atom_error *err)
{
    struct atom_config cfg = w->p->cfg;
    struct atom_calib *calib = NULL;
    double *energy[ATOM_N_SITES] = {0};
    cfg.scheme.abits = 16;
    const struct atom_calib_setup setup = {.cfg = &cfg,
                                           .tensors = w->tensors,
                                           .scheme = &cfg.scheme,
                                           .backend = &atom_backend_cpu,
                                           .ids = w->windows.ids.ids,
                                           .windows = w->samples,
                                           .window = w->windows.window,
                                           .tick = on_tick,
                                           .user = w};
    enum atom_status st = atom_calib_create(&setup, &calib, err);
    for (w->layer = 0; w->layer < cfg.layers && !st; w->layer++) {
        struct atom_calib_seen seen = {0};
        for (int i = 0; i < ATOM_N_SITES && !st; i++) {
            size_t k = (size_t)atom_site_channels(&cfg, (enum atom_site_id)i);
            free(energy[i]);
            energy[i] = calloc(k, sizeof *energy[i]);
            st = energy[i] ? ATOM_OK : atom_fail_nomem(err, k * sizeof *energy[i]);
            seen.energy[i] = energy[i];
        }
        struct atom_error why = {0};
        st = st ? st : atom_calib_float(calib, w->layer, &seen, &why);
        if (st == ATOM_ERR_CANCELLED)
            st = atom_fail(err, st, "the picture was stopped at layer %d", w->layer);
        st = st ? atom_fail(err, st, "%s", why.message)
                : keep_layer(w, energy, cfg.scheme.wbits < 16 || cfg.foreign.format, err);
    }
    for (int i = 0; i < ATOM_N_SITES; i++)
        free(energy[i]);
    atom_calib_free(calib);
    w->p->measured = !st;
    return st;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

enum atom_status atom_portrait_create(const struct atom_inspect_plot_options *opt, struct atom_portrait *out,
                                      struct atom_error *err)
{
    struct atom_portrait p = {.name = base_name(opt->model)};
    struct painter w = {.opt = opt, .p = &p};
    if (!atom_cpu_name())
        return atom_fail(err, ATOM_ERR_INVALID, "atom_runtime_init has not been called");
    enum atom_status st = atom_config_load(opt->model, &p.cfg, err);
    if (!st && !p.cfg.quantized && !opt->calib)
        st = atom_fail(
            err, ATOM_ERR_INVALID,
            "%s is a float model: what can be drawn is what a text's activations are like, and no calibration "
            "text was given",
            opt->model);
    st = st ? st : atom_tensors_open(opt->model, &w.tensors, err);
    st = st ? st : atom_tensors_known(&p.cfg, w.tensors, err);
    size_t n = st ? 0 : (size_t)p.cfg.layers * ATOM_N_SITES;
    p.sites = st ? NULL : calloc(n, sizeof *p.sites);
    if (!st && !p.sites)
        st = atom_fail_nomem(err, n * sizeof *p.sites);
    st = st ? st : read_errors(&w, err);
    st = st ? st : read_orders(&w, err);
    if (opt->calib) {
        st = st ? st : read_windows(&w, err);
        st = st ? st : measure(&w, err);
    }
    st = st ? st : atom_tensors_check(w.tensors, err);
    if (!st && !p.errors && !p.ordered && !p.measured)
        st = atom_fail(
            err, ATOM_ERR_INVALID,
            "%s%s%s%s has neither errors nor outliers to draw; what can be drawn is what a text's activations "
            "are like, and no calibration text was given",
            opt->model, p.cfg.foreign.format ? " (stored as " : "",
            p.cfg.foreign.format ? p.cfg.foreign.format->method : "", p.cfg.foreign.format ? ")" : "");
    atom_windows_fini(&w.windows);
    atom_tensors_close(w.tensors);
    if (st)
        atom_portrait_fini(&p);
    else
        *out = p;
    return st;
}

void atom_portrait_fini(struct atom_portrait *p)
{
    for (int i = 0; p->sites && i < p->cfg.layers * ATOM_N_SITES; i++) {
        free(p->sites[i].order);
        free(p->sites[i].rms);
    }
    free(p->sites);
    free(p->errors);
    memset(p, 0, sizeof *p);
}

enum atom_status atom_inspect_plot(const struct atom_inspect_plot_options *opt, const char *path,
                                   struct atom_error *err)
{
    struct atom_portrait p = {0};
    struct atom_drawing drawing = {atom_portrait_put, &p, 0};
    enum atom_status st = atom_gnuplot(&drawing, path, err); /* is it here? */
    st = st ? st : atom_portrait_create(opt, &p, err);
    drawing.n = 1;
    st = st ? st : atom_gnuplot(&drawing, path, err);
    atom_portrait_fini(&p);
    return st;
}
