/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_vocab.h"

#include <stdlib.h>
#include <string.h>

/* The power of two that keeps n entries at half load or less. */
static int table_bits(size_t n)
{
    int bits = 4;
    while (((size_t)1 << bits) < 2 * n)
        bits++;
    return bits;
}

enum atom_status atom_vocab_init(struct atom_vocab *v, int n_ids, size_t n_tokens, struct atom_error *err)
{
    size_t n_slots = (size_t)1 << table_bits(n_tokens);
    *v = (struct atom_vocab){.n_ids = n_ids, .mask = (uint32_t)(n_slots - 1)};
    v->texts = calloc((size_t)n_ids + 1, sizeof *v->texts);
    v->slots = calloc(n_slots, sizeof *v->slots);
    if (!v->texts || !v->slots) {
        atom_vocab_fini(v);
        return atom_fail_nomem(err, n_slots * sizeof *v->slots);
    }
    return ATOM_OK;
}

void atom_vocab_fini(struct atom_vocab *v)
{
    atom_text_free(&v->arena);
    free(v->texts);
    free(v->slots);
    *v = (struct atom_vocab){0};
}

static bool same_text(const struct atom_vocab *v, int32_t id, const char *text, size_t n)
{
    const struct atom_vocab_text *t = &v->texts[id];
    return t->n == n && (n == 0 || memcmp(v->arena.data + t->at, text, n) == 0);
}

/* Where the token stands, or the free slot where it would. */
static uint32_t find_slot(const struct atom_vocab *v, uint32_t hash, const char *text, size_t n)
{
    uint32_t i = hash & v->mask;
    while (v->slots[i].id_plus_1 &&
           (v->slots[i].hash != hash || !same_text(v, (int32_t)v->slots[i].id_plus_1 - 1, text, n)))
        i = (i + 1) & v->mask;
    return i;
}

bool atom_vocab_put(struct atom_vocab *v, int32_t id, const char *text, size_t n)
{
    if (v->texts[id].present || v->arena.n + n > UINT32_MAX)
        return false;
    uint32_t hash = (uint32_t)atom_text_hash(text, n);
    uint32_t slot = find_slot(v, hash, text, n);
    size_t at = v->arena.n;
    atom_text_add(&v->arena, text, n);
    if (v->arena.failed)
        return false;
    v->texts[id] = (struct atom_vocab_text){(uint32_t)at, (uint32_t)n, true};
    v->slots[slot] = (struct atom_vocab_slot){hash, (uint32_t)id + 1};
    return true;
}

int32_t atom_vocab_find(const struct atom_vocab *v, const char *text, size_t n)
{
    uint32_t slot = find_slot(v, (uint32_t)atom_text_hash(text, n), text, n);
    return (int32_t)v->slots[slot].id_plus_1 - 1;
}

const char *atom_vocab_text(const struct atom_vocab *v, int32_t id, size_t *n)
{
    if (id < 0 || id >= v->n_ids || !v->texts[id].present)
        return NULL;
    *n = v->texts[id].n;
    return *n ? v->arena.data + v->texts[id].at : "";
}

enum atom_status atom_merges_init(struct atom_merges *m, size_t n, struct atom_error *err)
{
    int bits = table_bits(n);
    size_t n_slots = (size_t)1 << bits;
    m->mask = (uint32_t)(n_slots - 1);
    m->shift = 64 - bits;
    m->slots = malloc(n_slots * sizeof *m->slots);
    if (!m->slots)
        return atom_fail_nomem(err, n_slots * sizeof *m->slots);
    memset(m->slots, 0xFF, n_slots * sizeof *m->slots);
    return ATOM_OK;
}

void atom_merges_fini(struct atom_merges *m)
{
    free(m->slots);
    *m = (struct atom_merges){0};
}

void atom_merges_put(struct atom_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = atom_merges_slot(m, pair);
    while (m->slots[i].pair != UINT64_MAX && m->slots[i].pair != pair)
        i = (i + 1) & m->mask;
    m->slots[i] = (struct atom_merge){pair, rank, id};
}
