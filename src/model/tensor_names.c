/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tensor_names.h"

#include "model/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_one_of(const char *text, const char *const *words)
{
    while (*words && strcmp(text, *words) != 0)
        words++;
    return *words != NULL;
}

/* What follows "model.layers.N." for a layer that the model has, N spelled as it is written; else NULL. */
static const char *after_layer(const struct atom_config *cfg, const char *name, int *layer)
{
    static const char prefix[] = "model.layers.";
    char spelled[16];
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return NULL;
    const char *number = name + sizeof prefix - 1;
    size_t n = strspn(number, "0123456789");
    if (n < 1 || n > 6 || number[n] != '.')
        return NULL;
    *layer = atoi(number);
    snprintf(spelled, sizeof spelled, "%d", *layer);
    return *layer < cfg->layers && strlen(spelled) == n ? number + n + 1 : NULL;
}

/* part: "weight", "scales" ... of projection proj. */
static enum atom_tensor_kind kind_of_part(const struct atom_config *cfg, int proj, const char *part)
{
    static const char *const quantized[] = {"qweight", "scales", NULL};
    static const char *const outliers[] = {"outlier_qweight", "outlier_scales", NULL};
    static const char *const float_outliers[] = {"outlier_weight", NULL};
    static const char *const floats[] = {"weight", NULL};
    const bool integers = cfg->quantized && cfg->scheme.wbits < 16;
    const bool bias = atom_projs[proj].linear <= ATOM_LIN_O ? cfg->attention_bias : cfg->mlp_bias;
    if (strcmp(part, "bias") == 0)
        return bias ? ATOM_TENSOR_BIAS : cfg->foreign.format ? ATOM_TENSOR_UNUSED : ATOM_TENSOR_UNKNOWN;
    if (cfg->foreign.format)
        return cfg->foreign.format->has_part(&cfg->foreign, part) ? ATOM_TENSOR_LINEAR : ATOM_TENSOR_UNKNOWN;
    if (is_one_of(part, integers ? quantized : floats) ||
        (integers && cfg->scheme.outliers > 0 &&
         is_one_of(part, cfg->scheme.outlier_bits == 16 ? float_outliers : outliers)) ||
        (integers && cfg->scheme.format == ATOM_FORMAT_NVFP4 && strcmp(part, "tensor_scale") == 0))
        return ATOM_TENSOR_LINEAR;
    return ATOM_TENSOR_UNKNOWN;
}

static void place_in_layer(const struct atom_config *cfg, const char *rest, struct atom_tensor_place *p)
{
    static const char *const norms[] = {"input_layernorm.weight", "post_attention_layernorm.weight", NULL};
    const bool ordered = cfg->quantized && !cfg->foreign.format && (cfg->scheme.wbits < 16 || cfg->scheme.abits < 16);
    if (is_one_of(rest, norms))
        p->kind = ATOM_TENSOR_NORM;
    for (int i = 0; i < ATOM_N_SITES && ordered; i++) {
        size_t n = strlen(atom_site_names[i]);
        if (strncmp(rest, atom_site_names[i], n) == 0 && strcmp(rest + n, ".order") == 0)
            p->kind = ATOM_TENSOR_ORDER;
    }
    for (int i = 0; i < ATOM_N_PROJ; i++) {
        size_t n = strlen(atom_projs[i].name);
        if (strncmp(rest, atom_projs[i].name, n) == 0 && rest[n] == '.') {
            p->proj = i;
            p->kind = kind_of_part(cfg, i, rest + n + 1);
        }
    }
}

static enum atom_tensor_kind kind_of_head(const struct atom_config *cfg, const char *part)
{
    static const char *const bytes[] = {"qweight", "scales", NULL};
    if (cfg->quantized && cfg->scheme.lm_head_bits == 8)
        return is_one_of(part, bytes) ? ATOM_TENSOR_HEAD : ATOM_TENSOR_UNKNOWN;
    if (strcmp(part, "weight") != 0)
        return ATOM_TENSOR_UNKNOWN;
    return cfg->tied ? ATOM_TENSOR_UNUSED : ATOM_TENSOR_HEAD;
}

struct atom_tensor_place atom_tensor_place(const struct atom_config *cfg, const char *name)
{
    struct atom_tensor_place p = {.kind = ATOM_TENSOR_UNKNOWN, .layer = -1, .proj = -1};
    const char *rest = after_layer(cfg, name, &p.layer);
    if (ends_with(name, ".rotary_emb.inv_freq"))
        p.kind = ATOM_TENSOR_UNUSED;
    else if (rest)
        place_in_layer(cfg, rest, &p);
    else if (strcmp(name, "model.embed_tokens.weight") == 0)
        p.kind = ATOM_TENSOR_EMBEDDING;
    else if (strcmp(name, "model.norm.weight") == 0)
        p.kind = ATOM_TENSOR_NORM;
    else if (strncmp(name, "lm_head.", 8) == 0)
        p.kind = kind_of_head(cfg, name + 8);
    return p;
}

enum atom_status atom_tensors_known(const struct atom_config *cfg, const struct atom_tensors *t, struct atom_error *err)
{
    for (size_t i = 0; i < atom_tensors_count(t); i++) {
        const struct atom_tensor *tensor = atom_tensors_at(t, i);
        if (atom_tensor_place(cfg, tensor->name).kind == ATOM_TENSOR_UNKNOWN)
            return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                             "%s: tensor '%s' has no place in a model of %d layers as config.json describes it",
                             tensor->file, tensor->name, cfg->layers);
    }
    return ATOM_OK;
}
