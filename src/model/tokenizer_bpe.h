/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of words (Sennrich et al., 2016), as the Hugging Face tokenizers library does it.
 *
 * A word starts as one symbol a character (or a byte, for byte-level vocabularies). The pair with the lowest rank,
 * the leftmost of equals, merges until no pair does. */
#ifndef ATOM_MODEL_TOKENIZER_BPE_H
#define ATOM_MODEL_TOKENIZER_BPE_H

#include "model/tokenizer_vocab.h"

struct atom_bpe {
    struct atom_vocab vocab; /* of the model; added tokens join it after loading */
    struct atom_merges merges;
    int32_t unk; /* -1: a character that is not in the vocabulary vanishes */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool byte_level;          /* words are bytes, spelled as atom_byte_cp says */
    int32_t byte_ids[256];    /* byte-level: the token of one byte; else of one ASCII character; -1: none */
    int32_t byte_tokens[256]; /* byte_fallback: <0x00> ... <0xFF>; -1: none */

    /* Where a piece may be cut before merging: between two characters that are tokens and that stand side by side in
     * no token, no merge can reach across. Only the basic plane is looked at. */
    bool cuts;
    uint8_t *known;       /* [65536 / 8] bit: this character is a token */
    uint32_t *neighbours; /* [neighbour_mask + 1] left << 16 | right; 0: free */
    uint32_t neighbour_mask;
};

/* Reads the "model" object; n_extra more tokens with ids below n_ids_extra will be put into the vocabulary later. */
enum atom_status atom_bpe_load(struct atom_bpe *bpe, const struct atom_node *model, bool byte_level, int n_ids_extra,
                               size_t n_extra, struct atom_error *err);
void atom_bpe_fini(struct atom_bpe *bpe);

/* The character that stands for a byte in byte-level vocabularies, and back (-1: none does). */
uint32_t atom_byte_cp(uint8_t byte);
int atom_cp_byte(uint32_t cp);

static inline uint32_t atom_bpe_neighbour_slot(const struct atom_bpe *bpe, uint32_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> 32) & bpe->neighbour_mask;
}

/* What one call of encode works with: never shared, so that threads can share the tokenizer. */
struct atom_bpe_run;
struct atom_bpe_run *atom_bpe_run_create(const struct atom_bpe *bpe);
void atom_bpe_run_free(struct atom_bpe_run *run);

/* Appends the ids of one piece of text (n > 0, valid UTF-8). False when out of memory. */
bool atom_bpe_encode(struct atom_bpe_run *run, const char *text, size_t n, struct atom_id_list *out);

#endif
