/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/layer_quant.h"

#include "base/clock.h"
#include "quant/gptq.h"
#include "quant/order.h"
#include "quant/smooth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const struct atom_layer_quant_setup *set;
    int index;
    struct atom_layer_quant *out;
    const struct atom_tensors *tensors; /* the model's, or this layer's smoothed ones */
    struct atom_smoothed *smoothed;
    struct atom_calib_seen seen;
    int32_t *orders[ATOM_N_SITES];
    struct atom_layer exact;       /* float weights and activations in the scheme's orders, for cross sums */
    int first_tensor[ATOM_N_PROJ]; /* of each linear in out->pack */
};

bool atom_layer_quant_keeps_exact(const struct atom_scheme *s) { return s->gptq && s->wbits < 16 && s->asymmetric > 0; }

/* float, sums, advance */
int atom_layer_quant_passes(const struct atom_scheme *s) { return s->wbits < 16 ? 3 : 2; }

/* ---- orders ------------------------------------------------------------------------------------------------------ */

/* Tokens that a search for smoothing measures on. */
enum { SEARCH_ROWS = 512 };

static bool searches(const struct atom_scheme *s) { return s->smooth_search && s->smooth > 0 && s->wbits < 16; }

static enum atom_status make_room(struct job *j, struct atom_error *err)
{
    const struct atom_layer_quant_setup *s = j->set;
    const bool search = searches(s->scheme);
    int64_t tokens = atom_calib_tokens(s->calib);
    j->seen.n_rows = tokens < SEARCH_ROWS ? (int)tokens : SEARCH_ROWS;
    for (int i = 0; i < ATOM_N_SITES; i++) {
        size_t k = (size_t)atom_site_channels(s->cfg, (enum atom_site_id)i);
        j->seen.energy[i] = calloc(k, sizeof *j->seen.energy[i]);
        j->seen.peak[i] = search ? calloc(k, sizeof *j->seen.peak[i]) : NULL;
        j->seen.rows[i] = search ? calloc((size_t)j->seen.n_rows * k, sizeof *j->seen.rows[i]) : NULL;
        j->orders[i] = malloc(k * sizeof *j->orders[i]);
        if (!j->seen.energy[i] || !j->orders[i] || (search && (!j->seen.peak[i] || !j->seen.rows[i])))
            return atom_fail_nomem(err, (size_t)j->seen.n_rows * k * sizeof(float));
    }
    return ATOM_OK;
}

static enum atom_status rank_sites(struct job *j, struct atom_error *err)
{
    const struct atom_layer_quant_setup *s = j->set;
    enum atom_status st = make_room(j, err);
    st = st ? st : atom_calib_float(s->calib, j->index, &j->seen, err);
    for (int i = 0; i < ATOM_N_SITES && !st; i++) {
        int k = atom_site_channels(s->cfg, (enum atom_site_id)i);
        char site[64];
        snprintf(site, sizeof site, "layer %d, %s", j->index, atom_site_names[i]);
        st = atom_order_rank(site, j->seen.energy[i], k, atom_outliers_of(s->scheme->outliers, k), j->orders[i], err);
    }
    return st;
}

/* Without a search, smoothing makes sense where both sides are integers. */
static enum atom_status smooth(struct job *j, struct atom_error *err)
{
    const struct atom_layer_quant_setup *s = j->set;
    const struct atom_smooth_input in = {.cfg = s->cfg,
                                         .tensors = s->tensors,
                                         .scheme = s->scheme,
                                         .layer = j->index,
                                         .seen = &j->seen,
                                         .orders = (const int32_t *const *)j->orders,
                                         .note = s->note,
                                         .user = s->user};
    if (!(s->scheme->smooth > 0) || s->scheme->wbits == 16 || (s->scheme->abits == 16 && !searches(s->scheme)))
        return ATOM_OK;
    enum atom_status st = atom_smooth(&in, &j->smoothed, err);
    if (!st)
        j->tensors = atom_smoothed_tensors(j->smoothed);
    return st;
}

/* Nothing is reordered when both weights and activations stay float. */
static bool ordered(const struct job *j) { return j->set->scheme->wbits < 16 || j->set->scheme->abits < 16; }

static enum atom_status load_float_layer(const struct job *j, int abits, struct atom_layer *out, struct atom_error *err)
{
    struct atom_layer_source src = {
        .cfg = j->set->cfg, .tensors = j->tensors, .scheme = *j->set->scheme, .float_weights = true};
    src.scheme.abits = abits;
    if (ordered(j))
        src.orders = (const int32_t *const *)j->orders;
    return atom_layer_load(j->set->backend, &src, j->index, out, err);
}

/* ---- linears ----------------------------------------------------------------------------------------------------- */

