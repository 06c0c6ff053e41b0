/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer.h"

#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILE_BYTES = 1 << 28 };

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum atom_status mark_special(struct atom_tokenizer *tok, struct atom_error *err)
{
    tok->special = calloc((size_t)tok->bpe.vocab.n_ids + 1, 1);
    if (!tok->special)
        return atom_fail_nomem(err, (size_t)tok->bpe.vocab.n_ids);
    for (size_t i = 0; i < tok->added.n; i++)
        if (tok->added.tokens[i].special)
            tok->special[tok->added.tokens[i].id] = 1;
    return ATOM_OK;
}

/* truncation and padding are for batches of equal length; here the caller bounds a text, so both are passed over. */
static enum atom_status load_parts(struct atom_tokenizer *tok, const struct atom_node *top, struct atom_error *err)
{
    enum atom_status st;
    if ((st = atom_node_is(top, JSON_OBJECT, err)) ||
        (st = atom_node_keys(top,
                             "version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder "
                             "model",
                             err)))
        return st;
    struct atom_node version = atom_node_field(top, "version");
    if (version.value && (!json_is_string(version.value) || strcmp(json_string_value(version.value), "1.0") != 0))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: version is not \"1.0\"", top->file);
    struct atom_node added = atom_node_field(top, "added_tokens"), normalizer = atom_node_field(top, "normalizer");
    struct atom_node split = atom_node_field(top, "pre_tokenizer"), model = atom_node_field(top, "model");
    struct atom_node post = atom_node_field(top, "post_processor"), decoder = atom_node_field(top, "decoder");
    if ((st = atom_added_load(&tok->added, &added, err)) ||
        (st = atom_normalizer_load(&tok->normalizer, &normalizer, err)) ||
        (st = atom_splitter_load(&tok->splitter, &split, err)))
        return st;
    int n_ids = 0;
    for (size_t i = 0; i < tok->added.n; i++)
        n_ids = tok->added.tokens[i].id >= n_ids ? tok->added.tokens[i].id + 1 : n_ids;
    if ((st = atom_bpe_load(&tok->bpe, &model, tok->splitter.byte_level, n_ids, tok->added.n, err)) ||
        (st = atom_added_join(&tok->added, &added, &tok->bpe.vocab, &tok->normalizer, err)) ||
        (st = atom_post_load(&tok->post, &post, &tok->bpe.vocab, err)) ||
        (st = atom_decoder_chain_load(&tok->chain, &decoder, err)))
        return st;
    return mark_special(tok, err);
}

