/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/float_heads.h"

#include "base/clock.h"
#include "bench/amounts.h"
#include "bench/same_bits.h"
#include "bench/timing.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 8, MAX_PASSES = 15, MIN_PASSES = 3 };
static const double enough_seconds = 0.3;

/* What a line says, and at which numbers of tokens it is timed. */
struct about {
    const char *name, *on;
    int wbits;
    int tokens[6]; /* ends with 0 */
};

/* A linear many times over, so that its weights come from memory each time. */
struct copies {
    const struct atom_bench_options *opt;
    const struct atom_shape *shape;
    const struct atom_ceilings *ceilings;
    struct atom_stage *s;
    struct atom_head at[MAX_COPIES];
    int n;
    int rows;
    double bytes; /* of one */
    bool own_bits, is_head;
    enum atom_bench_bound arithmetic;
    float *logits; /* [ATOM_STAGE_SEQS, vocab] */
};

static void copies_free(struct copies *c)
{
    for (int i = 0; i < c->n; i++)
        atom_head_fini(c->s->backend, &c->at[i]);
    c->n = 0;
}

/* The tier that rounds the inputs of bfloat16 weights has bits of its own there. */
static void settle_floats(struct copies *c, int rows)
{
    c->own_bits = strcmp(atom_cpu_name(), "avx512bf16") == 0;
    c->arithmetic = c->own_bits ? ATOM_BOUND_BF16 : ATOM_BOUND_F32;
    c->rows = rows;
    c->bytes = 2.0 * rows * c->s->cfg.hidden;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

static void use(const struct copies *c, int i, int n_tok)
{
    const struct atom_stage *s = c->s;
    int rows[ATOM_STAGE_SEQS];
    if (!c->is_head) {
        s->backend->linear(s->work, c->at[i].linear, ATOM_BUF_GATE_UP, false);
        return;
    }
    for (int t = 0; t < n_tok; t++)
        rows[t] = t;
    s->backend->logits(s->work, s->layers[0].norms[0], s->cfg.rms_eps, &c->at[i].site, c->at[i].linear, rows, n_tok,
                       c->logits);
}

static void time_tokens(const struct copies *c, int n_tok, struct atom_bench_line *line)
{
    const struct atom_stage *s = c->s;
    double seconds[MAX_PASSES], spent = 0;
    int n = 0, used = n_tok > ATOM_STAGE_SEQS ? 1 : c->n;
    atom_stage_batch(c->s, n_tok, n_tok <= ATOM_STAGE_SEQS, 0);
    if (!c->is_head)
        s->backend->norm(s->work, s->layers[0].norms[0], s->cfg.rms_eps, &c->at[0].site, 1);
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
        .ops = 2.0 * n_tok * c->rows * s->cfg.hidden, .bytes = c->bytes, .arithmetic = c->arithmetic};
    line->tokens = n_tok;
    atom_line_amount(line, &amount, c->ceilings);
    atom_line_times(line, seconds, n, c->ceilings);
    c->opt->on_line(c->opt->user, line);
}

static enum atom_status measure(struct copies *c, const struct about *about, struct atom_error *err)
{
    struct atom_bench_line line = {.what = ATOM_BENCH_KERNEL,
                                   .shape = c->shape->name,
                                   .name = about->name,
                                   .how = about->on,
                                   .threads = atom_runtime_threads(),
                                   .wbits = about->wbits,
                                   .abits = c->at[0].site.bits,
                                   .kv = c->s->cfg.scheme.kvbits};
    enum atom_status st = ATOM_OK;
    if (!c->own_bits) {
        memcpy(line.checked, (const int[4]){1, 3, 0, 0}, sizeof line.checked);
        st = atom_same_logits(c->s, &c->at[0].site, c->at[0].linear, c->rows, err);
    }
    for (int i = 0; about->tokens[i] && !st; i++) {
        st = atom_bench_tell(c->opt, "linears of floats", i, 5, err);
        if (!st)
            time_tokens(c, about->tokens[i], &line);
    }
    return st;
}

