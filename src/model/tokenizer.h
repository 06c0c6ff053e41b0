/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer: text <-> ids as tokenizer.json says, the same ids and text as the Hugging Face library gives.
 *
 *     text -> added tokens apart -> normalizer -> added tokens apart -> splitter -> byte-pair encoding -> post ids
 */
#ifndef ATOM_MODEL_TOKENIZER_H
#define ATOM_MODEL_TOKENIZER_H

#include "model/tokenizer_added.h"
#include "model/tokenizer_bpe.h"
#include "model/tokenizer_decode.h"
#include "model/tokenizer_split.h"

/* Ids the post-processor puts around a text. */
struct atom_post {
    struct atom_id_list before, after;
};

struct atom_tokenizer {
    struct atom_added_list added;
    struct atom_normalizer normalizer;
    struct atom_splitter splitter;
    struct atom_bpe bpe;
    struct atom_post post;
    struct atom_decoder_chain chain;
    uint8_t *special; /* [vocab.n_ids] */
};

/* `node` is the "post_processor" field; the ids it names must be in the vocabulary. */
enum atom_status atom_post_load(struct atom_post *post, const struct atom_node *node, const struct atom_vocab *vocab,
                                struct atom_error *err);
void atom_post_fini(struct atom_post *post);

#endif