static enum atom_status load_file(struct atom_tokenizer *tok, const char *path, struct atom_error *err)
{
    char *data;
    size_t n;
    json_error_t why;
    enum atom_status st = atom_file_read(path, MAX_FILE_BYTES, &data, &n, err);
    if (st)
        return st;
    json_t *json = json_loadb(data, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    free(data);
    if (!json)
        return atom_fail(err, ATOM_ERR_FORMAT, "%s: not JSON at line %d, byte %d: %s", path, why.line, why.position,
                         why.text);
    struct atom_node top = {json, path, ""};
    st = load_parts(tok, &top, err);
    json_decref(json);
    return st;
}

enum atom_status atom_tokenizer_open(const char *path, struct atom_tokenizer **out, struct atom_error *err)
{
    struct stat info;
    if (err)
        err->code = ATOM_OK;
    if (stat(path, &info) != 0)
        return atom_fail_errno(err, errno, "%s: cannot be opened", path);
    char *file = S_ISDIR(info.st_mode) ? atom_path_join(path, "tokenizer.json") : strdup(path);
    struct atom_tokenizer *tok = calloc(1, sizeof *tok);
    enum atom_status st = file && tok ? load_file(tok, file, err) : atom_fail_nomem(err, sizeof *tok);
    free(file);
    if (st)
        atom_tokenizer_close(tok);
    else
        *out = tok;
    return st;
}

void atom_tokenizer_close(struct atom_tokenizer *tok)
{
    if (!tok)
        return;
    atom_added_fini(&tok->added);
    atom_normalizer_fini(&tok->normalizer);
    atom_splitter_fini(&tok->splitter);
    atom_bpe_fini(&tok->bpe);
    atom_post_fini(&tok->post);
    atom_decoder_chain_fini(&tok->chain);
    free(tok->special);
    free(tok);
}

int atom_tokenizer_vocab_size(const struct atom_tokenizer *tok) { return tok->bpe.vocab.n_ids; }

int atom_tokenizer_token_id(const struct atom_tokenizer *tok, const char *content)
{
    return atom_vocab_find(&tok->bpe.vocab, content, strlen(content));
}

bool atom_tokenizer_adds_bos(const struct atom_tokenizer *tok) { return tok->post.before.n > 0; }

void atom_ids_free(struct atom_ids *ids)
{
    if (!ids)
        return;
    free(ids->ids);
    *ids = (struct atom_ids){0};
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* All that one call of encode works with. */
struct encoder {
    const struct atom_tokenizer *tok;
    struct atom_bpe_run *bpe;
    struct atom_span_list raw, normalized;
    struct atom_text text, spare; /* one stretch, normalized */
    struct atom_pieces pieces;
    struct atom_id_list ids;
};

static enum atom_status encode_plain(struct encoder *e, const char *text, size_t n, bool at_start,
                                     struct atom_error *err)
{
    e->pieces.text.n = 0;
    atom_text_add(&e->pieces.text, text, n);
    if (e->pieces.text.failed)
        return atom_fail_nomem(err, n);
    enum atom_status st = atom_splitter_apply(&e->tok->splitter, &e->pieces, at_start, err);
    for (size_t i = 0; i < e->pieces.list.n && !st; i++) {
        const struct atom_span *s = &e->pieces.list.spans[i];
        if (!atom_bpe_encode(e->bpe, e->pieces.text.data + s->start, s->end - s->start, &e->ids))
            st = atom_fail_nomem(err, s->end - s->start);
    }
    return st;
}

/* One stretch of the text as given. */
static enum atom_status encode_stretch(struct encoder *e, const char *text, size_t n, bool at_start, bool added,
                                       struct atom_error *err)
{
    e->text.n = 0;
    atom_text_add(&e->text, text, n);
    if (e->text.failed)
        return atom_fail_nomem(err, n);
    enum atom_status st = atom_normalizer_apply(&e->tok->normalizer, &e->text, &e->spare, err);
    if (st)
        return st;
    e->normalized.n = 0;
    if (added)
        atom_added_find(&e->tok->added, &e->tok->added.normalized, e->text.data, e->text.n, &e->normalized);
    else
        atom_span_list_add(&e->normalized, 0, e->text.n, -1);
    for (size_t i = 0; i < e->normalized.n && !st; i++) {
        const struct atom_span *s = &e->normalized.spans[i];
        if (s->id >= 0)
            atom_id_list_add(&e->ids, &s->id, 1);
        else
            st = encode_plain(e, e->text.data + s->start, s->end - s->start, at_start && s->start == 0, err);
    }
    return st || !e->normalized.failed ? st : atom_fail_nomem(err, n);
}

static enum atom_status encode_text(struct encoder *e, const char *text, size_t n, unsigned flags,
                                    struct atom_error *err)
{
    bool added = !(flags & ATOM_ENCODE_NO_ADDED);
    enum atom_status st = ATOM_OK;
    if (flags & ATOM_ENCODE_POST)
        atom_id_list_add(&e->ids, e->tok->post.before.ids, e->tok->post.before.n);
    if (added)
        atom_added_find(&e->tok->added, &e->tok->added.raw, text, n, &e->raw);
    else
        atom_span_list_add(&e->raw, 0, n, -1);
    for (size_t i = 0; i < e->raw.n && !st; i++) {
        const struct atom_span *s = &e->raw.spans[i];
        if (s->id >= 0)
            atom_id_list_add(&e->ids, &s->id, 1);
        else
            st = encode_stretch(e, text + s->start, s->end - s->start, s->start == 0, added, err);
    }
    if (flags & ATOM_ENCODE_POST)
        atom_id_list_add(&e->ids, e->tok->post.after.ids, e->tok->post.after.n);
    return st || !(e->raw.failed || e->ids.failed) ? st : atom_fail_nomem(err, n);
}

static void encoder_fini(struct encoder *e)
{
    atom_bpe_run_free(e->bpe);
    free(e->raw.spans);
    free(e->normalized.spans);
    atom_text_free(&e->text);
    atom_text_free(&e->spare);
    atom_pieces_fini(&e->pieces);
    free(e->ids.ids);
}

enum atom_status atom_tokenizer_encode(const struct atom_tokenizer *tok, const char *text, size_t n_bytes,
                                       unsigned flags, struct atom_ids *out, struct atom_error *err)
{
    if (err)
        err->code = ATOM_OK;
    if (flags & ~(unsigned)(ATOM_ENCODE_POST | ATOM_ENCODE_NO_ADDED))
        return atom_fail(err, ATOM_ERR_INVALID, "encoding knows no flag %#x", flags);
    if (n_bytes > INT32_MAX / 4) /* positions in a word are 32 bits wide, and normalizers lengthen a text */
        return atom_fail(err, ATOM_ERR_INVALID, "a text of %zu bytes is longer than the %d a call takes", n_bytes,
                         INT32_MAX / 4);
    size_t good = n_bytes ? atom_utf8_check(text, n_bytes) : 0;
    if (good < n_bytes)
        return atom_fail(err, ATOM_ERR_INVALID, "the text is not UTF-8 at byte %zu (0x%02X)", good,
                         (unsigned)(uint8_t)text[good]);
    struct encoder e = {.tok = tok, .bpe = atom_bpe_run_create(&tok->bpe)};
    enum atom_status st = e.bpe ? encode_text(&e, text, n_bytes, flags, err) : atom_fail_nomem(err, sizeof e);
    if (!st) {
        *out = (struct atom_ids){e.ids.ids, e.ids.n};
        e.ids.ids = NULL;
    }
    encoder_fini(&e);
    return st;
}
