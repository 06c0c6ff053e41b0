/* SPDX-License-Identifier: Apache-2.0 */
#include "model/foreign_layer.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/tensor_names.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD_GROUP = 128 };

static bool integer_head(const struct atom_config *cfg) { return cfg->quantized && cfg->scheme.lm_head_bits == 8; }

static enum atom_status head_layout(const struct atom_config *cfg, struct atom_layout *out, struct atom_error *err)
{
    return atom_layout_init(out, cfg->hidden, integer_head(cfg) ? HEAD_GROUP : 0, 0, err);
}

/* Over the layouts of all sites and of the head. */
static enum atom_status widest(const struct atom_config *cfg, struct atom_work_shape *shape, struct atom_error *err)
{
    for (int i = 0; i <= ATOM_N_SITES; i++) {
        struct atom_layout lay;
        enum atom_status st =
            i < ATOM_N_SITES
                ? atom_scheme_layout(&cfg->scheme, atom_site_channels(cfg, (enum atom_site_id)i), &lay, err)
                : head_layout(cfg, &lay, err);
        if (st)
            return st;
        shape->max_row_bytes = lay.row_bytes > shape->max_row_bytes ? lay.row_bytes : shape->max_row_bytes;
        shape->max_scales = lay.n_scales > shape->max_scales ? lay.n_scales : shape->max_scales;
        shape->max_runs = lay.n_runs > shape->max_runs ? lay.n_runs : shape->max_runs;
        atom_layout_fini(&lay);
    }
    return ATOM_OK;
}

enum atom_status atom_model_work(const struct atom_config *cfg, const struct atom_backend *b, int max_tok,
                                 struct atom_work **out, struct atom_error *err)
{
    struct atom_work_shape shape = {.max_tok = max_tok,
                                    .hidden = cfg->hidden,
                                    .qkv_rows = (cfg->heads + 2 * cfg->kv_heads) * cfg->head_dim,
                                    .att_width = cfg->heads * cfg->head_dim,
                                    .gate_up_rows = 2 * cfg->intermediate,
                                    .head_dim = cfg->head_dim};
    enum atom_status st = widest(cfg, &shape, err);
    return st ? st : b->work_create(&shape, out, err);
}

enum atom_status atom_model_kv(const struct atom_config *cfg, const struct atom_scheme *scheme,
                               const struct atom_backend *b, int layers, int n_pages, int max_position,
                               struct atom_kv **out, struct atom_error *err)
{
    if (cfg->heads / cfg->kv_heads > ATOM_MAX_QUERY_HEADS || cfg->head_dim > ATOM_MAX_HEAD_DIM)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "heads of %d channels, %d query heads for one KV head: at most %d and %d are done",
                         cfg->head_dim, cfg->heads / cfg->kv_heads, ATOM_MAX_HEAD_DIM, ATOM_MAX_QUERY_HEADS);
    double *inv_freq = malloc((size_t)(cfg->head_dim / 2) * sizeof *inv_freq);
    if (!inv_freq)
        return atom_fail_nomem(err, (size_t)(cfg->head_dim / 2) * sizeof *inv_freq);
    atom_rope_frequencies(&cfg->rope, cfg->head_dim, inv_freq);
    bool exact = scheme->wbits == 16 && scheme->abits == 16 && scheme->kvbits == 16;
    struct atom_kv_config kc = {.layers = layers,
                                .heads = cfg->heads,
                                .kv_heads = cfg->kv_heads,
                                .head_dim = cfg->head_dim,
                                .n_pages = n_pages,
                                .max_position = max_position,
                                .bits = exact ? 32 : scheme->kvbits,
                                .clip = scheme->kv_clip,
                                .rope = exact ? ATOM_KV_POST : scheme->kv_rope,
                                .rotate = exact ? 0 : scheme->rotate,
                                .inv_freq = inv_freq};
    enum atom_status st = b->kv_create(&kc, out, err);
    free(inv_freq);
    return st;
}

