/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_bpe.h"

#include <stdlib.h>
#include <string.h>

enum {
    NO_SYMBOL = -1,
    CACHED_BYTES = 64,      /* longer words hardly come twice */
    CACHED_WORDS = 1 << 16, /* bounds what one call keeps */
    CACHE_PROBES = 8        /* so that a text made to collide costs no more than a miss */
};
#define NO_MERGE UINT32_MAX

/* A list of symbols in the word; `rank` and `merged` tell how it would merge with the next one. */
struct symbol {
    int32_t id;
    int32_t prev, next;
    uint32_t rank;
    int32_t merged;
};

struct cached_word {
    uint64_t hash; /* 0: free */
    uint32_t text_at, n_text, ids_at, n_ids;
};

struct atom_bpe_run {
    const struct atom_bpe *bpe;
    struct symbol *symbols;
    uint64_t *heap; /* rank << 32 | position, smallest first; entries go stale in place */
    size_t cap, n, n_heap;
    struct atom_text spelled; /* a byte-level word in the vocabulary's characters */
    struct cached_word *cache;
    size_t n_cache, n_cached;
    struct atom_text cache_text;
    struct atom_id_list cache_ids;
};

struct atom_bpe_run *atom_bpe_run_create(const struct atom_bpe *bpe)
{
    struct atom_bpe_run *run = calloc(1, sizeof *run);
    if (run)
        run->bpe = bpe;
    return run;
}

void atom_bpe_run_free(struct atom_bpe_run *run)
{
    if (!run)
        return;
    free(run->symbols);
    free(run->heap);
    free(run->cache);
    free(run->cache_ids.ids);
    atom_text_free(&run->spelled);
    atom_text_free(&run->cache_text);
    free(run);
}

/* ---- merging ----------------------------------------------------------------------------------------------------- */

static void heap_push(struct atom_bpe_run *run, uint64_t entry)
{
    size_t i = run->n_heap++;
    while (i > 0 && run->heap[(i - 1) / 4] > entry) {
        run->heap[i] = run->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    run->heap[i] = entry;
}

/* Four children a node: half the depth of two, and they share a cache line. */
static uint64_t heap_pop(struct atom_bpe_run *run)
{
    uint64_t *heap = run->heap, top = heap[0], last = heap[--run->n_heap];
    size_t i = 0, n = run->n_heap;
    for (size_t child = 1; child < n; child = 4 * i + 1) {
        size_t least = child, end = child + 4 < n ? child + 4 : n;
        for (size_t c = child + 1; c < end; c++)
            if (heap[c] < heap[least])
                least = c;
        if (heap[least] >= last)
            break;
        heap[i] = heap[least];
        i = least;
    }
    heap[i] = last;
    return top;
}

/* Notes how symbol i merges with the next and queues that. */
static void look_at_pair(struct atom_bpe_run *run, int32_t i)
{
    struct symbol *s = &run->symbols[i];
    s->rank = NO_MERGE;
    if (s->next == NO_SYMBOL)
        return;
    const struct atom_merge *m = atom_merges_find(&run->bpe->merges, s->id, run->symbols[s->next].id);
    if (!m)
        return;
    s->rank = m->rank;
    s->merged = m->id;
    heap_push(run, (uint64_t)m->rank << 32 | (uint32_t)i);
}

static void merge_symbols(struct atom_bpe_run *run)
{
    run->n_heap = 0;
    for (size_t i = 0; i < run->n; i++)
        look_at_pair(run, (int32_t)i);
    while (run->n_heap > 0) {
        uint64_t top = heap_pop(run);
        struct symbol *s = &run->symbols[(uint32_t)top];
        if (s->rank != top >> 32)
            continue; /* one of the two has merged elsewhere since */
        struct symbol *right = &run->symbols[s->next];
        s->id = s->merged;
        s->next = right->next;
        right->rank = NO_MERGE;
        if (s->next != NO_SYMBOL)
            run->symbols[s->next].prev = (int32_t)(uint32_t)top;
        look_at_pair(run, (int32_t)(uint32_t)top);
        if (s->prev != NO_SYMBOL)
            look_at_pair(run, s->prev);
    }
}

/* ---- from text to symbols ---------------------------------------------------------------------------------------- */

/* Each symbol queues its pair once, and each merge queues two more while it removes a symbol: 3n entries at most. */
static bool reserve_symbols(struct atom_bpe_run *run, size_t n)
{
    if (n <= run->cap)
        return true;
    size_t cap = n < 256 ? 256 : n;
    struct symbol *symbols = realloc(run->symbols, cap * sizeof *symbols);
    if (!symbols)
        return false;
    run->symbols = symbols;
    uint64_t *heap = realloc(run->heap, 3 * cap * sizeof *heap);
    if (!heap)
        return false;
    run->heap = heap;
    run->cap = cap;
    return true;
}

static void add_symbol(struct atom_bpe_run *run, int32_t id)
{
    int32_t i = (int32_t)run->n++;
    run->symbols[i] = (struct symbol){id, i - 1, NO_SYMBOL, NO_MERGE, -1};
    if (i > 0)
        run->symbols[i - 1].next = i;
}

/* A character that is no token: its bytes, if all of them are; else the unknown token, one for a run when fused.
 * *pending says that an unknown token waits to be added, as it does over bytes in between (so the original has it). */
static void add_unknown(struct atom_bpe_run *run, const char *text, size_t n, bool *pending)
{
    const struct atom_bpe *bpe = run->bpe;
    bool bytes = bpe->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++)
        bytes = bpe->byte_tokens[(uint8_t)text[i]] >= 0;
    if (bytes) {
        for (size_t i = 0; i < n; i++)
            add_symbol(run, bpe->byte_tokens[(uint8_t)text[i]]);
    } else if (bpe->unk >= 0) {
        if (*pending && !bpe->fuse_unk)
            add_symbol(run, bpe->unk);
        *pending = true;
    }
}

