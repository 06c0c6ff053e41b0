/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding, in one go and token by token: the same chain either way, so both give the same text. */
#include "model/tokenizer.h"

#include <stdlib.h>

struct atom_stream_decoder {
    const struct atom_tokenizer *tok;
    unsigned flags;
    struct atom_chain_run run;
};

static enum atom_status check_flags(unsigned flags, struct atom_error *err)
{
    if (err)
        err->code = ATOM_OK;
    if (flags & ~(unsigned)ATOM_DECODE_SKIP_SPECIAL)
        return atom_fail(err, ATOM_ERR_INVALID, "decoding knows no flag %#x", flags);
    return ATOM_OK;
}

static enum atom_status push_id(const struct atom_tokenizer *tok, struct atom_chain_run *run, int32_t id,
                                unsigned flags, struct atom_error *err)
{
    size_t n;
    const char *text = atom_vocab_text(&tok->bpe.vocab, id, &n);
    if (!text)
        return atom_fail(err, ATOM_ERR_INVALID, "id %d is no token: the vocabulary has %d ids", id,
                         tok->bpe.vocab.n_ids);
    if ((flags & ATOM_DECODE_SKIP_SPECIAL) && tok->special[id])
        return ATOM_OK;
    return atom_chain_push(run, text, n) ? ATOM_OK : atom_fail_nomem(err, n);
}

enum atom_status atom_tokenizer_decode(const struct atom_tokenizer *tok, const int32_t *ids, size_t n, unsigned flags,
                                       char **text, size_t *n_bytes, struct atom_error *err)
{
    struct atom_chain_run run;
    enum atom_status st = check_flags(flags, err);
    if (st)
        return st;
    if (!atom_chain_start(&run, &tok->chain))
        return atom_fail_nomem(err, sizeof run);
    for (size_t i = 0; i < n && !st; i++)
        st = push_id(tok, &run, ids[i], flags, err);
    if (!st && (!atom_chain_finish(&run) || !atom_text_reserve(&run.out, 1)))
        st = atom_fail_nomem(err, run.out.n + 1);
    if (!st) {
        run.out.data[run.out.n] = 0;
        *text = run.out.data;
        *n_bytes = run.out.n;
        run.out.data = NULL;
    }
    atom_chain_stop(&run);
    return st;
}

enum atom_status atom_stream_decoder_create(const struct atom_tokenizer *tok, unsigned flags,
                                            struct atom_stream_decoder **out, struct atom_error *err)
{
    enum atom_status st = check_flags(flags, err);
    if (st)
        return st;
    struct atom_stream_decoder *dec = calloc(1, sizeof *dec);
    if (!dec || !atom_chain_start(&dec->run, &tok->chain)) {
        free(dec);
        return atom_fail_nomem(err, sizeof *dec);
    }
    dec->tok = tok;
    dec->flags = flags;
    *out = dec;
    return ATOM_OK;
}

void atom_stream_decoder_free(struct atom_stream_decoder *dec)
{
    if (!dec)
        return;
    atom_chain_stop(&dec->run);
    free(dec);
}

static void give(const struct atom_stream_decoder *dec, const char **text, size_t *n_bytes)
{
    *text = dec->run.out.n ? dec->run.out.data : "";
    *n_bytes = dec->run.out.n;
}

enum atom_status atom_stream_decoder_push(struct atom_stream_decoder *dec, int32_t id, const char **text,
                                          size_t *n_bytes, struct atom_error *err)
{
    if (err)
        err->code = ATOM_OK;
    dec->run.out.n = 0;
    enum atom_status st = push_id(dec->tok, &dec->run, id, dec->flags, err);
    if (!st)
        give(dec, text, n_bytes);
    return st;
}

enum atom_status atom_stream_decoder_finish(struct atom_stream_decoder *dec, const char **text, size_t *n_bytes,
                                            struct atom_error *err)
{
    if (err)
        err->code = ATOM_OK;
    dec->run.out.n = 0;
    if (!atom_chain_finish(&dec->run))
        return atom_fail_nomem(err, dec->run.out.n);
    give(dec, text, n_bytes);
    return ATOM_OK;
}
