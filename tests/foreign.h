/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: one layer's linears as other programs store them, with the weights they mean. */
#ifndef ATOM_TESTS_FOREIGN_H
#define ATOM_TESTS_FOREIGN_H

#include "helpers.h"

#include "base/half.h"
#include "model/foreign_layer.h"

enum { FOREIGN_MAX_TENSORS = 64 };

struct foreign {
    bool gptq; /* else compressed-tensors */
    int bits, group;
    bool asymmetric, ordered, v2, bytes, acts;
    enum atom_dtype scales;
    /* NULL: i / group. The group of channel i of projection p. */
    int (*group_of)(const struct foreign *f, int proj, int k, int i);
    bool wild_scales; /* that no F16 holds */
    int n;
    char names[FOREIGN_MAX_TENSORS][96];
    struct atom_tensor at[FOREIGN_MAX_TENSORS];
    float *weights[ATOM_N_PROJ]; /* [n, k] natural */
    struct atom_tensors *tensors;
};

static inline uint32_t foreign_draw(uint32_t below)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static inline struct atom_tensor *foreign_add(struct foreign *f, const char *linear, const char *part,
                                              enum atom_dtype dtype, int64_t d0, int64_t d1)
{
    size_t bytes = dtype == ATOM_OTHER ? 8 : atom_dtype_bytes(dtype);
    struct atom_tensor *t = &f->at[f->n];
    assert_true(f->n < FOREIGN_MAX_TENSORS);
    snprintf(f->names[f->n], sizeof f->names[0], "model.layers.0.%s.%s", linear, part);
    *t = (struct atom_tensor){.name = f->names[f->n],
                              .dtype = dtype,
                              .dims = {d0, d1},
                              .n_dims = d1 < 0 ? 1 : 2,
                              .file = "model.safetensors"};
    snprintf(t->dtype_text, sizeof t->dtype_text, "%s", dtype == ATOM_OTHER ? "I64" : atom_dtype_name(dtype));
    t->n_bytes = (size_t)d0 * (size_t)(d1 < 0 ? 1 : d1) * bytes;
    t->data = calloc(t->n_bytes, 1);
    assert_non_null(t->data);
    f->n++;
    return t;
}

static inline void foreign_put_float(const struct atom_tensor *t, size_t i, float x)
{
    uint16_t h = t->dtype == ATOM_F16 ? atom_float_f16(x) : atom_float_bf16(x);
    if (t->dtype == ATOM_F32)
        memcpy((uint8_t *)(uintptr_t)t->data + 4 * i, &x, 4);
    else
        memcpy((uint8_t *)(uintptr_t)t->data + 2 * i, &h, 2);
}

/* ORs a code of some bits into the words of a row or column: element i of words `step` apart. */
static inline void foreign_put_code(const struct atom_tensor *t, size_t first, size_t step, int i, int bits, int code)
{
    uint32_t *words = (uint32_t *)(uintptr_t)t->data;
    words[first + (size_t)(i * bits / 32) * step] |= (uint32_t)code << i * bits % 32;
}

struct foreign_tensors {
    struct atom_tensor words, scales, zeros, g_idx;
};

static inline struct foreign_tensors foreign_make(struct foreign *f, const char *name, int n, int k, int groups)
{
    struct foreign_tensors t = {.words = {.name = NULL}};
    int per = 32 / f->bits;
    if (f->gptq) {
        t.words = *foreign_add(f, name, "qweight", ATOM_I32, (k + per - 1) / per, n);
        t.zeros = *foreign_add(f, name, "qzeros", ATOM_I32, groups, (n + per - 1) / per);
        t.scales = *foreign_add(f, name, "scales", f->scales, groups, n);
        t.g_idx = *foreign_add(f, name, "g_idx", ATOM_I32, k, -1);
        return t;
    }
    t.words = f->bytes ? *foreign_add(f, name, "weight", ATOM_I8, n, k)
                       : *foreign_add(f, name, "weight_packed", ATOM_I32, n, (k + per - 1) / per);
    t.scales = *foreign_add(f, name, "weight_scale", f->scales, n, groups);
    if (!f->bytes) {
        const int64_t shape[2] = {n, k};
        memcpy((void *)(uintptr_t)foreign_add(f, name, "weight_shape", ATOM_OTHER, 2, -1)->data, shape, sizeof shape);
    }
    if (f->asymmetric)
        t.zeros = *foreign_add(f, name, "weight_zero_point", ATOM_I32, (n + per - 1) / per, groups);
    if (f->ordered)
        t.g_idx = *foreign_add(f, name, "weight_g_idx", ATOM_I32, k, -1);
    return t;
}

