/* SPDX-License-Identifier: Apache-2.0 */
/* What a checkpoint holds, from its headers and config alone. */
#include "model/foreign_layer.h"
#include "model/json_read.h"
#include "model/layer.h"
#include "model/scheme.h"
#include "model/tensor_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_LIMIT = 100000000 };

/* Bytes of each kind; the names are the JSON's. */
enum kind { LINEARS, EMBEDDINGS, HEAD, NORMS, ORDERS, OTHER, N_KINDS };
static const char *const kind_names[N_KINDS] = {"linears", "embeddings", "head", "norms", "orders", "other"};

struct linear {
    size_t n_bytes;
    const json_t *error; /* the report's own; NULL: not said */
    const char *form;    /* how another program's linear runs; NULL: Atom's own */
    const char *why;     /* where that is wider than its codes; or NULL */
    size_t loaded_bytes; /* then in memory */
};

struct inspection {
    const char *dir;
    struct atom_config cfg;
    struct atom_tensors *tensors;
    json_t *report; /* atom_report.json; NULL: there is none */
    size_t kinds[N_KINDS], total;
    struct linear *linears; /* [layers * ATOM_N_PROJ] */
};

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static enum kind kind_of(enum atom_tensor_kind kind)
{
    switch (kind) {
    case ATOM_TENSOR_LINEAR:
        return LINEARS;
    case ATOM_TENSOR_EMBEDDING:
        return EMBEDDINGS;
    case ATOM_TENSOR_HEAD:
        return HEAD;
    case ATOM_TENSOR_NORM:
        return NORMS;
    case ATOM_TENSOR_ORDER:
        return ORDERS;
    default:
        return OTHER;
    }
}

static void count_bytes(struct inspection *in)
{
    for (size_t i = 0; i < atom_tensors_count(in->tensors); i++) {
        const struct atom_tensor *t = atom_tensors_at(in->tensors, i);
        struct atom_tensor_place p = atom_tensor_place(&in->cfg, t->name);
        in->kinds[kind_of(p.kind)] += t->n_bytes;
        in->total += t->n_bytes;
        if (p.kind == ATOM_TENSOR_LINEAR)
            in->linears[p.layer * ATOM_N_PROJ + p.proj].n_bytes += t->n_bytes;
    }
}

static void linear_name(int i, char *buf, size_t n_bytes)
{
    snprintf(buf, n_bytes, "model.layers.%d.%s", i / ATOM_N_PROJ, atom_projs[i % ATOM_N_PROJ].name);
}

static enum atom_status match_report(struct inspection *in, struct atom_error *err)
{
    enum atom_status st = atom_json_load(in->dir, "atom_report.json", REPORT_LIMIT, true, &in->report, err);
    const json_t *line, *lines = json_object_get(in->report, "linears");
    size_t at;
    int next = 0;
    if (st || !in->report)
        return st;
    if (!json_is_array(lines))
        return atom_fail(err, ATOM_ERR_FORMAT, "%s/atom_report.json: 'linears' is not an array", in->dir);
    json_array_foreach(lines, at, line)
    {
        const char *name = json_string_value(json_object_get(line, "name"));
        char want[96];
        /* Lines come in the order of layers and projections. */
        for (int i = next; name && i < in->cfg.layers * ATOM_N_PROJ; i++) {
            linear_name(i, want, sizeof want);
            if (strcmp(name, want) == 0) {
                in->linears[i].error = json_object_get(line, "error");
                next = i + 1;
                break;
            }
        }
    }
    return ATOM_OK;
}

/* ---- another program's linears ----------------------------------------------------------------------------------- */