enum atom_status atom_model_step(const struct atom_model *m, struct atom_work *w, struct atom_kv *kv,
                                 const struct atom_batch *batch, struct atom_error *err)
{
    struct atom_step step = {.work = w, .kv = kv, .batch = batch, .rms_eps = m->cfg.rms_eps};
    m->backend->embed(w, m->embedding_kind, m->embedding->data, batch->tokens, batch->n_tok);
    enum atom_status st = atom_tensors_check(m->tensors, err);
    if (st)
        return st;
    for (int i = 0; i < m->cfg.layers; i++)
        atom_layer_step(&m->layers[i], i, i, &step);
    atom_layer_check(&m->layers[m->cfg.layers - 1], m->cfg.layers - 1, w);
    return ATOM_OK;
}

static enum atom_status head_part(const struct atom_config *cfg, const struct atom_tensors *tensors,
                                  struct atom_linear_part *part, struct atom_error *err)
{
    const struct atom_tensor *t;
    enum atom_status st;
    *part = (struct atom_linear_part){.name = "lm_head", .n = cfg->vocab};
    if (integer_head(cfg)) {
        st = atom_tensors_need(tensors, "lm_head.qweight", 1u << ATOM_I8, cfg->vocab, cfg->hidden, &t, err);
        if (st)
            return st;
        part->kind = ATOM_W_BYTE;
        part->qweight = t->data;
        part->rows_per_scale = 1;
        part->row_scales = true;
        st = atom_tensors_need(tensors, "lm_head.scales", 1u << ATOM_F16, cfg->vocab, -1, &t, err);
        st = st ? st : atom_tensor_finite(t, err);
        part->scales = st ? NULL : t->data;
        return st;
    }
    const char *name = cfg->tied ? "model.embed_tokens.weight" : "lm_head.weight";
    st = atom_tensors_need(tensors, name, ATOM_FLOATS, cfg->vocab, cfg->hidden, &t, err);
    st = st || cfg->tied ? st : atom_tensor_finite(t, err);
    if (st)
        return st;
    part->kind = atom_float_kind(t->dtype);
    part->weight = t->data;
    return ATOM_OK;
}

enum atom_status atom_head_load(const struct atom_backend *b, const struct atom_config *cfg,
                                const struct atom_tensors *tensors, struct atom_head *out, struct atom_error *err)
{
    struct atom_head h = {.site = {.bits = integer_head(cfg) ? 8 : 16, .clip = 1.0f, .gathers = true}};
    struct atom_linear_part part;
    enum atom_status st = head_part(cfg, tensors, &part, err);
    st = st ? st : head_layout(cfg, &h.site.lay, err);
    st = st ? st : b->linear_create(&h.site, &part, 1, &h.linear, err);
    if (st)
        atom_head_fini(b, &h);
    else
        *out = h;
    atom_tensors_release(tensors);
    return st;
}

void atom_head_fini(const struct atom_backend *b, struct atom_head *h)
{
    if (h->linear)
        b->linear_free(h->linear);
    atom_layout_fini(&h->site.lay);
    *h = (struct atom_head){.linear = NULL};
}

static enum atom_status load_ends(struct atom_model *m, struct atom_error *err)
{
    const struct atom_config *cfg = &m->cfg;
    const struct atom_tensor *t;
    enum atom_status st = atom_tensors_need(m->tensors, "model.embed_tokens.weight", ATOM_FLOATS, cfg->vocab,
                                            cfg->hidden, &m->embedding, err);
    st = st ? st : atom_tensor_finite(m->embedding, err);
    if (st)
        return st;
    atom_tensors_release(m->tensors); /* of the embedding, only rows that are used come back */
    m->embedding_kind = atom_float_kind(m->embedding->dtype);
    st = atom_tensors_need(m->tensors, "model.norm.weight", ATOM_FLOATS, cfg->hidden, -1, &t, err);
    st = st ? st : atom_tensor_finite(t, err);
    if (st)
        return st;
    m->final_norm = malloc((size_t)cfg->hidden * sizeof *m->final_norm);
    if (!m->final_norm)
        return atom_fail_nomem(err, (size_t)cfg->hidden * sizeof *m->final_norm);
    atom_tensor_floats(t, 0, (size_t)cfg->hidden, m->final_norm);
    return atom_head_load(m->backend, cfg, m->tensors, &m->head, err);
}

