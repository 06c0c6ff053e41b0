/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences over one paged KV cache. */
#include "engine/session.h"

#include "base/finite.h"
#include "model/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sequence {
    bool used, ended;
    int length;
    int n_pages;
    int32_t *pages; /* [pages_per_sequence] */
};

struct atom_session {
    struct atom_model *model;
    struct atom_work *work;
    struct atom_kv *kv;
    int max_sequences, max_positions, step_tokens, pages_per_sequence;
    struct sequence *seqs;
    int32_t *page_memory;
    int32_t *free_pages;
    int n_free;
    int last_tok;                 /* tokens of the last step */
    int32_t *tokens;              /* [step_tokens] */
    struct atom_batch_seq *batch; /* [max_sequences] */
};

static enum atom_status allocate(struct atom_session *s, struct atom_error *err)
{
    const struct atom_model *m = s->model;
    int total = (s->max_positions + ATOM_PAGE - 1) / ATOM_PAGE + s->max_sequences - 1;
    size_t table = (size_t)s->max_sequences * (size_t)s->pages_per_sequence;
    s->seqs = calloc((size_t)s->max_sequences, sizeof *s->seqs);
    s->page_memory = calloc(table, sizeof *s->page_memory);
    s->free_pages = calloc((size_t)total, sizeof *s->free_pages);
    s->tokens = calloc((size_t)s->step_tokens, sizeof *s->tokens);
    s->batch = calloc((size_t)s->max_sequences, sizeof *s->batch);
    if (!s->seqs || !s->page_memory || !s->free_pages || !s->tokens || !s->batch)
        return atom_fail_nomem(err, (table + (size_t)total) * sizeof(int32_t));
    for (int i = 0; i < s->max_sequences; i++)
        s->seqs[i].pages = s->page_memory + (size_t)i * (size_t)s->pages_per_sequence;
    for (s->n_free = 0; s->n_free < total; s->n_free++)
        s->free_pages[s->n_free] = total - 1 - s->n_free;
    enum atom_status st = atom_model_work(&m->cfg, m->backend, s->step_tokens, &s->work, err);
    return st ? st
              : atom_model_kv(&m->cfg, &m->cfg.scheme, m->backend, m->cfg.layers, total, s->max_positions, &s->kv, err);
}

enum atom_status atom_session_create(struct atom_model *model, const struct atom_session_options *opt,
                                     struct atom_session **out, struct atom_error *err)
{
    struct atom_session_options o = opt ? *opt : (struct atom_session_options){0};
    if (o.max_sequences < 0 || o.max_positions < 0 || o.step_tokens < 0 || o.max_positions > 1 << 27 ||
        o.max_sequences > 1 << 20 || o.step_tokens > 1 << 20)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "session: %d sequences, %d positions, %d tokens a step are out of range", o.max_sequences,
                         o.max_positions, o.step_tokens);
    struct atom_session *s = calloc(1, sizeof *s);
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    s->model = model;
    s->max_sequences = o.max_sequences ? o.max_sequences : 1;
    s->max_positions = o.max_positions ? o.max_positions : model->cfg.max_position;
    s->step_tokens = o.step_tokens ? o.step_tokens : 512;
    s->pages_per_sequence = (s->max_positions + ATOM_PAGE - 1) / ATOM_PAGE;
    enum atom_status st = allocate(s, err);
    if (st) {
        atom_session_free(s);
        return st;
    }
    *out = s;
    return ATOM_OK;
}

void atom_session_free(struct atom_session *s)
{
    if (!s)
        return;
    if (s->work)
        s->model->backend->work_free(s->work);
    if (s->kv)
        s->model->backend->kv_free(s->kv);
    free(s->seqs);
    free(s->page_memory);
    free(s->free_pages);
    free(s->tokens);
    free(s->batch);
    free(s);
}

enum atom_status atom_session_add(struct atom_session *s, int *sequence, struct atom_error *err)
{
    for (int i = 0; i < s->max_sequences; i++)
        if (!s->seqs[i].used) {
            s->seqs[i].used = true;
            s->seqs[i].ended = false;
            s->seqs[i].length = s->seqs[i].n_pages = 0;
            *sequence = i;
            return ATOM_OK;
        }
    return atom_fail(err, ATOM_ERR_CAPACITY, "all %d sequences of the session are in use", s->max_sequences);
}

static void give_pages_back(struct atom_session *s, struct sequence *q, int keep)
{
    while (q->n_pages > keep)
        s->free_pages[s->n_free++] = q->pages[--q->n_pages];
}

void atom_session_remove(struct atom_session *s, int sequence)
{
    struct sequence *q = &s->seqs[sequence];
    assert(sequence >= 0 && sequence < s->max_sequences && q->used);
    give_pages_back(s, q, 0);
    q->used = false;
}

int atom_session_length(const struct atom_session *s, int sequence) { return s->seqs[sequence].length; }

static int pages_for(int positions) { return (positions + ATOM_PAGE - 1) / ATOM_PAGE; }

void atom_session_cut(struct atom_session *s, int sequence, int length)
{
    struct sequence *q = &s->seqs[sequence];
    assert(sequence >= 0 && sequence < s->max_sequences && q->used && length >= 0 && length <= q->length);
    give_pages_back(s, q, pages_for(length));
    q->length = length;
}

