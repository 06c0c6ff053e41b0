/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/whole_model.h"

#include "base/clock.h"
#include "bench/machine.h"
#include "bench/plan.h"
#include "bench/sweep.h"
#include "bench/timing.h"
#include "engine/session.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEED = 1, CHUNK = 512, WARM_UP = 32, KV_POSITIONS = 4096, SWEEPS = 3, MAX_REPEAT = 100 };

enum atom_status atom_bench_scheme(const struct atom_bench_options *opt, struct atom_scheme *out,
                                   struct atom_error *err)
{
    enum atom_status st = atom_scheme_named("default", out, err);
    if (st)
        return st;
    out->outliers = 128;
    out->abits = opt->abits;
    out->kvbits = opt->kvbits;
    out->lm_head_bits = opt->head_bits;
    out->gptq = out->clip_search = false; /* how weights were found, which random ones were not */
    out->smooth = out->asymmetric = 0;
    return atom_scheme_check(out, 0, err);
}

enum atom_status atom_random_model(const struct atom_config *cfg, uint64_t seed, struct atom_model **out,
                                   struct atom_random **random, struct atom_error *err)
{
    struct atom_random *r;
    struct atom_tensors *tensors;
    int n;
    enum atom_status st = atom_random_create(cfg, seed, &r, err);
    if (st)
        return st;
    const struct atom_tensor *list = atom_random_list(r, &n);
    st = atom_tensors_wrap(list, (size_t)n, &tensors, err);
    st = st ? st : atom_model_build(cfg, tensors, NULL, out, err);
    if (st) {
        atom_random_free(r);
        return st;
    }
    atom_random_drop_packed(r);
    *random = r;
    return ATOM_OK;
}

/* ---- one model --------------------------------------------------------------------------------------------------- */

struct runner {
    const struct atom_bench_options *opt;
    const struct atom_shape *shape;
    const struct atom_ceilings *ceilings;
    struct atom_config cfg;
    struct atom_cost cost;
    struct atom_phase *phases;
    int n_phases;
    struct atom_random *random;
    struct atom_model *model;
    struct atom_session *session;
    struct atom_sweep *sweep;
    int sequences, step_tokens;
    int *ids;                   /* [sequences] */
    int *rows;                  /* [sequences] */
    int32_t *tokens;            /* [step_tokens] */
    struct atom_step_seq *step; /* [sequences] */
    float *logits;              /* [sequences, vocab] */
};

static void runner_fini(struct runner *r)
{
    atom_session_free(r->session);
    atom_sweep_free(r->sweep);
    atom_model_close(r->model);
    atom_random_free(r->random);
    free(r->phases);
    free(r->ids);
    free(r->rows);
    free(r->tokens);
    free(r->step);
    free(r->logits);
}

static enum atom_status make_session(struct runner *r, struct atom_error *err)
{
    int positions;
    atom_plan_room(r->phases, r->n_phases, &r->sequences, &positions);
    r->step_tokens = r->sequences > CHUNK ? r->sequences : CHUNK;
    const struct atom_session_options opt = {
        .max_sequences = r->sequences,
        .max_positions = positions > WARM_UP ? positions : WARM_UP,
        .step_tokens = r->step_tokens,
    };
    size_t n = (size_t)r->sequences, n_logits = n * (size_t)r->cfg.vocab;
    r->ids = calloc(n, sizeof *r->ids);
    r->rows = calloc(n, sizeof *r->rows);
    r->tokens = calloc((size_t)r->step_tokens, sizeof *r->tokens);
    r->step = calloc(n, sizeof *r->step);
    r->logits = calloc(n_logits, sizeof *r->logits);
    if (!r->ids || !r->rows || !r->tokens || !r->step || !r->logits)
        return atom_fail_nomem(err, n_logits * sizeof *r->logits);
    enum atom_status st = atom_session_create(r->model, &opt, &r->session, err);
    for (int i = 0; i < r->sequences && !st; i++) {
        r->rows[i] = i;
        st = atom_session_add(r->session, &r->ids[i], err);
    }
    return st;
}

