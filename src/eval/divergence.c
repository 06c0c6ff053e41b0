/* SPDX-License-Identifier: Apache-2.0 */
/* One model against another over windows: divergence, agreement, change of the actual token's log-probability. */
#include "eval/divergence.h"
#include "base/thread.h"
#include "eval/spread.h"
#include "model/tokenizer.h"
#include "model/windows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- a position ------------------------------------------------------------------------------------------------- */

static int find_top(const float *x, int n)
{
    int top = 0;
    for (int i = 1; i < n; i++)
        top = x[i] > x[top] ? i : top;
    return top;
}

static double log_of_sum(const float *x, int n, double max)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* p (exp(r) - 1 - r) with r = log q - log p. Since both distributions add up to 1, these add up to the sum of -p r,
 * but none is negative: nothing cancels where the two are nearly the same. */
static double divergence_term(double log_p, double log_q)
{
    double r = log_q - log_p, p = exp(log_p);
    return fabs(r) < 1 ? p * (expm1(r) - r) : exp(log_q) - p - p * r;
}

struct atom_divergence atom_divergence_of(const float *a, const float *b, int vocab, int32_t target)
{
    int top_a = find_top(a, vocab), top_b = find_top(b, vocab);
    double sum_a = log_of_sum(a, vocab, a[top_a]), sum_b = log_of_sum(b, vocab, b[top_b]), kl = 0;
    for (int i = 0; i < vocab; i++)
        kl += divergence_term(a[i] - sum_a, b[i] - sum_b);
    return (struct atom_divergence){kl, sum_a - a[target], sum_b - b[target], top_a == top_b};
}

/* ---- the same vocabulary ---------------------------------------------------------------------------------------- */

static enum atom_status check_vocabulary(struct atom_model *a, struct atom_model *b, struct atom_error *err)
{
    const struct atom_vocab *va = &atom_model_tokenizer(a)->bpe.vocab, *vb = &atom_model_tokenizer(b)->bpe.vocab;
    int na = atom_model_info(a)->vocab, nb = atom_model_info(b)->vocab;
    if (na != nb || va->n_ids != vb->n_ids)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "the two models' vocabularies differ: %d logits and %d tokens against %d and %d", na,
                         va->n_ids, nb, vb->n_ids);
    for (int32_t id = 0; id < va->n_ids; id++) {
        size_t n_a = 0, n_b = 0;
        const char *text_a = atom_vocab_text(va, id, &n_a), *text_b = atom_vocab_text(vb, id, &n_b);
        if (!text_a != !text_b || n_a != n_b || (text_a && memcmp(text_a, text_b, n_a) != 0))
            return atom_fail(
                err, ATOM_ERR_INVALID,
                "the two models' vocabularies differ: token %d is '%.*s' in the one and '%.*s' in the other", id,
                (int)(n_a < 80 ? n_a : 80), text_a ? text_a : "", (int)(n_b < 80 ? n_b : 80), text_b ? text_b : "");
    }
    return ATOM_OK;
}

/* The windows of the text, which both models must see alike. */
static enum atom_status cut_text(struct atom_model *a, struct atom_model *b, const char *text, size_t n_bytes,
                                 int window, struct atom_windows *out, struct atom_error *err)
{
    struct atom_windows other = {0};
    enum atom_status st =
        atom_windows_of_text(atom_model_tokenizer(a), atom_model_info(a)->bos, text, n_bytes, window, out, err);
    if (st)
        return st;
    st = atom_windows_of_text(atom_model_tokenizer(b), atom_model_info(b)->bos, text, n_bytes, window, &other, err);
    size_t i = 0, n = out->ids.n < other.ids.n ? out->ids.n : other.ids.n;
    while (i < n && out->ids.ids[i] == other.ids.ids[i])
        i++;
    if (!st && (i < n || out->ids.n != other.ids.n))
        st = atom_fail(err, ATOM_ERR_INVALID,
                       "the two models' tokenizers cut the text differently, from token %zu on (%zu tokens and %zu)", i,
                       out->ids.n, other.ids.n);
    atom_windows_fini(&other);
    return st;
}

/* ---- windows ---------------------------------------------------------------------------------------------------- */

/* Rows of logits that both models have ready at once. */
enum { PAIR_ROWS = 64 };

struct side {
    struct atom_session *session;
    int sequence;
    float *logits; /* [PAIR_ROWS, vocab] */
};

struct comparison {
    struct side side[2];
    int vocab;
    const int32_t *targets;
    struct atom_divergence found[PAIR_ROWS];
    double *kl, *change; /* of every position so far */
    int64_t n, same_top;
    double nll_a, nll_b;
};

static void compare_row(void *ctx, int i, int worker)
{
    struct comparison *c = ctx;
    size_t at = (size_t)i * (size_t)c->vocab;
    (void)worker;
    c->found[i] = atom_divergence_of(c->side[0].logits + at, c->side[1].logits + at, c->vocab, c->targets[i]);
}

static void keep(struct comparison *c, int count)
{
    for (int i = 0; i < count; i++) {
        const struct atom_divergence *d = &c->found[i];
        c->kl[c->n] = d->kl;
        c->change[c->n++] = d->nll_a - d->nll_b;
        c->same_top += d->same_top;
        c->nll_a += d->nll_a;
        c->nll_b += d->nll_b;
    }
}

