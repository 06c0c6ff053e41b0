/* SPDX-License-Identifier: Apache-2.0 */
/* JSON files, strictly read: UTF-8, no duplicate keys, one object. */
#ifndef ATOM_MODEL_JSON_READ_H
#define ATOM_MODEL_JSON_READ_H

#include "base/error.h"

#include <jansson.h>

/* `file` is what messages call it. The caller owns *out. */
enum atom_status atom_json_parse(const char *file, const char *text, size_t n_bytes, json_t **out,
                                 struct atom_error *err);

/* DIR/NAME, of at most max_bytes. With `optional`, a file that is not there gives *out NULL. */
enum atom_status atom_json_load(const char *dir, const char *name, size_t max_bytes, bool optional, json_t **out,
                                struct atom_error *err);

/* How a message spells a value ("12", "\"abc\"", "an object"); text is scratch. */
const char *atom_json_spell(const json_t *value, char text[64]);

#endif
