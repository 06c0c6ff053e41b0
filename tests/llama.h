/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: Llama checkpoints of any shape with random weights, copies of checkpoints with one number changed, and
 * text to calibrate on. The tokenizer is that of models/tiny. */
#ifndef ATOM_TESTS_LLAMA_H
#define ATOM_TESTS_LLAMA_H

#include "helpers.h"

#include "base/half.h"
#include "model/safetensors.h"

#include <math.h>

enum { LLAMA_VOCAB = 4096, LLAMA_MARKER = 77, LLAMA_MAX_TENSORS = 128 };

struct llama {
    int hidden, intermediate, layers, heads, kv_heads, head_dim;
    bool attention_bias, mlp_bias, tied, llama3, sharded;
    enum atom_dtype dtype;
    /* Channel 0 is kept free: only token LLAMA_MARKER has it, and no layer writes it. */
    bool marker;
    void (*edit)(const char *name, float *w, int rows, int cols); /* may be NULL */
};

static inline float llama_unit(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*seed >> 32) * 0x1p-31f;
}

static inline size_t llama_pack(enum atom_dtype dtype, const float *x, size_t n, void *out)
{
    uint16_t *h = out;
    if (dtype == ATOM_F32)
        memcpy(out, x, 4 * n);
    for (size_t i = 0; i < n && dtype != ATOM_F32; i++)
        h[i] = dtype == ATOM_F16 ? atom_float_f16(x[i]) : atom_float_bf16(x[i]);
    return n * atom_dtype_bytes(dtype);
}

struct llama_tensors {
    const struct llama *of;
    uint64_t seed;
    int n;
    char names[LLAMA_MAX_TENSORS][96];
    struct atom_tensor at[LLAMA_MAX_TENSORS];
};

static inline void llama_add(struct llama_tensors *t, int rows, int cols, float scale, const char *name)
{
    size_t n = (size_t)rows * (size_t)(cols ? cols : 1);
    float *w = malloc(n * sizeof *w), *data = malloc(n * sizeof *data);
    assert_non_null(w);
    assert_non_null(data);
    assert_true(t->n < LLAMA_MAX_TENSORS);
    for (size_t i = 0; i < n; i++)
        w[i] = strstr(name, "norm") ? 1.0f + 0.2f * llama_unit(&t->seed) : scale * llama_unit(&t->seed);
    for (int r = 0; t->of->marker && strstr(name, "embed_tokens") && r < rows; r++)
        w[(size_t)r * (size_t)cols] = r == LLAMA_MARKER ? 40.0f : 0.0f;
    if (t->of->marker && (strstr(name, "o_proj.weight") || strstr(name, "down_proj.weight")))
        memset(w, 0, (size_t)cols * sizeof *w);
    if (t->of->edit)
        t->of->edit(name, w, rows, cols);
    snprintf(t->names[t->n], sizeof t->names[0], "%s", name);
    t->at[t->n] = (struct atom_tensor){.name = t->names[t->n],
                                       .dtype = t->of->dtype,
                                       .n_dims = cols ? 2 : 1,
                                       .data = data,
                                       .dims = {rows, cols},
                                       .n_bytes = llama_pack(t->of->dtype, w, n, data)};
    t->n++;
    free(w);
}

static inline void llama_add_layer(struct llama_tensors *t, int layer)
{
    const struct llama *m = t->of;
    int q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim, h = m->hidden, f = m->intermediate;
    const struct {
        const char *name;
        int rows, cols;
        bool bias;
    } all[] = {{"input_layernorm", h, 0, false},
               {"post_attention_layernorm", h, 0, false},
               {"self_attn.q_proj", q, h, m->attention_bias},
               {"self_attn.k_proj", kv, h, m->attention_bias},
               {"self_attn.v_proj", kv, h, m->attention_bias},
               {"self_attn.o_proj", h, q, m->attention_bias},
               {"mlp.gate_proj", f, h, m->mlp_bias},
               {"mlp.up_proj", f, h, m->mlp_bias},
               {"mlp.down_proj", h, f, m->mlp_bias}};
    char name[96];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, all[i].name);
        llama_add(t, all[i].rows, all[i].cols, all[i].cols ? 1.7f / sqrtf((float)all[i].cols) : 1, name);
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, all[i].name);
        if (all[i].bias)
            llama_add(t, all[i].rows, 0, m->marker ? 0.0f : 0.3f, name);
    }
}

static inline void llama_config(const char *dir, const struct llama *m)
{
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"model_type\": \"llama\", \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d,\n"
        " \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d,\n"
        " \"attention_bias\": %s, \"mlp_bias\": %s, \"tie_word_embeddings\": %s, \"rms_norm_eps\": 1e-5,\n"
        " \"max_position_embeddings\": 1024, \"bos_token_id\": 1, \"eos_token_id\": 2, \"rope_theta\": 10000%s\n}\n",
        m->hidden, m->intermediate, m->layers, m->heads, m->kv_heads, m->head_dim, LLAMA_VOCAB,
        m->attention_bias ? "true" : "false", m->mlp_bias ? "true" : "false", m->tied ? "true" : "false",
        m->llama3 ? ",\n \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 256}"
                  : "");
    put_text(dir, "config.json", text);
}

static inline void copy_file(const char *from, const char *name, const char *to)
{
    char command[4096];
    snprintf(command, sizeof command, "cp '%s/%s' '%s/'", from, name, to);
    assert_int_equal(system(command), 0);
}