static int32_t some_token(const struct runner *r, int at)
{
    uint32_t x = ((uint32_t)at + 1) * 2654435761u;
    return (int32_t)(x % (uint32_t)r->cfg.vocab);
}

/* Brings n more tokens to one sequence, in steps. *last: how many the last step had. */
static enum atom_status bring(struct runner *r, int sequence, int n, int *last, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    while (n > 0 && !st) {
        *last = n < r->step_tokens ? n : r->step_tokens;
        for (int t = 0; t < *last; t++)
            r->tokens[t] = some_token(r, atom_session_length(r->session, sequence) + t);
        struct atom_step_seq step = {.sequence = sequence, .tokens = r->tokens, .n_tokens = *last};
        st = atom_session_step(r->session, &step, 1, err);
        n -= *last;
    }
    return st;
}

static enum atom_status go_to_depth(struct runner *r, const struct atom_phase *phase, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < phase->batch && !st; i++) {
        int length = atom_session_length(r->session, r->ids[i]), last;
        if (length > phase->depth)
            atom_session_cut(r->session, r->ids[i], phase->depth);
        else
            st = bring(r, r->ids[i], phase->depth - length, &last, err);
    }
    return st;
}

static enum atom_status prefill(struct runner *r, int tokens, struct atom_error *err)
{
    int last = 0;
    enum atom_status st = bring(r, r->ids[0], tokens, &last, err);
    last--;
    return st ? st : atom_session_logits(r->session, &last, 1, r->logits, err);
}

/* Every sequence draws from its logits and brings that token. */
static enum atom_status decode(struct runner *r, const struct atom_phase *phase, struct atom_error *err)
{
    static const struct atom_sampling greedy = {0};
    enum atom_status st = ATOM_OK;
    for (int b = 0; b < phase->batch; b++) {
        r->tokens[b] = some_token(r, b);
        r->step[b] = (struct atom_step_seq){.sequence = r->ids[b], .tokens = &r->tokens[b], .n_tokens = 1};
    }
    for (int i = 0; i < phase->tokens && !st; i++) {
        st = atom_session_step(r->session, r->step, phase->batch, err);
        st = st ? st : atom_session_logits(r->session, r->rows, phase->batch, r->logits, err);
        for (int b = 0; b < phase->batch && !st; b++)
            r->tokens[b] = atom_sample(&greedy, 0, r->logits + (size_t)b * (size_t)r->cfg.vocab, r->cfg.vocab, NULL);
    }
    return st;
}

/* ---- phases ------------------------------------------------------------------------------------------------------ */

/* What a phase does and reads at the least. */
static void count(const struct runner *r, const struct atom_phase *phase, struct atom_bench_line *line)
{
    if (!phase->decode) {
        line->bound = ATOM_BOUND_INT8;
        line->ops = 2 * r->cost.weights * phase->tokens;
        return;
    }
    double positions = phase->depth + (phase->tokens + 1) / 2.0; /* a sequence's, on average */
    line->bound = ATOM_BOUND_READ;
    line->bytes =
        phase->tokens * (r->cost.layers_bytes + r->cost.head_bytes + phase->batch * positions * r->cost.kv_bytes);
}

static struct atom_bench_line new_line(const struct runner *r, enum atom_bench_what what)
{
    const struct atom_scheme *s = &r->cfg.scheme;
    return (struct atom_bench_line){.what = what,
                                    .shape = r->shape->name,
                                    .threads = atom_runtime_threads(),
                                    .wbits = s->wbits,
                                    .abits = s->abits,
                                    .kv = s->kvbits,
                                    .head = s->lm_head_bits};
}

/* One run of a phase; *ceiling: what reading the weights alone reached around it, of a decode. */
static enum atom_status time_once(struct runner *r, const struct atom_phase *phase, double *seconds, double *ceiling,
                                  struct atom_error *err)
{
    double before = phase->decode ? atom_sweep_rate(r->sweep, SWEEPS) : 0, began = atom_seconds();
    enum atom_status st = phase->decode ? decode(r, phase, err) : prefill(r, phase->tokens, err);
    *seconds = atom_seconds() - began;
    double after = phase->decode ? atom_sweep_rate(r->sweep, SWEEPS) : 0;
    *ceiling = before > after ? before : after;
    return st;
}