static void add_known(struct atom_bpe_run *run, int32_t id, bool *pending)
{
    if (*pending)
        add_symbol(run, run->bpe->unk);
    *pending = false;
    add_symbol(run, id);
}

static void add_characters(struct atom_bpe_run *run, const char *text, size_t n)
{
    const struct atom_bpe *bpe = run->bpe;
    bool pending = false;
    char spelled[4];
    for (size_t at = 0, len; at < n; at += len) {
        uint8_t byte = (uint8_t)text[at];
        const char *p = text + at;
        size_t n_p = len = 1;
        int32_t id = bpe->byte_ids[byte];
        if (bpe->byte_level) {
            n_p = atom_utf8_put(atom_byte_cp(byte), spelled);
            p = spelled;
        } else if (byte >= 0x80) {
            atom_utf8_get(p, &len);
            n_p = len;
            id = atom_vocab_find(&bpe->vocab, p, n_p);
        }
        if (id >= 0)
            add_known(run, id, &pending);
        else
            add_unknown(run, p, n_p, &pending);
    }
    if (pending)
        add_symbol(run, bpe->unk);
}

/* The id of a whole word, for vocabularies that prefer it to merging; -1 if it is none. */
static int32_t find_whole(struct atom_bpe_run *run, const char *text, size_t n)
{
    const struct atom_bpe *bpe = run->bpe;
    if (!bpe->byte_level)
        return atom_vocab_find(&bpe->vocab, text, n);
    run->spelled.n = 0;
    for (size_t i = 0; i < n; i++)
        atom_text_add_cp(&run->spelled, atom_byte_cp((uint8_t)text[i]));
    return run->spelled.failed ? -1 : atom_vocab_find(&bpe->vocab, run->spelled.data, run->spelled.n);
}

static bool encode_word(struct atom_bpe_run *run, const char *text, size_t n, struct atom_id_list *out)
{
    int32_t whole = run->bpe->ignore_merges ? find_whole(run, text, n) : -1;
    if (whole >= 0) {
        atom_id_list_add(out, &whole, 1);
        return !out->failed;
    }
    /* A byte of an unknown character becomes one symbol, so there are never more symbols than bytes, except that a
     * byte-level spelling may fall back to two bytes. */
    if (run->spelled.failed || !reserve_symbols(run, run->bpe->byte_level ? 2 * n : n))
        return false;
    run->n = 0;
    add_characters(run, text, n);
    merge_symbols(run);
    for (int32_t i = run->n ? 0 : NO_SYMBOL; i != NO_SYMBOL; i = run->symbols[i].next)
        atom_id_list_add(out, &run->symbols[i].id, 1);
    return !out->failed;
}

