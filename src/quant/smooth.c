/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/smooth.h"
#include "base/half.h"
#include "quant/smooth_search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 32, NAME_BYTES = 128 };

struct atom_smoothed {
    struct atom_tensors *tensors;
    struct atom_tensor list[MAX_TENSORS];
    void *owned[MAX_TENSORS]; /* data of the changed ones */
    int n, n_owned;
};

/* ---- factors ----------------------------------------------------------------------------------------------------- */

static void group_factors(const int32_t *order, const double *energy, int first, int end, double strength, float *f)
{
    double largest = 0, log_sum = 0;
    int n = 0;
    for (int i = first; i < end; i++)
        largest = energy[order[i]] > largest ? energy[order[i]] : largest;
    for (int i = first; i < end; i++)
        if (energy[order[i]] > 1e-12 * largest) {
            log_sum += log(energy[order[i]]) / 2;
            n++;
        }
    for (int i = first; i < end; i++) {
        double e = energy[order[i]];
        f[order[i]] = e > 1e-12 * largest ? (float)exp(strength * (log(e) / 2 - log_sum / n)) : 1.0f;
    }
}

void atom_smooth_factors(const struct atom_layout *lay, const int32_t *order, const double *energy, float strength,
                         float *f)
{
    for (int r = 0; r < lay->n_runs;) {
        int end = r + 1;
        while (end < lay->n_runs && lay->runs[end].scale == lay->runs[r].scale)
            end++;
        group_factors(order, energy, lay->runs[r].first, lay->runs[end - 1].first + lay->runs[end - 1].len,
                      (double)strength, f);
        r = end;
    }
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static struct atom_tensor *named(struct atom_smoothed *s, int layer, const char *what)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "model.layers.%d.%s", layer, what);
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->list[i].name, name) == 0)
            return &s->list[i];
    return NULL;
}

static enum atom_status own(struct atom_smoothed *s, struct atom_tensor *t, void *data, struct atom_error *err)
{
    if (!data)
        return atom_fail_nomem(err, t->n_bytes);
    s->owned[s->n_owned++] = data;
    t->data = data;
    return ATOM_OK;
}

static void set_float32(struct atom_tensor *t, size_t n)
{
    t->dtype = ATOM_F32;
    snprintf(t->dtype_text, sizeof t->dtype_text, "F32");
    t->n_bytes = n * sizeof(float);
}

/* A weight [n, k] becomes float32 with columns times `columns` and rows over `rows`; either may be NULL. */
static enum atom_status scale_weight(struct atom_smoothed *s, const struct atom_smooth_input *in, int proj,
                                     const float *columns, const float *rows, struct atom_error *err)
{
    char what[64];
    int n = atom_proj_rows(in->cfg, proj), k = atom_site_channels(in->cfg, atom_projs[proj].site);
    snprintf(what, sizeof what, "%s.weight", atom_projs[proj].name);
    struct atom_tensor *t = named(s, in->layer, what);
    size_t count = (size_t)n * (size_t)k;
    float *w = malloc(count * sizeof *w);
    if (!w)
        return atom_fail_nomem(err, count * sizeof *w);
    atom_tensor_floats(t, 0, count, w);
    for (int r = 0; r < n; r++)
        for (int c = 0; c < k; c++) {
            float *x = &w[(size_t)r * (size_t)k + (size_t)c];
            *x = (columns ? *x * columns[c] : *x) / (rows ? rows[r] : 1.0f);
        }
    set_float32(t, count);
    return own(s, t, w, err);
}

static void put_float(enum atom_dtype dtype, float x, uint8_t *to)
{
    uint16_t h = dtype == ATOM_F16 ? atom_float_f16(x) : atom_float_bf16(x);
    if (dtype == ATOM_F32)
        memcpy(to, &x, sizeof x);
    else
        memcpy(to, &h, sizeof h);
}

/* The norm's weight over f, in its own dtype; f becomes the quotient that this rounding leaves, so that the weights
 * take up all of it. */
