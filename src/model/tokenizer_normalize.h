/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to a text before it is split. */
#ifndef ATOM_MODEL_TOKENIZER_NORMALIZE_H
#define ATOM_MODEL_TOKENIZER_NORMALIZE_H

#include "model/tokenizer_regex.h"

struct atom_normalizer_step;

struct atom_normalizer {
    struct atom_normalizer_step *steps;
    size_t n;
};

/* `node` is the "normalizer" field; null: no steps. */
enum atom_status atom_normalizer_load(struct atom_normalizer *nz, const struct atom_node *node, struct atom_error *err);
void atom_normalizer_fini(struct atom_normalizer *nz);

/* text holds one stretch between added tokens and is replaced by what becomes of it; `spare` is scratch. */
enum atom_status atom_normalizer_apply(const struct atom_normalizer *nz, struct atom_text *text,
                                       struct atom_text *spare, struct atom_error *err);

enum atom_form { ATOM_FORM_C, ATOM_FORM_D, ATOM_FORM_KC, ATOM_FORM_KD };
/* Appends the Unicode normalization form of text[n] (UAX 15). False when out of memory. */
bool atom_text_to_form(enum atom_form form, const char *text, size_t n, struct atom_text *out);

#endif
