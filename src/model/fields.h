/* SPDX-License-Identifier: Apache-2.0 */
/* JSON objects read by a table that names every field they may have. */
#ifndef ATOM_MODEL_FIELDS_H
#define ATOM_MODEL_FIELDS_H

#include "base/error.h"

#include <jansson.h>

/* Where messages place a field, and where they go. */
struct atom_place {
    const char *object; /* "config.json", "config.json: rope_scaling" */
    struct atom_error *err;
};

struct atom_field;
typedef enum atom_status atom_field_fn(const struct atom_place *place, const struct atom_field *field,
                                       const json_t *value, void *out);

struct atom_field {
    const char *name;
    atom_field_fn *read;
    size_t offset;   /* in the struct that is filled */
    double min, max; /* of numbers; where both are the same, other values are "not supported" */
    bool required;
};

/* Fills *out from object. A field that is not in the table is refused by name, unless it is null; null counts as not
 * there. */
enum atom_status atom_fields_read(const struct atom_place *place, const json_t *object, const struct atom_field *fields,
                                  size_t n, void *out);

/* Readers, by what they write at the offset. */
atom_field_fn atom_field_int, atom_field_double, atom_field_float, atom_field_bool;
atom_field_fn atom_field_text; /* const char *, the JSON's own */
atom_field_fn atom_field_json; /* const json_t *, the JSON's own */
atom_field_fn atom_field_ignore;
atom_field_fn atom_field_false;  /* nothing; only false is supported */
atom_field_fn atom_field_refuse; /* nothing; only null is */

#endif