/* One projection with random codes. */
static inline void foreign_linear(struct foreign *f, const struct atom_config *cfg, int proj)
{
    int n = atom_proj_rows(cfg, proj), k = atom_site_channels(cfg, atom_projs[proj].site);
    int size = f->group ? f->group : k, groups = (k + size - 1) / size, most = (1 << f->bits) - 1;
    const struct foreign_tensors t = foreign_make(f, atom_projs[proj].name, n, k, groups);
    float *w = f->weights[proj] = malloc((size_t)n * (size_t)k * sizeof *w);
    float *scale = malloc((size_t)groups * sizeof *scale);
    int *zero = malloc((size_t)groups * sizeof *zero);
    assert_non_null(w);
    assert_non_null(scale);
    assert_non_null(zero);
    for (int r = 0; r < n; r++) {
        for (int g = 0; g < groups; g++) {
            size_t at = f->gptq ? (size_t)g * (size_t)n + (size_t)r : (size_t)r * (size_t)groups + (size_t)g;
            foreign_put_float(&t.scales, at,
                              (0.25f + (float)foreign_draw(4096) / 4096) * (f->wild_scales ? 1e-7f : 0.01f));
            atom_tensor_floats(&t.scales, at, 1, &scale[g]);
            zero[g] = f->asymmetric ? 1 + (int)foreign_draw((uint32_t)most) : (most + 1) / 2;
            if (f->gptq)
                foreign_put_code(&t.zeros, (size_t)g * (size_t)t.zeros.dims[1], 1, r, f->bits, zero[g] - !f->v2);
            else if (f->asymmetric)
                foreign_put_code(&t.zeros, (size_t)g, (size_t)groups, r, f->bits, zero[g]);
        }
        for (int i = 0; i < k; i++) {
            int code = (int)foreign_draw((uint32_t)most + 1), g = f->group_of ? f->group_of(f, proj, k, i) : i / size;
            if (f->gptq)
                foreign_put_code(&t.words, (size_t)r, (size_t)n, i, f->bits, code);
            else if (f->bytes)
                ((int8_t *)(uintptr_t)t.words.data)[(size_t)r * (size_t)k + (size_t)i] = (int8_t)(code - 128);
            else
                foreign_put_code(&t.words, (size_t)r * (size_t)t.words.dims[1], 1, i, f->bits, code);
            if (t.g_idx.data)
                ((int32_t *)(uintptr_t)t.g_idx.data)[i] = g;
            w[(size_t)r * (size_t)k + (size_t)i] = (float)(code - zero[g]) * scale[g];
        }
    }
    free(scale);
    free(zero);
}

/* All seven. cfg->foreign and scheme come from f by way of config.json's words. */
static inline void foreign_layer(struct foreign *f, struct atom_config *cfg)
{
    struct atom_error err = {0};
    char gptq[300], weights[400], text[1000];
    snprintf(gptq, sizeof gptq,
             "\"quant_method\":\"gptq\",\"bits\":%d,\"group_size\":%d,\"desc_act\":%s,\"sym\":%s,"
             "\"checkpoint_format\":\"%s\"",
             f->bits, f->group ? f->group : -1, f->ordered ? "true" : "false", f->asymmetric ? "false" : "true",
             f->v2 ? "gptq_v2" : "gptq");
    snprintf(weights, sizeof weights,
             "\"quant_method\":\"compressed-tensors\",\"format\":\"%s-quantized\",\"config_groups\":{\"group_0\":"
             "{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":%d,\"type\":\"int\",\"symmetric\":%s,"
             "\"strategy\":\"%s\",\"group_size\":%d,\"actorder\":%s}%s}}",
             f->bytes ? "int" : "pack", f->bits, f->asymmetric ? "false" : "true", f->group ? "group" : "channel",
             f->group ? f->group : -1, f->ordered ? "\"group\"" : "null",
             f->acts ? ",\"input_activations\":{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true}" : "");
    snprintf(text, sizeof text,
             "{\"model_type\":\"llama\",\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":1,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"vocab_size\":64,"
             "\"quantization_config\":{%s}}",
             cfg->hidden, cfg->intermediate, cfg->heads, cfg->kv_heads, cfg->head_dim, f->gptq ? gptq : weights);
    assert_ok(atom_config_parse(text, strlen(text), cfg, &err), &err);
    for (int p = 0; p < ATOM_N_PROJ; p++)
        foreign_linear(f, cfg, p);
    assert_ok(atom_tensors_wrap(f->at, (size_t)f->n, &f->tensors, &err), &err);
}

static inline void foreign_free(struct foreign *f)
{
    atom_tensors_close(f->tensors);
    for (int i = 0; i < f->n; i++)
        free((void *)(uintptr_t)f->at[i].data);
    for (int p = 0; p < ATOM_N_PROJ; p++)
        free(f->weights[p]);
}

#endif
