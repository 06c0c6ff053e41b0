/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the "model" object of tokenizer.json. */
#include "model/tokenizer_bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that print keep their own character; the others, in order, take those from U+0100 on. */
static bool is_printed(unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE; }

uint32_t atom_byte_cp(uint8_t byte)
{
    uint32_t next = 0x100;
    if (is_printed(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        next += !is_printed(b);
    return next;
}

int atom_cp_byte(uint32_t cp)
{
    if (cp < 0x100)
        return is_printed(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

static enum atom_status load_vocab(struct atom_bpe *bpe, const struct atom_node *model, int n_ids_extra, size_t n_extra,
                                   struct atom_error *err)
{
    struct atom_node vocab = atom_node_field(model, "vocab");
    enum atom_status st = atom_node_is(&vocab, JSON_OBJECT, err);
    if (st)
        return st;
    const char *key;
    json_t *value;
    json_int_t top = n_ids_extra - 1;
    json_object_foreach(vocab.value, key, value)
    {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id > ATOM_MAX_TOKEN_ID)
            return atom_fail(err, ATOM_ERR_FORMAT,
                             "%s: model.vocab: the id of '%.80s' should be a whole number from 0 to %d", model->file,
                             key, ATOM_MAX_TOKEN_ID);
        top = id > top ? id : top;
    }
    if ((st = atom_vocab_init(&bpe->vocab, (int)top + 1, json_object_size(vocab.value) + n_extra, err)))
        return st;
    json_object_foreach(vocab.value, key, value)
    {
        if (atom_vocab_put(&bpe->vocab, (int32_t)json_integer_value(value), key, strlen(key)))
            continue;
        if (bpe->vocab.arena.failed)
            return atom_fail_nomem(err, bpe->vocab.arena.n * 2);
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: model.vocab: '%.80s' has id %lld, which another token has too",
                         model->file, key, (long long)json_integer_value(value));
    }
    return ATOM_OK;
}

/* One entry is ["a", "b"] or "a b". */
static bool split_merge(const json_t *entry, const char *part[2], size_t n[2])
{
    if (json_is_string(entry)) {
        part[0] = json_string_value(entry);
        const char *space = strchr(part[0], ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        n[0] = (size_t)(space - part[0]);
        part[1] = space + 1;
        n[1] = json_string_length(entry) - n[0] - 1;
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        part[i] = json_string_value(json_array_get(entry, i));
        n[i] = json_string_length(json_array_get(entry, i));
    }
    return json_array_size(entry) == 2 && part[0] && part[1];
}

static enum atom_status load_merge(struct atom_bpe *bpe, const char *file, const json_t *entry, size_t i,
                                   struct atom_text *joined, struct atom_error *err)
{
    const char *part[2];
    size_t n[2];
    if (!split_merge(entry, part, n))
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: model.merges[%zu] should be [\"a\", \"b\"] or \"a b\"", file, i);
    joined->n = 0;
    atom_text_add(joined, part[0], n[0]);
    atom_text_add(joined, part[1], n[1]);
    if (joined->failed)
        return atom_fail_nomem(err, n[0] + n[1]);
    int32_t left = atom_vocab_find(&bpe->vocab, part[0], n[0]);
    int32_t right = atom_vocab_find(&bpe->vocab, part[1], n[1]);
    int32_t id = atom_vocab_find(&bpe->vocab, joined->data, joined->n);
    if (left >= 0 && right >= 0 && id >= 0) {
        atom_merges_put(&bpe->merges, left, right, (uint32_t)i, id);
        return ATOM_OK;
    }
    const char *lost = left < 0 ? part[0] : right < 0 ? part[1] : joined->data;
    size_t n_lost = left < 0 ? n[0] : right < 0 ? n[1] : joined->n;
    return atom_fail(err, ATOM_ERR_FORMAT, "%s: model.merges[%zu] needs the token '%.*s', which model.vocab lacks",
                     file, i, n_lost < 80 ? (int)n_lost : 80, lost ? lost : "");
}

static enum atom_status load_merges(struct atom_bpe *bpe, const struct atom_node *model, struct atom_error *err)
{
    struct atom_node merges = atom_node_field(model, "merges");
    enum atom_status st = atom_node_is(&merges, JSON_ARRAY, err);
    size_t n = json_array_size(merges.value);
    if (st || (st = atom_merges_init(&bpe->merges, n, err)))
        return st;
    struct atom_text joined = {0};
    for (size_t i = 0; i < n && !st; i++)
        st = load_merge(bpe, model->file, json_array_get(merges.value, i), i, &joined, err);
    atom_text_free(&joined);
    return st;
}

static void find_byte_tokens(struct atom_bpe *bpe)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        size_t n = atom_utf8_put(bpe->byte_level ? atom_byte_cp((uint8_t)b) : (uint32_t)b, text);
        bpe->byte_ids[b] = bpe->byte_level || b < 128 ? atom_vocab_find(&bpe->vocab, text, n) : -1;
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        bpe->byte_tokens[b] = atom_vocab_find(&bpe->vocab, text, 6);
    }
}

static void add_neighbours(struct atom_bpe *bpe, const char *text, size_t n)
{
    uint32_t left = 0;
    for (size_t at = 0, len; at < n; at += len) {
        uint32_t right = atom_utf8_get(text + at, &len);
        uint32_t pair = left << 16 | right;
        uint32_t i = atom_bpe_neighbour_slot(bpe, pair);
        if (at > 0 && left < 0x10000 && right < 0x10000 && pair != 0) {
            while (bpe->neighbours[i] && bpe->neighbours[i] != pair)
                i = (i + 1) & bpe->neighbour_mask;
            bpe->neighbours[i] = pair;
        }
        left = right;
    }
}

/* Byte-level words come short out of their split, so only whole-text vocabularies look for places to cut. With
 * ignore_merges a piece is one lookup first, which a cut would hide. */
static enum atom_status find_cuts(struct atom_bpe *bpe, struct atom_error *err)
{
    if (bpe->byte_level || bpe->ignore_merges)
        return ATOM_OK;
    size_t n_slots = 64;
    while (n_slots < 2 * bpe->vocab.arena.n)
        n_slots *= 2;
    bpe->neighbour_mask = (uint32_t)(n_slots - 1);
    bpe->known = calloc(65536 / 8, 1);
    bpe->neighbours = calloc(n_slots, sizeof *bpe->neighbours);
    if (!bpe->known || !bpe->neighbours)
        return atom_fail_nomem(err, n_slots * sizeof *bpe->neighbours);
    for (int32_t id = 0; id < bpe->vocab.n_ids; id++) {
        size_t n, len = 0;
        const char *text = atom_vocab_text(&bpe->vocab, id, &n);
        if (!text || n == 0)
            continue;
        uint32_t cp = atom_utf8_get(text, &len);
        if (len == n && cp > 0 && cp < 0x10000)
            bpe->known[cp / 8] |= (uint8_t)(1u << cp % 8);
        add_neighbours(bpe, text, n);
    }
    bpe->cuts = true;
    return ATOM_OK;
}

static enum atom_status load_unk(struct atom_bpe *bpe, const struct atom_node *model, struct atom_error *err)
{
    const char *text;
    size_t n;
    bpe->unk = -1;
    if (!atom_node_field(model, "unk_token").value)
        return ATOM_OK;
    enum atom_status st = atom_node_string(model, "unk_token", &text, &n, err);
    if (st)
        return st;
    bpe->unk = atom_vocab_find(&bpe->vocab, text, n);
    if (bpe->unk < 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: model.unk_token is '%.80s', which model.vocab lacks", model->file,
                         text);
    return ATOM_OK;
}

/* Affixes of words change how every symbol is looked up; nothing of the Llama family has them. */
static enum atom_status refuse_rest(const struct atom_node *model, struct atom_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        struct atom_node f = atom_node_field(model, affixes[i]);
        if (f.value && (!json_is_string(f.value) || json_string_length(f.value) > 0))
            return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s is set, which is not done here", f.file, f.path);
    }
    struct atom_node dropout = atom_node_field(model, "dropout");
    if (dropout.value && (!json_is_number(dropout.value) || json_number_value(dropout.value) != 0))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: model.dropout is set, which is not done here", model->file);
    return ATOM_OK;
}

