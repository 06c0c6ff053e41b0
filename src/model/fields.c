/* SPDX-License-Identifier: Apache-2.0 */
#include "model/fields.h"

#include "model/json_read.h"

#include <stdint.h>
#include <string.h>

static void *at(void *out, const struct atom_field *field) { return (char *)out + field->offset; }

static enum atom_status not_supported(const struct atom_place *place, const struct atom_field *field,
                                      const json_t *value)
{
    char text[64];
    return atom_fail(place->err, ATOM_ERR_UNSUPPORTED, "%s: field '%s' is %s, which is not supported", place->object,
                     field->name, atom_json_spell(value, text));
}

static enum atom_status not_a(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                              const char *kind)
{
    char text[64];
    return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is %s, not %s", place->object, field->name,
                     atom_json_spell(value, text), kind);
}

/* The comparison is written so that a NaN fails it. */
static enum atom_status check_range(const struct atom_place *place, const struct atom_field *field, const json_t *value)
{
    char text[64];
    double x = json_number_value(value);
    if (x >= field->min && x <= field->max)
        return ATOM_OK;
    if (field->min == field->max)
        return not_supported(place, field, value);
    return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is %s, outside %.10g to %.10g", place->object,
                     field->name, atom_json_spell(value, text), field->min, field->max);
}

enum atom_status atom_field_int(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                void *out)
{
    if (!json_is_integer(value))
        return not_a(place, field, value, "an integer");
    enum atom_status status = check_range(place, field, value);
    if (!status)
        *(int *)at(out, field) = (int)json_integer_value(value);
    return status;
}

enum atom_status atom_field_double(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                   void *out)
{
    if (!json_is_number(value))
        return not_a(place, field, value, "a number");
    enum atom_status status = check_range(place, field, value);
    if (!status)
        *(double *)at(out, field) = json_number_value(value);
    return status;
}

enum atom_status atom_field_float(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                  void *out)
{
    if (!json_is_number(value))
        return not_a(place, field, value, "a number");
    enum atom_status status = check_range(place, field, value);
    if (!status)
        *(float *)at(out, field) = (float)json_number_value(value);
    return status;
}

enum atom_status atom_field_bool(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                 void *out)
{
    if (!json_is_boolean(value))
        return not_a(place, field, value, "true or false");
    *(bool *)at(out, field) = json_is_true(value);
    return ATOM_OK;
}

enum atom_status atom_field_text(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                 void *out)
{
    if (!json_is_string(value))
        return not_a(place, field, value, "a string");
    *(const char **)at(out, field) = json_string_value(value);
    return ATOM_OK;
}

enum atom_status atom_field_json(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                 void *out)
{
    (void)place;
    *(const json_t **)at(out, field) = value;
    return ATOM_OK;
}

enum atom_status atom_field_ignore(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                   void *out)
{
    (void)place, (void)field, (void)value, (void)out;
    return ATOM_OK;
}

enum atom_status atom_field_false(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                  void *out)
{
    (void)out;
    return json_is_false(value) ? ATOM_OK : not_supported(place, field, value);
}

enum atom_status atom_field_refuse(const struct atom_place *place, const struct atom_field *field, const json_t *value,
                                   void *out)
{
    (void)out;
    return not_supported(place, field, value);
}

static const struct atom_field *find(const struct atom_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

enum atom_status atom_fields_read(const struct atom_place *place, const json_t *object, const struct atom_field *fields,
                                  size_t n, void *out)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object)) {
        char text[64];
        return atom_fail(place->err, ATOM_ERR_FORMAT, "%s is %s, not an object", place->object,
                         atom_json_spell(object, text));
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (json_is_null(value))
            continue;
        const struct atom_field *field = find(fields, n, name);
        if (!field)
            return atom_fail(place->err, ATOM_ERR_UNSUPPORTED,
                             "%s: field '%s' is not known here, so it may change the arithmetic", place->object, name);
        enum atom_status status = field->read(place, field, value, out);
        if (status)
            return status;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *there = json_object_get(object, fields[i].name);
        if (fields[i].required && (!there || json_is_null(there)))
            return atom_fail(place->err, ATOM_ERR_FORMAT, "%s: field '%s' is missing", place->object, fields[i].name);
    }
    return ATOM_OK;
}
