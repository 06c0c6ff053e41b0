/* SPDX-License-Identifier: Apache-2.0 */
/* GPTQ directories as AutoGPTQ and GPTQModel write them: codes packed down the input channels, a column per output row,
 * so that the words of one eight channels lie side by side for all rows. */
#include "model/fields.h"
#include "model/foreign.h"
#include "model/foreign_codes.h"

#include <string.h>

enum { MAX_GROUP = 1 << 20 };

/* ---- quantization_config ----------------------------------------------------------------------------------------- */

struct gptq_config {
    int bits, group_size;
    bool desc_act, sym;
    const char *format, *checkpoint_format, *pack_dtype;
    const json_t *dynamic;
};

#define AT(field) offsetof(struct gptq_config, field)
#define HARMLESS(name)                                                                                                 \
    {                                                                                                                  \
        name, atom_field_ignore, 0, 0, 0, false                                                                        \
    }

static const struct atom_field fields[] = {
    {"bits", atom_field_int, AT(bits), 2, 8, true},
    {"group_size", atom_field_int, AT(group_size), -1, MAX_GROUP, true},
    {"desc_act", atom_field_bool, AT(desc_act), 0, 0, false},
    {"sym", atom_field_bool, AT(sym), 0, 0, true},
    {"checkpoint_format", atom_field_text, AT(checkpoint_format), 0, 0, false},
    {"format", atom_field_text, AT(format), 0, 0, false}, /* the older name */
    {"pack_dtype", atom_field_text, AT(pack_dtype), 0, 0, false},
    {"dynamic", atom_field_json, AT(dynamic), 0, 0, false},
    {"lm_head", atom_field_false, 0, 0, 0, false},
    {"is_marlin_format", atom_field_false, 0, 0, 0, false},
    {"awq_gemm_checkpoint", atom_field_false, 0, 0, 0, false},
    {"activation", atom_field_refuse, 0, 0, 0, false},
    {"adapter", atom_field_refuse, 0, 0, 0, false},
    {"rotation", atom_field_refuse, 0, 0, 0, false},
    HARMLESS("quant_method"), /* seen to before */
    HARMLESS("method"),

    /* How the codes were found, and how other programs run them. */
    HARMLESS("act_group_aware"),
    HARMLESS("backend"),
    HARMLESS("batch_size"),
    HARMLESS("block_name_to_quantize"),
    HARMLESS("cache_block_outputs"),
    HARMLESS("damp_auto_increment"),
    HARMLESS("damp_percent"),
    HARMLESS("dataset"),
    HARMLESS("disable_exllama"),
    HARMLESS("exllama_config"),
    HARMLESS("hyb_act"),
    HARMLESS("max_input_length"),
    HARMLESS("meta"),
    HARMLESS("mse"),
    HARMLESS("model_file_base_name"),
    HARMLESS("model_name_or_path"),
    HARMLESS("model_seqlen"),
    HARMLESS("module_name_preceding_first_block"),
    HARMLESS("modules_in_block_to_quantize"), /* the tensors say which are */
    HARMLESS("pad_token_id"),
    HARMLESS("static_groups"),
    HARMLESS("tokenizer"),
    HARMLESS("true_sequential"),
    HARMLESS("use_cuda_fp16"),
    HARMLESS("use_exllama"),
};

static enum atom_status check_config(const char *place, const struct gptq_config *c, struct atom_error *err)
{
    const char *format = c->checkpoint_format ? c->checkpoint_format : c->format ? c->format : "gptq";
    if (c->bits != 2 && c->bits != 4 && c->bits != 8)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: codes of %d bits are not supported; of 2, 4 and 8 they are",
                         place, c->bits);
    if (c->group_size == 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: field 'group_size' is 0; a size, or -1, is needed", place);
    if (strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: checkpoint_format '%.64s' is not supported; 'gptq' and 'gptq_v2' are", place, format);
    if (c->pack_dtype && strcmp(c->pack_dtype, "int32"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: pack_dtype '%.64s' is not supported; 'int32' is", place,
                         c->pack_dtype);
    if (c->dynamic && (!json_is_object(c->dynamic) || json_object_size(c->dynamic)))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: field 'dynamic' gives single modules other settings, which is not supported", place);
    return ATOM_OK;
}

static enum atom_status parse(const char *place, const json_t *object, struct atom_foreign *out,
                              struct atom_scheme *scheme, struct atom_error *err)
{
    struct atom_place at = {place, err};
    struct gptq_config c = {0};
    enum atom_status st = atom_fields_read(&at, object, fields, sizeof fields / sizeof fields[0], &c);
    st = st ? st : check_config(place, &c, err);
    if (st)
        return st;
    const char *format = c.checkpoint_format ? c.checkpoint_format : c.format;
    *out = (struct atom_foreign){.format = &atom_foreign_gptq,
                                 .bits = c.bits,
                                 .group = c.group_size < 0 ? 0 : c.group_size,
                                 .symmetric = c.sym,
                                 .ordered = c.desc_act,
                                 .zero_offset = format && strcmp(format, "gptq_v2") == 0 ? 0 : 1};
    *scheme = atom_foreign_scheme(out->bits, out->group);
    scheme->gptq = true;
    return ATOM_OK;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static bool has_part(const struct atom_foreign *f, const char *part)
{
    static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx", "weight"};
    (void)f;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strcmp(part, parts[i]) == 0)
            return true;
    return false;
}

static enum atom_status open_linear(const struct atom_foreign *f, const struct atom_tensors *t, struct atom_codes *c,
                                    struct atom_error *err)
{
    const struct atom_tensor *words, *zeros;
    if (!atom_codes_find(c, t, "qweight") && atom_codes_find(c, t, "weight"))
        return ATOM_OK;
    c->bits = f->bits;
    c->group = f->group ? f->group : c->k;
    c->n_groups = (c->k + c->group - 1) / c->group;
    int64_t wide = atom_code_words(c->n, c->bits);
    enum atom_status st =
        atom_codes_need(c, t, "qweight", 1u << ATOM_I32, atom_code_words(c->k, c->bits), c->n, &words, err);
    st = st ? st : atom_codes_need(c, t, "qzeros", 1u << ATOM_I32, c->n_groups, wide, &zeros, err);
    st = st ? st : atom_codes_need(c, t, "scales", ATOM_FLOATS, c->n_groups, c->n, &c->scales, err);
    if (!st && (f->ordered || atom_codes_find(c, t, "g_idx")))
        st = atom_codes_need(c, t, "g_idx", 1u << ATOM_I32, c->k, -1, &c->g_idx, err);
    if (st)
        return st;
    c->words = words->data;
    c->row_step = 4;
    c->word_step = 4 * (size_t)c->n;
    c->scale_row = 1;
    c->scale_group = (size_t)c->n;
    c->zeros = zeros->data;
    c->zero_word = 4;
    c->zero_group = 4 * (size_t)wide;
    c->zero = f->zero_offset;
    c->symmetric = f->symmetric;
    return ATOM_OK;
}

const struct atom_foreign_format atom_foreign_gptq = {"gptq", "GPTQ", parse, has_part, open_linear};