static void note_form(const struct atom_foreign_layer *l, int proj, struct linear *out)
{
    static const char *const forms[] = {"4 bits", "8 bits", "float32"};
    const struct atom_foreign_linear *lin = &l->linears[proj];
    size_t n = (size_t)lin->codes.n, k = (size_t)lin->codes.k, scales = n * (size_t)lin->codes.n_groups * 2;
    bool stored = lin->weight && atom_foreign_keeps(l, proj);
    out->form = stored ? "as stored" : forms[lin->form];
    out->why = stored ? NULL : lin->why;
    if (lin->form == ATOM_FORM_FLOAT)
        out->loaded_bytes = n * k * (stored ? atom_dtype_bytes(lin->weight->dtype) : 4);
    else
        out->loaded_bytes = n * (lin->form == ATOM_FORM_NIBBLE ? (k + 1) / 2 : k) + scales;
}

static enum atom_status look_at_forms(struct inspection *in, struct atom_error *err)
{
    struct atom_foreign_layer l;
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < in->cfg.layers && !st; i++) {
        st = atom_foreign_layer_open(&in->cfg, in->tensors, i, &l, err);
        for (int p = 0; p < ATOM_N_PROJ && !st; p++)
            note_form(&l, p, &in->linears[i * ATOM_N_PROJ + p]);
        if (!st)
            atom_foreign_layer_fini(&l);
    }
    return st ? st : atom_tensors_check(in->tensors, err);
}

static enum atom_status gather(struct inspection *in, struct atom_error *err)
{
    enum atom_status st = atom_config_load(in->dir, &in->cfg, err);
    st = st ? st : atom_tensors_open(in->dir, &in->tensors, err);
    if (st)
        return st;
    size_t n = (size_t)in->cfg.layers * ATOM_N_PROJ;
    in->linears = calloc(n, sizeof *in->linears);
    if (!in->linears)
        return atom_fail_nomem(err, n * sizeof *in->linears);
    count_bytes(in);
    st = in->cfg.foreign.format ? look_at_forms(in, err) : ATOM_OK;
    return st ? st : match_report(in, err);
}

/* ---- telling: a new value, or NULL when out of memory -------------------------------------------------------- */

static int64_t weights_of(const struct atom_config *cfg, int proj)
{
    return (int64_t)atom_proj_rows(cfg, proj) * atom_site_channels(cfg, atom_projs[proj].site);
}

static int64_t weights_of_all(const struct atom_config *cfg)
{
    int64_t n = 0;
    for (int p = 0; p < ATOM_N_PROJ; p++)
        n += weights_of(cfg, p) * cfg->layers;
    return n;
}

static json_t *tell_config(const struct atom_config *c)
{
    json_t *eos = json_array();
    for (int i = 0; i < c->n_eos; i++)
        json_array_append_new(eos, json_integer(c->eos[i]));
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:b, s:o, s:o}", "hidden", c->hidden,
                     "intermediate", c->intermediate, "layers", c->layers, "heads", c->heads, "kv_heads", c->kv_heads,
                     "head_dim", c->head_dim, "vocab", c->vocab, "max_position", c->max_position, "tied", c->tied,
                     "attention_bias", c->attention_bias, "mlp_bias", c->mlp_bias, "bos",
                     c->bos < 0 ? json_null() : json_integer(c->bos), "eos", eos);
}

