/* SPDX-License-Identifier: Apache-2.0 */
/* compressed-tensors directories, which llm-compressor writes: integer weights packed along each row ("pack-quantized")
 * or a byte each ("int-quantized"), the latter also with activations quantized as they come, token by token. */
#include "model/fields.h"
#include "model/foreign.h"
#include "model/foreign_codes.h"
#include "model/json_read.h"

#include <stdio.h>
#include <string.h>

enum { MAX_GROUP = 1 << 20, TEXT_BYTES = 200 };

/* ---- quantization_config ----------------------------------------------------------------------------------------- */

/* Both of weights and of activations. */
struct args {
    int num_bits, group_size; /* group_size 0: not said */
    bool symmetric, dynamic, ordered;
    const char *type, *strategy;
};

struct group_config {
    struct args weights;
    const json_t *activations, *weights_json;
    const char *format;
};

struct compressed_config {
    const json_t *groups;
    const char *format, *status;
};

static enum atom_status read_order(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                   void *out)
{
    const char *name = json_string_value(value);
    struct args *a = out;
    if (json_is_false(value) || (name && (!strcmp(name, "weight") || !strcmp(name, "static"))))
        return ATOM_OK;
    a->ordered = json_is_true(value) || (name && (!strcmp(name, "group") || !strcmp(name, "dynamic")));
    return a->ordered ? ATOM_OK : atom_field_refuse(place, field, value, out);
}

/* {}, or a sparsity that says "dense". */
static enum atom_status read_nothing(const struct atom_place *place, const struct atom_field *field,
                                     const json_t *value, void *out)
{
    const char *format = json_string_value(json_object_get(value, "format"));
    if (json_is_object(value) && (!json_object_size(value) || (format && !strcmp(format, "dense"))))
        return ATOM_OK;
    return atom_field_refuse(place, field, value, out);
}

#define HARMLESS(name)                                                                                                 \
    {                                                                                                                  \
        name, atom_field_ignore, 0, 0, 0, false                                                                        \
    }

static const struct atom_field args_fields[] = {
    {"num_bits", atom_field_int, offsetof(struct args, num_bits), 1, 8, true},
    {"type", atom_field_text, offsetof(struct args, type), 0, 0, false},
    {"symmetric", atom_field_bool, offsetof(struct args, symmetric), 0, 0, false},
    {"group_size", atom_field_int, offsetof(struct args, group_size), -1, MAX_GROUP, false},
    {"strategy", atom_field_text, offsetof(struct args, strategy), 0, 0, false},
    {"dynamic", atom_field_bool, offsetof(struct args, dynamic), 0, 0, false},
    {"actorder", read_order, 0, 0, 0, false},
    {"block_structure", atom_field_refuse, 0, 0, 0, false},
    HARMLESS("observer"),
    HARMLESS("observer_kwargs"),
    HARMLESS("scale_dtype"), /* the tensors have it */
    HARMLESS("zp_dtype"),
};

static const struct atom_field group_fields[] = {
    {"weights", atom_field_json, offsetof(struct group_config, weights_json), 0, 0, true},
    {"input_activations", atom_field_json, offsetof(struct group_config, activations), 0, 0, false},
    {"output_activations", atom_field_refuse, 0, 0, 0, false},
    {"format", atom_field_text, offsetof(struct group_config, format), 0, 0, false},
    HARMLESS("targets"), /* the tensors say which linears are quantized */
};

static const struct atom_field fields[] = {
    {"config_groups", atom_field_json, offsetof(struct compressed_config, groups), 0, 0, true},
    {"format", atom_field_text, offsetof(struct compressed_config, format), 0, 0, true},
    {"quantization_status", atom_field_text, offsetof(struct compressed_config, status), 0, 0, false},
    {"kv_cache_scheme", atom_field_refuse, 0, 0, 0, false},
    {"sparsity_config", read_nothing, 0, 0, 0, false},
    {"transform_config", read_nothing, 0, 0, 0, false},
    {"moe_sparsity_config", atom_field_refuse, 0, 0, 0, false},
    HARMLESS("quant_method"), /* seen to before */
    HARMLESS("global_compression_ratio"),
    HARMLESS("ignore"), /* as targets */
    HARMLESS("version"),
};

static enum atom_status read_args(const char *place, const char *what, const json_t *object, struct args *out,
                                  struct atom_error *err)
{
    char where[TEXT_BYTES];
    struct atom_place at = {where, err};
    snprintf(where, sizeof where, "%.150s: %s", place, what);
    *out = (struct args){.symmetric = true, .type = "int"};
    enum atom_status st = atom_fields_read(&at, object, args_fields, sizeof args_fields / sizeof *args_fields, out);
    if (!st && strcmp(out->type, "int"))
        st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: type '%.32s' is not supported; 'int' is", where, out->type);
    return st;
}

