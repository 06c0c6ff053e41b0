/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/operations.h"

#include "base/clock.h"
#include "bench/amounts.h"
#include "bench/float_heads.h"
#include "bench/same_bits.h"
#include "bench/stage.h"
#include "bench/timing.h"
#include "bench/whole_model.h"

#include <stdio.h>
#include <string.h>

enum { MAX_PASSES = 25, MIN_PASSES = 5 };
static const double enough_seconds = 0.4;

/* ---- one pass ---------------------------------------------------------------------------------------------------- */

struct clock {
    double last;
    double sum[ATOM_N_OPS];
};

static void lap(struct clock *c, enum atom_op op)
{
    double now = atom_seconds();
    c->sum[op] += now - c->last;
    c->last = now;
}

/* As atom_layer_step does it. */
static void layer_step(const struct atom_stage *s, int i, struct clock *c)
{
    const struct atom_backend *b = s->backend;
    const struct atom_layer *layer = &s->layers[i];
    const struct atom_site *site = layer->sites;
    struct atom_work *w = s->work;
    c->last = atom_seconds();
    b->norm(w, layer->norms[0], s->cfg.rms_eps, &site[ATOM_ATTN_IN], 1);
    lap(c, ATOM_OP_NORM);
    b->linear(w, layer->linears[ATOM_LIN_QKV], ATOM_BUF_QKV, false);
    lap(c, ATOM_OP_QKV);
    b->store(w, s->kv, i, &s->batch, 1);
    lap(c, ATOM_OP_STORE);
    b->attend(w, s->kv, i, &s->batch);
    lap(c, ATOM_OP_ATTEND);
    b->gather(w, &site[ATOM_O_IN], 1);
    lap(c, ATOM_OP_GATHER);
    b->linear(w, layer->linears[ATOM_LIN_O], ATOM_BUF_X, true);
    lap(c, ATOM_OP_O);
    b->norm(w, layer->norms[1], s->cfg.rms_eps, &site[ATOM_MLP_IN], 1);
    lap(c, ATOM_OP_NORM);
    b->linear(w, layer->linears[ATOM_LIN_GATE_UP], ATOM_BUF_GATE_UP, false);
    lap(c, ATOM_OP_GATE_UP);
    b->silu(w, &site[ATOM_DOWN_IN], 1);
    lap(c, ATOM_OP_SILU);
    b->linear(w, layer->linears[ATOM_LIN_DOWN], ATOM_BUF_X, true);
    lap(c, ATOM_OP_DOWN);
}

/* Seconds of each operation in one layer, on average over the layers of a pass. */
struct passes {
    int n;
    double seconds[ATOM_N_OPS][MAX_PASSES];
};

/* Many tokens take their time in a layer: two layers are then enough. */
static void run_passes(struct atom_stage *s, const struct atom_op_case *k, struct passes *out)
{
    int layers = k->n_tok > ATOM_STAGE_SEQS && s->cfg.layers > 2 ? 2 : s->cfg.layers;
    double spent = 0;
    out->n = 0;
    for (int pass = -1; pass < MIN_PASSES || (pass < MAX_PASSES && spent < enough_seconds); pass++) {
        struct clock c = {0};
        atom_stage_batch(s, k->n_tok, k->n_seqs > 1, k->depth);
        double began = atom_seconds();
        for (int i = 0; i < layers; i++)
            layer_step(s, i, &c);
        if (pass < 0) /* warms up */
            continue;
        spent += atom_seconds() - began;
        for (int op = 0; op < ATOM_N_OPS; op++)
            out->seconds[op][out->n] = c.sum[op] / layers / (op == ATOM_OP_NORM ? 2 : 1); /* a layer has two */
        out->n++;
    }
}