/* Everything that can be refused is refused here, before any state changes. */
static enum atom_status check_step(const struct atom_session *s, const struct atom_step_seq *seqs, int n,
                                   struct atom_error *err)
{
    int n_tok = 0, n_pages = 0, vocab = s->model->cfg.vocab;
    if (n < 1 || n > s->max_sequences)
        return atom_fail(err, ATOM_ERR_INVALID, "a step takes 1 to %d sequences, not %d", s->max_sequences, n);
    for (int i = 0; i < n; i++) {
        const struct atom_step_seq *in = &seqs[i];
        if (in->sequence < 0 || in->sequence >= s->max_sequences || !s->seqs[in->sequence].used)
            return atom_fail(err, ATOM_ERR_INVALID, "sequence %d is not open", in->sequence);
        for (int j = 0; j < i; j++)
            if (seqs[j].sequence == in->sequence)
                return atom_fail(err, ATOM_ERR_INVALID, "sequence %d stands twice in one step", in->sequence);
        const struct sequence *q = &s->seqs[in->sequence];
        if (q->ended)
            return atom_fail(err, ATOM_ERR_INVALID, "sequence %d has ended", in->sequence);
        if (in->n_tokens < 1 || in->n_tokens > s->step_tokens - n_tok)
            return atom_fail(err, ATOM_ERR_INVALID, "a step takes 1 to %d tokens in all; sequence %d brings %d more",
                             s->step_tokens, in->sequence, in->n_tokens);
        if (in->n_tokens > s->max_positions - q->length)
            return atom_fail(err, ATOM_ERR_CAPACITY, "sequence %d of length %d cannot take %d tokens: %d is the most",
                             in->sequence, q->length, in->n_tokens, s->max_positions);
        for (int t = 0; t < in->n_tokens; t++)
            if (in->tokens[t] < 0 || in->tokens[t] >= vocab)
                return atom_fail(err, ATOM_ERR_INVALID, "token %d is outside the vocabulary of %d", in->tokens[t],
                                 vocab);
        n_tok += in->n_tokens;
        n_pages += pages_for(q->length + in->n_tokens) - q->n_pages;
    }
    if (n_pages > s->n_free)
        return atom_fail(err, ATOM_ERR_CAPACITY, "the step needs %d more pages of the KV cache, %d are free", n_pages,
                         s->n_free);
    return ATOM_OK;
}

static void fill_batch(struct atom_session *s, const struct atom_step_seq *seqs, int n, struct atom_batch *batch)
{
    int at = 0;
    for (int i = 0; i < n; i++) {
        struct sequence *q = &s->seqs[seqs[i].sequence];
        while (q->n_pages < pages_for(q->length + seqs[i].n_tokens))
            q->pages[q->n_pages++] = s->free_pages[--s->n_free];
        s->batch[i] = (struct atom_batch_seq){at, seqs[i].n_tokens, q->length, q->pages};
        memcpy(s->tokens + at, seqs[i].tokens, (size_t)seqs[i].n_tokens * sizeof *s->tokens);
        at += seqs[i].n_tokens;
    }
    *batch = (struct atom_batch){at, n, s->tokens, s->batch};
}

/* Ends the sequences that met a number that is not finite; the others keep their growth. */
static enum atom_status settle(struct atom_session *s, struct atom_step_seq *seqs, int n, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    char where[64];
    for (int i = 0; i < n; i++) {
        struct sequence *q = &s->seqs[seqs[i].sequence];
        int bad = 0;
        for (int t = 0; t < seqs[i].n_tokens; t++) {
            int met = s->model->backend->bad(s->work, s->batch[i].first_tok + t);
            bad = met && (!bad || met < bad) ? met : bad;
        }
        seqs[i].status = bad ? ATOM_ERR_NUMERIC : ATOM_OK;
        if (!bad) {
            q->length += seqs[i].n_tokens;
            continue;
        }
        q->ended = true;
        st = atom_fail(err, ATOM_ERR_NUMERIC, "sequence %d met a number that is not finite at %s", seqs[i].sequence,
                       atom_where_text(bad, where, sizeof where));
    }
    return st;
}

enum atom_status atom_session_step(struct atom_session *s, struct atom_step_seq *seqs, int n_seqs,
                                   struct atom_error *err)
{
    struct atom_batch batch;
    enum atom_status st = check_step(s, seqs, n_seqs, err);
    if (st)
        return st;
    fill_batch(s, seqs, n_seqs, &batch);
    s->last_tok = batch.n_tok;
    st = atom_model_step(s->model, s->work, s->kv, &batch, err);
    if (!st)
        return settle(s, seqs, n_seqs, err);
    for (int i = 0; i < n_seqs; i++) {
        struct sequence *q = &s->seqs[seqs[i].sequence];
        give_pages_back(s, q, pages_for(q->length));
    }
    s->last_tok = 0;
    return st;
}

enum atom_status atom_session_logits(struct atom_session *s, const int *rows, int n, float *logits,
                                     struct atom_error *err)
{
    const struct atom_model *m = s->model;
    if (n < 1 || n > s->step_tokens)
        return atom_fail(err, ATOM_ERR_INVALID, "logits of %d rows; expected 1 to %d", n, s->step_tokens);
    for (int i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= s->last_tok)
            return atom_fail(err, ATOM_ERR_INVALID, "row %d is not among the %d tokens of the last step", rows[i],
                             s->last_tok);
    m->backend->logits(s->work, m->final_norm, m->cfg.rms_eps, &m->head.site, m->head.linear, rows, n, logits);
    for (int i = 0; i < n; i++)
        if (!atom_all_finite(logits + (size_t)i * (size_t)m->cfg.vocab, (size_t)m->cfg.vocab))
            return atom_fail(err, ATOM_ERR_NUMERIC, "the logits of row %d hold a number that is not finite", rows[i]);
    return ATOM_OK;
}
