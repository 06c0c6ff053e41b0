/* SPDX-License-Identifier: Apache-2.0 */
#include "model/config.h"

#include "model/fields.h"
#include "model/json_read.h"
#include "model/rope_config.h"
#include "model/scheme.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Products of two counts of channels exceed an int; sums of a few do not. */
enum { MAX_CHANNELS = 1 << 20, MAX_VOCAB = 1 << 24, MAX_LAYERS = 1 << 12, MAX_POSITIONS = 1 << 26 };
enum { FILE_LIMIT = 1 << 24 };

#define MAX_EOS ((int)(sizeof((struct atom_config *)0)->eos / sizeof(int)))

struct parsed {
    struct atom_config config;
    struct atom_rope_source rope;
    const json_t *quantization;
    int tensor_parallel;
};

/* ---- fields ------------------------------------------------------------------------------------------------------ */

static enum atom_status read_act(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                 void *out)
{
    const char *name = json_string_value(value);
    /* Two names of one function. */
    if (name && (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0))
        return ATOM_OK;
    return atom_field_refuse(place, field, value, out);
}

static enum atom_status read_layer_types(const struct atom_place *place, const struct atom_field *field,
                                         const json_t *value, void *out)
{
    if (!json_is_array(value))
        return atom_field_refuse(place, field, value, out);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *name = json_string_value(json_array_get(value, i));
        if (!name || strcmp(name, "full_attention"))
            return atom_field_refuse(place, field, json_array_get(value, i), out);
    }
    return ATOM_OK;
}

static enum atom_status read_empty(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                   void *out)
{
    if (json_is_object(value) && json_object_size(value) == 0)
        return ATOM_OK;
    return atom_field_refuse(place, field, value, out);
}

static enum atom_status add_eos(const struct atom_place *place, const json_t *value, struct atom_config *config)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= MAX_VOCAB)
        return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: eos_token_id is not an id or a list of them", place->object);
    int id = (int)json_integer_value(value);
    for (int i = 0; i < config->n_eos; i++) {
        if (config->eos[i] == id)
            return ATOM_OK;
    }
    if (config->n_eos == MAX_EOS)
        return atom_fail(place->err, ATOM_ERR_UNSUPPORTED, "%s: there are more than %d end-of-text ids", place->object,
                         MAX_EOS);
    config->eos[config->n_eos++] = id;
    return ATOM_OK;
}

static enum atom_status read_eos(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                 void *out)
{
    (void)field;
    struct parsed *p = out;
    enum atom_status status = ATOM_OK;
    if (!json_is_array(value))
        return add_eos(place, value, &p->config);
    for (size_t i = 0; i < json_array_size(value) && !status; i++)
        status = add_eos(place, json_array_get(value, i), &p->config);
    return status;
}

#define AT(field) offsetof(struct parsed, field)
#define HARMLESS(name)                                                                                                 \
    {                                                                                                                  \
        name, atom_field_ignore, 0, 0, 0, false                                                                        \
    }
#define ONLY_FALSE(name)                                                                                               \
    {                                                                                                                  \
        name, atom_field_false, 0, 0, 0, false                                                                         \
    }

