/* SPDX-License-Identifier: Apache-2.0 */
/* atom_export: a checkpoint of 4-bit weights alone as a compressed-tensors directory. Our nibbles, q + 8 with the even
 * column low, are that format's words of eight to the byte; only names and shapes change. */
#include "model/json_read.h"
#include "model/layer.h"
#include "model/tensor_names.h"
#include "quant/pack.h"
#include "quant/partial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 160, CONFIG_LIMIT = 1 << 24 };

struct run {
    const struct atom_export_options *opt;
    struct atom_config cfg;
    struct atom_tensors *tensors;
    struct atom_partial *partial;
};

/* ---- what can be told in that format ------------------------------------------------------------------------------
 */

static enum atom_status refuse(const struct run *r, const char *what, struct atom_error *err)
{
    return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                     "%s: %s, which compressed-tensors has no words for; a checkpoint made with --wbits 4 --abits 16 "
                     "--kvbits 16 --outliers 0 --rows-per-scale 1 can be exported",
                     r->opt->model, what);
}

static enum atom_status check_scheme(const struct run *r, struct atom_error *err)
{
    const struct atom_scheme *s = &r->cfg.scheme;
    char text[96];
    if (!r->cfg.quantized || r->cfg.foreign.format)
        return atom_fail(err, ATOM_ERR_INVALID, "%s is %s; what can be exported is a checkpoint that atom quantized",
                         r->opt->model, r->cfg.quantized ? "another program's" : "a float model");
    if (s->wbits != 4 || s->abits != 16) {
        snprintf(text, sizeof text, "weights of %d and activations of %d bits, not of 4 and 16", s->wbits, s->abits);
        return refuse(r, text, err);
    }
    if (s->kvbits != 16)
        return refuse(r, "the KV cache is quantized", err);
    if (s->outliers)
        return refuse(r, "outlier channels lie in INT8", err);
    if (s->rows_per_scale != 1)
        return refuse(r, "several rows share a scale", err);
    if (s->lm_head_bits != 16)
        return refuse(r, "the head is quantized", err);
    for (int i = 0; i < ATOM_N_SITES; i++) {
        int k = atom_site_channels(&r->cfg, (enum atom_site_id)i);
        if (s->group && k % s->group) {
            snprintf(text, sizeof text, "%d channels of %s are no multiple of groups of %d", k, atom_site_names[i],
                     s->group);
            return refuse(r, text, err);
        }
    }
    return ATOM_OK;
}

static bool is_identity(const struct atom_tensor *order)
{
    int32_t at;
    for (size_t i = 0; i < order->n_bytes / sizeof at; i++) {
        memcpy(&at, (const uint8_t *)order->data + i * sizeof at, sizeof at);
        if (at != (int32_t)i)
            return false;
    }
    return true;
}

/* Without outliers channels stay where they were, and orders say so. */
static enum atom_status check_orders(const struct run *r, struct atom_error *err)
{
    for (size_t i = 0; i < atom_tensors_count(r->tensors); i++) {
        const struct atom_tensor *t = atom_tensors_at(r->tensors, i);
        if (atom_tensor_place(&r->cfg, t->name).kind == ATOM_TENSOR_ORDER && !is_identity(t))
            return refuse(r, "channels are reordered", err);
    }
    return ATOM_OK;
}

/* ---- tensors -------------------------------------------------------------------------------------------------------
 */

static enum atom_status need(const struct run *r, const char *linear, const char *part, unsigned dtypes, int64_t d0,
                             int64_t d1, const struct atom_tensor **out, struct atom_error *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%s", linear, part);
    return atom_tensors_need(r->tensors, name, dtypes, d0, d1, out, err);
}