/* One file, or two with an index. */
static inline void llama_write(const char *dir, const struct llama_tensors *t, bool sharded)
{
    struct atom_error err = {0};
    static const char *const names[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
    int half = t->n / 2;
    if (!sharded) {
        assert_ok(atom_safetensors_write(in_dir(dir, "model.safetensors"), t->at, t->n, &err), &err);
        return;
    }
    assert_ok(atom_safetensors_write(in_dir(dir, names[0]), t->at, half, &err), &err);
    assert_ok(atom_safetensors_write(in_dir(dir, names[1]), t->at + half, t->n - half, &err), &err);
    FILE *f = fopen(in_dir(dir, "model.safetensors.index.json"), "w");
    assert_non_null(f);
    fprintf(f, "{\"metadata\": {}, \"weight_map\": {");
    for (int i = 0; i < t->n; i++)
        fprintf(f, "%s\"%s\": \"%s\"", i ? ",\n" : "", t->at[i].name, names[i >= half]);
    fprintf(f, "}}\n");
    assert_int_equal(fclose(f), 0);
}

static inline void put_llama(const char *dir, const struct llama *m)
{
    struct llama_tensors *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->of = m;
    t->seed = 4711;
    llama_config(dir, m);
    copy_file("models/tiny", "tokenizer.json", dir);
    llama_add(t, LLAMA_VOCAB, m->hidden, 1.0f, "model.embed_tokens.weight");
    for (int i = 0; i < m->layers; i++)
        llama_add_layer(t, i);
    llama_add(t, m->hidden, 0, 1, "model.norm.weight");
    if (!m->tied)
        llama_add(t, LLAMA_VOCAB, m->hidden, 0.3f, "lm_head.weight");
    llama_write(dir, t, m->sharded);
    for (int i = 0; i < t->n; i++)
        free((void *)t->at[i].data);
    free(t);
}

/* A copy of a checkpoint, in one file, with one number of one tensor set. */
static inline void put_patched(const char *from, const char *to, const char *name, size_t element, float value)
{
    struct atom_error err = {0};
    struct atom_tensors *t;
    assert_ok(atom_tensors_open(from, &t, &err), &err);
    int n = (int)atom_tensors_count(t), found = -1;
    struct atom_tensor *all = calloc((size_t)n, sizeof *all);
    uint8_t *data = NULL;
    assert_non_null(all);
    for (int i = 0; i < n; i++) {
        all[i] = *atom_tensors_at(t, (size_t)i);
        if (strcmp(all[i].name, name))
            continue;
        found = i;
        data = malloc(all[i].n_bytes);
        assert_non_null(data);
        memcpy(data, all[i].data, all[i].n_bytes);
        uint8_t bytes[4];
        size_t size = llama_pack(all[i].dtype, &value, 1, bytes);
        assert_true((element + 1) * size <= all[i].n_bytes);
        memcpy(data + element * size, bytes, size);
        all[i].data = data;
    }
    assert_true(found >= 0);
    assert_ok(atom_safetensors_write(in_dir(to, "model.safetensors"), all, n, &err), &err);
    copy_file(from, "config.json", to);
    copy_file(from, "tokenizer.json", to);
    free(data);
    free(all);
    atom_tensors_close(t);
}

/* DIR/calib.txt: some 1500 tokens as models/tiny itself would write them, so that it finds them likely. */
static inline void put_calibration(const char *dir)
{
    enum { SEQS = 12, EACH = 128 };
    static int32_t ids[SEQS][EACH];
    const struct atom_session_options opt = {.max_sequences = SEQS, .max_positions = SEQS * EACH, .step_tokens = SEQS};
    const struct atom_sampling sampling = {.temperature = 0.8f, .seed = 3};
    struct atom_error err = {0};
    struct atom_model *m;
    struct atom_session *s;
    assert_ok(atom_model_open("models/tiny", &m, &err), &err);
    assert_ok(atom_session_create(m, &opt, &s, &err), &err);
    int vocab = atom_model_info(m)->vocab, rows[SEQS], seq[SEQS];
    float *logits = malloc((size_t)SEQS * (size_t)vocab * sizeof *logits);
    void *scratch = malloc(atom_sample_scratch_bytes(vocab));
    assert_true(logits && scratch);
    struct atom_step_seq step[SEQS];
    for (int i = 0; i < SEQS; i++) {
        assert_ok(atom_session_add(s, &seq[i], &err), &err);
        rows[i] = i;
        ids[i][0] = 400 + 97 * i;
    }
    for (int t = 0; t + 1 < EACH; t++) {
        for (int i = 0; i < SEQS; i++)
            step[i] = (struct atom_step_seq){.sequence = seq[i], .tokens = &ids[i][t], .n_tokens = 1};
        assert_ok(atom_session_step(s, step, SEQS, &err), &err);
        assert_ok(atom_session_logits(s, rows, SEQS, logits, &err), &err);
        for (int i = 0; i < SEQS; i++)
            ids[i][t + 1] =
                atom_sample(&sampling, (uint64_t)(i * EACH + t), logits + (size_t)i * (size_t)vocab, vocab, scratch);
    }
    char *text;
    size_t n_bytes;
    assert_ok(atom_tokenizer_decode(atom_model_tokenizer(m), ids[0], SEQS * EACH, ATOM_DECODE_SKIP_SPECIAL, &text,
                                    &n_bytes, &err),
              &err);
    put_bytes(dir, "calib.txt", text, n_bytes);
    free(text);
    free(logits);
    free(scratch);
    atom_session_free(s);
    atom_model_close(m);
}

/* Options for a quick run on DIR/calib.txt. */
static inline struct atom_quantize_options quick_options(const char *model, const char *out, const char *calib)
{
    struct atom_quantize_options o = {
        .model = model, .out = out, .calib = calib, .samples = 4, .window = 64, .fit = true};
    struct atom_error err = {0};
    assert_ok(atom_scheme_named("default", &o.scheme, &err), &err);
    o.scheme.outliers = -1;
    return o;
}

#endif
