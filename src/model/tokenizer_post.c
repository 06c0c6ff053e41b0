/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct loader {
    struct atom_post *post;
    const struct atom_vocab *vocab;
};

static enum atom_status add_special(const struct loader *l, const struct atom_node *processor,
                                    const struct atom_node *piece, struct atom_id_list *out, struct atom_error *err)
{
    const char *name;
    size_t n;
    struct atom_node tokens = atom_node_field(processor, "special_tokens");
    enum atom_status st;
    if ((st = atom_node_is(piece, JSON_OBJECT, err)) || (st = atom_node_keys(piece, "id type_id", err)) ||
        (st = atom_node_string(piece, "id", &name, &n, err)) || (st = atom_node_is(&tokens, JSON_OBJECT, err)))
        return st;
    struct atom_node token = atom_node_field(&tokens, name);
    if ((st = atom_node_is(&token, JSON_OBJECT, err)))
        return st;
    struct atom_node ids = atom_node_field(&token, "ids");
    if ((st = atom_node_is(&ids, JSON_ARRAY, err)))
        return st;
    for (size_t i = 0; i < json_array_size(ids.value); i++) {
        const json_t *id = json_array_get(ids.value, i);
        size_t len;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > ATOM_MAX_TOKEN_ID ||
            !atom_vocab_text(l->vocab, (int32_t)json_integer_value(id), &len))
            return atom_fail(err, ATOM_ERR_FORMAT, "%s: %s[%zu] should be the id of a token", ids.file, ids.path, i);
        int32_t value = (int32_t)json_integer_value(id);
        atom_id_list_add(out, &value, 1);
    }
    return out->failed ? atom_fail_nomem(err, out->n) : ATOM_OK;
}

static enum atom_status check_sequence(const struct atom_node *piece, struct atom_error *err)
{
    const char *name;
    size_t n;
    enum atom_status st;
    if ((st = atom_node_is(piece, JSON_OBJECT, err)) || (st = atom_node_keys(piece, "id type_id", err)) ||
        (st = atom_node_string(piece, "id", &name, &n, err)))
        return st;
    return strcmp(name, "A") == 0 ? ATOM_OK : atom_node_refuse(piece, "id", name, err);
}

static enum atom_status load_pieces(const struct loader *l, const struct atom_node *n, struct atom_id_list *before,
                                    struct atom_id_list *after, struct atom_error *err)
{
    struct atom_node single = atom_node_field(n, "single");
    enum atom_status st = atom_node_is(&single, JSON_ARRAY, err);
    int texts = 0;
    for (size_t i = 0; !st && i < json_array_size(single.value); i++) {
        struct atom_node item = atom_node_item(&single, i);
        if ((st = atom_node_is(&item, JSON_OBJECT, err)) || (st = atom_node_keys(&item, "SpecialToken Sequence", err)))
            return st;
        struct atom_node special = atom_node_field(&item, "SpecialToken"), text = atom_node_field(&item, "Sequence");
        if (special.value)
            st = add_special(l, n, &special, texts ? after : before, err);
        else if (!(st = check_sequence(&text, err)))
            texts++;
    }
    if (!st && texts != 1)
        st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s should hold the text once, but has it %d times", single.file,
                       single.path, texts);
    return st;
}

/* "pair" is for two texts in one, which nothing here makes; a later template goes around an earlier one. */
static enum atom_status load_template(const struct loader *l, const struct atom_node *n, struct atom_error *err)
{
    struct atom_id_list before = {0}, after = {0};
    enum atom_status st = atom_node_keys(n, "type single pair special_tokens", err);
    if (!st && !(st = load_pieces(l, n, &before, &after, err))) {
        atom_id_list_add(&before, l->post->before.ids, l->post->before.n);
        atom_id_list_add(&l->post->after, after.ids, after.n);
        struct atom_id_list was = l->post->before;
        l->post->before = before;
        before = was;
        if (l->post->before.failed || l->post->after.failed)
            st = atom_fail_nomem(err, before.n + after.n);
    }
    free(before.ids);
    free(after.ids);
    return st;
}

static enum atom_status load_step(void *ctx, const struct atom_node *n, const char *type, struct atom_error *err)
{
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(ctx, n, err);
    if (strcmp(type, "ByteLevel") == 0) /* moves offsets alone, which are not kept here */
        return atom_node_keys(n, "type add_prefix_space trim_offsets use_regex", err);
    return atom_node_refuse(n, "type", type, err);
}

enum atom_status atom_post_load(struct atom_post *post, const struct atom_node *node, const struct atom_vocab *vocab,
                                struct atom_error *err)
{
    struct loader l = {post, vocab};
    return atom_node_steps(node, "processors", load_step, &l, err);
}

void atom_post_fini(struct atom_post *post)
{
    free(post->before.ids);
    free(post->after.ids);
    *post = (struct atom_post){0};
}