/* Fills what weights say. */
static enum atom_status settle_weights(const char *place, const struct args *a, struct atom_foreign *out,
                                       struct atom_error *err)
{
    const char *strategy = a->strategy         ? a->strategy
                           : a->group_size > 0 ? "group"
                           : a->group_size < 0 ? "channel"
                                               : "tensor";
    bool group = strcmp(strategy, "group") == 0;
    if (!group && strcmp(strategy, "channel") && strcmp(strategy, "tensor"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: weights: strategy '%.32s' is not supported; 'group', 'channel' and 'tensor' are", place,
                         strategy);
    if (group ? a->group_size < 1 : a->group_size > 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: weights: strategy '%s' does not go with group_size %d", place,
                         strategy, a->group_size);
    if (a->dynamic)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: weights: they cannot be dynamic", place);
    if (!out->bytes && a->num_bits != 2 && a->num_bits != 4 && a->num_bits != 8)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: weights: packed codes of %d bits are not supported; of 2, 4 and 8 they are", place,
                         a->num_bits);
    if (out->bytes && !a->symmetric)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: weights: asymmetric bytes are not supported", place);
    out->bits = out->bytes ? 8 : a->num_bits;
    out->group = group ? a->group_size : 0;
    out->symmetric = a->symmetric;
    out->whole_scale = strcmp(strategy, "tensor") == 0;
    out->ordered = a->ordered;
    return ATOM_OK;
}

/* Ours: s = clip * max / 127. The library's: s = max / 127.5, half of the 255 steps from -128 to 127. */
static const float half_steps = 127.0f / 127.5f;

static enum atom_status settle_activations(const char *place, const json_t *object, const struct atom_foreign *f,
                                           struct atom_scheme *scheme, struct atom_error *err)
{
    struct args a;
    enum atom_status st = read_args(place, "input_activations", object, &a, err);
    if (st)
        return st;
    if (a.num_bits != 8 || !a.symmetric || !a.dynamic || !a.strategy || strcmp(a.strategy, "token"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: input_activations: %d bits, %s, %s, strategy '%.32s' are not supported; 8 bits, "
                         "symmetric, dynamic, 'token' are",
                         place, a.num_bits, a.symmetric ? "symmetric" : "asymmetric", a.dynamic ? "dynamic" : "static",
                         a.strategy ? a.strategy : "tensor");
    if (f->group)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: activations with a scale a token need weights with a scale a row, not one for each %d "
                         "channels",
                         place, f->group);
    scheme->abits = 8;
    scheme->act_clip = half_steps;
    return ATOM_OK;
}

static enum atom_status settle_format(const char *place, const struct compressed_config *c, const char *of_group,
                                      struct atom_foreign *out, struct atom_error *err)
{
    const char *format = of_group ? of_group : c->format;
    out->bytes = !strcmp(format, "int-quantized") || !strcmp(format, "naive-quantized");
    if (!out->bytes && strcmp(format, "pack-quantized"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: format '%.32s' is not supported; 'pack-quantized', 'int-quantized' and "
                         "'naive-quantized' are",
                         place, format);
    if (c->status && strcmp(c->status, "compressed"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: quantization_status '%.32s' is not supported; 'compressed' is",
                         place, c->status);
    return ATOM_OK;
}

static enum atom_status read_group(const char *place, const json_t *object, struct group_config *out,
                                   struct atom_error *err)
{
    struct atom_place at = {place, err};
    enum atom_status st = atom_fields_read(&at, object, group_fields, sizeof group_fields / sizeof *group_fields, out);
    return st ? st : read_args(place, "weights", out->weights_json, &out->weights, err);
}

static enum atom_status parse(const char *place, const json_t *object, struct atom_foreign *out,
                              struct atom_scheme *scheme, struct atom_error *err)
{
    struct atom_place at = {place, err};
    struct compressed_config c = {0};
    struct group_config g = {0};
    struct atom_foreign f = {.format = &atom_foreign_compressed};
    char where[TEXT_BYTES];
    enum atom_status st = atom_fields_read(&at, object, fields, sizeof fields / sizeof fields[0], &c);
    if (!st && json_object_size(c.groups) != 1)
        st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: there are %zu config_groups; one is supported", place,
                       json_object_size(c.groups));
    if (st)
        return st;
    void *group = json_object_iter((json_t *)(uintptr_t)c.groups);
    snprintf(where, sizeof where, "%.80s: %.64s", place, json_object_iter_key(group));
    st = read_group(where, json_object_iter_value(group), &g, err);
    st = st ? st : settle_format(place, &c, g.format, &f, err);
    st = st ? st : settle_weights(where, &g.weights, &f, err);
    if (st)
        return st;
    struct atom_scheme s = atom_foreign_scheme(f.bits, f.group);
    if (g.activations)
        st = settle_activations(where, g.activations, &f, &s, err);
    if (!st) {
        *out = f;
        *scheme = s;
    }
    return st;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static bool has_part(const struct atom_foreign *f, const char *part)
{
    static const char *const parts[] = {"weight",        "weight_scale", "weight_zero_point",
                                        "weight_packed", "weight_shape", "weight_g_idx"};
    int n = f->bytes ? 3 : f->ordered ? 6 : 5;
    for (int i = 0; i < n; i++)
        if (strcmp(part, parts[i]) == 0)
            return true;
    return false;
}

/* weight_shape holds [n, k], in 64 bits. */
static enum atom_status check_shape(const struct atom_tensors *t, const struct atom_codes *c, struct atom_error *err)
{
    const struct atom_tensor *shape = atom_codes_find(c, t, "weight_shape");
    int64_t has[2];
    if (!shape)
        return atom_fail(err, ATOM_ERR_FORMAT, "tensor '%s.weight_shape' is missing", c->name);
    if (strcmp(shape->dtype_text, "I64") || shape->n_bytes != sizeof has)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' has dtype %s and %zu bytes, two of I64 are needed",
                         shape->file, shape->name, shape->dtype_text, shape->n_bytes);
    memcpy(has, shape->data, sizeof has);
    if (has[0] == c->n && has[1] == c->k)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' says [%lld, %lld], [%d, %d] is needed", shape->file,
                     shape->name, (long long)has[0], (long long)has[1], c->n, c->k);
}

