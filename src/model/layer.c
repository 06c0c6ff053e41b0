/* SPDX-License-Identifier: Apache-2.0 */
#include "model/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct atom_proj atom_projs[ATOM_N_PROJ] = {
    {"self_attn.q_proj", ATOM_ATTN_IN, ATOM_LIN_QKV}, {"self_attn.k_proj", ATOM_ATTN_IN, ATOM_LIN_QKV},
    {"self_attn.v_proj", ATOM_ATTN_IN, ATOM_LIN_QKV}, {"self_attn.o_proj", ATOM_O_IN, ATOM_LIN_O},
    {"mlp.gate_proj", ATOM_MLP_IN, ATOM_LIN_GATE_UP}, {"mlp.up_proj", ATOM_MLP_IN, ATOM_LIN_GATE_UP},
    {"mlp.down_proj", ATOM_DOWN_IN, ATOM_LIN_DOWN},
};
const char *const atom_site_names[ATOM_N_SITES] = {"attn_in", "o_in", "mlp_in", "down_in"};

/* Places of a step in the order it comes by them, so that the least of several codes is where trouble began. */
enum place { AT_ATTN_IN, AT_KV, AT_O_IN, AT_MLP_IN, AT_DOWN_IN, AT_OUTPUT, N_PLACES };
static const char *const place_names[N_PLACES] = {"attn_in", "the KV cache", "o_in", "mlp_in", "down_in", "its output"};

static int where_code(int layer, enum place place) { return 1 + layer * N_PLACES + (int)place; }

char *atom_where_text(int where, char *buf, size_t n_bytes)
{
    snprintf(buf, n_bytes, "layer %d, %s", (where - 1) / N_PLACES, place_names[(where - 1) % N_PLACES]);
    return buf;
}

enum atom_weight_kind atom_float_kind(enum atom_dtype t)
{
    return t == ATOM_F32 ? ATOM_W_F32 : t == ATOM_F16 ? ATOM_W_F16 : ATOM_W_BF16;
}

int atom_site_channels(const struct atom_config *cfg, enum atom_site_id site)
{
    switch (site) {
    case ATOM_O_IN:
        return cfg->heads * cfg->head_dim;
    case ATOM_DOWN_IN:
        return cfg->intermediate;
    default:
        return cfg->hidden;
    }
}

int atom_narrowest_site(const struct atom_config *cfg)
{
    int narrowest = cfg->hidden;
    for (int i = 0; i < ATOM_N_SITES; i++) {
        int k = atom_site_channels(cfg, (enum atom_site_id)i);
        narrowest = k < narrowest ? k : narrowest;
    }
    return narrowest;
}

int atom_proj_rows(const struct atom_config *cfg, int proj)
{
    const int rows[ATOM_N_PROJ] = {cfg->heads * cfg->head_dim,
                                   cfg->kv_heads * cfg->head_dim,
                                   cfg->kv_heads * cfg->head_dim,
                                   cfg->hidden,
                                   cfg->intermediate,
                                   cfg->intermediate,
                                   cfg->hidden};
    return rows[proj];
}

enum atom_status atom_scheme_layout(const struct atom_scheme *scheme, int k, struct atom_layout *out,
                                    struct atom_error *err)
{
    bool floats = scheme->wbits == 16 && scheme->abits == 16;
    int outliers = floats ? 0 : scheme->outliers < k ? scheme->outliers : k;
    return atom_layout_init(out, k, floats ? 0 : scheme->group, outliers, err);
}

static bool go_on(const struct atom_step *step, enum atom_site_id site)
{
    return !step->at_site || step->at_site(step->user, site, step->work);
}

void atom_layer_step(const struct atom_layer *layer, int index, int kv_layer, const struct atom_step *step)
{
    const struct atom_backend *b = layer->backend;
    struct atom_work *w = step->work;
    const struct atom_site *site = layer->sites;
    struct atom_linear *const *lin = layer->linears;
    b->norm(w, layer->norms[0], step->rms_eps, &site[ATOM_ATTN_IN], where_code(index, AT_ATTN_IN));
    if (!go_on(step, ATOM_ATTN_IN))
        return;
    b->linear(w, lin[ATOM_LIN_QKV], ATOM_BUF_QKV, false);
    b->store(w, step->kv, kv_layer, step->batch, where_code(index, AT_KV));
    b->attend(w, step->kv, kv_layer, step->batch);
    b->gather(w, &site[ATOM_O_IN], where_code(index, AT_O_IN));
    if (!go_on(step, ATOM_O_IN))
        return;
    b->linear(w, lin[ATOM_LIN_O], ATOM_BUF_X, true);
    b->norm(w, layer->norms[1], step->rms_eps, &site[ATOM_MLP_IN], where_code(index, AT_MLP_IN));
    if (!go_on(step, ATOM_MLP_IN))
        return;
    b->linear(w, lin[ATOM_LIN_GATE_UP], ATOM_BUF_GATE_UP, false);
    b->silu(w, &site[ATOM_DOWN_IN], where_code(index, AT_DOWN_IN));
    if (go_on(step, ATOM_DOWN_IN))
        b->linear(w, lin[ATOM_LIN_DOWN], ATOM_BUF_X, true);
}

void atom_layer_check(const struct atom_layer *layer, int index, struct atom_work *w)
{
    layer->backend->check(w, where_code(index, AT_OUTPUT));
}

void atom_layer_fini(struct atom_layer *layer)
{
    for (int i = 0; i < ATOM_N_SITES; i++) {
        atom_layout_fini(&layer->sites[i].lay);
        free(layer->sites[i].order);
    }
    for (int i = 0; i < 2; i++)
        free(layer->norms[i]);
    for (int i = 0; i < ATOM_N_LINEARS; i++)
        if (layer->linears[i])
            layer->backend->linear_free(layer->linears[i]);
    memset(layer, 0, sizeof *layer);
}