/* Something finite at every position before `depth`. */
static void fill_cache(struct atom_stage *s)
{
    const struct atom_backend *b = s->backend;
    for (int i = 0; i < s->cfg.layers; i++) {
        const struct atom_layer *layer = &s->layers[i];
        atom_stage_batch(s, ATOM_STAGE_TOK, false, 0);
        b->norm(s->work, layer->norms[0], s->cfg.rms_eps, &layer->sites[ATOM_ATTN_IN], 1);
        b->linear(s->work, layer->linears[ATOM_LIN_QKV], ATOM_BUF_QKV, false);
        for (int q = 0; q < s->n_seqs; q++)
            for (int at = 0; at < ATOM_STAGE_DEPTH; at += ATOM_STAGE_TOK) {
                s->seqs[0].pos0 = at;
                s->seqs[0].pages = s->pages + (size_t)q * (size_t)s->pages_per_seq;
                b->store(s->work, s->kv, i, &s->batch, 1);
            }
    }
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Which operations a run of cases is about. */
enum about { ALL = (1 << ATOM_N_OPS) - 1, CACHE = 1 << ATOM_OP_STORE | 1 << ATOM_OP_ATTEND, ACTS = ALL & ~CACHE };

enum { MAX_CASES = 5 };
struct run {
    int abits, kvbits, n_seqs;
    unsigned about;
    int tokens[MAX_CASES]; /* 0: no more */
};

static const struct run runs[] = {
    {4, 4, 32, ALL, {1, 4, 16, 32, 512}},
    {8, 8, 4, ACTS, {1, 4, 16, 32, 512}},
    {4, 8, 4, CACHE, {1, 4, 512}},
    {4, 16, 4, CACHE, {1, 4, 512}},
};
enum { N_RUNS = sizeof runs / sizeof runs[0] };

struct bench {
    const struct atom_bench_options *opt;
    const struct atom_shape *shape;
    const struct atom_ceilings *ceilings;
    struct atom_stage stage;
};

/* Lines are told by operation, but made by number of tokens. */
typedef struct atom_bench_line lines_of_run[MAX_CASES][ATOM_N_OPS];

static enum atom_status fill_lines(const struct bench *b, const struct atom_op_case *k, struct passes *p,
                                   struct atom_bench_line lines[ATOM_N_OPS], struct atom_error *err)
{
    for (int op = 0; op < ATOM_N_OPS; op++) {
        struct atom_bench_line *line = &lines[op];
        struct atom_amount amount;
        enum atom_status st = atom_op_amount((enum atom_op)op, k, &amount, err);
        if (st)
            return st;
        *line = (struct atom_bench_line){.what = ATOM_BENCH_KERNEL,
                                         .shape = b->shape->name,
                                         .name = atom_op_names[op].op,
                                         .how = atom_op_names[op].on,
                                         .threads = atom_runtime_threads(),
                                         .tokens = k->n_tok,
                                         .depth = k->depth,
                                         .wbits = k->cfg->scheme.wbits,
                                         .abits = k->abits,
                                         .kv = k->kvbits};
        memcpy(line->checked, atom_checked_tokens, sizeof line->checked);
        atom_line_amount(line, &amount, b->ceilings);
        atom_line_times(line, p->seconds[op], p->n, b->ceilings);
    }
    return ATOM_OK;
}

static void tell_lines(const struct bench *b, const struct run *run, lines_of_run lines)
{
    for (int op = 0; op < ATOM_N_OPS; op++)
        for (int i = 0; i < MAX_CASES && run->tokens[i]; i++)
            if (run->about & 1u << op)
                b->opt->on_line(b->opt->user, &lines[i][op]);
}

static enum atom_status do_run(struct bench *b, int which, struct atom_error *err)
{
    const struct run *run = &runs[which];
    struct atom_stage *s = &b->stage;
    char words[80];
    snprintf(words, sizeof words, "%s, operations, A%dKV%d", b->shape->name, run->abits, run->kvbits);
    enum atom_status st = atom_bench_tell(b->opt, words, which, N_RUNS + 1, err);
    st = st ? st : atom_same_bits(s, run->abits, run->kvbits, err);
    st = st ? st : atom_stage_kv(s, run->kvbits, run->n_seqs, err);
    if (st)
        return st;
    fill_cache(s);
    lines_of_run lines;
    for (int i = 0; i < MAX_CASES && run->tokens[i] && !st; i++) {
        struct passes passes;
        int n_tok = run->tokens[i], apart = n_tok <= run->n_seqs;
        struct atom_op_case k = {&s->cfg, run->abits,        run->kvbits,
                                 n_tok,   apart ? n_tok : 1, apart ? ATOM_STAGE_DEPTH : 0};
        run_passes(s, &k, &passes);
        st = fill_lines(b, &k, &passes, lines[i], err);
        st = st ? st : atom_bench_tell(b->opt, words, which, N_RUNS + 1, err);
    }
    if (!st)
        tell_lines(b, run, lines);
    return st;
}

enum atom_status atom_bench_operations(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                       const struct atom_ceilings *ceilings, struct atom_error *err)
{
    struct bench b = {.opt = opt, .shape = shape, .ceilings = ceilings};
    struct atom_scheme scheme;
    enum atom_status st = atom_bench_scheme(opt, &scheme, err);
    st = st ? st : atom_stage_open(shape, &scheme, &b.stage, err);
    if (st)
        return st;
    for (int i = 0; i < N_RUNS && !st; i++)
        st = do_run(&b, i, err);
    st = st ? st : atom_bench_tell(opt, "float linears and heads", N_RUNS, N_RUNS + 1, err);
    st = st ? st : atom_bench_floats(opt, shape, &b.stage, ceilings, err);
    atom_stage_close(&b.stage);
    return st;
}
