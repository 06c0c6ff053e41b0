/* SPDX-License-Identifier: Apache-2.0 */
/* Operations between linears, each model's, each case, compared and then timed. */
#include "bench/gpu/gpu_cache.h"

#include "base/error.h"
#include "bench/gpu/gpu_run.h"

#include <stdio.h>

struct measured {
    struct atom_gpu_run *run;
    const struct atom_gpu_operation_kind *kind;
    enum atom_gpu_what what;
    struct atom_gpu_case c;
};

static struct atom_gpu_line blank_line(const struct measured *m)
{
    struct atom_gpu_line line = {
        .what = m->what, .tokens = m->c.tokens, .context = m->c.context, .kvbits = m->c.kvbits};
    snprintf(line.name, sizeof line.name, "%s", m->kind->name);
    snprintf(line.whose, sizeof line.whose, "%s", m->kind->on);
    snprintf(line.shape, sizeof line.shape, "%s", m->c.model->name);
    return line;
}

static enum atom_status time_both(const struct measured *m, const struct atom_gpu_operation *o, int checked,
                                  struct atom_error *err)
{
    const struct atom_gpu_work work = {m->kind->put, o->state, o->copies};
    struct atom_gpu_line line = blank_line(m);
    enum atom_status st = ATOM_OK;
    line.ops = o->ops;
    line.bytes = o->bytes;
    line.bound = o->bound;
    line.checked = checked;
    for (int cold = o->cold; cold >= 0 && !st; cold--) {
        struct atom_gpu_time time;
        st = atom_gpu_timer_run(m->run->timer, &work, cold, m->run->repeat, &time, err);
        line.cold = cold;
        if (!st)
            atom_gpu_tell_line(m->run, &line, &time, o->memory);
    }
    return st;
}

/* The operation's sentence says what differs; which one it is, and on what, is known here. */
static enum atom_status name_failure(const struct measured *m, enum atom_status st, const struct atom_error *why,
                                     struct atom_error *err)
{
    char context[32] = "";
    if (m->what == ATOM_GPU_ATTENTION)
        snprintf(context, sizeof context, " after %d positions", m->c.context);
    return atom_fail(err, st, "%s%s%s of %s, %d tokens%s: %s", m->kind->name, *m->kind->on ? ", " : "", m->kind->on,
                     m->c.model->name, m->c.tokens, context, why->message);
}

static enum atom_status measure(const struct measured *m, struct atom_error *err)
{
    struct atom_gpu_operation o = {.copies = 1};
    struct atom_error why = {0};
    atom_cuda_stream s = atom_gpu_timer_stream(m->run->timer);
    int checked = 0;
    enum atom_status st = atom_gpu_tell(m->run, m->kind->name, err);
    if (st)
        return st;
    st = m->kind->open(m->kind->which, &m->c, &o, &why);
    if (st == ATOM_ERR_UNSUPPORTED) {
        struct atom_gpu_line line = blank_line(m);
        snprintf(line.how, sizeof line.how, "%.*s", ATOM_GPU_HOW - 1, why.message);
        atom_gpu_tell_line(m->run, &line, NULL, ATOM_GPU_NONE);
        return ATOM_OK;
    }
    st = st ? st : m->kind->put(o.state, 0, s, &why);
    st = st ? st : atom_cuda_stream_wait(s, &why);
    st = st ? st : m->kind->compare(o.state, &checked, &why);
    st = st ? st : time_both(m, &o, checked, &why);
    m->kind->close(o.state);
    return st ? name_failure(m, st, &why, err) : ATOM_OK;
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

/* Which cases a table's kinds are measured in: the tokens asked for that lie within a range, at these contexts. */
struct cases {
    enum atom_gpu_what what;
    const struct atom_gpu_operation_kind *kinds;
    int least_tok, most_tok;
    int contexts[2], n_contexts;
};

enum { ANY = 1 << 30, FEW = 64 };
static const struct cases all_cases[] = {
    {ATOM_GPU_ROWS, atom_gpu_rows_kinds, 1, ANY, {0}, 1},
    {ATOM_GPU_ROWS, atom_gpu_sample_kinds, 1, FEW, {0}, 1},
    {ATOM_GPU_ATTENTION, atom_gpu_store_kinds, 1, ANY, {1024}, 1},
    {ATOM_GPU_ATTENTION, atom_gpu_decode_kinds, 1, FEW, {1024, 4096}, 2},
    {ATOM_GPU_ATTENTION, atom_gpu_prefill_kinds, FEW + 1, ANY, {0, 4096}, 2},
};
enum { N_CASES = sizeof all_cases / sizeof all_cases[0] };

static bool within(const struct cases *c, int tokens) { return tokens >= c->least_tok && tokens <= c->most_tok; }

static enum atom_status measure_kind(struct measured *m, const struct cases *c, struct atom_error *err)
{
    const struct atom_bench_list *tokens = &m->run->plan.tokens;
    enum atom_status st = ATOM_OK;
    m->c.kvbits = m->what == ATOM_GPU_ATTENTION ? m->kind->which % 100 : 0;
    m->c.post = m->what == ATOM_GPU_ATTENTION && m->kind->which >= 100;
    for (int x = 0; x < c->n_contexts; x++)
        for (int i = 0; i < tokens->n && !st; i++) {
            m->c.tokens = tokens->at[i];
            m->c.context = c->contexts[x];
            if (within(c, m->c.tokens))
                st = measure(m, err);
        }
    return st;
}

static int count_case(const struct atom_gpu_run *run, const struct cases *c)
{
    int kinds = 0, n = 0;
    while (c->kinds[kinds].name)
        kinds++;
    for (int i = 0; i < run->plan.tokens.n; i++)
        n += within(c, run->plan.tokens.at[i]);
    return kinds * n * c->n_contexts;
}

int atom_gpu_count_operations(const struct atom_gpu_run *run, enum atom_gpu_what what)
{
    int n = 0;
    for (int i = 0; i < N_CASES; i++)
        n += all_cases[i].what == what ? count_case(run, &all_cases[i]) : 0;
    return n * run->plan.n_models;
}

enum atom_status atom_gpu_operations(struct atom_gpu_run *run, enum atom_gpu_what what, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < run->plan.n_models * N_CASES && !st; i++) {
        const struct cases *c = &all_cases[i % N_CASES];
        struct measured m = {.run = run, .what = what, .c = {.model = run->plan.models[i / N_CASES]}};
        for (m.kind = c->kinds; c->what == what && m.kind->name && !st; m.kind++)
            st = measure_kind(&m, c, err);
    }
    return st;
}