static enum atom_status scale_norm(struct atom_smoothed *s, const struct atom_smooth_input *in, const char *what,
                                   float *f, struct atom_error *err)
{
    struct atom_tensor *t = named(s, in->layer, what);
    size_t size = atom_dtype_bytes(t->dtype), k = (size_t)in->cfg->hidden;
    uint8_t *data = malloc(k * size);
    if (!data)
        return atom_fail_nomem(err, k * size);
    struct atom_tensor scaled = *t;
    scaled.data = data;
    for (size_t i = 0; i < k; i++) {
        float was, is;
        atom_tensor_floats(t, i, 1, &was);
        put_float(t->dtype, was / f[i], data + i * size);
        atom_tensor_floats(&scaled, i, 1, &is);
        f[i] = is != 0 && isfinite(was / is) ? was / is : 1.0f;
        if (is == 0 || !isfinite(is))
            put_float(t->dtype, was, data + i * size);
    }
    return own(s, t, data, err);
}

/* The bias of what makes the channels, where it has one, over f. */
static enum atom_status scale_bias(struct atom_smoothed *s, const struct atom_smooth_input *in, int proj,
                                   const float *rows, struct atom_error *err)
{
    char what[64];
    int n = atom_proj_rows(in->cfg, proj);
    snprintf(what, sizeof what, "%s.bias", atom_projs[proj].name);
    struct atom_tensor *t = named(s, in->layer, what);
    if (!t)
        return ATOM_OK;
    float *b = malloc((size_t)n * sizeof *b);
    if (!b)
        return atom_fail_nomem(err, (size_t)n * sizeof *b);
    atom_tensor_floats(t, 0, (size_t)n, b);
    for (int r = 0; r < n; r++)
        b[r] /= rows[r];
    set_float32(t, (size_t)n);
    return own(s, t, b, err);
}

/* Into the rows that make a site's channels. f [k] of the site; query heads that share a KV head have the same. */
static enum atom_status scale_rows(struct atom_smoothed *s, const struct atom_smooth_input *in, enum atom_site_id site,
                                   const float *f, struct atom_error *err)
{
    const int proj = site == ATOM_DOWN_IN ? 5 : 2, n = atom_proj_rows(in->cfg, proj), d = in->cfg->head_dim;
    float *rows = malloc((size_t)n * sizeof *rows);
    if (!rows)
        return atom_fail_nomem(err, (size_t)n * sizeof *rows);
    for (int r = 0; r < n; r++)
        rows[r] = f[site == ATOM_DOWN_IN ? r : r / d * (in->cfg->heads / in->cfg->kv_heads) * d + r % d];
    enum atom_status st = scale_weight(s, in, proj, NULL, rows, err);
    st = st ? st : scale_bias(s, in, proj, rows, err);
    free(rows);
    return st;
}

/* The weights that read a site, one below the other [n, k], as floats. */
static enum atom_status stack_weights(struct atom_smoothed *s, const struct atom_smooth_input *in,
                                      enum atom_site_id site, struct atom_smooth_site *to, struct atom_error *err)
{
    size_t n = 0, k = (size_t)atom_site_channels(in->cfg, site);
    char what[64];
    for (int p = 0; p < ATOM_N_PROJ; p++)
        if (atom_projs[p].site == site)
            n += (size_t)(to->part_rows[to->n_parts++] = atom_proj_rows(in->cfg, p));
    float *w = malloc(n * k * sizeof *w);
    if (!w)
        return atom_fail_nomem(err, n * k * sizeof *w);
    to->w = w;
    for (int p = 0; p < ATOM_N_PROJ; p++)
        if (atom_projs[p].site == site) {
            size_t count = (size_t)atom_proj_rows(in->cfg, p) * k;
            snprintf(what, sizeof what, "%s.weight", atom_projs[p].name);
            atom_tensor_floats(named(s, in->layer, what), 0, count, w);
            w += count;
        }
    return ATOM_OK;
}

static enum atom_status search_factors(struct atom_smoothed *s, const struct atom_smooth_input *in,
                                       enum atom_site_id site, const struct atom_layout *lay, float *f,
                                       struct atom_error *err)
{
    struct atom_smooth_site at = {.scheme = in->scheme,
                                  .lay = lay,
                                  .order = in->orders[site],
                                  .energy = in->seen->energy[site],
                                  .peak = in->seen->peak[site],
                                  .rows = in->seen->rows[site],
                                  .n_rows = in->seen->n_rows,
                                  .head_dim = in->cfg->head_dim,
                                  .heads_per_kv = site == ATOM_O_IN ? in->cfg->heads / in->cfg->kv_heads : 0};
    struct atom_smooth_found found;
    char line[120];
    enum atom_status st = stack_weights(s, in, site, &at, err);
    st = st ? st : atom_smooth_find(&at, f, &found, err);
    if (!st && in->note) {
        snprintf(line, sizeof line, "layer %2d  %-18s smoothed by %.2f: error %.5f, was %.5f", in->layer,
                 atom_site_names[site], (double)found.strength, sqrt(found.error), sqrt(found.error_before));
        in->note(in->user, line);
    }
    free((void *)at.w);
    return st;
}

