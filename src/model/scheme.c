/* SPDX-License-Identifier: Apache-2.0 */
#include "model/scheme.h"

#include "kernels/float_formats.h"
#include "kernels/hadamard.h"
#include "model/config.h"
#include "model/fields.h"
#include "model/json_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1, MAX_CHANNELS = 1 << 20 };

const struct atom_scheme atom_scheme_float = {.wbits = 16,
                                              .abits = 16,
                                              .kvbits = 16,
                                              .rows_per_scale = 1,
                                              .act_clip = 1,
                                              .weight_clip = 1,
                                              .kv_clip = 1,
                                              .lm_head_bits = 16};

/* ---- check ------------------------------------------------------------------------------------------------------- */

/* allowed ends with 0. */
static enum atom_status check_bits(const char *what, int bits, const int *allowed, struct atom_error *err)
{
    char list[64];
    size_t n = 0;
    for (int i = 0; allowed[i]; i++) {
        if (bits == allowed[i])
            return ATOM_OK;
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%d", i ? ", " : "", allowed[i]);
    }
    return atom_fail(err, ATOM_ERR_INVALID, "%s may be %s, not %d", what, list, bits);
}

static enum atom_status check_count(const char *what, int n, int min, struct atom_error *err)
{
    if (n >= min && n <= MAX_CHANNELS)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_INVALID, "%s may be %d to %d, not %d", what, min, MAX_CHANNELS, n);
}

static enum atom_status check_clip(const char *what, float clip, struct atom_error *err)
{
    /* Below this a scale rounds to nothing; the form of the test refuses a NaN. */
    if (clip >= 0.01f && clip <= 1)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_INVALID, "%s may be 0.01 to 1, not %g", what, (double)clip);
}

static enum atom_status check_share(const char *what, float share, struct atom_error *err)
{
    if (share >= 0 && share <= 1)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_INVALID, "%s may be 0 to 1, not %g", what, (double)share);
}

static enum atom_status check_rotation(const struct atom_scheme *s, int head_dim, struct atom_error *err)
{
    if (s->rotate & ~(unsigned)(ATOM_ROTATE_QK | ATOM_ROTATE_V))
        return atom_fail(err, ATOM_ERR_INVALID, "rotate holds unknown bits: %#x", s->rotate);
    if (s->kv_rope != ATOM_KV_PRE && s->kv_rope != ATOM_KV_POST)
        return atom_fail(err, ATOM_ERR_INVALID, "kv_rope may be pre or post, not %d", (int)s->kv_rope);
    if ((s->rotate & ATOM_ROTATE_QK) && s->kv_rope == ATOM_KV_PRE)
        return atom_fail(err, ATOM_ERR_INVALID, "rotate qk needs kv_rope post: the rotation follows RoPE");
    if (s->rotate && head_dim && !atom_hadamard_has(head_dim))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "rotate needs a head size of 2^n, 12*2^n or 20*2^n, this model's is %d", head_dim);
    return ATOM_OK;
}

/* What a format other than integers fixes. */
static enum atom_status check_format(const struct atom_scheme *s, struct atom_error *err)
{
    static const int bits[] = {16, 4, 0};
    const char *name = atom_format_name(s->format);
    if (!name)
        return atom_fail(err, ATOM_ERR_INVALID, "there is no format %d", (int)s->format);
    if (s->format == ATOM_FORMAT_INT)
        return ATOM_OK;
    char what[32];
    int group = atom_format_group(s->format);
    snprintf(what, sizeof what, "%s: wbits", name);
    enum atom_status status = check_bits(what, s->wbits, bits, err);
    snprintf(what, sizeof what, "%s: abits", name);
    if (!status)
        status = check_bits(what, s->abits, bits, err);
    if (!status && group && s->group != group)
        status = atom_fail(err, ATOM_ERR_INVALID, "%s: a group is %d channels, not %d", name, group, s->group);
    if (!status && group && s->rows_per_scale != 1)
        status = atom_fail(err, ATOM_ERR_INVALID, "%s: a scale is one row's, not %d rows'", name, s->rows_per_scale);
    return status;
}

static const char *const searches[] = {"none", "peak", "rms"}; /* enum atom_smooth_search */

