/* SPDX-License-Identifier: Apache-2.0 */
/* atom_quantize: layer by layer from a float checkpoint to a quantized one. */
#include "model/model.h"
#include "model/tensor_names.h"
#include "quant/calib_windows.h"
#include "quant/fingerprint.h"
#include "quant/layer_quant.h"
#include "quant/partial.h"
#include "quant/scheme_sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const struct atom_quantize_options *opt;
    struct atom_scheme scheme; /* outliers settled */
    struct atom_config cfg;    /* of the float model */
    struct atom_tensors *tensors;
    struct atom_windows windows;
    struct atom_partial *partial;
    struct atom_calib *calib;
    double ticks, ticks_a_layer;
    int layer;
};

static bool tell(struct run *r, const char *note)
{
    const struct atom_progress p = {.phase = "quantize",
                                    .unit = "layer",
                                    .done = r->ticks / r->ticks_a_layer,
                                    .total = r->cfg.layers,
                                    .note = note};
    return !r->opt->progress || r->opt->progress(r->opt->user, &p);
}

static bool on_tick(void *user)
{
    struct run *r = user;
    r->ticks++;
    return tell(r, NULL);
}

static void on_note(void *user, const char *note) { tell(user, note); }

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static enum atom_status read_windows(struct run *r, struct atom_error *err)
{
    const struct atom_quantize_options *o = r->opt;
    const struct atom_calib_file file = {.model = o->model,
                                         .cfg = &r->cfg,
                                         .text = o->calib,
                                         .ids = o->calib_ids,
                                         .samples = o->samples,
                                         .window = o->window};
    return atom_calib_windows(&file, &r->windows, err);
}

/* What is no layer's is only copied, at the very end: what is wrong with it is told at the start. */
static enum atom_status check_ends(const struct run *r, struct atom_error *err)
{
    const struct {
        const char *name;
        int64_t d0, d1;
    } ends[] = {{"model.embed_tokens.weight", r->cfg.vocab, r->cfg.hidden},
                {"model.norm.weight", r->cfg.hidden, -1},
                {"lm_head.weight", r->cfg.vocab, r->cfg.hidden}};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < (r->cfg.tied ? 2 : 3) && !st; i++) {
        const struct atom_tensor *t;
        st = atom_tensors_need(r->tensors, ends[i].name, ATOM_FLOATS, ends[i].d0, ends[i].d1, &t, err);
        st = st ? st : atom_tensor_finite(t, err);
    }
    return st;
}

static enum atom_status check_options(struct run *r, struct atom_error *err)
{
    const struct atom_quantize_options *o = r->opt;
    if (!atom_cpu_name())
        return atom_fail(err, ATOM_ERR_INVALID, "atom_runtime_init has not been called");
    if (atom_cpu_kernels()->linear_bf16)
        return atom_fail(
            err, ATOM_ERR_INVALID,
            "the %s tier would make another checkpoint on another machine; quantize with one of the others",
            atom_cpu_name());
    if (!o->model || !o->out || (!o->calib == !o->calib_ids))
        return atom_fail(err, ATOM_ERR_INVALID, "quantize needs a model, an output and one calibration file");
    if (o->samples < 1 || o->samples > 1 << 20 || o->window < 2 || o->window > 1 << 20)
        return atom_fail(err, ATOM_ERR_INVALID, "%d samples of %d tokens are out of range", o->samples, o->window);
    enum atom_status st = atom_config_load(o->model, &r->cfg, err);
    if (st)
        return st;
    if (r->cfg.quantized)
        return atom_fail(err, ATOM_ERR_INVALID, "%s is quantized already", o->model);
    st = atom_scheme_settle(&r->cfg, o->fit, &r->scheme, err);
    st = st ? st : atom_scheme_check(&r->scheme, r->cfg.head_dim, err);
    st = st ? st : atom_tensors_open(o->model, &r->tensors, err);
    st = st ? st : atom_tensors_known(&r->cfg, r->tensors, err);
    st = st ? st : check_ends(r, err);
    return st ? st : read_windows(r, err);
}

/* ---- layers ------------------------------------------------------------------------------------------------------ */

static enum atom_status one_layer(struct run *r, struct atom_error *err)
{
    struct atom_layer_quant lq;
    struct atom_layer_quant_setup setup = {.cfg = &r->cfg,
                                           .tensors = r->tensors,
                                           .scheme = &r->scheme,
                                           .backend = &atom_backend_cpu,
                                           .calib = r->calib,
                                           .note = on_note,
                                           .user = r};
    enum atom_status st = atom_layer_quantize(&setup, r->layer, &lq, err);
    if (st)
        return st;
    st = atom_partial_put_layer(r->partial, r->layer, lq.pack.at, lq.pack.n, lq.report, lq.n_report, err);
    st = st ? st : atom_calib_advance(r->calib, r->layer, &lq.layer, err);
    atom_layer_quant_fini(&lq);
    return st;
}

/* Brings the windows to where an earlier run stopped, through the layers it left. */
static enum atom_status catch_up(struct run *r, struct atom_error *err)
{
    struct atom_tensors *done = NULL;
    struct atom_layer layer;
    int next = atom_partial_next(r->partial);
    if (next == 0 || next == r->cfg.layers)
        return ATOM_OK;
    enum atom_status st = atom_tensors_open(atom_partial_dir(r->partial), &done, err);
    for (r->layer = 0; r->layer < next && !st; r->layer++) {
        struct atom_layer_source src = {.cfg = &r->cfg, .tensors = done, .scheme = r->scheme};
        st = atom_calib_float(r->calib, r->layer, NULL, err);
        st = st ? st : atom_layer_load(&atom_backend_cpu, &src, r->layer, &layer, err);
        if (st)
            break;
        st = atom_calib_advance(r->calib, r->layer, &layer, err);
        atom_layer_fini(&layer);
        r->ticks = (r->layer + 1) * r->ticks_a_layer;
    }
    atom_tensors_close(done);
    return st;
}