static enum atom_status run_phase(struct runner *r, const struct atom_phase *phase, int done, struct atom_error *err)
{
    double seconds[MAX_REPEAT], ceilings[MAX_REPEAT], shares[MAX_REPEAT];
    int repeat = r->opt->plan.repeat ? r->opt->plan.repeat : 3;
    enum atom_status st = ATOM_OK;
    char words[80];
    for (int i = 0; i < repeat && !st; i++) {
        snprintf(words, sizeof words, "%s, %s at depth %d, batch %d", r->shape->name,
                 phase->decode ? "decode" : "prefill", phase->depth, phase->batch);
        st = atom_bench_tell(r->opt, words, done * repeat + i, r->n_phases * repeat, err);
        st = st ? st : go_to_depth(r, phase, err);
        st = st ? st : time_once(r, phase, &seconds[i], &ceilings[i], err);
    }
    if (st)
        return st;
    struct atom_bench_line line = new_line(r, ATOM_BENCH_MODEL);
    line.name = phase->decode ? "decode" : "prefill";
    line.tokens = phase->tokens;
    line.depth = phase->depth;
    line.batch = phase->batch;
    count(r, phase, &line);
    for (int i = 0; i < repeat; i++)
        shares[i] = phase->decode ? line.bytes / seconds[i] / ceilings[i] : 0;
    atom_line_times(&line, seconds, repeat, r->ceilings);
    if (phase->decode) {
        line.share = atom_median(shares, repeat);
        line.ceiling = atom_median(ceilings, repeat);
    }
    line.tok_s = (double)phase->batch * phase->tokens / line.median_s;
    r->opt->on_line(r->opt->user, &line);
    return go_to_depth(r, phase, err);
}

static void tell_memory(const struct runner *r)
{
    struct atom_bench_line line = new_line(r, ATOM_BENCH_MEMORY);
    line.memory.weights = r->cost.layers_bytes;
    line.memory.head = r->cost.head_bytes;
    line.memory.embedding = r->cost.embedding_bytes;
    line.memory.kv = r->cost.kv_bytes * KV_POSITIONS;
    line.memory.peak = atom_machine_peak_bytes();
    r->opt->on_line(r->opt->user, &line);
}

static enum atom_status run_all(struct runner *r, struct atom_error *err)
{
    int last;
    char words[80];
    snprintf(words, sizeof words, "%s, making the model", r->shape->name);
    enum atom_status st = atom_bench_tell(r->opt, words, 0, r->n_phases, err);
    st = st ? st : atom_random_model(&r->cfg, SEED, &r->model, &r->random, err);
    atom_machine_forget_peak();
    st = st ? st : atom_sweep_create(r->model, &r->sweep, err);
    st = st ? st : make_session(r, err);
    st = st ? st : bring(r, r->ids[0], WARM_UP, &last, err);
    for (int i = 0; i < r->n_phases && !st; i++)
        st = run_phase(r, &r->phases[i], i, err);
    if (!st)
        tell_memory(r);
    return st;
}

enum atom_status atom_bench_model(const struct atom_bench_options *opt, const struct atom_shape *shape,
                                  const struct atom_ceilings *ceilings, struct atom_error *err)
{
    struct runner r = {.opt = opt, .shape = shape, .ceilings = ceilings};
    struct atom_scheme scheme;
    if (opt->plan.repeat < 0 || opt->plan.repeat > MAX_REPEAT)
        return atom_fail(err, ATOM_ERR_INVALID, "a phase can be run 1 to %d times, not %d", MAX_REPEAT,
                         opt->plan.repeat);
    enum atom_status st = atom_bench_scheme(opt, &scheme, err);
    if (!st)
        atom_shape_config(shape, &scheme, &r.cfg);
    st = st ? st : atom_cost_of(&r.cfg, &r.cost, err);
    st = st ? st : atom_plan_phases(&opt->plan, shape, &r.phases, &r.n_phases, err);
    st = st ? st : run_all(&r, err);
    runner_fini(&r);
    return st;
}