/* ---- which ------------------------------------------------------------------------------------------------------- */

/* The embedding as a matrix of more rows, over and over; malloc'd. */
static void *repeated_embedding(const struct copies *c)
{
    const struct atom_tensor *t = atom_tensors_find(c->s->tensors, "model.embed_tokens.weight");
    size_t n_bytes = (size_t)c->rows * (size_t)c->s->cfg.hidden * 2;
    uint8_t *data = malloc(n_bytes);
    for (size_t at = 0; data && at < n_bytes; at += t->n_bytes)
        memcpy(data + at, t->data, n_bytes - at < t->n_bytes ? n_bytes - at : t->n_bytes);
    return data;
}

static enum atom_status add_linear(struct copies *c, const void *weight, struct atom_error *err)
{
    const struct atom_linear_part part = {.name = "random", .n = c->rows, .kind = ATOM_W_BF16, .weight = weight};
    struct atom_head h = {.site = {.bits = 16, .clip = 1, .gathers = true}};
    enum atom_status st = atom_layout_init(&h.site.lay, c->s->cfg.hidden, 0, 0, err);
    st = st ? st : c->s->backend->linear_create(&h.site, &part, 1, &h.linear, err);
    if (st)
        atom_head_fini(c->s->backend, &h);
    else
        c->at[c->n++] = h;
    return st;
}

static enum atom_status bf16_linear(struct copies *c, struct atom_error *err)
{
    static const struct about about = {"linear bf16", "gate_up", 16, {1, 4, 16, 32, 512}};
    settle_floats(c, 2 * c->s->cfg.intermediate);
    c->is_head = false;
    int n = atom_beyond_caches(c->bytes);
    void *weight = repeated_embedding(c);
    enum atom_status st = weight ? ATOM_OK : atom_fail_nomem(err, (size_t)c->bytes);
    while (!st && c->n < n)
        st = add_linear(c, weight, err);
    free(weight);
    st = st ? st : measure(c, &about, err);
    copies_free(c);
    return st;
}

/* bits 16: the embedding serves as the head, as in a tied model. */
static enum atom_status head(struct copies *c, int bits, struct atom_error *err)
{
    static const struct about int8 = {"logits", "int8 head", 8, {1, 4, 16, 32}},
                              bf16 = {"logits", "bf16 head", 16, {1, 4, 16, 32}};
    struct atom_config cfg = c->s->cfg;
    cfg.tied = bits == 16;
    cfg.scheme.lm_head_bits = bits;
    settle_floats(c, cfg.vocab);
    c->is_head = true;
    if (bits == 8) {
        c->own_bits = false;
        c->arithmetic = ATOM_BOUND_INT8;
        c->bytes = (double)cfg.vocab * (cfg.hidden + 2.0);
    }
    int n = atom_beyond_caches(c->bytes);
    enum atom_status st = ATOM_OK;
    while (!st && c->n < n) {
        st = atom_head_load(c->s->backend, &cfg, c->s->tensors, &c->at[c->n], err);
        c->n += !st;
    }
    st = st ? st : measure(c, bits == 8 ? &int8 : &bf16, err);
    copies_free(c);
    return st;
}

enum atom_status atom_bench_floats(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                   struct atom_stage *s, const struct atom_ceilings *ceilings, struct atom_error *err)
{
    struct copies c = {.opt = opt, .shape = shape, .ceilings = ceilings, .s = s};
    size_t n_bytes = (size_t)ATOM_STAGE_SEQS * (size_t)s->cfg.vocab * sizeof *c.logits;
    c.logits = malloc(n_bytes);
    if (!c.logits)
        return atom_fail_nomem(err, n_bytes);
    enum atom_status st = bf16_linear(&c, err);
    if (s->cfg.scheme.lm_head_bits == 8) /* else there are no such tensors */
        st = st ? st : head(&c, 8, err);
    st = st ? st : head(&c, 16, err);
    free(c.logits);
    return st;
}
