/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-tokenizers: cut a normalized text into the pieces that are encoded one by one. */
#ifndef ATOM_MODEL_TOKENIZER_SPLIT_H
#define ATOM_MODEL_TOKENIZER_SPLIT_H

#include "model/tokenizer_regex.h"

struct atom_split_step;

struct atom_splitter {
    struct atom_split_step *steps;
    size_t n;
    bool byte_level; /* pieces are to be spelled byte by byte */
};

/* `node` is the "pre_tokenizer" field; null: a text is one piece. */
enum atom_status atom_splitter_load(struct atom_splitter *sp, const struct atom_node *node, struct atom_error *err);
void atom_splitter_fini(struct atom_splitter *sp);

/* A text and its pieces, in order and not empty. {0} is valid; reused from text to text. */
struct atom_pieces {
    struct atom_text text;
    struct atom_span_list list;
    struct atom_text spare_text;
    struct atom_span_list spare_list;
    struct atom_regex_run *runs; /* [steps] */
    size_t n_runs;
};

/* p->text holds what is to be cut; at_start: the whole text begins here. */
enum atom_status atom_splitter_apply(const struct atom_splitter *sp, struct atom_pieces *p, bool at_start,
                                     struct atom_error *err);
void atom_pieces_fini(struct atom_pieces *p);

#endif