enum atom_status atom_scheme_check(const struct atom_scheme *s, int head_dim, struct atom_error *err)
{
    static const int weight[] = {16, 8, 4, 3, 2, 0}, other[] = {16, 8, 4, 3, 0}, head[] = {16, 8, 0},
                     outlier[] = {16, 8, 0};
    enum atom_status status = check_bits("wbits", s->wbits, weight, err);
    if (!status)
        status = check_bits("abits", s->abits, other, err);
    if (!status)
        status = check_bits("kvbits", s->kvbits, other, err);
    if (!status)
        status = check_bits("lm_head_bits", s->lm_head_bits, head, err);
    if (!status)
        status = check_count("group", s->group, 0, err);
    if (!status)
        status = check_count("outliers", s->outliers, 0, err);
    if (!status && s->outlier_bits)
        status = check_bits("outlier_bits", s->outlier_bits, outlier, err);
    if (!status)
        status = check_count("rows_per_scale", s->rows_per_scale, 1, err);
    if (!status)
        status = check_format(s, err);
    if (!status)
        status = check_clip("act_clip", s->act_clip, err);
    if (!status)
        status = check_clip("weight_clip", s->weight_clip, err);
    if (!status)
        status = check_clip("kv_clip", s->kv_clip, err);
    if (!status)
        status = check_share("smooth", s->smooth, err);
    if (!status)
        status = check_share("asymmetric", s->asymmetric, err);
    if (!status && (s->smooth_search < ATOM_SMOOTH_FIXED || s->smooth_search > ATOM_SMOOTH_RMS))
        status = atom_fail(err, ATOM_ERR_INVALID, "smooth_search may be %s, %s or %s, not %d", searches[0], searches[1],
                           searches[2], (int)s->smooth_search);
    return status ? status : check_rotation(s, head_dim, err);
}

/* ---- read and write ---------------------------------------------------------------------------------------------- */

struct parsed {
    struct atom_scheme scheme;
    int version;
};

static enum atom_status read_kv_rope(const struct atom_place *place, const struct atom_field *field,
                                     const json_t *value, void *out)
{
    char text[64];
    struct parsed *p = out;
    const char *name = json_string_value(value);
    if (!name || (strcmp(name, "pre") && strcmp(name, "post")))
        return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is %s, not \"pre\" or \"post\"", place->object,
                         field->name, atom_json_spell(value, text));
    p->scheme.kv_rope = strcmp(name, "pre") ? ATOM_KV_POST : ATOM_KV_PRE;
    return ATOM_OK;
}

static enum atom_status read_format(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                    void *out)
{
    char text[64];
    struct parsed *p = out;
    const char *name = json_string_value(value);
    if (name && atom_format_of(name, &p->scheme.format))
        return ATOM_OK;
    return atom_fail(place->err, ATOM_ERR_UNSUPPORTED, "%s: field '%s' is %s; int, fp4, nvfp4 and mxfp4 are known",
                     place->object, field->name, atom_json_spell(value, text));
}

static enum atom_status read_rotate(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                    void *out)
{
    struct parsed *p = out;
    bool good = json_is_array(value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *name = json_string_value(json_array_get(value, i));
        unsigned bit = !name ? 0 : !strcmp(name, "qk") ? ATOM_ROTATE_QK : !strcmp(name, "v") ? ATOM_ROTATE_V : 0;
        good = good && bit && !(p->scheme.rotate & bit);
        p->scheme.rotate |= bit;
    }
    return good ? ATOM_OK
                : atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is not a list of \"qk\" and \"v\"",
                            place->object, field->name);
}

static enum atom_status read_smooth_search(const struct atom_place *place, const struct atom_field *field,
                                           const json_t *value, void *out)
{
    struct parsed *p = out;
    const char *name = json_string_value(value);
    char text[64];
    for (size_t i = 0; name && i < sizeof searches / sizeof searches[0]; i++)
        if (strcmp(name, searches[i]) == 0) {
            p->scheme.smooth_search = (enum atom_smooth_search)i;
            return ATOM_OK;
        }
    return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is %s, not \"none\", \"peak\" or \"rms\"",
                     place->object, field->name, atom_json_spell(value, text));
}

#define IN_SCHEME(field) offsetof(struct parsed, scheme.field)
#define ANY_COUNT        0, MAX_CHANNELS