static enum atom_status step_side(struct side *s, const int32_t *ids, int n, struct atom_error *err)
{
    enum atom_status st = atom_session_add(s->session, &s->sequence, err);
    if (st)
        return st;
    struct atom_step_seq step = {.sequence = s->sequence, .tokens = ids, .n_tokens = n};
    st = atom_session_step(s->session, &step, 1, err);
    if (st)
        atom_session_remove(s->session, s->sequence);
    return st;
}

static enum atom_status compare_rows(struct comparison *c, const int32_t *ids, int n, struct atom_error *err)
{
    int rows[PAIR_ROWS];
    for (int first = 0; first < n - 1; first += PAIR_ROWS) {
        int count = n - 1 - first < PAIR_ROWS ? n - 1 - first : PAIR_ROWS;
        for (int i = 0; i < count; i++)
            rows[i] = first + i;
        for (int s = 0; s < 2; s++) {
            enum atom_status st = atom_session_logits(c->side[s].session, rows, count, c->side[s].logits, err);
            if (st)
                return st;
        }
        c->targets = ids + first + 1;
        atom_parallel(count, compare_row, c);
        keep(c, count);
    }
    return ATOM_OK;
}

static enum atom_status compare_window(struct comparison *c, const int32_t *ids, int n, struct atom_error *err)
{
    enum atom_status st = step_side(&c->side[0], ids, n, err);
    if (st)
        return st;
    st = step_side(&c->side[1], ids, n, err);
    if (!st) {
        st = compare_rows(c, ids, n, err);
        atom_session_remove(c->side[1].session, c->side[1].sequence);
    }
    atom_session_remove(c->side[0].session, c->side[0].sequence);
    return st;
}

static enum atom_status compare_windows(struct comparison *c, const struct atom_windows *w, int64_t n,
                                        const struct atom_kld_options *opt, struct atom_error *err)
{
    struct atom_progress p = {.phase = "divergence", .unit = "token", .total = (double)n * w->window};
    for (int64_t i = 0; i < n; i++) {
        enum atom_status st = compare_window(c, w->ids.ids + i * w->window, w->window, err);
        if (st)
            return st;
        p.done = (double)(i + 1) * w->window;
        if (opt->progress && !opt->progress(opt->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "divergence was stopped after %lld windows", (long long)(i + 1));
    }
    return ATOM_OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static enum atom_status start_comparison(struct comparison *c, struct atom_model *const models[2], int window,
                                         int64_t n_positions, struct atom_error *err)
{
    struct atom_session_options so = {1, window, window};
    size_t logits = (size_t)PAIR_ROWS * (size_t)c->vocab * sizeof(float), kept = (size_t)n_positions * sizeof(double);
    for (int s = 0; s < 2; s++) {
        enum atom_status st = atom_session_create(models[s], &so, &c->side[s].session, err);
        if (st)
            return st;
        c->side[s].logits = malloc(logits);
        if (!c->side[s].logits)
            return atom_fail_nomem(err, logits);
    }
    c->kl = malloc(kept);
    c->change = malloc(kept);
    return c->kl && c->change ? ATOM_OK : atom_fail_nomem(err, kept);
}

static void finish_comparison(struct comparison *c)
{
    free(c->change);
    free(c->kl);
    for (int s = 0; s < 2; s++) {
        free(c->side[s].logits);
        atom_session_free(c->side[s].session);
    }
}

static struct atom_kld_result sum_up(struct comparison *c, int64_t windows, int64_t dropped)
{
    double n = (double)c->n;
    return (struct atom_kld_result){.kl = atom_spread_of(c->kl, c->n),
                                    .change = atom_spread_of(c->change, c->n),
                                    .top1 = (double)c->same_top / n,
                                    .nll_a = c->nll_a / n,
                                    .nll_b = c->nll_b / n,
                                    .tokens = c->n,
                                    .windows = windows,
                                    .dropped = dropped};
}

enum atom_status atom_eval_kld(struct atom_model *a, struct atom_model *b, const char *text, size_t n_bytes,
                               const struct atom_kld_options *opt, struct atom_kld_result *out, struct atom_error *err)
{
    struct atom_kld_options o = opt ? *opt : (struct atom_kld_options){0};
    struct atom_model *const models[2] = {a, b};
    struct comparison c = {.vocab = atom_model_info(a)->vocab};
    struct atom_windows w = {0};
    o.window = o.window ? o.window : 1024;
    for (int s = 0; s < 2; s++)
        if (o.window > atom_model_info(models[s])->max_position)
            return atom_fail(err, ATOM_ERR_INVALID, "windows of %d tokens: model %c takes %d positions at most",
                             o.window, "AB"[s], atom_model_info(models[s]) -> max_position);
    enum atom_status st = check_vocabulary(a, b, err);
    if (!st)
        st = cut_text(a, b, text, n_bytes, o.window, &w, err);
    int64_t n = o.max_windows > 0 && o.max_windows < w.n ? o.max_windows : w.n;
    if (!st)
        st = start_comparison(&c, models, o.window, n * (o.window - 1), err);
    if (!st)
        st = compare_windows(&c, &w, n, &o, err);
    if (!st)
        *out = sum_up(&c, n, w.dropped);
    finish_comparison(&c);
    atom_windows_fini(&w);
    return st;
}