static enum atom_status scale_site(struct atom_smoothed *s, const struct atom_smooth_input *in, enum atom_site_id site,
                                   struct atom_error *err)
{
    int k = atom_site_channels(in->cfg, site);
    struct atom_layout lay;
    enum atom_status st = atom_scheme_layout(in->scheme, k, &lay, err);
    if (st)
        return st;
    float *f = malloc((size_t)k * sizeof *f);
    if (!f)
        st = atom_fail_nomem(err, (size_t)k * sizeof *f);
    else if (in->scheme->smooth_search)
        st = search_factors(s, in, site, &lay, f, err);
    else
        atom_smooth_factors(&lay, in->orders[site], in->seen->energy[site], in->scheme->smooth, f);
    if (!st && (site == ATOM_DOWN_IN || site == ATOM_O_IN))
        st = scale_rows(s, in, site, f, err);
    else if (!st)
        st = scale_norm(s, in, site == ATOM_ATTN_IN ? "input_layernorm.weight" : "post_attention_layernorm.weight", f,
                        err);
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        if (atom_projs[p].site == site)
            st = scale_weight(s, in, p, f, NULL, err);
    atom_layout_fini(&lay);
    free(f);
    return st;
}

/* ---- a layer ----------------------------------------------------------------------------------------------------- */

static enum atom_status collect(struct atom_smoothed *s, const struct atom_smooth_input *in, struct atom_error *err)
{
    char prefix[64];
    int n = snprintf(prefix, sizeof prefix, "model.layers.%d.", in->layer);
    for (size_t i = 0; i < atom_tensors_count(in->tensors); i++) {
        const struct atom_tensor *t = atom_tensors_at(in->tensors, i);
        if (strncmp(t->name, prefix, (size_t)n) != 0)
            continue;
        if (s->n == MAX_TENSORS)
            return atom_fail(err, ATOM_ERR_UNSUPPORTED, "layer %d has more than %d tensors", in->layer, MAX_TENSORS);
        s->list[s->n++] = *t;
    }
    const struct atom_tensor *t;
    char name[NAME_BYTES];
    enum atom_status st = ATOM_OK;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        snprintf(name, sizeof name, "%s%s.weight", prefix, atom_projs[p].name);
        st = atom_tensors_need(in->tensors, name, ATOM_FLOATS, atom_proj_rows(in->cfg, p),
                               atom_site_channels(in->cfg, atom_projs[p].site), &t, err);
    }
    for (int i = 0; i < 2 && !st; i++) {
        snprintf(name, sizeof name, "%s%s.weight", prefix, i ? "post_attention_layernorm" : "input_layernorm");
        st = atom_tensors_need(in->tensors, name, ATOM_FLOATS, in->cfg->hidden, -1, &t, err);
    }
    return st;
}

enum atom_status atom_smooth(const struct atom_smooth_input *in, struct atom_smoothed **out, struct atom_error *err)
{
    struct atom_smoothed *s = calloc(1, sizeof *s);
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    enum atom_status st = collect(s, in, err);
    for (int i = 0; i < ATOM_N_SITES && !st; i++)
        if (i != ATOM_O_IN || in->scheme->smooth_search)
            st = scale_site(s, in, (enum atom_site_id)i, err);
    st = st ? st : atom_tensors_wrap(s->list, (size_t)s->n, &s->tensors, err);
    if (st) {
        atom_smoothed_free(s);
        return st;
    }
    *out = s;
    return ATOM_OK;
}

void atom_smoothed_free(struct atom_smoothed *s)
{
    if (!s)
        return;
    atom_tensors_close(s->tensors);
    for (int i = 0; i < s->n_owned; i++)
        free(s->owned[i]);
    free(s);
}

const struct atom_tensors *atom_smoothed_tensors(const struct atom_smoothed *s) { return s->tensors; }
