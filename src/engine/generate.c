/* SPDX-License-Identifier: Apache-2.0 */
/* One prompt continued: prefill in chunks, then token by token. */
#include "base/clock.h"
#include "engine/stop_text.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

struct run {
    struct atom_model *model;
    const struct atom_generate_options *opt;
    struct atom_session *session;
    struct atom_stream_decoder *decoder;
    struct atom_stop_text text;
    int sequence, step_tokens;
    int last_row;  /* of the last step */
    float *logits; /* [vocab] */
    void *scratch;
    int32_t *ids; /* [most] */
    int n, most;
    size_t of_prompt; /* bytes that the decoder still holds of the prompt's text */
    bool cancelled;
};

const char *atom_finish_name(enum atom_finish finish)
{
    static const char *const names[] = {"stop", "length", "cancelled"};
    return (size_t)finish < sizeof names / sizeof names[0] ? names[finish] : "unknown";
}

void atom_generate_result_fini(struct atom_generate_result *r)
{
    atom_ids_free(&r->ids);
    free(r->text);
    *r = (struct atom_generate_result){0};
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void tell(struct run *r, const char *text, size_t n_bytes)
{
    if (r->opt->on_text && !r->opt->on_text(r->opt->user, text, n_bytes))
        r->cancelled = true;
}

/* The prompt goes through the decoder too, so that what follows keeps its leading space. */
static enum atom_status decode_prompt(struct run *r, const int32_t *ids, size_t n, struct atom_error *err)
{
    const struct atom_tokenizer *tok = r->model->tokenizer;
    const char *piece;
    char *whole;
    size_t n_piece, n_whole;
    enum atom_status st = atom_tokenizer_decode(tok, ids, n, ATOM_DECODE_SKIP_SPECIAL, &whole, &n_whole, err);
    if (st)
        return st;
    free(whole);
    st = atom_stream_decoder_create(tok, ATOM_DECODE_SKIP_SPECIAL, &r->decoder, err);
    for (size_t i = 0; i < n && !st; i++) {
        st = atom_stream_decoder_push(r->decoder, ids[i], &piece, &n_piece, err);
        if (!st)
            n_whole -= n_piece < n_whole ? n_piece : n_whole;
    }
    r->of_prompt = n_whole;
    return st;
}

/* Takes what came out of the decoder and passes on what no stop string can claim. */
static enum atom_status add_text(struct run *r, const char *piece, size_t n_piece, bool last, struct atom_error *err)
{
    size_t skip = r->of_prompt < n_piece ? r->of_prompt : n_piece, told = r->text.n_certain;
    r->of_prompt -= skip;
    while (skip > 0 && skip < n_piece && ((unsigned char)piece[skip] & 0xC0) == 0x80)
        skip++; /* the prompt ended within a character */
    enum atom_status st = atom_stop_text_add(&r->text, piece + skip, n_piece - skip, err);
    if (st)
        return st;
    if (last)
        atom_stop_text_finish(&r->text);
    tell(r, r->text.text + told, r->text.n_certain - told);
    return ATOM_OK;
}

static enum atom_status end_text(struct run *r, struct atom_error *err)
{
    const char *piece;
    size_t n_piece;
    if (r->text.found)
        return ATOM_OK;
    enum atom_status st = atom_stream_decoder_finish(r->decoder, &piece, &n_piece, err);
    return st ? st : add_text(r, piece, n_piece, true, err);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static enum atom_status step(struct run *r, const int32_t *ids, int n, struct atom_error *err)
{
    struct atom_step_seq seq = {.sequence = r->sequence, .tokens = ids, .n_tokens = n};
    r->last_row = n - 1;
    return atom_session_step(r->session, &seq, 1, err);
}

static enum atom_status prefill(struct run *r, const int32_t *ids, size_t n, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (size_t at = 0; at < n && !st && !r->cancelled; at += (size_t)r->step_tokens) {
        if (at > 0)
            tell(r, "", 0);
        int chunk = n - at < (size_t)r->step_tokens ? (int)(n - at) : r->step_tokens;
        st = step(r, ids + at, chunk, err);
    }
    return st;
}

static bool is_eos(const struct run *r, int32_t id)
{
    const struct atom_model_info *info = &r->model->info;
    for (int i = 0; i < info->n_eos; i++)
        if (info->eos[i] == id)
            return true;
    return false;
}

/* Draws the next token and its text. *over: the text has ended, for the reason in *finish. */
static enum atom_status draw(struct run *r, bool *over, enum atom_finish *finish, struct atom_error *err)
{
    const char *piece;
    size_t n_piece;
    enum atom_status st = atom_session_logits(r->session, &r->last_row, 1, r->logits, err);
    if (st)
        return st;
    int32_t id = atom_sample(&r->opt->sampling, (uint64_t)r->n, r->logits, r->model->cfg.vocab, r->scratch);
    r->ids[r->n++] = id;
    if (!r->opt->ignore_eos && is_eos(r, id)) {
        *over = true;
        *finish = ATOM_FINISH_STOP;
        return ATOM_OK;
    }
    st = atom_stream_decoder_push(r->decoder, id, &piece, &n_piece, err);
    st = st ? st : add_text(r, piece, n_piece, false, err);
    *over = r->text.found || r->n == r->most || r->cancelled;
    *finish = r->text.found ? ATOM_FINISH_STOP : r->n == r->most ? ATOM_FINISH_LENGTH : ATOM_FINISH_CANCELLED;
    return st;
}

static enum atom_status generate(struct run *r, const int32_t *ids, size_t n, struct atom_generate_result *res,
                                 struct atom_error *err)
{
    bool over = false;
    double started = atom_seconds();
    enum atom_status st = prefill(r, ids, n, err);
    res->finish = ATOM_FINISH_CANCELLED;
    if (!st && !r->cancelled)
        st = draw(r, &over, &res->finish, err);
    double first = atom_seconds();
    while (!st && !over && !r->cancelled) {
        st = step(r, &r->ids[r->n - 1], 1, err);
        st = st ? st : draw(r, &over, &res->finish, err);
    }
    st = st ? st : end_text(r, err);
    res->prefill_seconds = first - started;
    res->decode_seconds = atom_seconds() - first;
    return st;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static enum atom_status check(const struct atom_model *model, const int32_t *ids, size_t n,
                              const struct atom_generate_options *o, struct atom_error *err)
{
    const struct atom_sampling *sp = &o->sampling;
    if (n < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "the prompt has no tokens");
    if (n > (size_t)model->cfg.max_position)
        return atom_fail(err, ATOM_ERR_CAPACITY, "the prompt has %zu tokens; the model takes %d positions at most", n,
                         model->cfg.max_position);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= model->cfg.vocab)
            return atom_fail(err, ATOM_ERR_INVALID, "token %d of the prompt is outside the vocabulary of %d", ids[i],
                             model->cfg.vocab);
    if (o->max_tokens < 0 || o->step_tokens < 0 || o->n_stop < 0)
        return atom_fail(err, ATOM_ERR_INVALID, "generate: a number of tokens or stop strings is negative");
    if (!(sp->temperature >= 0 && sp->top_p >= 0 && sp->top_p <= 1 && sp->top_k >= 0))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "temperature %g, top-p %g, top-k %d: expected 0 or more, 0 to 1, 0 or more",
                         (double)sp->temperature, (double)sp->top_p, sp->top_k);
    return ATOM_OK;
}

static enum atom_status prepare(struct run *r, const int32_t *ids, size_t n, struct atom_error *err)
{
    const struct atom_generate_options *o = r->opt;
    const size_t vocab = (size_t)r->model->cfg.vocab, scratch = atom_sample_scratch_bytes(r->model->cfg.vocab);
    /* The last token drawn needs no position. */
    int room = r->model->cfg.max_position - (int)n + 1;
    r->most = o->max_tokens && o->max_tokens < room ? o->max_tokens : room;
    r->step_tokens = o->step_tokens ? o->step_tokens : 512;
    r->step_tokens = (size_t)r->step_tokens > n ? (int)n : r->step_tokens;
    r->ids = malloc((size_t)r->most * sizeof *r->ids);
    r->logits = malloc(vocab * sizeof *r->logits);
    r->scratch = malloc(scratch);
    if (!r->ids || !r->logits || !r->scratch)
        return atom_fail_nomem(err, (size_t)r->most * sizeof *r->ids + vocab * sizeof *r->logits + scratch);
    const struct atom_session_options so = {.max_positions = (int)n + r->most - 1, .step_tokens = r->step_tokens};
    enum atom_status st = atom_stop_text_init(&r->text, o->stop, o->n_stop, err);
    st = st ? st : decode_prompt(r, ids, n, err);
    st = st ? st : atom_session_create(r->model, &so, &r->session, err);
    return st ? st : atom_session_add(r->session, &r->sequence, err);
}

enum atom_status atom_generate(struct atom_model *model, const int32_t *ids, size_t n,
                               const struct atom_generate_options *opt, struct atom_generate_result *out,
                               struct atom_error *err)
{
    struct atom_generate_result res = {.prompt_tokens = (int)n};
    struct run r = {.model = model, .opt = opt};
    enum atom_status st = check(model, ids, n, opt, err);
    st = st ? st : prepare(&r, ids, n, err);
    st = st ? st : generate(&r, ids, n, &res, err);
    if (!st) {
        res.ids = (struct atom_ids){r.ids, (size_t)r.n};
        res.text = r.text.text;
        res.n_text_bytes = r.text.n_bytes;
        r.ids = NULL;
        r.text.text = NULL;
        *out = res;
    }
    atom_session_free(r.session);
    atom_stream_decoder_free(r.decoder);
    atom_stop_text_fini(&r.text);
    free(r.scratch);
    free(r.logits);
    free(r.ids);
    return st;
}
