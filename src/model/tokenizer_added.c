/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>

static enum atom_status load_token(struct atom_added *t, const struct atom_node *n, struct atom_error *err)
{
    const char *text;
    size_t n_bytes;
    enum atom_status st;
    if ((st = atom_node_is(n, JSON_OBJECT, err)) ||
        (st = atom_node_keys(n, "id content single_word lstrip rstrip normalized special", err)) ||
        (st = atom_node_int(n, "id", 0, ATOM_MAX_TOKEN_ID, &t->id, err)) ||
        (st = atom_node_string(n, "content", &text, &n_bytes, err)) ||
        (st = atom_node_bool(n, "single_word", false, &t->single_word, err)) ||
        (st = atom_node_bool(n, "lstrip", false, &t->lstrip, err)) ||
        (st = atom_node_bool(n, "rstrip", false, &t->rstrip, err)) ||
        (st = atom_node_bool(n, "special", false, &t->special, err)) ||
        (st = atom_node_bool(n, "normalized", !t->special, &t->normalized, err)))
        return st;
    if (n_bytes == 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s.content is empty", n->file, n->path);
    atom_text_add(&t->content, text, n_bytes);
    return t->content.failed ? atom_fail_nomem(err, n_bytes) : ATOM_OK;
}

enum atom_status atom_added_load(struct atom_added_list *list, const struct atom_node *node, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    if (!node->value)
        return ATOM_OK;
    if ((st = atom_node_is(node, JSON_ARRAY, err)))
        return st;
    size_t n = json_array_size(node->value);
    list->tokens = calloc(n + 1, sizeof *list->tokens);
    if (!list->tokens)
        return atom_fail_nomem(err, (n + 1) * sizeof *list->tokens);
    for (list->n = 0; list->n < n && !st;) {
        struct atom_node item = atom_node_item(node, list->n);
        st = load_token(&list->tokens[list->n++], &item, err);
    }
    return st;
}

static void trie_init(struct atom_trie *trie)
{
    for (int i = 0; i < 256; i++)
        trie->first[i] = -1;
}

static int32_t new_node(struct atom_trie *trie, uint8_t byte, int32_t sibling)
{
    if (trie->n == trie->cap) {
        size_t cap = trie->cap ? trie->cap * 2 : 256;
        void *nodes = cap < INT32_MAX ? realloc(trie->nodes, cap * sizeof *trie->nodes) : NULL;
        if (!nodes)
            return -1;
        trie->nodes = nodes;
        trie->cap = cap;
    }
    trie->nodes[trie->n] = (struct atom_trie_node){-1, sibling, -1, byte};
    return (int32_t)trie->n++;
}

static int32_t find_child(const struct atom_trie *trie, int32_t at, uint8_t byte)
{
    int32_t child = trie->nodes[at].child;
    while (child >= 0 && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

/* Of two tokens spelled alike the first stays. */
static bool trie_add(struct atom_trie *trie, const char *text, size_t n, int32_t token)
{
    int32_t at = -1;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)text[i];
        int32_t next = i == 0 ? trie->first[byte] : find_child(trie, at, byte);
        if (next < 0) {
            if ((next = new_node(trie, byte, i == 0 ? -1 : trie->nodes[at].child)) < 0)
                return false;
            if (i == 0)
                trie->first[byte] = next;
            else
                trie->nodes[at].child = next;
        }
        at = next;
    }
    if (at >= 0 && trie->nodes[at].token < 0)
        trie->nodes[at].token = token;
    return true;
}

/* A token that the model's vocabulary holds must have its id there; another must have an id of its own. */
static enum atom_status join_vocab(const struct atom_added *t, const struct atom_node *where, struct atom_vocab *vocab,
                                   struct atom_error *err)
{
    int32_t known = atom_vocab_find(vocab, t->content.data, t->content.n);
    int shown = t->content.n < 80 ? (int)t->content.n : 80;
    if (known == t->id)
        return ATOM_OK;
    if (known >= 0)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s: '%.*s' has id %d, but is token %d already", where->file,
                         where->path, shown, t->content.data, t->id, known);
    if (atom_vocab_put(vocab, t->id, t->content.data, t->content.n))
        return ATOM_OK;
    if (vocab->arena.failed)
        return atom_fail_nomem(err, vocab->arena.n * 2);
    return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s: '%.*s' has id %d, which another token has too", where->file,
                     where->path, shown, t->content.data, t->id);
}