static const struct atom_field fields[] = {
    HARMLESS("model_type"), /* seen to before the others */
    {"hidden_size", atom_field_int, AT(config.hidden), 1, MAX_CHANNELS, true},
    {"intermediate_size", atom_field_int, AT(config.intermediate), 1, MAX_CHANNELS, true},
    {"num_hidden_layers", atom_field_int, AT(config.layers), 1, MAX_LAYERS, true},
    {"num_attention_heads", atom_field_int, AT(config.heads), 1, MAX_CHANNELS, true},
    {"num_key_value_heads", atom_field_int, AT(config.kv_heads), 1, MAX_CHANNELS, false},
    {"head_dim", atom_field_int, AT(config.head_dim), 1, MAX_CHANNELS, false},
    {"vocab_size", atom_field_int, AT(config.vocab), 1, MAX_VOCAB, true},
    {"max_position_embeddings", atom_field_int, AT(config.max_position), 1, MAX_POSITIONS, false},
    {"rms_norm_eps", atom_field_float, AT(config.rms_eps), 1e-20, 1, false},
    {"tie_word_embeddings", atom_field_bool, AT(config.tied), 0, 0, false},
    {"attention_bias", atom_field_bool, AT(config.attention_bias), 0, 0, false},
    {"mlp_bias", atom_field_bool, AT(config.mlp_bias), 0, 0, false},
    {"hidden_act", read_act, 0, 0, 0, false},
    {"rope_theta", atom_field_double, AT(rope.theta), 1, 1e12, false},
    {"rope_scaling", atom_field_json, AT(rope.scaling), 0, 0, false},
    {"rope_parameters", atom_field_json, AT(rope.parameters), 0, 0, false},
    {"quantization_config", atom_field_json, AT(quantization), 0, 0, false},
    {"bos_token_id", atom_field_int, AT(config.bos), -1, MAX_VOCAB, false},
    {"eos_token_id", read_eos, 0, 0, 0, false},
    /* Cuts each linear's input or output into slices that are put together again: the same sums. */
    {"pretraining_tp", atom_field_int, AT(tensor_parallel), 1, MAX_CHANNELS, false},

    /* Other arithmetic, when they say more than this. */
    {"partial_rotary_factor", atom_field_double, AT(rope.partial), 1, 1, false},
    {"sliding_window", atom_field_refuse, 0, 0, 0, false},
    {"layer_types", read_layer_types, 0, 0, 0, false},
    {"pruned_heads", read_empty, 0, 0, 0, false},
    ONLY_FALSE("use_sliding_window"),
    ONLY_FALSE("rope_interleaved"),
    ONLY_FALSE("is_encoder_decoder"),
    ONLY_FALSE("add_cross_attention"),
    ONLY_FALSE("tie_encoder_decoder"),

    /* Training, storage, text generation, other people's notes. */
    HARMLESS("_attn_implementation"),
    HARMLESS("_attn_implementation_autoset"),
    HARMLESS("_from_model_config"),
    HARMLESS("_name_or_path"),
    HARMLESS("architectures"),
    HARMLESS("attention_dropout"),
    HARMLESS("begin_suppress_tokens"),
    HARMLESS("chunk_size_feed_forward"),
    HARMLESS("do_sample"),
    HARMLESS("dtype"),
    HARMLESS("embd_pdrop"),
    HARMLESS("finetuning_task"),
    HARMLESS("gradient_checkpointing"),
    HARMLESS("hidden_dropout"),
    HARMLESS("id2label"),
    HARMLESS("initializer_range"),
    HARMLESS("is_decoder"),
    HARMLESS("is_llama_config"),
    HARMLESS("label2id"),
    HARMLESS("length_penalty"),
    HARMLESS("max_length"),
    HARMLESS("max_sequence_length"),
    HARMLESS("max_window_layers"),
    HARMLESS("min_length"),
    HARMLESS("model_max_length"),
    HARMLESS("num_beams"),
    HARMLESS("num_return_sequences"),
    HARMLESS("output_attentions"),
    HARMLESS("output_hidden_states"),
    HARMLESS("pad_token_id"),
    HARMLESS("problem_type"),
    HARMLESS("repetition_penalty"),
    HARMLESS("resid_pdrop"),
    HARMLESS("return_dict"),
    HARMLESS("return_dict_in_generate"),
    HARMLESS("sep_token_id"),
    HARMLESS("task_specific_params"),
    HARMLESS("temperature"),
    HARMLESS("tokenizer_class"),
    HARMLESS("top_k"),
    HARMLESS("top_p"),
    HARMLESS("torch_dtype"),
    HARMLESS("torchscript"),
    HARMLESS("transformers.js_config"),
    HARMLESS("transformers_version"),
    HARMLESS("unk_token_id"),
    HARMLESS("unsloth_fixed"),
    HARMLESS("unsloth_version"),
    HARMLESS("use_cache"),
};

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static enum atom_status check_model_type(const json_t *root, struct atom_error *err)
{
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (!type)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: field 'model_type' is missing");
    if (strcmp(type, "llama"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "config.json: model_type '%.64s' is not supported; 'llama' is",
                         type);
    return ATOM_OK;
}

/* Fills in what may be left out, and refuses shapes that do not go together. */
static enum atom_status settle_shapes(struct atom_config *c, struct atom_error *err)
{
    if (!c->kv_heads)
        c->kv_heads = c->heads;
    if (!c->head_dim && c->hidden % c->heads)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: hidden_size %d is no multiple of %d attention heads",
                         c->hidden, c->heads);
    if (!c->head_dim)
        c->head_dim = c->hidden / c->heads;
    if (c->heads % c->kv_heads)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: %d attention heads are no multiple of %d key-value heads",
                         c->heads, c->kv_heads);
    if (c->head_dim % 2)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: the head size %d is odd, but RoPE turns pairs",
                         c->head_dim);
    if ((int64_t)c->heads * c->head_dim > MAX_CHANNELS)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: %d heads of %d channels are more than %d channels",
                         c->heads, c->head_dim, MAX_CHANNELS);
    return ATOM_OK;
}

