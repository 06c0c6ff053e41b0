/* SPDX-License-Identifier: Apache-2.0 */
#include "model/rope_config.h"

#include "model/fields.h"

#include <string.h>

/* Zero or NULL: not there. */
struct parsed {
    const char *type, *rope_type;
    double theta, factor, low, high, partial;
    int original;
};

static const struct atom_field fields[] = {
    {"type", atom_field_text, offsetof(struct parsed, type), 0, 0, false},
    {"rope_type", atom_field_text, offsetof(struct parsed, rope_type), 0, 0, false},
    {"rope_theta", atom_field_double, offsetof(struct parsed, theta), 1, 1e12, false},
    {"partial_rotary_factor", atom_field_double, offsetof(struct parsed, partial), 1, 1, false},
    {"factor", atom_field_double, offsetof(struct parsed, factor), 1, 1e6, false},
    {"low_freq_factor", atom_field_double, offsetof(struct parsed, low), 1e-6, 1e6, false},
    {"high_freq_factor", atom_field_double, offsetof(struct parsed, high), 1e-6, 1e6, false},
    {"original_max_position_embeddings", atom_field_int, offsetof(struct parsed, original), 1, 1 << 26, false},
};

static enum atom_status find_kind(const struct atom_place *place, const struct parsed *p, enum atom_rope_kind *kind)
{
    const char *name = p->rope_type ? p->rope_type : p->type;
    if (p->type && p->rope_type && strcmp(p->type, p->rope_type))
        return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: type is '%.64s' and rope_type is '%.64s'", place->object,
                         p->type, p->rope_type);
    if (!name || strcmp(name, "default") == 0)
        *kind = ATOM_ROPE_DEFAULT;
    else if (strcmp(name, "linear") == 0)
        *kind = ATOM_ROPE_LINEAR;
    else if (strcmp(name, "llama3") == 0)
        *kind = ATOM_ROPE_LLAMA3;
    else
        return atom_fail(place->err, ATOM_ERR_UNSUPPORTED,
                         "%s: RoPE of type '%.64s' is not supported; default, linear and llama3 are", place->object,
                         name);
    return ATOM_OK;
}

/* Each kind has the fields it needs and no others. */
static enum atom_status check_kind(const struct atom_place *place, const struct parsed *p, enum atom_rope_kind kind)
{
    bool llama3 = p->low > 0 && p->high > 0 && p->original > 0, any_llama3 = p->low > 0 || p->high > 0 || p->original;
    if (kind == ATOM_ROPE_DEFAULT && (p->factor > 1 || any_llama3))
        return atom_fail(place->err, ATOM_ERR_UNSUPPORTED, "%s: scaling factors are given, but no type that uses them",
                         place->object);
    if (kind == ATOM_ROPE_LINEAR && (p->factor < 1 || any_llama3))
        return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: type linear takes 'factor' and nothing else", place->object);
    if (kind == ATOM_ROPE_LLAMA3 && (p->factor < 1 || !llama3 || p->high <= p->low))
        return atom_fail(place->err, ATOM_ERR_FORMAT,
                         "%s: type llama3 takes factor, low_freq_factor, a larger high_freq_factor and "
                         "original_max_position_embeddings",
                         place->object);
    return ATOM_OK;
}

enum atom_status atom_rope_parse(const struct atom_rope_source *source, struct atom_rope *out, struct atom_error *err)
{
    struct parsed p = {0};
    const json_t *object = source->parameters ? source->parameters : source->scaling;
    struct atom_place place = {source->parameters ? "config.json: rope_parameters" : "config.json: rope_scaling", err};
    struct atom_rope rope = {.kind = ATOM_ROPE_DEFAULT, .factor = 1};
    enum atom_status status = ATOM_OK;
    if (source->parameters && source->scaling)
        return atom_fail(err, ATOM_ERR_FORMAT, "config.json: both rope_scaling and rope_parameters are given");
    if (object)
        status = atom_fields_read(&place, object, fields, sizeof fields / sizeof fields[0], &p);
    if (!status)
        status = find_kind(&place, &p, &rope.kind);
    if (!status)
        status = check_kind(&place, &p, rope.kind);
    if (!status && p.theta > 0 && source->theta > 0 && p.theta != source->theta)
        status = atom_fail(err, ATOM_ERR_FORMAT, "%s: rope_theta is %.9g here and %.9g outside", place.object, p.theta,
                           source->theta);
    if (status)
        return status;
    rope.theta = p.theta > 0 ? p.theta : source->theta > 0 ? source->theta : 10000;
    if (rope.kind != ATOM_ROPE_DEFAULT)
        rope.factor = p.factor;
    rope.low_freq_factor = p.low;
    rope.high_freq_factor = p.high;
    rope.original_max_position = p.original;
    *out = rope;
    return ATOM_OK;
}