static json_t *tell_bytes(const struct inspection *in)
{
    json_t *o = json_object();
    int failed = !o;
    for (int i = 0; i < N_KINDS; i++) {
        failed |= json_object_set_new(o, kind_names[i], json_integer((json_int_t)in->kinds[i]));
        if (i == LINEARS)
            failed |= json_object_set_new(o, "linears_bf16", json_integer((json_int_t)(2 * weights_of_all(&in->cfg))));
    }
    failed |= json_object_set_new(o, "total", json_integer((json_int_t)in->total));
    if (failed) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *tell_linears(const struct inspection *in)
{
    json_t *lines = json_array();
    int failed = !lines;
    for (int i = 0; i < in->cfg.layers * ATOM_N_PROJ && !failed; i++) {
        const struct linear *l = &in->linears[i];
        int p = i % ATOM_N_PROJ;
        char name[96];
        linear_name(i, name, sizeof name);
        json_t *error = json_is_number(l->error) ? json_real(json_number_value(l->error)) : json_null();
        json_t *line = json_pack("{s:s, s:[i, i], s:f, s:o, s:I}", "name", name, "shape", atom_proj_rows(&in->cfg, p),
                                 atom_site_channels(&in->cfg, atom_projs[p].site), "bits_per_weight",
                                 8.0 * (double)l->n_bytes / (double)weights_of(&in->cfg, p), "error", error, "bytes",
                                 (json_int_t)l->n_bytes);
        if (l->form && json_object_update_new(line, json_pack("{s:s, s:s?, s:I}", "form", l->form, "why", l->why,
                                                              "loaded_bytes", (json_int_t)l->loaded_bytes)))
            failed = 1;
        failed |= json_array_append_new(lines, line);
    }
    if (failed) {
        json_decref(lines);
        return NULL;
    }
    return lines;
}

static json_t *tell_tensors(const struct inspection *in)
{
    json_t *lines = json_array();
    int failed = !lines;
    for (size_t i = 0; i < atom_tensors_count(in->tensors) && !failed; i++) {
        const struct atom_tensor *t = atom_tensors_at(in->tensors, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, json_integer(t->dims[d]));
        enum atom_tensor_kind kind = atom_tensor_place(&in->cfg, t->name).kind;
        failed = json_array_append_new(
            lines, json_pack("{s:s, s:s, s:o, s:I, s:s, s:s}", "name", t->name, "dtype", t->dtype_text, "shape", shape,
                             "bytes", (json_int_t)t->n_bytes, "kind",
                             kind == ATOM_TENSOR_UNKNOWN ? "unknown" : kind_names[kind_of(kind)], "file", t->file));
    }
    if (failed) {
        json_decref(lines);
        return NULL;
    }
    return lines;
}

/* Keys and values of one token in all layers; bits 32: a float model, whose cache is not rounded. */
static int64_t kv_bytes(const struct atom_config *c, int bits)
{
    int64_t head = bits == 32   ? 4 * c->head_dim
                   : bits == 16 ? 2 * c->head_dim
                                : 4 + c->head_dim * (bits == 8 ? 2 : 1) / 2;
    return 2 * head * c->kv_heads * c->layers;
}

static json_t *tell(const struct inspection *in)
{
    const struct atom_config *c = &in->cfg;
    const struct atom_scheme *s = &c->scheme;
    bool exact = s->wbits == 16 && s->abits == 16 && s->kvbits == 16;
    double bits = 8.0 * (double)in->kinds[LINEARS] / (double)weights_of_all(c);
    return json_pack("{s:s, s:b, s:s?, s:o, s:o, s:o, s:f, s:I, s:I, s:I, s:o, s:o}", "dir", in->dir, "quantized",
                     c->quantized, "format", c->foreign.format ? c->foreign.format->method : NULL, "config",
                     tell_config(c), "scheme", atom_scheme_json(s), "bytes", tell_bytes(in), "bits_per_weight", bits,
                     "kv_bytes_per_token", (json_int_t)kv_bytes(c, exact ? 32 : s->kvbits), "kv_bytes_per_token_f16",
                     (json_int_t)kv_bytes(c, 16), "n_tensors", (json_int_t)atom_tensors_count(in->tensors), "linears",
                     tell_linears(in), "tensors", tell_tensors(in));
}

enum atom_status atom_inspect(const char *dir, char **json, struct atom_error *err)
{
    struct inspection in = {.dir = dir};
    enum atom_status st = gather(&in, err);
    if (!st) {
        json_t *root = tell(&in);
        char *text = root ? json_dumps(root, JSON_REAL_PRECISION(9)) : NULL;
        json_decref(root);
        if (text)
            *json = text;
        else
            st = atom_fail(err, ATOM_ERR_NOMEM, "out of memory, or a name is not UTF-8, while looking at %s", dir);
    }
    json_decref(in.report);
    atom_tensors_close(in.tensors);
    free(in.linears);
    return st;
}