static enum atom_status check_ids(const struct atom_config *c, struct atom_error *err)
{
    if (c->bos >= c->vocab)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: bos_token_id %d is outside a vocabulary of %d", c->bos,
                         c->vocab);
    for (int i = 0; i < c->n_eos; i++) {
        if (c->eos[i] >= c->vocab)
            return atom_fail(err, ATOM_ERR_FORMAT, "config.json: eos_token_id %d is outside a vocabulary of %d",
                             c->eos[i], c->vocab);
    }
    return ATOM_OK;
}

/* Files that may lie beside config.json; NULL: there is none. */
struct beside {
    json_t *generation; /* generation_config.json, which may name more ids to stop at */
    json_t *gptq;       /* quantize_config.json, whose quant_method may go without saying */
};

static enum atom_status read_quantization(const json_t *quantization, const json_t *gptq, struct atom_config *c,
                                          struct atom_error *err)
{
    const json_t *object = quantization ? quantization : gptq;
    const char *method = json_string_value(json_object_get(object, "quant_method"));
    const struct atom_foreign_format *format = atom_foreign_find(method ? method : quantization ? "" : "gptq");
    c->quantized = object != NULL;
    if (!object)
        return ATOM_OK;
    if (format)
        return format->parse(quantization ? "config.json: quantization_config" : "quantize_config.json", object,
                             &c->foreign, &c->scheme, err);
    if (!quantization)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "quantize_config.json: quant_method '%.64s' is not supported",
                         method);
    return atom_scheme_parse(quantization, c->head_dim, &c->scheme, err);
}

static enum atom_status read_config(const json_t *root, const struct beside *files, struct atom_config *out,
                                    struct atom_error *err)
{
    struct atom_place place = {"config.json", err}, beside = {"generation_config.json", err};
    struct parsed p = {.config = {.bos = -1, .max_position = 2048, .rms_eps = 1e-6f, .scheme = atom_scheme_float}};
    const json_t *eos = json_object_get(files->generation, "eos_token_id");
    enum atom_status status = check_model_type(root, err);
    if (!status)
        status = atom_fields_read(&place, root, fields, sizeof fields / sizeof fields[0], &p);
    if (!status)
        status = settle_shapes(&p.config, err);
    if (!status)
        status = atom_rope_parse(&p.rope, &p.config.rope, err);
    if (!status && eos && !json_is_null(eos))
        status = read_eos(&beside, NULL, eos, &p);
    if (!status)
        status = check_ids(&p.config, err);
    if (!status)
        status = read_quantization(p.quantization, files->gptq, &p.config, err);
    if (!status)
        *out = p.config;
    return status;
}

