/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of a Llama-family model, float or quantized by atom. */
#ifndef ATOM_MODEL_CONFIG_H
#define ATOM_MODEL_CONFIG_H

#include "base/error.h"
#include "model/foreign.h"

enum atom_rope_kind { ATOM_ROPE_DEFAULT, ATOM_ROPE_LINEAR, ATOM_ROPE_LLAMA3 };

struct atom_rope {
    enum atom_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    int original_max_position;                /* llama3 */
    bool bf16_frequencies; /* round them as a model cast to bfloat16, buffers and all, would: no config.json says so */
};

struct atom_config {
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_position;
    struct atom_rope rope;
    float rms_eps;
    bool tied;           /* lm_head is the embedding */
    bool attention_bias; /* q, k, v and o have one */
    bool mlp_bias;       /* gate, up and down have one */
    int bos;             /* -1: none */
    int n_eos;
    int eos[8];
    bool quantized;
    struct atom_scheme scheme;   /* 16/16/16 when not quantized */
    struct atom_foreign foreign; /* how another program stored its quantized linears; format NULL: none did */
};

/* Reads DIR/config.json (and eos ids of DIR/generation_config.json if there, and DIR/quantize_config.json, where older
 * GPTQ directories say what others say in quantization_config). Every field is either understood,
 * known not to change the arithmetic, or refused by name. */
enum atom_status atom_config_load(const char *dir, struct atom_config *out, struct atom_error *err);

/* The same from config.json's text alone. */
enum atom_status atom_config_parse(const char *text, size_t n_bytes, struct atom_config *out, struct atom_error *err);

/* DIR/config.json's text with quantization_config set from scheme, malloc'd. */
enum atom_status atom_config_quantized_text(const char *dir, const struct atom_scheme *scheme, char **text,
                                            struct atom_error *err);

/* Ranges and combinations ("--rotate qk needs --kv-rope post"); head_dim 0 skips what depends on the model. */
enum atom_status atom_scheme_check(const struct atom_scheme *scheme, int head_dim, struct atom_error *err);

#endif
