/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens: spelled in the text as they are, found before anything else is done to it. */
#ifndef ATOM_MODEL_TOKENIZER_ADDED_H
#define ATOM_MODEL_TOKENIZER_ADDED_H

#include "model/tokenizer_normalize.h"
#include "model/tokenizer_vocab.h"

struct atom_added {
    int32_t id;
    struct atom_text content;
    bool single_word, lstrip, rstrip, normalized, special;
};

/* A tree of bytes over the spellings. */
struct atom_trie_node {
    int32_t child, sibling; /* -1: none */
    int32_t token;          /* index into the added tokens that ends here, -1: none */
    uint8_t byte;
};

struct atom_trie {
    struct atom_trie_node *nodes;
    size_t n, cap;
    int32_t first[256]; /* the node of a first byte */
};

struct atom_added_list {
    struct atom_added *tokens;
    size_t n;
    struct atom_trie raw;        /* looked for in the text as given */
    struct atom_trie normalized; /* looked for, normalized too, in the normalized text */
};

/* `node` is the "added_tokens" field. */
enum atom_status atom_added_load(struct atom_added_list *list, const struct atom_node *node, struct atom_error *err);
/* Once the vocabulary stands: puts the tokens there that it lacks and builds the trees. */
enum atom_status atom_added_join(struct atom_added_list *list, const struct atom_node *node, struct atom_vocab *vocab,
                                 const struct atom_normalizer *nz, struct atom_error *err);
void atom_added_fini(struct atom_added_list *list);

/* Cuts text[n] into stretches of text and tokens: at each place the longest spelling, left to right. */
void atom_added_find(const struct atom_added_list *list, const struct atom_trie *trie, const char *text, size_t n,
                     struct atom_span_list *out);

#endif