enum atom_status atom_config_parse(const char *text, size_t n_bytes, struct atom_config *out, struct atom_error *err)
{
    json_t *root = NULL;
    struct beside none = {NULL, NULL};
    enum atom_status status = atom_json_parse("config.json", text, n_bytes, &root, err);
    if (!status)
        status = read_config(root, &none, out, err);
    json_decref(root);
    return status;
}

enum atom_status atom_config_load(const char *dir, struct atom_config *out, struct atom_error *err)
{
    json_t *root = NULL;
    struct beside files = {NULL, NULL};
    enum atom_status status = atom_json_load(dir, "config.json", FILE_LIMIT, false, &root, err);
    if (!status)
        status = atom_json_load(dir, "generation_config.json", FILE_LIMIT, true, &files.generation, err);
    if (!status)
        status = atom_json_load(dir, "quantize_config.json", FILE_LIMIT, true, &files.gptq, err);
    if (!status)
        status = read_config(root, &files, out, err);
    json_decref(root);
    json_decref(files.generation);
    json_decref(files.gptq);
    return status;
}

/* ---- write ------------------------------------------------------------------------------------------------------- */

/* The original text to the last byte, but for the new field in front of its closing brace. */
static char *insert_field(const char *text, size_t n_bytes, const char *value)
{
    static const char key[] = ",\n  \"quantization_config\": ";
    while (n_bytes && text[n_bytes - 1] != '}')
        n_bytes--;
    n_bytes -= n_bytes > 0;
    while (n_bytes && strchr(" \t\r\n", text[n_bytes - 1]))
        n_bytes--;
    size_t room = n_bytes + sizeof key + strlen(value) + sizeof "\n}\n";
    char *out = malloc(room);
    if (out)
        snprintf(out, room, "%.*s%s%s\n}\n", (int)n_bytes, text, key, value);
    return out;
}

/* What text there is to add to: a quantization_config that is null is taken out. */
static enum atom_status check_original(json_t *root, const struct atom_scheme *scheme, char **text, size_t *n_bytes,
                                       struct atom_error *err)
{
    struct atom_config config;
    struct beside none = {NULL, NULL};
    enum atom_status status = read_config(root, &none, &config, err);
    if (!status && config.quantized)
        status = atom_fail(err, ATOM_ERR_INVALID, "config.json: the model is quantized already");
    if (!status)
        status = atom_scheme_check(scheme, config.head_dim, err);
    if (status || json_object_del(root, "quantization_config"))
        return status;
    free(*text);
    *text = json_dumps(root, JSON_INDENT(2));
    *n_bytes = *text ? strlen(*text) : 0;
    return *text ? ATOM_OK : atom_fail_nomem(err, *n_bytes);
}

enum atom_status atom_config_quantized_text(const char *dir, const struct atom_scheme *scheme, char **text,
                                            struct atom_error *err)
{
    json_t *root = NULL, *json = NULL;
    char *original = NULL, *value = NULL, *result = NULL, *path = atom_path_join(dir, "config.json");
    size_t n_bytes = 0;
    if (!path)
        return atom_fail_nomem(err, strlen(dir));
    enum atom_status status = atom_file_read(path, FILE_LIMIT, &original, &n_bytes, err);
    if (!status)
        status = atom_json_parse(path, original, n_bytes, &root, err);
    if (!status)
        status = check_original(root, scheme, &original, &n_bytes, err);
    if (status)
        goto done;
    json = atom_scheme_json(scheme);
    value = json ? json_dumps(json, JSON_REAL_PRECISION(9)) : NULL;
    result = value ? insert_field(original, n_bytes, value) : NULL;
    if (result)
        *text = result;
    else
        status = atom_fail_nomem(err, n_bytes);
done:
    json_decref(json);
    json_decref(root);
    free(value);
    free(original);
    free(path);
    return status;
}