/* A projection's weights in stored rows and columns, malloc'd. */
static enum atom_status stored_weights(const struct job *j, int proj, float **out, struct atom_error *err)
{
    enum atom_site_id site = atom_projs[proj].site;
    int n = atom_proj_rows(j->set->cfg, proj), k = atom_site_channels(j->set->cfg, site);
    size_t count = (size_t)n * (size_t)k;
    const struct atom_tensor *t;
    char name[128];
    snprintf(name, sizeof name, "%s.weight", j->out->names[proj]);
    enum atom_status st = atom_tensors_need(j->tensors, name, ATOM_FLOATS, n, k, &t, err);
    if (st)
        return st;
    float *natural = malloc(count * sizeof *natural), *stored = malloc(count * sizeof *stored);
    if (!natural || !stored) {
        free(natural);
        free(stored);
        return atom_fail_nomem(err, count * sizeof *natural);
    }
    atom_tensor_floats(t, 0, count, natural);
    atom_order_columns(natural, n, k, j->orders[site], stored);
    if (atom_projs[proj].linear == ATOM_LIN_GATE_UP) {
        atom_order_rows(stored, n, k, j->orders[ATOM_DOWN_IN], natural);
        float *swap = stored;
        stored = natural;
        natural = swap;
    }
    free(natural);
    *out = stored;
    return ATOM_OK;
}

static enum atom_status quantize_linear(struct job *j, int proj, struct atom_hessian *hs, const float *cross,
                                        int64_t n_tok, struct atom_error *err)
{
    const struct atom_scheme *scheme = j->set->scheme;
    const char *name = j->out->names[proj];
    int n = atom_proj_rows(j->set->cfg, proj);
    struct atom_weight_options wo;
    struct atom_qlinear *q = NULL;
    float *w = NULL;
    double started = atom_seconds();
    struct atom_report_line *line = &j->out->report[j->out->n_report];
    atom_weight_options_of(scheme, hs->k, &wo);
    enum atom_status st = stored_weights(j, proj, &w, err);
    st = st ? st : atom_weights_check(name, w, n, hs->k, err);
    if (!st && cross)
        st = atom_retarget(hs, cross, n_tok, scheme->asymmetric, w, n, err);
    if (!st)
        st = scheme->gptq ? atom_gptq(name, w, n, hs->k, &wo, hs, &q, err)
                          : atom_quantize_rtn(name, w, n, hs->k, &wo, hs, &q, err);
    st = st ? st : atom_qlinear_error(q, w, hs, &line->error, err);
    j->first_tensor[proj] = j->out->pack.n;
    st = st ? st : atom_pack_linear(&j->out->pack, name, q, err);
    if (!st) {
        char note[160];
        *line = (struct atom_report_line){name, line->error, atom_qlinear_bits(q), atom_seconds() - started};
        j->out->n_report++;
        snprintf(note, sizeof note, "layer %2d  %-18s error %.4f  %.3f bits  %.2f s", j->index, atom_projs[proj].name,
                 line->error, line->bits, line->seconds);
        j->set->note(j->set->user, note);
    }
    atom_qlinear_free(q);
    free(w);
    return st;
}

static const void *packed_data(const struct job *j, int proj, const char *suffix)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", j->out->names[proj], suffix);
    for (int i = j->first_tensor[proj]; i < j->out->pack.n; i++)
        if (strcmp(j->out->pack.at[i].name, name) == 0)
            return j->out->pack.at[i].data;
    return NULL;
}

/* Puts the packed projections of one linear in the place of the float ones. */
static enum atom_status swap_linear(struct job *j, enum atom_linear_id id, struct atom_error *err)
{
    const struct atom_scheme *s = j->set->scheme;
    struct atom_layer *layer = &j->out->layer;
    struct atom_linear_part parts[ATOM_N_PROJ];
    struct atom_linear *lin;
    int n = 0, site = 0;
    for (int p = 0; p < ATOM_N_PROJ; p++)
        if (atom_projs[p].linear == id) {
            site = (int)atom_projs[p].site;
            const float *tensor_scale = packed_data(j, p, "tensor_scale");
            parts[n++] = (struct atom_linear_part){.name = atom_projs[p].name,
                                                   .n = atom_proj_rows(j->set->cfg, p),
                                                   .kind = s->wbits == 8 ? ATOM_W_BYTE : ATOM_W_NIBBLE,
                                                   .qweight = packed_data(j, p, "qweight"),
                                                   .scales = packed_data(j, p, "scales"),
                                                   .rows_per_scale = s->rows_per_scale,
                                                   .outlier_qweight = packed_data(j, p, "outlier_qweight"),
                                                   .outlier_scales = packed_data(j, p, "outlier_scales"),
                                                   .outlier_weight = packed_data(j, p, "outlier_weight"),
                                                   .tensor_scale = tensor_scale ? *tensor_scale : 1.0f};
        }
    enum atom_status st = j->set->backend->linear_create(&layer->sites[site], parts, n, &lin, err);
    if (st)
        return st;
    j->set->backend->linear_take_bias(lin, layer->linears[id]);
    j->set->backend->linear_free(layer->linears[id]);
    layer->linears[id] = lin;
    return ATOM_OK;
}