/* ---- words seen before ------------------------------------------------------------------------------------------- */

static struct cached_word *probe(struct atom_bpe_run *run, uint64_t hash, const char *text, size_t n)
{
    for (size_t i = 0; i < CACHE_PROBES; i++) {
        struct cached_word *w = &run->cache[(hash + i) & (run->n_cache - 1)];
        if (w->hash == 0 ||
            (w->hash == hash && w->n_text == n && memcmp(run->cache_text.data + w->text_at, text, n) == 0))
            return w;
    }
    return NULL;
}

static bool grow_cache(struct atom_bpe_run *run)
{
    size_t n_old = run->n_cache, n_new = n_old ? n_old * 4 : 256;
    struct cached_word *old = run->cache;
    run->cache = calloc(n_new, sizeof *run->cache);
    if (!run->cache) {
        run->cache = old;
        return false;
    }
    run->n_cache = n_new;
    for (size_t i = 0; i < n_old; i++) {
        struct cached_word *w = old[i].hash ? probe(run, old[i].hash, "", UINT32_MAX) : NULL;
        if (w)
            *w = old[i];
    }
    free(old);
    return true;
}

static bool encode_cached(struct atom_bpe_run *run, const char *text, size_t n, struct atom_id_list *out)
{
    if (n > CACHED_BYTES)
        return encode_word(run, text, n, out);
    if (run->n_cached * 2 >= run->n_cache && run->n_cached < CACHED_WORDS && !grow_cache(run))
        return false;
    uint64_t hash = atom_text_hash(text, n) | 1;
    struct cached_word *w = probe(run, hash, text, n);
    if (w && w->hash) {
        atom_id_list_add(out, run->cache_ids.ids + w->ids_at, w->n_ids);
        return !out->failed;
    }
    size_t first = out->n;
    if (!encode_word(run, text, n, out))
        return false;
    if (!w || run->n_cached >= CACHED_WORDS)
        return true;
    *w = (struct cached_word){hash, (uint32_t)run->cache_text.n, (uint32_t)n, (uint32_t)run->cache_ids.n,
                              (uint32_t)(out->n - first)};
    run->n_cached++;
    atom_text_add(&run->cache_text, text, n);
    atom_id_list_add(&run->cache_ids, out->ids + first, out->n - first);
    return !run->cache_text.failed && !run->cache_ids.failed;
}

/* ---- cutting ----------------------------------------------------------------------------------------------------- */

static bool is_known(const struct atom_bpe *bpe, uint32_t cp)
{
    return cp < 0x10000 && (bpe->known[cp / 8] >> cp % 8 & 1);
}

static bool are_neighbours(const struct atom_bpe *bpe, uint32_t left, uint32_t right)
{
    uint32_t pair = left << 16 | right;
    uint32_t i = atom_bpe_neighbour_slot(bpe, pair);
    while (bpe->neighbours[i] && bpe->neighbours[i] != pair)
        i = (i + 1) & bpe->neighbour_mask;
    return bpe->neighbours[i] != 0;
}

bool atom_bpe_encode(struct atom_bpe_run *run, const char *text, size_t n, struct atom_id_list *out)
{
    const struct atom_bpe *bpe = run->bpe;
    if (!bpe->cuts)
        return encode_cached(run, text, n, out);
    size_t start = 0, len;
    uint32_t left = atom_utf8_get(text, &len);
    bool left_known = is_known(bpe, left);
    for (size_t at = len; at < n; at += len) {
        uint32_t right = atom_utf8_get(text + at, &len);
        bool right_known = is_known(bpe, right);
        if (left_known && right_known && !are_neighbours(bpe, left, right)) {
            if (!encode_cached(run, text + start, at - start, out))
                return false;
            start = at;
        }
        left = right;
        left_known = right_known;
    }
    return encode_cached(run, text + start, n - start, out);
}
