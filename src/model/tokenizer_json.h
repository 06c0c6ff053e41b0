/* SPDX-License-Identifier: Apache-2.0 */
/* Reading tokenizer.json with sentences that name file and field. */
#ifndef ATOM_MODEL_TOKENIZER_JSON_H
#define ATOM_MODEL_TOKENIZER_JSON_H

#include "base/error.h"

#include <jansson.h>

/* A value and where it stands ("pre_tokenizer.pretokenizers[1]"). Borrows file and value. */
struct atom_node {
    json_t *value; /* NULL: missing or null */
    const char *file;
    char path[160];
};

struct atom_node atom_node_field(const struct atom_node *n, const char *key);
struct atom_node atom_node_item(const struct atom_node *n, size_t i);

enum atom_status atom_node_is(const struct atom_node *n, json_type type, struct atom_error *err);
/* Refuses every key that is not in `known`, a list with spaces between: what is not understood is never ignored. */
enum atom_status atom_node_keys(const struct atom_node *n, const char *known, struct atom_error *err);
/* The "type" of an object. */
enum atom_status atom_node_type(const struct atom_node *n, const char **type, struct atom_error *err);
/* Missing or null: `fallback`. */
enum atom_status atom_node_bool(const struct atom_node *n, const char *key, bool fallback, bool *out,
                                struct atom_error *err);
enum atom_status atom_node_string(const struct atom_node *n, const char *key, const char **text, size_t *n_bytes,
                                  struct atom_error *err);
enum atom_status atom_node_int(const struct atom_node *n, const char *key, int lo, int hi, int *out,
                               struct atom_error *err);
/* A string of exactly one character. */
enum atom_status atom_node_char(const struct atom_node *n, const char *key, uint32_t *cp, struct atom_error *err);

/* {"String": ...} or {"Regex": ...}, neither empty. */
enum atom_status atom_node_pattern(const struct atom_node *n, const char *key, bool *is_regex, const char **text,
                                   size_t *n_bytes, struct atom_error *err);

/* "FILE: PATH.type is 'X', which is not done". */
enum atom_status atom_node_refuse(const struct atom_node *n, const char *key, const char *what, struct atom_error *err);

/* Steps may nest in "Sequence" objects; `list` names the array. Calls `step` for each one that is not a Sequence. */
typedef enum atom_status atom_step_fn(void *ctx, const struct atom_node *n, const char *type, struct atom_error *err);
enum atom_status atom_node_steps(const struct atom_node *n, const char *list, atom_step_fn *step, void *ctx,
                                 struct atom_error *err);

#endif
