/* SPDX-License-Identifier: Apache-2.0 */
/* Loads the "decoder" object of tokenizer.json. */
#include "model/tokenizer_decode.h"

#include <stdlib.h>
#include <string.h>

static struct atom_stage *add_stage(struct atom_decoder_chain *chain, enum atom_stage_kind kind)
{
    void *stages = realloc(chain->stages, (chain->n + 1) * sizeof *chain->stages);
    if (!stages)
        return NULL;
    chain->stages = stages;
    bool fused = false;
    for (size_t i = 0; i < chain->n; i++)
        fused |= chain->stages[i].kind == ATOM_STAGE_FUSE || chain->stages[i].kind == ATOM_STAGE_BYTE_LEVEL;
    chain->stages[chain->n] = (struct atom_stage){.kind = kind, .fused = fused};
    return &chain->stages[chain->n++];
}

static enum atom_status load_replace(struct atom_stage *s, const struct atom_node *n, struct atom_error *err)
{
    const char *pattern, *content;
    size_t n_pattern, n_content, len;
    bool is_regex;
    enum atom_status st;
    if ((st = atom_node_keys(n, "type pattern content", err)) ||
        (st = atom_node_pattern(n, "pattern", &is_regex, &pattern, &n_pattern, err)) ||
        (st = atom_node_string(n, "content", &content, &n_content, err)))
        return st;
    if (is_regex)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s.pattern is a Regex, which is not done here", n->file,
                         n->path);
    atom_utf8_get(pattern, &len);
    if (s->fused && len != n_pattern)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s: %s: Replace of more than one character after Fuse is not done here", n->file, n->path);
    atom_text_add(&s->pattern, pattern, n_pattern);
    atom_text_add(&s->content, content, n_content);
    return s->pattern.failed || s->content.failed ? atom_fail_nomem(err, n_pattern + n_content) : ATOM_OK;
}

static enum atom_status load_strip(struct atom_stage *s, const struct atom_node *n, struct atom_error *err)
{
    uint32_t cp;
    enum atom_status st;
    if ((st = atom_node_keys(n, "type content start stop", err)) || (st = atom_node_char(n, "content", &cp, err)) ||
        (st = atom_node_int(n, "start", 0, INT32_MAX, &s->start, err)) ||
        (st = atom_node_int(n, "stop", 0, INT32_MAX, &s->stop, err)))
        return st;
    atom_text_add_cp(&s->pattern, cp);
    return s->pattern.failed ? atom_fail_nomem(err, 4) : ATOM_OK;
}

static enum atom_status load_metaspace(struct atom_stage *s, const struct atom_node *n, struct atom_error *err)
{
    uint32_t cp;
    bool add_prefix_space;
    enum atom_status st;
    if ((st = atom_node_keys(n, "type replacement prepend_scheme split add_prefix_space str_rep", err)) ||
        (st = atom_node_char(n, "replacement", &cp, err)) ||
        (st = atom_node_bool(n, "add_prefix_space", true, &add_prefix_space, err)))
        return st;
    struct atom_node scheme = atom_node_field(n, "prepend_scheme");
    if (scheme.value && (st = atom_node_is(&scheme, JSON_STRING, err)))
        return st;
    s->drop_first = add_prefix_space && (!scheme.value || strcmp(json_string_value(scheme.value), "never") != 0);
    atom_text_add_cp(&s->pattern, cp);
    atom_text_add(&s->content, " ", 1);
    return s->pattern.failed || s->content.failed ? atom_fail_nomem(err, 4) : ATOM_OK;
}

static enum atom_status load_stage(void *ctx, const struct atom_node *n, const char *type, struct atom_error *err)
{
    static const char *const names[] = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "ByteLevel"};
    int kind = 0;
    while (kind < 6 && strcmp(type, names[kind]) != 0)
        kind++;
    if (kind == 6)
        return atom_node_refuse(n, "type", type, err);
    struct atom_stage *s = add_stage(ctx, (enum atom_stage_kind)kind);
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    if (s->fused &&
        (s->kind == ATOM_STAGE_BYTES || s->kind == ATOM_STAGE_METASPACE || s->kind == ATOM_STAGE_BYTE_LEVEL))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s: %s after Fuse or ByteLevel is not done here", n->file,
                         n->path, type);
    switch (s->kind) {
    case ATOM_STAGE_REPLACE:
        return load_replace(s, n, err);
    case ATOM_STAGE_STRIP:
        return load_strip(s, n, err);
    case ATOM_STAGE_METASPACE:
        return load_metaspace(s, n, err);
    case ATOM_STAGE_BYTE_LEVEL: /* its options speak of encoding alone */
        return atom_node_keys(n, "type add_prefix_space trim_offsets use_regex", err);
    default:
        return atom_node_keys(n, "type", err);
    }
}

enum atom_status atom_decoder_chain_load(struct atom_decoder_chain *chain, const struct atom_node *node,
                                         struct atom_error *err)
{
    if (node->value)
        return atom_node_steps(node, "decoders", load_stage, chain, err);
    return add_stage(chain, ATOM_STAGE_JOIN) ? ATOM_OK : atom_fail_nomem(err, sizeof *chain->stages);
}

void atom_decoder_chain_fini(struct atom_decoder_chain *chain)
{
    for (size_t i = 0; i < chain->n; i++) {
        atom_text_free(&chain->stages[i].pattern);
        atom_text_free(&chain->stages[i].content);
    }
    free(chain->stages);
    *chain = (struct atom_decoder_chain){0};
}