/* Rows of nibbles as rows of whole words: the same bytes where they fill words. */
static enum atom_status put_words(const struct atom_tensor *q, int k, const char *name, struct atom_pack *pack,
                                  struct atom_error *err)
{
    size_t n = (size_t)q->dims[0], from = (size_t)q->dims[1], words = ((size_t)k + 7) / 8;
    struct atom_tensor t = *q;
    t.name = name;
    t.dtype = ATOM_I32;
    t.dims[1] = (int64_t)words;
    t.n_bytes = n * words * 4;
    if (t.n_bytes == q->n_bytes && k % 2 == 0)
        return atom_pack_tensor(pack, &t, NULL, err);
    uint8_t *rows = calloc(n, words * 4);
    if (!rows)
        return atom_fail_nomem(err, t.n_bytes);
    for (size_t i = 0; i < n; i++) {
        memcpy(rows + i * words * 4, (const uint8_t *)q->data + i * from, from);
        if (k % 2)
            rows[i * words * 4 + from - 1] &= 15; /* that format pads with zeros */
    }
    t.data = rows;
    enum atom_status st = atom_pack_copy(pack, &t, err);
    free(rows);
    return st;
}

static enum atom_status put_linear(const struct run *r, const char *linear, int proj, struct atom_pack *pack,
                                   struct atom_error *err)
{
    const struct atom_scheme *s = &r->cfg.scheme;
    int n = atom_proj_rows(&r->cfg, proj), k = atom_site_channels(&r->cfg, atom_projs[proj].site);
    const int64_t shape[2] = {n, k};
    const struct atom_tensor *q, *scales;
    char name[NAME_BYTES];
    enum atom_status st = need(r, linear, "qweight", 1u << ATOM_U8, n, (k + 1) / 2, &q, err);
    st = st ? st : need(r, linear, "scales", 1u << ATOM_F16, n, s->group ? k / s->group : 1, &scales, err);
    st = st ? st : atom_tensor_finite(scales, err);
    if (st)
        return st;
    snprintf(name, sizeof name, "%s.weight_packed", linear);
    st = put_words(q, k, name, pack, err);
    snprintf(name, sizeof name, "%s.weight_scale", linear);
    st = st ? st : atom_pack_tensor(pack, scales, name, err);
    snprintf(name, sizeof name, "%s.weight_shape", linear);
    const struct atom_tensor t = {.name = name,
                                  .dtype = ATOM_OTHER,
                                  .dtype_text = "I64",
                                  .n_dims = 1,
                                  .dims = {2},
                                  .data = shape,
                                  .n_bytes = sizeof shape};
    return st ? st : atom_pack_copy(pack, &t, err);
}

static bool is_kept(const struct atom_tensor_place *p, int layer)
{
    bool kept = p->kind == ATOM_TENSOR_NORM || p->kind == ATOM_TENSOR_BIAS ||
                (layer < 0 && (p->kind == ATOM_TENSOR_EMBEDDING || p->kind == ATOM_TENSOR_HEAD));
    return kept && p->layer == layer;
}

/* What layer `layer`, or none (-1), has beside its linears, as it is. */
static enum atom_status put_rest(const struct run *r, int layer, struct atom_pack *pack, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (size_t i = 0; i < atom_tensors_count(r->tensors) && !st; i++) {
        const struct atom_tensor *t = atom_tensors_at(r->tensors, i);
        const struct atom_tensor_place p = atom_tensor_place(&r->cfg, t->name);
        if (is_kept(&p, layer))
            st = atom_pack_tensor(pack, t, NULL, err);
    }
    return st;
}

static enum atom_status put_layer(const struct run *r, int layer, struct atom_error *err)
{
    struct atom_pack pack = {0};
    enum atom_status st = ATOM_OK;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        char linear[NAME_BYTES / 2];
        snprintf(linear, sizeof linear, "model.layers.%d.%s", layer, atom_projs[p].name);
        st = put_linear(r, linear, p, &pack, err);
    }
    st = st ? st : put_rest(r, layer, &pack, err);
    st = st ? st : atom_tensors_check(r->tensors, err);
    st = st ? st : atom_partial_put_layer(r->partial, layer, pack.at, pack.n, NULL, 0, err);
    st = st ? st : atom_tensors_check(r->tensors, err);
    atom_pack_fini(&pack);
    atom_tensors_release(r->tensors);
    return st;
}

