/* SPDX-License-Identifier: Apache-2.0 */
/* Climbs the ladder: a checkpoint and its perplexity for each rung. */
#include "base/clock.h"
#include "base/file.h"
#include "eval/ablate_dir.h"
#include "eval/ladder.h"
#include "model/layer.h"
#include "model/windows.h"
#include "quant/calib_windows.h"
#include "quant/checksums.h"
#include "quant/fingerprint.h"
#include "quant/order.h"
#include "quant/scheme_sizes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct climb {
    struct atom_ablate_options opt; /* with no zeros left */
    struct atom_config cfg;
    int outliers;
    uint64_t model_hash, calib_hash, text_hash;
    struct atom_ablate_dir *dir;
    const struct atom_rung *rungs;
    int n_rungs, rung, done, total; /* rungs asked for */
    char damage[500];               /* of the rung's kept checkpoint; "" */
};

/* ---- what is checked before hours go by -------------------------------------------------------------------------- */

static enum atom_status check_text(const struct climb *c, struct atom_error *err)
{
    const struct atom_ablate_options *o = &c->opt;
    struct atom_tokenizer *tok = NULL;
    struct atom_windows w = {0};
    struct atom_error why = {0};
    enum atom_status st = atom_tokenizer_open(o->model, &tok, err);
    if (!st && (st = atom_windows_of_text(tok, c->cfg.bos, o->text, o->n_bytes, o->window, &w, &why)))
        st = atom_fail(err, st, "%.300s: %s", o->text_name ? o->text_name : "the text to score", why.message);
    atom_windows_fini(&w);
    atom_tokenizer_close(tok);
    return st;
}

static enum atom_status check_calibration(const struct climb *c, struct atom_error *err)
{
    const struct atom_calib_file file = {.model = c->opt.model,
                                         .cfg = &c->cfg,
                                         .text = c->opt.calib,
                                         .samples = c->opt.samples,
                                         .window = c->opt.window};
    struct atom_windows w = {0};
    enum atom_status st = atom_calib_windows(&file, &w, err);
    atom_windows_fini(&w);
    return st;
}

static bool wanted(const struct climb *c, int rung) { return !c->opt.rungs || c->opt.rungs >> rung & 1; }

/* Not every model can be rotated. */
static enum atom_status check_schemes(struct climb *c, struct atom_error *err)
{
    struct atom_error why = {0};
    struct atom_scheme s;
    c->outliers = atom_outliers_quarter(128, atom_narrowest_site(&c->cfg));
    for (int i = 0; i < c->n_rungs; i++) {
        atom_rung_scheme(i, c->opt.bits, c->outliers, &s);
        enum atom_status st = wanted(c, i) ? atom_scheme_check(&s, c->cfg.head_dim, &why) : ATOM_OK;
        if (st)
            return atom_fail(err, st, "rung '%s': %s", c->rungs[i].name, why.message);
    }
    return ATOM_OK;
}

static enum atom_status check_options(struct climb *c, struct atom_error *err)
{
    const struct atom_ablate_options *o = &c->opt;
    if (!o->model || !o->calib || !o->text)
        return atom_fail(err, ATOM_ERR_INVALID, "an ablation needs a model, a calibration text and a text to score");
    if (o->bits != 4 && o->bits != 3)
        return atom_fail(err, ATOM_ERR_INVALID, "an ablation has 4 or 3 bits, not %d", o->bits);
    if (o->samples < 1 || o->window < 2 || o->max_windows < 0)
        return atom_fail(err, ATOM_ERR_INVALID, "%d samples of %d tokens, %d windows: out of range", o->samples,
                         o->window, o->max_windows);
    enum atom_status st = atom_config_load(o->model, &c->cfg, err);
    if (!st && c->cfg.quantized)
        st = atom_fail(err, ATOM_ERR_INVALID, "%s is quantized already: an ablation begins with a float model",
                       o->model);
    st = st ? st : check_schemes(c, err);
    st = st ? st : check_calibration(c, err);
    return st ? st : check_text(c, err);
}

static enum atom_status identify(struct climb *c, struct atom_error *err)
{
    enum atom_status st = atom_fingerprint_model(c->opt.model, &c->model_hash, err);
    st = st ? st : atom_fingerprint_file(c->opt.calib, &c->calib_hash, err);
    c->text_hash = atom_fingerprint(0, c->opt.text, c->opt.n_bytes);
    return st;
}

/* ---- progress: that of the rung's work, which says whose it is --------------------------------------------------- */

static bool tell(void *user, const struct atom_progress *p)
{
    const struct climb *c = user;
    char phase[96];
    struct atom_progress mine = *p;
    snprintf(phase, sizeof phase, "%d of %d, w%da%d %s: %s", c->done + 1, c->total, c->opt.bits, c->opt.bits,
             c->rungs[c->rung].name, p->phase);
    mine.phase = phase;
    mine.note = NULL; /* seven linears a layer and rung */
    return !c->opt.progress || c->opt.progress(c->opt.user, &mine);
}

/* ---- rungs ------------------------------------------------------------------------------------------------------- */

static bool is_float(const struct atom_scheme *s) { return s->wbits == 16 && s->abits == 16 && s->kvbits == 16; }