enum atom_status atom_bpe_load(struct atom_bpe *bpe, const struct atom_node *model, bool byte_level, int n_ids_extra,
                               size_t n_extra, struct atom_error *err)
{
    enum atom_status st = atom_node_is(model, JSON_OBJECT, err);
    if (st)
        return st;
    const char *type = "BPE";
    if (atom_node_field(model, "type").value && (st = atom_node_type(model, &type, err)))
        return st;
    if (strcmp(type, "BPE") != 0)
        return atom_node_refuse(model, "type", type, err);
    bpe->byte_level = byte_level;
    if ((st = atom_node_keys(model,
                             "type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk "
                             "byte_fallback ignore_merges vocab merges",
                             err)) ||
        (st = refuse_rest(model, err)) || (st = atom_node_bool(model, "fuse_unk", false, &bpe->fuse_unk, err)) ||
        (st = atom_node_bool(model, "byte_fallback", false, &bpe->byte_fallback, err)) ||
        (st = atom_node_bool(model, "ignore_merges", false, &bpe->ignore_merges, err)) ||
        (st = load_vocab(bpe, model, n_ids_extra, n_extra, err)) || (st = load_unk(bpe, model, err)) ||
        (st = load_merges(bpe, model, err)))
        return st;
    find_byte_tokens(bpe);
    return find_cuts(bpe, err);
}

void atom_bpe_fini(struct atom_bpe *bpe)
{
    atom_vocab_fini(&bpe->vocab);
    atom_merges_fini(&bpe->merges);
    free(bpe->known);
    free(bpe->neighbours);
    *bpe = (struct atom_bpe){0};
}