static enum atom_status open_scales(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *c,
                                    struct atom_error *err)
{
    if (f->whole_scale)
        return atom_codes_need(c, t, "weight_scale", ATOM_FLOATS, 1, -1, &c->scales, err);
    c->scale_row = (size_t)c->n_groups;
    c->scale_group = 1;
    return atom_codes_need(c, t, "weight_scale", ATOM_FLOATS, c->n, c->n_groups, &c->scales, err);
}

/* Symmetric checkpoints of older versions hold zero points all the same: of zeros. */
static enum atom_status check_no_zeros(const struct atom_tensors *t, const struct atom_codes *c, struct atom_error *err)
{
    const struct atom_tensor *z = atom_codes_find(c, t, "weight_zero_point");
    for (size_t i = 0; z && i < z->n_bytes; i++)
        if (((const uint8_t *)z->data)[i])
            return atom_fail(err, ATOM_ERR_FORMAT,
                             "%s: tensor '%s' is not all zeros, but the weights are said to be symmetric", z->file,
                             z->name);
    return ATOM_OK;
}

static enum atom_status open_zeros(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *c,
                                   struct atom_error *err)
{
    const struct atom_tensor *zeros;
    if (f->symmetric) {
        c->zero = 1 << (c->bits - 1);
        return check_no_zeros(t, c, err);
    }
    if (f->whole_scale)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: one zero point for all of a linear is not supported", c->name);
    enum atom_status st = atom_codes_need(c, t, "weight_zero_point", 1u << ATOM_I32, atom_code_words(c->n, c->bits),
                                          c->n_groups, &zeros, err);
    if (st)
        return st;
    c->zeros = zeros->data;
    c->zero_word = 4 * (size_t)c->n_groups;
    c->zero_group = 4;
    return ATOM_OK;
}

/* Entries of -1 alone: the channels are in order. */
static enum atom_status open_order(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *c,
                                   struct atom_error *err)
{
    if (!f->ordered)
        return ATOM_OK;
    enum atom_status st = atom_codes_need(c, t, "weight_g_idx", 1u << ATOM_I32, c->k, -1, &c->g_idx, err);
    bool used = false;
    for (size_t i = 0; !st && i < c->g_idx->n_bytes; i++)
        used |= ((const uint8_t *)c->g_idx->data)[i] != 0xFF;
    if (!used)
        c->g_idx = NULL;
    return st;
}

static enum atom_status open_linear(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *c,
                                    struct atom_error *err)
{
    const struct atom_tensor *words, *plain = atom_codes_find(c, t, "weight");
    if (plain && (f->bytes ? plain->dtype != ATOM_I8 : !atom_codes_find(c, t, "weight_packed")))
        return ATOM_OK;
    c->bits = f->bits;
    c->group = f->group ? f->group : c->k;
    c->n_groups = (c->k + c->group - 1) / c->group;
    int64_t wide = f->bytes ? c->k : atom_code_words(c->k, c->bits);
    enum atom_status st = atom_codes_need(c, t, f->bytes ? "weight" : "weight_packed",
                                          1u << (f->bytes ? ATOM_I8 : ATOM_I32), c->n, wide, &words, err);
    st = st || f->bytes ? st : check_shape(t, c, err);
    st = st ? st : open_scales(f, t, c, err);
    st = st ? st : open_zeros(f, t, c, err);
    st = st ? st : open_order(f, t, c, err);
    if (st)
        return st;
    c->words = words->data;
    c->row_step = (size_t)wide * (f->bytes ? 1 : 4);
    c->word_step = 4;
    c->flip = f->bytes ? 0x80 : 0;
    return ATOM_OK;
}

const struct atom_foreign_format atom_foreign_compressed = {"compressed-tensors", "compressed-tensors", parse, has_part,
                                                            open_linear};