static enum atom_status add_spelling(struct atom_added_list *list, size_t i, const struct atom_normalizer *nz,
                                     struct atom_error *err)
{
    const struct atom_added *t = &list->tokens[i];
    struct atom_text text = {0}, spare = {0};
    enum atom_status st = ATOM_OK;
    atom_text_add(&text, t->content.data, t->content.n);
    if (t->normalized && !text.failed)
        st = atom_normalizer_apply(nz, &text, &spare, err);
    if (!st &&
        (text.failed || !trie_add(t->normalized ? &list->normalized : &list->raw, text.data, text.n, (int32_t)i)))
        st = atom_fail_nomem(err, text.n);
    atom_text_free(&text);
    atom_text_free(&spare);
    return st;
}

enum atom_status atom_added_join(struct atom_added_list *list, const struct atom_node *node, struct atom_vocab *vocab,
                                 const struct atom_normalizer *nz, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    trie_init(&list->raw);
    trie_init(&list->normalized);
    for (size_t i = 0; i < list->n && !st; i++) {
        struct atom_node item = atom_node_item(node, i);
        st = join_vocab(&list->tokens[i], &item, vocab, err);
    }
    /* Special ones first, as the original orders them, for the case of equal spellings. */
    for (int special = 1; special >= 0; special--)
        for (size_t i = 0; i < list->n && !st; i++)
            if (list->tokens[i].special == special)
                st = add_spelling(list, i, nz, err);
    return st;
}

void atom_added_fini(struct atom_added_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        atom_text_free(&list->tokens[i].content);
    free(list->tokens);
    free(list->raw.nodes);
    free(list->normalized.nodes);
    *list = (struct atom_added_list){0};
}

/* The token with the longest spelling at text[at], -1 if there is none; *end is where it ends. */
static int32_t longest_at(const struct atom_trie *trie, const char *text, size_t n, size_t at, size_t *end)
{
    int32_t token = -1;
    for (int32_t node = trie->first[(uint8_t)text[at]]; node >= 0;) {
        at++;
        if (trie->nodes[node].token >= 0) {
            token = trie->nodes[node].token;
            *end = at;
        }
        node = at < n ? find_child(trie, node, (uint8_t)text[at]) : -1;
    }
    return token;
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t end)
{
    size_t len;
    return (start == 0 || !atom_cp_is_word(atom_utf8_get(text + atom_utf8_back(text, start), &len))) &&
           (end == n || !atom_cp_is_word(atom_utf8_get(text + end, &len)));
}

static size_t skip_spaces_back(const char *text, size_t at, size_t stop)
{
    size_t len;
    while (at > stop) {
        size_t back = atom_utf8_back(text, at);
        if (!atom_cp_is_space(atom_utf8_get(text + back, &len)))
            break;
        at = back;
    }
    return at;
}

static size_t skip_spaces(const char *text, size_t n, size_t at)
{
    size_t len;
    while (at < n && atom_cp_is_space(atom_utf8_get(text + at, &len)))
        at += len;
    return at;
}

void atom_added_find(const struct atom_added_list *list, const struct atom_trie *trie, const char *text, size_t n,
                     struct atom_span_list *out)
{
    size_t done = 0, end = 0;
    for (size_t at = 0; at < n;) {
        int32_t i = longest_at(trie, text, n, at, &end);
        if (i < 0) {
            at++;
            continue;
        }
        const struct atom_added *t = &list->tokens[i];
        size_t start = at;
        at = end; /* the search goes on there even if the token takes the spaces that follow */
        if (t->single_word && !stands_alone(text, n, start, end))
            continue;
        if (t->lstrip)
            start = skip_spaces_back(text, start, done);
        if (t->rstrip)
            end = skip_spaces(text, n, end);
        if (done < start)
            atom_span_list_add(out, done, start, -1);
        atom_span_list_add(out, start, end, t->id);
        done = end;
    }
    if (done < n)
        atom_span_list_add(out, done, n, -1);
}