static enum atom_status all_layers(const struct run *r, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < r->cfg.layers && !st; i++) {
        const struct atom_progress p = {.phase = "export", .unit = "layer", .done = i, .total = r->cfg.layers};
        if (r->opt->progress && !r->opt->progress(r->opt->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "stopped at layer %d of %d", i, r->cfg.layers);
        st = put_layer(r, i, err);
    }
    return st;
}

static enum atom_status finish(const struct run *r, struct atom_error *err)
{
    struct atom_pack pack = {0};
    enum atom_status st = put_rest(r, -1, &pack, err);
    st = st ? st : atom_partial_finish(r->partial, &r->cfg.scheme, pack.at, pack.n, NULL, 0, err);
    atom_pack_fini(&pack);
    return st;
}

/* ---- config.json ---------------------------------------------------------------------------------------------------
 */

static json_t *quantization(const struct atom_scheme *s)
{
    json_t *weights =
        json_pack("{s:i, s:s, s:b, s:s, s:i, s:b}", "num_bits", 4, "type", "int", "symmetric", 1, "strategy",
                  s->group ? "group" : "channel", "group_size", s->group ? s->group : -1, "dynamic", 0);
    return json_pack("{s:s, s:s, s:s, s:{s:{s:[s], s:o, s:n, s:n}}, s:[s], s:n}", "quant_method", "compressed-tensors",
                     "format", "pack-quantized", "quantization_status", "compressed", "config_groups", "group_0",
                     "targets", "Linear", "weights", weights, "input_activations", "output_activations", "ignore",
                     "lm_head", "kv_cache_scheme");
}

/* The model's, but for quantization_config and the dtype: a scale is half precision, and so is then what runs it. */
static enum atom_status make_config(const struct run *r, char **text, struct atom_error *err)
{
    json_t *root = NULL;
    enum atom_status st = atom_json_load(r->opt->model, "config.json", CONFIG_LIMIT, false, &root, err);
    if (st)
        return st;
    const char *dtype = json_object_get(root, "dtype") ? "dtype" : "torch_dtype";
    int failed = json_object_set_new(root, dtype, json_string("float16"));
    failed |= json_object_set_new(root, "quantization_config", quantization(&r->cfg.scheme));
    char *made = failed ? NULL : json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!made)
        return atom_fail_nomem(err, CONFIG_LIMIT);
    *text = made;
    return ATOM_OK;
}

enum atom_status atom_export(const struct atom_export_options *opt, struct atom_error *err)
{
    struct run r = {.opt = opt};
    char *config = NULL;
    if (!opt->model || !opt->out || !opt->format)
        return atom_fail(err, ATOM_ERR_INVALID, "export needs a model, an output and a format");
    if (strcmp(opt->format, "compressed-tensors"))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "there is no format '%.64s' to export to; there is 'compressed-tensors'", opt->format);
    enum atom_status st = atom_config_load(opt->model, &r.cfg, err);
    st = st ? st : check_scheme(&r, err);
    st = st ? st : atom_tensors_open(opt->model, &r.tensors, err);
    st = st ? st : atom_tensors_known(&r.cfg, r.tensors, err);
    st = st ? st : check_orders(&r, err);
    st = st ? st : make_config(&r, &config, err);
    const struct atom_partial_run pr = {.model = opt->model,
                                        .out = opt->out,
                                        .options = "export",
                                        .layers = r.cfg.layers,
                                        .overwrite = opt->overwrite,
                                        .config = config};
    st = st ? st : atom_partial_open(&pr, &r.partial, err);
    st = st ? st : all_layers(&r, err);
    st = st ? st : finish(&r, err);
    atom_partial_close(r.partial);
    atom_tensors_close(r.tensors);
    free(config);
    return st;
}
