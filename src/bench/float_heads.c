/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/float_heads.h"

#include "base/clock.h"
#include "bench/amounts.h"
#include "bench/same_bits.h"
#include "bench/timing.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 8, MAX_PASSES = 15, MIN_PASSES = 3 };
static const double enough_seconds = 0.3;

/* A linear many times over, so that its weights come from memory each time. */
struct copies {
    const struct atom_bench_options *opt;
    const struct atom_shape *shape;
    const struct atom_ceilings *ceilings;
    struct atom_stage *s;
    struct atom_site site; /* of floats */
    struct atom_linear *at[MAX_COPIES];
    int n;
    double bytes; /* of one */
    int rows;
    float *logits; /* [ATOM_STAGE_SEQS, vocab] */
    bool is_head;
};

static void copies_free(struct copies *c)
{
    for (int i = 0; i < c->n; i++)
        c->s->backend->linear_free(c->at[i]);
    c->n = 0;
}

static enum atom_status copies_make(struct copies *c, const struct atom_linear_part *part, double n_bytes,
                                    struct atom_error *err)
{
    int n = atom_beyond_caches(n_bytes);
    enum atom_status st = ATOM_OK;
    c->bytes = n_bytes;
    c->rows = part->n;
    for (c->n = 0; c->n < n && !st; c->n += !st)
        st = c->s->backend->linear_create(&c->site, part, 1, &c->at[c->n], err);
    return st;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

static void use(const struct copies *c, int i, int n_tok)
{
    const struct atom_stage *s = c->s;
    int rows[ATOM_STAGE_SEQS];
    if (!c->is_head) {
        s->backend->linear(s->work, c->at[i], ATOM_BUF_GATE_UP, false);
        return;
    }
    for (int t = 0; t < n_tok; t++)
        rows[t] = t;
    s->backend->logits(s->work, s->layers[0].norms[0], s->cfg.rms_eps, &c->site, c->at[i], rows, n_tok, c->logits);
}

static void time_tokens(const struct copies *c, int n_tok, struct atom_bench_line *line)
{
    const struct atom_stage *s = c->s;
    double seconds[MAX_PASSES], spent = 0;
    int n = 0, used = n_tok > ATOM_STAGE_SEQS ? 1 : c->n;
    atom_stage_batch(c->s, n_tok, n_tok <= ATOM_STAGE_SEQS, 0);
    if (!c->is_head)
        s->backend->norm(s->work, s->layers[0].norms[0], s->cfg.rms_eps, &c->site, 1);
    use(c, 0, n_tok);
    while (n < MIN_PASSES || (n < MAX_PASSES && spent < enough_seconds)) {
        double began = atom_seconds();
        for (int i = 0; i < used; i++)
            use(c, i, n_tok);
        seconds[n] = atom_seconds() - began;
        spent += seconds[n];
        seconds[n++] /= used;
    }
    const struct atom_amount amount = {
        .ops = 2.0 * n_tok * c->rows * s->cfg.hidden, .bytes = c->bytes, .arithmetic = ATOM_BOUND_F32};
    line->tokens = n_tok;
    atom_line_amount(line, &amount, c->ceilings);
    atom_line_times(line, seconds, n, c->ceilings);
    c->opt->on_line(c->opt->user, line);
}

/* What a line says of it, and at which numbers of tokens it is timed. */
struct about {
    const char *name, *on;
    int wbits;
    int tokens[6]; /* ends with 0 */
};

static enum atom_status measure(struct copies *c, const struct about *about, struct atom_error *err)
{
    struct atom_bench_line line = {.what = ATOM_BENCH_KERNEL,
                                   .shape = c->shape->name,
                                   .name = about->name,
                                   .how = about->on,
                                   .threads = atom_runtime_threads(),
                                   .wbits = about->wbits,
                                   .abits = 16,
                                   .kv = c->s->cfg.scheme.kvbits,
                                   .checked = {1, 3}};
    enum atom_status st = atom_same_logits(c->s, &c->site, c->at[0], c->rows, err);
    for (int i = 0; about->tokens[i] && !st; i++) {
        st = atom_bench_tell(c->opt, "linears of floats", i, 5, err);
        if (!st)
            time_tokens(c, about->tokens[i], &line);
    }
    return st;
}

/* ---- which ------------------------------------------------------------------------------------------------------- */

/* The embedding serves as a matrix of bfloat16: rows over rows again, as many as are asked for. */
static enum atom_status bf16_part(const struct copies *c, int rows, struct atom_linear_part *part, void **owned,
                                  struct atom_error *err)
{
    const struct atom_tensor *t = atom_tensors_find(c->s->tensors, "model.embed_tokens.weight");
    size_t n_bytes = (size_t)rows * (size_t)c->s->cfg.hidden * 2;
    *part = (struct atom_linear_part){.name = "random", .n = rows, .kind = ATOM_W_BF16, .weight = t->data};
    *owned = NULL;
    if (n_bytes <= t->n_bytes)
        return ATOM_OK;
    uint8_t *data = *owned = malloc(n_bytes);
    if (!data)
        return atom_fail_nomem(err, n_bytes);
    for (size_t at = 0; at < n_bytes; at += t->n_bytes)
        memcpy(data + at, t->data, n_bytes - at < t->n_bytes ? n_bytes - at : t->n_bytes);
    part->weight = data;
    return ATOM_OK;
}

static enum atom_status bf16_linear(struct copies *c, int rows, bool is_head, struct atom_error *err)
{
    static const struct about head = {"logits", "bf16 head", 16, {1, 4, 16, 32}},
                              linear = {"linear bf16", "gate_up", 16, {1, 4, 16, 32, 512}};
    struct atom_linear_part part;
    void *owned;
    enum atom_status st = bf16_part(c, rows, &part, &owned, err);
    st = st ? st : copies_make(c, &part, 2.0 * rows * c->s->cfg.hidden, err);
    free(owned);
    c->is_head = is_head;
    st = st ? st : measure(c, is_head ? &head : &linear, err);
    copies_free(c);
    return st;
}

static enum atom_status int8_head(struct copies *c, struct atom_error *err)
{
    static const struct about about = {"logits", "int8 head", 8, {1, 4, 16, 32}};
    const struct atom_tensor *q = atom_tensors_find(c->s->tensors, "lm_head.qweight"),
                             *s = atom_tensors_find(c->s->tensors, "lm_head.scales");
    if (!q || !s) /* the options ask for a head of 16 bits */
        return ATOM_OK;
    int rows = c->s->cfg.vocab;
    const struct atom_linear_part part = {
        .name = "random", .n = rows, .kind = ATOM_W_BYTE, .qweight = q->data, .scales = s->data, .rows_per_scale = 1};
    enum atom_status st = copies_make(c, &part, (double)rows * (c->s->cfg.hidden + 2.0), err);
    c->is_head = true;
    st = st ? st : measure(c, &about, err);
    copies_free(c);
    return st;
}

enum atom_status atom_bench_floats(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                   struct atom_stage *s, const struct atom_ceilings *ceilings, struct atom_error *err)
{
    struct copies c = {.opt = opt, .shape = shape, .ceilings = ceilings, .s = s};
    int gate_up = 2 * s->cfg.intermediate, most = gate_up > s->cfg.vocab ? gate_up : s->cfg.vocab;
    c.site = (struct atom_site){.bits = 16, .clip = 1, .gathers = true};
    enum atom_status st = atom_layout_init(&c.site.lay, s->cfg.hidden, 0, 0, err);
    if (st)
        return st;
    c.logits = malloc((size_t)ATOM_STAGE_SEQS * (size_t)most * sizeof *c.logits);
    if (!c.logits)
        st = atom_fail_nomem(err, (size_t)ATOM_STAGE_SEQS * (size_t)most * sizeof *c.logits);
    st = st ? st : bf16_linear(&c, gate_up, false, err);
    st = st ? st : int8_head(&c, err);
    st = st ? st : bf16_linear(&c, s->cfg.vocab, true, err);
    free(c.logits);
    atom_layout_fini(&c.site.lay);
    return st;
}