static enum atom_status quantize_site(struct job *j, enum atom_site_id site, const struct atom_calib_sums *sums,
                                      int64_t n_tok, struct atom_error *err)
{
    struct atom_hessian *hs = NULL;
    char name[64];
    snprintf(name, sizeof name, "layer %d, %s", j->index, atom_site_names[site]);
    enum atom_status st =
        atom_hessian_create(name, sums->sum[site], atom_site_channels(j->set->cfg, site), n_tok, &hs, err);
    int linear = -1;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        if (atom_projs[p].site == site) {
            st = quantize_linear(j, p, hs, sums->cross[site], n_tok, err);
            linear = (int)atom_projs[p].linear;
        }
    atom_hessian_free(hs);
    return st ? st : swap_linear(j, (enum atom_linear_id)linear, err);
}

static enum atom_status quantize_sites(struct job *j, struct atom_error *err)
{
    struct atom_calib_sums sums = {.exact = atom_layer_quant_keeps_exact(j->set->scheme) ? &j->exact : NULL};
    enum atom_status st = sums.exact ? load_float_layer(j, 16, &j->exact, err) : ATOM_OK;
    for (int i = 0; i < ATOM_N_SITES && !st; i++) {
        size_t k = (size_t)atom_site_channels(j->set->cfg, (enum atom_site_id)i);
        sums.sum[i] = calloc(k * k, sizeof(float));
        sums.cross[i] = sums.exact ? calloc(k * k, sizeof(float)) : NULL;
        if (!sums.sum[i] || (sums.exact && !sums.cross[i]))
            st = atom_fail_nomem(err, k * k * sizeof(float));
    }
    st = st ? st : atom_calib_sums(j->set->calib, j->index, &j->out->layer, &sums, err);
    int64_t n_tok = atom_calib_tokens(j->set->calib);
    for (int i = 0; i < ATOM_N_SITES && !st; i++)
        st = quantize_site(j, (enum atom_site_id)i, &sums, n_tok, err);
    for (int i = 0; i < ATOM_N_SITES; i++) {
        free(sums.sum[i]);
        free(sums.cross[i]);
    }
    return st;
}

/* ---- the layer's other tensors ------------------------------------------------------------------------------------
 */

static enum atom_status pack_rest(struct job *j, struct atom_error *err)
{
    const struct atom_layer_quant_setup *s = j->set;
    struct atom_pack *pack = &j->out->pack;
    char prefix[64], name[128];
    int n = snprintf(prefix, sizeof prefix, "model.layers.%d.", j->index);
    enum atom_status st = ATOM_OK;
    for (int i = 0; ordered(j) && i < ATOM_N_SITES && !st; i++) {
        snprintf(name, sizeof name, "%s%s", prefix, atom_site_names[i]);
        st = atom_pack_order(pack, name, j->orders[i], atom_site_channels(s->cfg, (enum atom_site_id)i), err);
    }
    for (size_t i = 0; i < atom_tensors_count(j->tensors) && !st; i++) {
        const struct atom_tensor *t = atom_tensors_at(j->tensors, i);
        const char *dot = strrchr(t->name, '.');
        bool weight = strstr(t->name, "_proj.") && dot && strcmp(dot, ".weight") == 0;
        if (strncmp(t->name, prefix, (size_t)n) == 0 && !strstr(t->name, "rotary_emb") &&
            !(weight && s->scheme->wbits < 16))
            st = j->smoothed ? atom_pack_copy(pack, t, err) : atom_pack_tensor(pack, t, NULL, err);
    }
    return st;
}

static void job_fini(struct job *j)
{
    if (j->exact.backend)
        atom_layer_fini(&j->exact);
    for (int i = 0; i < ATOM_N_SITES; i++) {
        free(j->seen.energy[i]);
        free(j->seen.peak[i]);
        free(j->seen.rows[i]);
        free(j->orders[i]);
    }
    atom_smoothed_free(j->smoothed);
}

enum atom_status atom_layer_quantize(const struct atom_layer_quant_setup *setup, int index,
                                     struct atom_layer_quant *out, struct atom_error *err)
{
    struct job j = {.set = setup, .index = index, .out = out, .tensors = setup->tensors};
    memset(out, 0, sizeof *out);
    for (int p = 0; p < ATOM_N_PROJ; p++)
        snprintf(out->names[p], sizeof out->names[p], "model.layers.%d.%s", index, atom_projs[p].name);
    enum atom_status st = rank_sites(&j, err);
    st = st ? st : smooth(&j, err);
    st = st ? st : load_float_layer(&j, setup->scheme->abits, &out->layer, err);
    if (setup->scheme->wbits < 16)
        st = st ? st : quantize_sites(&j, err);
    st = st ? st : pack_rest(&j, err);
    st = st ? st : atom_tensors_check(setup->tensors, err);
    job_fini(&j);
    if (st)
        atom_layer_quant_fini(out);
    return st;
}

void atom_layer_quant_fini(struct atom_layer_quant *lq)
{
    if (lq->layer.backend)
        atom_layer_fini(&lq->layer);
    atom_pack_fini(&lq->pack);
    memset(lq, 0, sizeof *lq);
}
