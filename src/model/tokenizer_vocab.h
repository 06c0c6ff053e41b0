/* SPDX-License-Identifier: Apache-2.0 */
/* The two tables of a byte-pair tokenizer: token <-> id, and which pairs of tokens merge. */
#ifndef ATOM_MODEL_TOKENIZER_VOCAB_H
#define ATOM_MODEL_TOKENIZER_VOCAB_H

#include "model/tokenizer_json.h"
#include "model/tokenizer_text.h"

/* Ids above this are refused: tables are as long as the largest id. */
enum { ATOM_MAX_TOKEN_ID = (1 << 22) - 1 };

struct atom_vocab_slot {
    uint32_t hash;
    uint32_t id_plus_1; /* 0: free */
};

struct atom_vocab_text {
    uint32_t at, n; /* in the arena */
    bool present;
};

/* Tokens of the model and added tokens alike. */
struct atom_vocab {
    struct atom_text arena;
    struct atom_vocab_text *texts; /* [n_ids] */
    int n_ids;                     /* one more than the largest id */
    struct atom_vocab_slot *slots; /* [mask + 1], at most half of them taken */
    uint32_t mask;
};

/* Room for ids below n_ids, n_tokens of them in use. */
enum atom_status atom_vocab_init(struct atom_vocab *v, int n_ids, size_t n_tokens, struct atom_error *err);
void atom_vocab_fini(struct atom_vocab *v);
/* False when the id has a text already, or when out of memory (arena.failed). */
bool atom_vocab_put(struct atom_vocab *v, int32_t id, const char *text, size_t n);
/* -1: no such token. */
int32_t atom_vocab_find(const struct atom_vocab *v, const char *text, size_t n);
/* NULL: no such id. Not NUL-terminated. */
const char *atom_vocab_text(const struct atom_vocab *v, int32_t id, size_t *n);

struct atom_merge {
    uint64_t pair; /* left << 32 | right; all ones: free */
    uint32_t rank; /* lower ranks merge first */
    int32_t id;    /* what the pair becomes */
};

struct atom_merges {
    struct atom_merge *slots; /* [1 << (64 - shift)], at most half of them taken */
    uint32_t mask;
    int shift;
};

enum atom_status atom_merges_init(struct atom_merges *m, size_t n, struct atom_error *err);
void atom_merges_fini(struct atom_merges *m);
/* A pair given twice keeps the later rank. */
void atom_merges_put(struct atom_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id);

static inline uint32_t atom_merges_slot(const struct atom_merges *m, uint64_t pair)
{
    return (uint32_t)((pair * 0x9E3779B97F4A7C15u) >> m->shift);
}

/* NULL: the two do not merge. */
static inline const struct atom_merge *atom_merges_find(const struct atom_merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = atom_merges_slot(m, pair);
    while (m->slots[i].pair != pair) {
        if (m->slots[i].pair == UINT64_MAX)
            return NULL;
        i = (i + 1) & m->mask;
    }
    return &m->slots[i];
}

#endif
