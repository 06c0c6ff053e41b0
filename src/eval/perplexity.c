/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity over windows. */
#include "backend/backend.h"
#include "base/thread.h"
#include "eval/text_counts.h"
#include "model/windows.h"

#include <math.h>
#include <stdlib.h>

enum { LOGIT_ROWS = 128 };

struct scorer {
    struct atom_session *session;
    int vocab;
    float *logits; /* [LOGIT_ROWS, vocab] */
    const int32_t *targets;
    double nll[LOGIT_ROWS];
};

static void score_row(void *ctx, int i, int worker)
{
    struct scorer *sc = ctx;
    const float *row = sc->logits + (size_t)i * (size_t)sc->vocab;
    (void)worker;
    sc->nll[i] = (double)atom_cpu_kernels()->logsumexp(row, sc->vocab) - (double)row[sc->targets[i]];
}

/* Negative log-likelihoods of ids[scored..n) added up, scored >= 1, each given those before it. */
static enum atom_status score_window(struct scorer *sc, const int32_t *ids, int scored, int n, double *nll,
                                     struct atom_error *err)
{
    int seq, rows[LOGIT_ROWS];
    enum atom_status st = atom_session_add(sc->session, &seq, err);
    if (st)
        return st;
    struct atom_step_seq step = {.sequence = seq, .tokens = ids, .n_tokens = n};
    st = atom_session_step(sc->session, &step, 1, err);
    for (int first = scored - 1; first < n - 1 && !st; first += LOGIT_ROWS) {
        int count = n - 1 - first < LOGIT_ROWS ? n - 1 - first : LOGIT_ROWS;
        for (int i = 0; i < count; i++)
            rows[i] = first + i;
        st = atom_session_logits(sc->session, rows, count, sc->logits, err);
        if (st)
            break;
        sc->targets = ids + first + 1;
        atom_parallel(count, score_row, sc);
        for (int i = 0; i < count; i++)
            *nll += sc->nll[i];
    }
    atom_session_remove(sc->session, seq);
    return st;
}

/* The first token that window i scores, counted from the window's start. */
static int first_scored(const struct atom_ppl_options *o, int64_t i)
{
    return i > 0 && o->stride < o->window ? o->window - o->stride : 1;
}

static enum atom_status score_windows(struct scorer *sc, const int32_t *ids, int64_t n,
                                      const struct atom_ppl_options *o, double *nll, struct atom_error *err)
{
    struct atom_progress p = {.phase = "perplexity", .unit = "token", .total = (double)n * o->window};
    for (int64_t i = 0; i < n; i++) {
        enum atom_status st = score_window(sc, ids + i * o->stride, first_scored(o, i), o->window, nll, err);
        if (st)
            return st;
        p.done = (double)(i + 1) * o->window;
        if (o->progress && !o->progress(o->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "perplexity was stopped after %lld windows", (long long)(i + 1));
    }
    return ATOM_OK;
}

/* Tokens, bytes and words that n windows score. */
static enum atom_status count_scored(const struct atom_model *model, const int32_t *ids, int64_t n,
                                     const struct atom_ppl_options *o, struct atom_ppl_result *r,
                                     struct atom_error *err)
{
    size_t used = (size_t)((n - 1) * o->stride + o->window);
    struct atom_text_counts *counts = malloc(used * sizeof *counts);
    if (!counts)
        return atom_fail_nomem(err, used * sizeof *counts);
    enum atom_status st =
        atom_text_counts_of(atom_model_tokenizer(model), atom_model_info(model)->bos, ids, used, counts, err);
    for (int64_t i = 0; i < n && !st; i++)
        for (int t = first_scored(o, i); t < o->window; t++) {
            const struct atom_text_counts *c = &counts[i * o->stride + t];
            r->tokens++;
            r->bytes += c->bytes;
            r->words += c->words;
        }
    free(counts);
    return st;
}

static enum atom_status check_options(const struct atom_model *model, struct atom_ppl_options *o,
                                      struct atom_error *err)
{
    int most = atom_model_info(model)->max_position;
    o->window = o->window ? o->window : 1024;
    o->stride = o->stride ? o->stride : o->window;
    if (o->window > most)
        return atom_fail(err, ATOM_ERR_INVALID, "windows of %d tokens: the model takes %d positions at most", o->window,
                         most);
    if (o->stride < 1 || o->stride > o->window)
        return atom_fail(err, ATOM_ERR_INVALID, "a stride of %d tokens; expected 1 to the window, %d", o->stride,
                         o->window);
    return ATOM_OK;
}

/* Windows of ids [n], which are at least one. */
static enum atom_status evaluate(struct atom_model *model, const int32_t *ids, int64_t n,
                                 const struct atom_ppl_options *o, struct atom_ppl_result *out, struct atom_error *err)
{
    struct atom_ppl_result r = {0};
    struct scorer sc = {.vocab = atom_model_info(model)->vocab};
    struct atom_session_options so = {1, o->window, o->window};
    double nll = 0;
    int64_t all = 1 + (n - o->window) / o->stride;
    r.windows = o->max_windows > 0 && o->max_windows < all ? o->max_windows : all;
    r.dropped = (n - o->window) % o->stride;
    enum atom_status st = atom_session_create(model, &so, &sc.session, err);
    sc.logits = malloc((size_t)LOGIT_ROWS * (size_t)sc.vocab * sizeof *sc.logits);
    if (!st && !sc.logits)
        st = atom_fail_nomem(err, (size_t)LOGIT_ROWS * (size_t)sc.vocab * sizeof *sc.logits);
    if (!st)
        st = count_scored(model, ids, r.windows, o, &r, err);
    if (!st)
        st = score_windows(&sc, ids, r.windows, o, &nll, err);
    if (!st) {
        r.nll = nll / (double)r.tokens;
        r.ppl = exp(r.nll);
        r.bits_per_byte = nll / log(2) / (double)r.bytes;
        r.byte_ppl = exp(nll / (double)r.bytes);
        r.word_ppl = exp(nll / (double)r.words);
        *out = r;
    }
    free(sc.logits);
    atom_session_free(sc.session);
    return st;
}

enum atom_status atom_eval_ppl(struct atom_model *model, const char *text, size_t n_bytes,
                               const struct atom_ppl_options *opt, struct atom_ppl_result *out, struct atom_error *err)
{
    struct atom_ppl_options o = opt ? *opt : (struct atom_ppl_options){0};
    struct atom_windows w = {0};
    enum atom_status st = check_options(model, &o, err);
    if (!st)
        st = atom_windows_of_text(atom_model_tokenizer(model), atom_model_info(model)->bos, text, n_bytes, o.window, &w,
                                  err);
    if (!st)
        st = evaluate(model, w.ids.ids, (int64_t)w.ids.n, &o, out, err);
    atom_windows_fini(&w);
    return st;
}

enum atom_status atom_eval_ppl_ids(struct atom_model *model, const int32_t *ids, size_t n,
                                   const struct atom_ppl_options *opt, struct atom_ppl_result *out,
                                   struct atom_error *err)
{
    struct atom_ppl_options o = opt ? *opt : (struct atom_ppl_options){0};
    int vocab = atom_model_info(model)->vocab;
    enum atom_status st = check_options(model, &o, err);
    if (st)
        return st;
    if (n < (size_t)o.window)
        return atom_fail(err, ATOM_ERR_INVALID, "%zu ids are less than one window of %d", n, o.window);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return atom_fail(err, ATOM_ERR_INVALID, "id %zu is %d; the vocabulary has %d", i, ids[i], vocab);
    return evaluate(model, ids, (int64_t)n, &o, out, err);
}
