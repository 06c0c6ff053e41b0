/* SPDX-License-Identifier: Apache-2.0 */
/* Windows that a model writes itself, many sequences to a step. */
#include "base/thread.h"
#include "model/model.h"

#include <stdlib.h>

enum { DEFAULT_BATCH = 32 };

struct writer {
    struct atom_model *model;
    const struct atom_windows_options *opt;
    int32_t *ids; /* [samples, window] */
    struct atom_session *session;
    int batch, first, count;    /* windows first .. first + count are being written */
    int pos;                    /* of the id to draw */
    struct atom_step_seq *seqs; /* [batch] */
    int *rows;                  /* [batch] 0, 1, 2 ... */
    float *logits;              /* [batch, vocab] */
    char *scratch;              /* [threads, scratch_bytes] */
    size_t scratch_bytes;
};

static int32_t *window_of(const struct writer *w, int i)
{
    return w->ids + (size_t)(w->first + i) * (size_t)w->opt->window;
}

static bool is_eos(const struct atom_model *m, int32_t id)
{
    for (int i = 0; i < m->cfg.n_eos; i++)
        if (m->cfg.eos[i] == id)
            return true;
    return false;
}

static void draw(void *ctx, int i, int worker)
{
    const struct writer *w = ctx;
    int vocab = w->model->cfg.vocab;
    int32_t *ids = window_of(w, i);
    uint64_t counter = (uint64_t)(w->first + i) << 32 | (uint64_t)w->pos;
    if (is_eos(w->model, ids[w->pos - 1]))
        ids[w->pos] = w->model->cfg.bos;
    else
        ids[w->pos] = atom_sample(&w->opt->sampling, counter, w->logits + (size_t)i * (size_t)vocab, vocab,
                                  w->scratch + (size_t)worker * w->scratch_bytes);
}

static bool go_on(const struct writer *w)
{
    const struct atom_windows_options *o = w->opt;
    const struct atom_progress p = {.phase = "sample",
                                    .unit = "token",
                                    .done = (double)w->first * o->window + (double)w->count * w->pos,
                                    .total = (double)o->samples * o->window};
    return !o->progress || o->progress(o->user, &p);
}

/* One batch of windows from its first ids to its last. */
static enum atom_status write_batch(struct writer *w, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < w->count && !st; i++) {
        window_of(w, i)[0] = w->model->cfg.bos;
        st = atom_session_add(w->session, &w->seqs[i].sequence, err);
    }
    for (w->pos = 1; w->pos < w->opt->window && !st; w->pos++) {
        for (int i = 0; i < w->count; i++) {
            w->seqs[i].tokens = window_of(w, i) + w->pos - 1;
            w->seqs[i].n_tokens = 1;
        }
        st = atom_session_step(w->session, w->seqs, w->count, err);
        st = st ? st : atom_session_logits(w->session, w->rows, w->count, w->logits, err);
        if (!st)
            atom_parallel(w->count, draw, w);
        if (!st && !go_on(w))
            st = atom_fail(err, ATOM_ERR_CANCELLED, "stopped after %d of %d windows", w->first, w->opt->samples);
    }
    for (int i = 0; i < w->count && !st; i++)
        atom_session_remove(w->session, w->seqs[i].sequence);
    return st;
}

static enum atom_status prepare(struct writer *w, struct atom_error *err)
{
    const struct atom_windows_options *o = w->opt;
    size_t batch, vocab = (size_t)w->model->cfg.vocab, threads = (size_t)atom_runtime_threads();
    w->batch = o->batch ? o->batch : DEFAULT_BATCH;
    w->batch = w->batch < o->samples ? w->batch : o->samples;
    batch = (size_t)w->batch;
    w->scratch_bytes = (atom_sample_scratch_bytes((int)vocab) + 63) / 64 * 64;
    w->seqs = calloc(batch, sizeof *w->seqs);
    w->rows = calloc(batch, sizeof *w->rows);
    w->logits = malloc(batch * vocab * sizeof *w->logits);
    w->scratch = malloc(threads * w->scratch_bytes);
    if (!w->seqs || !w->rows || !w->logits || !w->scratch)
        return atom_fail_nomem(err, batch * vocab * sizeof *w->logits + threads * w->scratch_bytes);
    for (int i = 0; i < w->batch; i++)
        w->rows[i] = i;
    const struct atom_session_options so = {
        .max_sequences = w->batch, .max_positions = w->batch * o->window, .step_tokens = w->batch};
    return atom_session_create(w->model, &so, &w->session, err);
}

static enum atom_status check(const struct atom_model *m, const struct atom_windows_options *o, struct atom_error *err)
{
    if (o->samples < 1 || o->window < 1 || o->samples > 1 << 20 || o->batch < 0 || o->batch > 256)
        return atom_fail(err, ATOM_ERR_INVALID, "%d windows of %d ids, %d at once, are out of range", o->samples,
                         o->window, o->batch);
    if (o->window > m->cfg.max_position)
        return atom_fail(err, ATOM_ERR_INVALID, "windows of %d ids: the model takes %d positions at most", o->window,
                         m->cfg.max_position);
    if (m->cfg.bos < 0)
        return atom_fail(err, ATOM_ERR_INVALID, "config.json names no bos_token_id for a window to start from");
    return ATOM_OK;
}

enum atom_status atom_sample_windows(struct atom_model *model, const struct atom_windows_options *opt, int32_t *ids,
                                     struct atom_error *err)
{
    struct writer w = {.model = model, .opt = opt, .ids = ids};
    enum atom_status st = check(model, opt, err);
    st = st ? st : prepare(&w, err);
    for (w.first = 0; w.first < opt->samples && !st; w.first += w.batch) {
        w.count = opt->samples - w.first < w.batch ? opt->samples - w.first : w.batch;
        st = write_batch(&w, err);
    }
    atom_session_free(w.session);
    free(w.scratch);
    free(w.logits);
    free(w.rows);
    free(w.seqs);
    return st;
}