static void name_rung(const struct climb *c, const struct atom_scheme *s, struct atom_ablate_key *out)
{
    const struct atom_ablate_options *o = &c->opt;
    char options[512];
    if (is_float(s)) {
        snprintf(out->name, sizeof out->name, "%s", c->rungs[c->rung].name);
        snprintf(out->made, sizeof out->made, "model %016" PRIx64, c->model_hash);
    } else {
        atom_fingerprint_options(s, o->samples, o->window, options);
        snprintf(out->name, sizeof out->name, "w%da%d-%s", o->bits, o->bits, c->rungs[c->rung].name);
        snprintf(out->made, sizeof out->made, "model %016" PRIx64 " calibration %016" PRIx64 " %s", c->model_hash,
                 c->calib_hash, options);
    }
    snprintf(out->scored, sizeof out->scored, "text %016" PRIx64 " window %d windows %d", c->text_hash, o->window,
             o->max_windows);
}

/* A finished checkpoint at `place`, as it was written. */
static enum atom_status make(struct climb *c, const struct atom_ablate_key *key, const struct atom_ablate_place *place,
                             struct atom_ablate_row *row, struct atom_error *err)
{
    enum atom_status st = place->finished ? atom_checksums_check(place->path, c->damage, err) : ATOM_OK;
    const struct atom_quantize_options qo = {.model = c->opt.model,
                                             .out = place->path,
                                             .calib = c->opt.calib,
                                             .samples = c->opt.samples,
                                             .window = c->opt.window,
                                             .scheme = row->scheme,
                                             .resume = place->begun,
                                             .overwrite = *c->damage,
                                             .progress = tell,
                                             .user = c};
    double started = atom_seconds();
    row->quantize_seconds = place->seconds;
    row->damage = *c->damage ? c->damage : NULL;
    if (st || (place->finished && !*c->damage))
        return st;
    st = atom_quantize(&qo, err);
    row->quantize_seconds = atom_seconds() - started;
    return st ? st : atom_ablate_dir_made(c->dir, key, row->quantize_seconds, err);
}

static enum atom_status score(struct climb *c, const char *model_dir, struct atom_ablate_row *row,
                              struct atom_error *err)
{
    const struct atom_ablate_options *o = &c->opt;
    const struct atom_ppl_options po = {
        .window = o->window, .max_windows = o->max_windows, .progress = tell, .user = c};
    struct atom_model *model = NULL;
    double started = atom_seconds();
    enum atom_status st = atom_model_open(model_dir, &model, err);
    st = st ? st : atom_eval_ppl(model, o->text, o->n_bytes, &po, &row->ppl, err);
    row->eval_seconds = atom_seconds() - started;
    atom_model_close(model);
    return st;
}

static enum atom_status make_and_score(struct climb *c, const struct atom_ablate_key *key, struct atom_ablate_row *row,
                                       struct atom_error *err)
{
    struct atom_ablate_place place;
    bool plain = is_float(&row->scheme);
    enum atom_status st = atom_ablate_dir_begin(c->dir, key, &place, err);
    if (st)
        return st;
    st = plain ? ATOM_OK : make(c, key, &place, row, err);
    st = st ? st : score(c, plain ? c->opt.model : place.path, row, err);
    st = st ? st : atom_ablate_dir_scored(c->dir, key, row, err);
    if (!plain && !c->opt.keep && (!st || st == ATOM_ERR_NUMERIC)) {
        enum atom_status deleted = atom_dir_delete(place.path, NULL);
        st = st ? st : deleted;
    }
    free(place.path);
    return st;
}

static enum atom_status one_rung(struct climb *c, struct atom_error *err)
{
    struct atom_ablate_row row = {.rung = c->rung, .bits = c->opt.bits};
    struct atom_ablate_key key;
    struct atom_error why = {0};
    enum atom_status st = ATOM_OK;
    *c->damage = 0;
    atom_rung_scheme(c->rung, c->opt.bits, c->outliers, &row.scheme);
    st = atom_scheme_settle(&c->cfg, true, &row.scheme, err);
    if (st)
        return st;
    name_rung(c, &row.scheme, &key);
    if (!atom_ablate_dir_recall(c->dir, &key, &row))
        st = make_and_score(c, &key, &row, &why);
    if (st == ATOM_ERR_CANCELLED)
        return atom_fail(err, st, "the ablation was stopped at '%s'%s", c->rungs[c->rung].name,
                         c->opt.dir ? "; the same command goes on from there" : "");
    /* Fewer bits can make numbers that are none: that is a result, too. */
    if (st == ATOM_ERR_NUMERIC && !is_float(&row.scheme))
        row.why = why.message;
    else if (st)
        return atom_fail(err, st, "%s", why.message);
    if (c->opt.on_row)
        c->opt.on_row(c->opt.row_user, &row);
    return ATOM_OK;
}

enum atom_status atom_ablate(const struct atom_ablate_options *opt, struct atom_error *err)
{
    struct climb c = {.opt = *opt};
    c.opt.samples = opt->samples ? opt->samples : 64;
    c.opt.window = opt->window ? opt->window : 1024;
    c.rungs = atom_rungs(&c.n_rungs);
    for (int i = 0; i < c.n_rungs; i++)
        c.total += wanted(&c, i);
    enum atom_status st = check_options(&c, err);
    st = st ? st : identify(&c, err);
    st = st ? st : atom_ablate_dir_open(opt->dir, &c.dir, err);
    for (c.rung = 0; c.rung < c.n_rungs && !st; c.rung++)
        if (wanted(&c, c.rung)) {
            st = one_rung(&c, err);
            c.done++;
        }
    atom_ablate_dir_close(c.dir);
    return st;
}