static const struct atom_field fields[] = {
    {"quant_method", atom_field_ignore, 0, 0, 0, true},
    {"version", atom_field_int, offsetof(struct parsed, version), VERSION, VERSION, true},
    {"format", read_format, 0, 0, 0, false},
    {"wbits", atom_field_int, IN_SCHEME(wbits), 2, 16, true},
    {"abits", atom_field_int, IN_SCHEME(abits), 2, 16, true},
    {"kvbits", atom_field_int, IN_SCHEME(kvbits), 2, 16, true},
    {"group", atom_field_int, IN_SCHEME(group), ANY_COUNT, true},
    {"outliers", atom_field_int, IN_SCHEME(outliers), ANY_COUNT, true},
    {"outlier_bits", atom_field_int, IN_SCHEME(outlier_bits), 8, 16, true},
    {"rows_per_scale", atom_field_int, IN_SCHEME(rows_per_scale), ANY_COUNT, true},
    {"act_clip", atom_field_float, IN_SCHEME(act_clip), 0, 1, true},
    {"weight_clip", atom_field_float, IN_SCHEME(weight_clip), 0, 1, true},
    {"kv_clip", atom_field_float, IN_SCHEME(kv_clip), 0, 1, true},
    {"clip_search", atom_field_bool, IN_SCHEME(clip_search), 0, 0, false},
    {"kv_rope", read_kv_rope, 0, 0, 0, true},
    {"rotate", read_rotate, 0, 0, 0, true},
    {"lm_head_bits", atom_field_int, IN_SCHEME(lm_head_bits), 8, 16, true},
    {"gptq", atom_field_bool, IN_SCHEME(gptq), 0, 0, true},
    {"smooth", atom_field_float, IN_SCHEME(smooth), 0, 1, false},
    {"smooth_search", read_smooth_search, 0, 0, 0, false},
    {"asymmetric", atom_field_float, IN_SCHEME(asymmetric), 0, 1, false},
};

enum atom_status atom_scheme_parse(const json_t *quantization_config, int head_dim, struct atom_scheme *out,
                                   struct atom_error *err)
{
    struct atom_place place = {"config.json: quantization_config", err};
    struct parsed p = {0};
    struct atom_error why = {0};
    const json_t *method = json_object_get(quantization_config, "quant_method");
    /* The method first: what others call their fields is beside the point. */
    if (json_is_string(method) && strcmp(json_string_value(method), "atom"))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: quant_method '%.64s' is not supported; 'atom', 'gptq' and 'compressed-tensors' are",
                         place.object, json_string_value(method));
    const json_t *version = json_object_get(quantization_config, "version");
    if (json_is_integer(version) && json_integer_value(version) != VERSION)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: version %" JSON_INTEGER_FORMAT " is not supported; %d is",
                         place.object, json_integer_value(version), VERSION);
    enum atom_status status =
        atom_fields_read(&place, quantization_config, fields, sizeof fields / sizeof fields[0], &p);
    if (!status && !json_is_string(method))
        status = atom_fail(err, ATOM_ERR_FORMAT, "%s: quant_method is not a string", place.object);
    if (status)
        return status;
    status = atom_scheme_check(&p.scheme, head_dim, &why);
    if (status)
        return atom_fail(err, status == ATOM_ERR_INVALID ? ATOM_ERR_FORMAT : status, "%s: %s", place.object,
                         why.message);
    *out = p.scheme;
    return ATOM_OK;
}

/* The double that prints as the shortest decimal which reads back as x: 0.9, not 0.899999976. */
static double widen(float x)
{
    char text[32];
    for (int digits = 6; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            return strtod(text, NULL);
    }
    return (double)x;
}

json_t *atom_scheme_json(const struct atom_scheme *s)
{
    json_t *rotate = json_array();
    int failed = !rotate;
    if (s->rotate & ATOM_ROTATE_QK)
        failed |= json_array_append_new(rotate, json_string("qk"));
    if (s->rotate & ATOM_ROTATE_V)
        failed |= json_array_append_new(rotate, json_string("v"));
    if (failed) {
        json_decref(rotate);
        return NULL;
    }
    return json_pack(
        "{s:s, s:i, s:s*, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:b, s:s, s:o, s:i, s:b, s:f, s:s, s:f}",
        "quant_method", "atom", "version", VERSION, "format", s->format ? atom_format_name(s->format) : NULL, "wbits",
        s->wbits, "abits", s->abits, "kvbits", s->kvbits, "group", s->group, "outliers", s->outliers, "outlier_bits",
        s->outlier_bits == 16 ? 16 : 8, "rows_per_scale", s->rows_per_scale, "act_clip", widen(s->act_clip),
        "weight_clip", widen(s->weight_clip), "kv_clip", widen(s->kv_clip), "clip_search", s->clip_search, "kv_rope",
        s->kv_rope == ATOM_KV_PRE ? "pre" : "post", "rotate", rotate, "lm_head_bits", s->lm_head_bits, "gptq", s->gptq,
        "smooth", widen(s->smooth), "smooth_search", searches[s->smooth_search], "asymmetric", widen(s->asymmetric));
}