static enum atom_status load_layers(struct atom_model *m, struct atom_error *err)
{
    struct atom_layer_source src = {.cfg = &m->cfg, .tensors = m->tensors, .scheme = m->cfg.scheme};
    m->layers = calloc((size_t)m->cfg.layers, sizeof *m->layers);
    if (!m->layers)
        return atom_fail_nomem(err, (size_t)m->cfg.layers * sizeof *m->layers);
    for (int i = 0; i < m->cfg.layers; i++) {
        enum atom_status st = m->cfg.foreign.format
                                  ? atom_foreign_layer_load(m->backend, &m->cfg, m->tensors, i, &m->layers[i], err)
                                  : atom_layer_load(m->backend, &src, i, &m->layers[i], err);
        if (st)
            return st;
    }
    return ATOM_OK;
}

static void fill_info(struct atom_model *m)
{
    const struct atom_config *c = &m->cfg;
    m->info = (struct atom_model_info){.hidden = c->hidden,
                                       .intermediate = c->intermediate,
                                       .layers = c->layers,
                                       .heads = c->heads,
                                       .kv_heads = c->kv_heads,
                                       .head_dim = c->head_dim,
                                       .vocab = c->vocab,
                                       .max_position = c->max_position,
                                       .quantized = c->quantized,
                                       .scheme = c->scheme,
                                       .bos = c->bos,
                                       .n_eos = c->n_eos};
    memcpy(m->info.eos, c->eos, sizeof m->info.eos);
}

enum atom_status atom_model_build(const struct atom_config *cfg, struct atom_tensors *tensors,
                                  struct atom_tokenizer *tokenizer, struct atom_model **out, struct atom_error *err)
{
    struct atom_model *m = calloc(1, sizeof *m);
    if (!m) {
        atom_tokenizer_close(tokenizer);
        atom_tensors_close(tensors);
        return atom_fail_nomem(err, sizeof *m);
    }
    m->cfg = *cfg;
    m->backend = &atom_backend_cpu;
    m->tensors = tensors;
    m->tokenizer = tokenizer;
    enum atom_status st = load_ends(m, err);
    st = st ? st : load_layers(m, err);
    st = st ? st : atom_tensors_check(m->tensors, err);
    if (st) {
        atom_model_close(m);
        return st;
    }
    fill_info(m);
    *out = m;
    return ATOM_OK;
}

enum atom_status atom_model_open(const char *dir, struct atom_model **out, struct atom_error *err)
{
    struct atom_config cfg;
    struct atom_tensors *tensors = NULL;
    struct atom_tokenizer *tokenizer = NULL;
    if (!atom_cpu_name())
        return atom_fail(err, ATOM_ERR_INVALID, "atom_runtime_init has not been called");
    enum atom_status st = atom_config_load(dir, &cfg, err);
    st = st ? st : atom_tensors_open(dir, &tensors, err);
    st = st ? st : atom_tensors_known(&cfg, tensors, err);
    st = st ? st : atom_tokenizer_open(dir, &tokenizer, err);
    if (st) {
        atom_tensors_close(tensors);
        return st;
    }
    return atom_model_build(&cfg, tensors, tokenizer, out, err);
}

void atom_model_close(struct atom_model *m)
{
    if (!m)
        return;
    for (int i = 0; m->layers && i < m->cfg.layers; i++)
        if (m->layers[i].backend)
            atom_layer_fini(&m->layers[i]);
    free(m->layers);
    atom_head_fini(m->backend, &m->head);
    free(m->final_norm);
    atom_tokenizer_close(m->tokenizer);
    atom_tensors_close(m->tensors);
    free(m);
}

const struct atom_model_info *atom_model_info(const struct atom_model *m) { return &m->info; }
const struct atom_tokenizer *atom_model_tokenizer(const struct atom_model *m) { return m->tokenizer; }
