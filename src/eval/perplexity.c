/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity over windows. */
#include "backend/backend.h"
#include "base/thread.h"
#include "eval/windows.h"

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

/* Negative log-likelihoods of ids[1..n) added up, each given those before it. */
static enum atom_status score_window(struct scorer *sc, const int32_t *ids, int n, double *nll, struct atom_error *err)
{
    int seq, rows[LOGIT_ROWS];
    enum atom_status st = atom_session_add(sc->session, &seq, err);
    if (st)
        return st;
    struct atom_step_seq step = {.sequence = seq, .tokens = ids, .n_tokens = n};
    st = atom_session_step(sc->session, &step, 1, err);
    for (int first = 0; first < n - 1 && !st; first += LOGIT_ROWS) {
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

static enum atom_status score_windows(struct scorer *sc, const struct atom_windows *w, int64_t n,
                                      const struct atom_ppl_options *opt, double *nll, struct atom_error *err)
{
    struct atom_progress p = {.phase = "perplexity", .unit = "token", .total = (double)n * w->window};
    for (int64_t i = 0; i < n; i++) {
        enum atom_status st = score_window(sc, w->ids.ids + i * w->window, w->window, nll, err);
        if (st)
            return st;
        p.done = (double)(i + 1) * w->window;
        if (opt->progress && !opt->progress(opt->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "perplexity was stopped after %lld windows", (long long)(i + 1));
    }
    return ATOM_OK;
}

enum atom_status atom_eval_ppl(struct atom_model *model, const char *text, size_t n_bytes,
                               const struct atom_ppl_options *opt, struct atom_ppl_result *out, struct atom_error *err)
{
    struct atom_ppl_options o = opt ? *opt : (struct atom_ppl_options){0};
    const struct atom_model_info *info = atom_model_info(model);
    struct atom_windows w = {0};
    struct scorer sc = {.vocab = info->vocab};
    double nll = 0;
    o.window = o.window ? o.window : 1024;
    if (o.window > info->max_position)
        return atom_fail(err, ATOM_ERR_INVALID, "windows of %d tokens: the model takes %d positions at most", o.window,
                         info->max_position);
    enum atom_status st =
        atom_windows_of_text(atom_model_tokenizer(model), info->bos, text, n_bytes, o.window, &w, err);
    if (st)
        return st;
    int64_t n = o.max_windows > 0 && o.max_windows < w.n ? o.max_windows : w.n;
    struct atom_session_options so = {1, o.window, o.window};
    st = atom_session_create(model, &so, &sc.session, err);
    sc.logits = malloc((size_t)LOGIT_ROWS * (size_t)sc.vocab * sizeof *sc.logits);
    if (!st && !sc.logits)
        st = atom_fail_nomem(err, (size_t)LOGIT_ROWS * (size_t)sc.vocab * sizeof *sc.logits);
    if (!st)
        st = score_windows(&sc, &w, n, &o, &nll, err);
    if (!st) {
        int64_t tokens = n * (o.window - 1);
        *out = (struct atom_ppl_result){exp(nll / (double)tokens), nll / (double)tokens, tokens, n, w.dropped};
    }
    free(sc.logits);
    atom_session_free(sc.session);
    atom_windows_fini(&w);
    return st;
}