static enum atom_status all_layers(struct run *r, struct atom_error *err)
{
    const struct atom_calib_setup setup = {.cfg = &r->cfg,
                                           .tensors = r->tensors,
                                           .scheme = &r->scheme,
                                           .backend = &atom_backend_cpu,
                                           .ids = r->windows.ids.ids,
                                           .windows = r->opt->samples,
                                           .window = r->opt->window,
                                           .keep_exact = atom_layer_quant_keeps_exact(&r->scheme),
                                           .tick = on_tick,
                                           .user = r};
    if (atom_partial_next(r->partial) == r->cfg.layers)
        return ATOM_OK;
    r->ticks_a_layer = (double)r->opt->samples * atom_layer_quant_passes(&r->scheme);
    enum atom_status st = atom_calib_create(&setup, &r->calib, err);
    st = st ? st : catch_up(r, err);
    for (r->layer = atom_partial_next(r->partial); !st && r->layer < r->cfg.layers; r->layer++) {
        st = one_layer(r, err);
        r->ticks = (r->layer + 1) * r->ticks_a_layer;
    }
    return st;
}

/* ---- what is no layer's ------------------------------------------------------------------------------------------ */

static enum atom_status add_head(struct run *r, struct atom_pack *pack, struct atom_report_line *line, int *n_lines,
                                 struct atom_error *err)
{
    const char *name = r->cfg.tied ? "model.embed_tokens.weight" : "lm_head.weight";
    const struct atom_weight_options wo = {.bits = 8, .rows_per_scale = 1, .clip = 1};
    const struct atom_tensor *t;
    struct atom_qlinear *q = NULL;
    int n = r->cfg.vocab, k = r->cfg.hidden;
    enum atom_status st = atom_tensors_need(r->tensors, name, ATOM_FLOATS, n, k, &t, err);
    if (st || r->scheme.lm_head_bits == 16)
        return st ? st : r->cfg.tied ? ATOM_OK : atom_pack_tensor(pack, t, NULL, err);
    float *w = malloc((size_t)n * (size_t)k * sizeof *w);
    if (!w)
        return atom_fail_nomem(err, (size_t)n * (size_t)k * sizeof *w);
    atom_tensor_floats(t, 0, (size_t)n * (size_t)k, w);
    st = atom_quantize_rtn("lm_head.weight", w, n, k, &wo, NULL, &q, err);
    st = st ? st : atom_qlinear_error(q, w, NULL, &line->error, err);
    st = st ? st : atom_pack_head(pack, "lm_head", q, err);
    line->name = "lm_head";
    line->bits = st ? 0 : atom_qlinear_bits(q);
    *n_lines = 1;
    atom_qlinear_free(q);
    free(w);
    return st;
}

static enum atom_status finish(struct run *r, struct atom_error *err)
{
    static const char *const kept[] = {"model.embed_tokens.weight", "model.norm.weight"};
    struct atom_pack pack = {0};
    struct atom_report_line line = {0};
    int n_lines = 0;
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < 2 && !st; i++)
        st = atom_pack_tensor(&pack, atom_tensors_find(r->tensors, kept[i]), NULL, err);
    st = st ? st : add_head(r, &pack, &line, &n_lines, err);
    st = st ? st : atom_tensors_check(r->tensors, err);
    st = st ? st : atom_partial_finish(r->partial, &r->scheme, pack.at, pack.n, &line, n_lines, err);
    atom_pack_fini(&pack);
    return st;
}

/* `options` holds 512 bytes. */
static struct atom_partial_run partial_run(const struct run *r, char *options)
{
    const struct atom_quantize_options *o = r->opt;
    atom_fingerprint_options(&r->scheme, o->samples, o->window, options);
    return (struct atom_partial_run){.model = o->model,
                                     .calib = o->calib ? o->calib : o->calib_ids,
                                     .out = o->out,
                                     .options = options,
                                     .layers = r->cfg.layers,
                                     .resume = o->resume,
                                     .overwrite = o->overwrite};
}

static void close_inputs(struct run *r)
{
    atom_windows_fini(&r->windows);
    atom_tensors_close(r->tensors);
}

enum atom_status atom_quantize_check(const struct atom_quantize_options *opt, struct atom_quantize_found *out,
                                     struct atom_error *err)
{
    struct run r = {.opt = opt, .scheme = opt->scheme};
    char options[512];
    enum atom_status st = check_options(&r, err);
    if (!st) {
        const struct atom_partial_run pr = partial_run(&r, options);
        st = atom_partial_look(&pr, out, err);
    }
    close_inputs(&r);
    return st;
}

enum atom_status atom_quantize(const struct atom_quantize_options *opt, struct atom_error *err)
{
    struct run r = {.opt = opt, .scheme = opt->scheme, .ticks_a_layer = 1};
    char options[512];
    enum atom_status st = check_options(&r, err);
    if (!st) {
        const struct atom_partial_run pr = partial_run(&r, options);
        st = atom_partial_open(&pr, &r.partial, err);
    }
    st = st ? st : all_layers(&r, err);
    st = st ? st : finish(&r, err);
    atom_calib_free(r.calib);
    atom_partial_close(r.partial);
    close_inputs(&r);
    return st;
}
