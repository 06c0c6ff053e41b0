/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_batch.h"

#include "backend/backend.h"
#include "base/thread.h"
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_TOKENS = 2048, MAX_SEQUENCES = 256, LOGIT_ROWS = 256 };

/* A token to be scored. */
struct wanted {
    int row; /* of the step */
    int32_t token;
    struct atom_task_work *item;
    int of; /* row of the item */
    double loglikelihood;
    bool likeliest;
};

/* A sequence and the ids it was fed, of which the session may hold fewer. */
struct slot {
    int sequence;
    struct atom_ids ids;
};

struct atom_task_batch {
    struct atom_session *session;
    int vocab, step_tokens;
    struct slot slots[MAX_SEQUENCES];
    int n_slots;
    float *logits;         /* [LOGIT_ROWS, vocab] */
    struct wanted *wanted; /* of a round, in the order of the step */
    size_t n_wanted, wanted_room;
    struct wanted *chunk; /* those whose logits are there */
};

/* ---- items ------------------------------------------------------------------------------------------------------- */

/* Its last tokens, as many as there are positions and the one that is not fed: what the harness leaves of a row. */
static bool cut_row(struct atom_task_row *row, int most)
{
    int lost = (int)row->ids.n - 1 - most;
    if (lost <= 0 || lost >= row->start)
        return false;
    memmove(row->ids.ids, row->ids.ids + lost, ((size_t)most + 1) * sizeof *row->ids.ids);
    row->ids.n = (size_t)most + 1;
    row->start -= lost;
    return true;
}

enum atom_status atom_task_work_init(struct atom_task_work *work, const struct atom_model *model,
                                     const struct atom_task_source *item, bool cut, bool *is_cut,
                                     struct atom_error *err)
{
    const struct atom_model_info *info = atom_model_info(model);
    size_t n = (size_t)item->n;
    *work = (struct atom_task_work){.n = item->n, .greedy = true};
    work->rows = calloc(n, sizeof *work->rows);
    work->loglikelihoods = calloc(n, sizeof *work->loglikelihoods);
    work->n_tokens = calloc(n, sizeof *work->n_tokens);
    if (!work->rows || !work->loglikelihoods || !work->n_tokens)
        return atom_fail_nomem(err, n * sizeof *work->rows);
    enum atom_status st = atom_task_rows_encode(atom_model_tokenizer(model), info->bos, item, work->rows, err);
    for (int r = 0; r < item->n && !st; r++) {
        struct atom_task_row *row = &work->rows[r];
        *is_cut |= cut && cut_row(row, info->max_position);
        int fed = (int)row->ids.n - 1;
        if (fed > info->max_position)
            st = atom_fail(err, ATOM_ERR_CAPACITY, "%d tokens: the model takes %d positions at most", fed,
                           info->max_position);
        work->n_tokens[r] = (int)row->ids.n - row->start;
        work->longest = fed > work->longest ? fed : work->longest;
    }
    return st;
}

static void free_rows(struct atom_task_work *work)
{
    for (int r = 0; r < work->n && work->rows; r++)
        atom_ids_free(&work->rows[r].ids);
    free(work->rows);
    work->rows = NULL;
}

void atom_task_work_fini(struct atom_task_work *work)
{
    free_rows(work);
    free(work->loglikelihoods);
    free(work->n_tokens);
    *work = (struct atom_task_work){0};
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static void score_token(void *ctx, int i, int worker)
{
    struct atom_task_batch *b = ctx;
    struct wanted *w = &b->chunk[i];
    const float *row = b->logits + (size_t)i * (size_t)b->vocab;
    (void)worker;
    w->loglikelihood = (double)row[w->token] - (double)atom_cpu_kernels()->logsumexp(row, b->vocab);
    w->likeliest = true;
    for (int v = 0; v < b->vocab && w->likeliest; v++)
        w->likeliest = v < w->token ? row[v] < row[w->token] : row[v] <= row[w->token];
}

static enum atom_status score_tokens(struct atom_task_batch *b, struct atom_error *err)
{
    int rows[LOGIT_ROWS];
    for (size_t first = 0; first < b->n_wanted; first += LOGIT_ROWS) {
        int count = b->n_wanted - first < LOGIT_ROWS ? (int)(b->n_wanted - first) : LOGIT_ROWS;
        b->chunk = b->wanted + first;
        for (int i = 0; i < count; i++)
            rows[i] = b->chunk[i].row;
        enum atom_status st = atom_session_logits(b->session, rows, count, b->logits, err);
        if (st)
            return st;
        atom_parallel(count, score_token, b);
        for (int i = 0; i < count; i++) {
            const struct wanted *w = &b->chunk[i];
            w->item->loglikelihoods[w->of] += w->loglikelihood;
            w->item->greedy &= w->likeliest;
        }
    }
    return ATOM_OK;
}

/* ---- rounds: the next rows of each item -------------------------------------------------------------------------- */

static int shared(const struct atom_ids *a, const struct atom_ids *b, int most)
{
    int n = 0;
    while (n < most && (size_t)n < a->n && (size_t)n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

/* Rows that are fed the same tokens. */
static bool same_fed(const struct atom_task_row *a, const struct atom_task_row *b)
{
    int fed = (int)a->ids.n - 1;
    return a->ids.n == b->ids.n && shared(&a->ids, &b->ids, fed) == fed;
}

/* Row r of an item is in the step from its row `first` on; the sequence held `kept` of its tokens. */
static void want_row(struct atom_task_batch *b, struct atom_task_work *item, int r, int first, int kept)
{
    const struct atom_task_row *row = &item->rows[r];
    for (int p = row->start; p < (int)row->ids.n; p++)
        b->wanted[b->n_wanted++] =
            (struct wanted){.row = first + p - 1 - kept, .token = row->ids.ids[p], .item = item, .of = r};
}

/* Where the row is to go on, and what of it the sequence has then; the last token of the context is fed again, since
 * its logits are wanted. */
static int cut_back(struct atom_task_batch *b, const struct slot *slot, const struct atom_task_row *row)
{
    int held = atom_session_length(b->session, slot->sequence);
    int kept = shared(&row->ids, &slot->ids, held < row->start - 1 ? held : row->start - 1);
    atom_session_cut(b->session, slot->sequence, kept);
    return kept;
}

static enum atom_status step_round(struct atom_task_batch *b, struct atom_task_work *const *items, int n, bool *more,
                                   struct atom_error *err)
{
    struct atom_step_seq steps[MAX_SEQUENCES];
    int n_steps = 0, n_tok = 0;
    *more = false;
    b->n_wanted = 0;
    for (int i = 0; i < n; i++) {
        struct atom_task_work *item = items[i];
        if (item->next >= item->n)
            continue;
        const struct atom_task_row *row = &item->rows[item->next];
        int kept = cut_back(b, &b->slots[i], row), fed = (int)row->ids.n - 1;
        steps[n_steps++] = (struct atom_step_seq){
            .sequence = b->slots[i].sequence, .tokens = row->ids.ids + kept, .n_tokens = fed - kept};
        do
            want_row(b, item, item->next++, n_tok, kept);
        while (item->next < item->n && same_fed(row, &item->rows[item->next]));
        b->slots[i].ids = row->ids; /* the item's until the batch ends */
        n_tok += fed - kept;
        *more |= item->next < item->n;
    }
    enum atom_status st = atom_session_step(b->session, steps, n_steps, err);
    return st ? st : score_tokens(b, err);
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static int batch_end(const struct atom_task_batch *b, struct atom_task_work *const *items, int n)
{
    int n_tok = 0, i = 0;
    while (i < n && i < MAX_SEQUENCES && n_tok + items[i]->longest <= b->step_tokens)
        n_tok += items[i++]->longest;
    return i;
}

static void drop_slot(struct atom_task_batch *b)
{
    struct slot *slot = &b->slots[--b->n_slots];
    atom_session_remove(b->session, slot->sequence);
    atom_ids_free(&slot->ids);
}

/* As many as there are items: no more positions are held than the session has. Sequences that stay are those in front.
 */
static enum atom_status fit_slots(struct atom_task_batch *b, int n, struct atom_error *err)
{
    while (b->n_slots > n)
        drop_slot(b);
    while (b->n_slots < n) {
        struct slot slot = {0};
        enum atom_status st = atom_session_add(b->session, &slot.sequence, err);
        if (st)
            return st;
        b->slots[b->n_slots++] = slot;
    }
    return ATOM_OK;
}

/* Every row's continuation might be scored in the same round. */
static enum atom_status fit_wanted(struct atom_task_batch *b, struct atom_task_work *const *items, int n,
                                   struct atom_error *err)
{
    size_t room = 0;
    for (int i = 0; i < n; i++)
        for (int r = 0; r < items[i]->n; r++)
            room += (size_t)items[i]->n_tokens[r];
    if (room <= b->wanted_room)
        return ATOM_OK;
    struct wanted *more = realloc(b->wanted, room * sizeof *more);
    if (!more)
        return atom_fail_nomem(err, room * sizeof *more);
    b->wanted = more;
    b->wanted_room = room;
    return ATOM_OK;
}

/* What the slots' ids point to lives as long as the slots from here on, and the items' rows no longer. */
static void take_ids(struct atom_task_batch *b, struct atom_task_work *const *items, int n)
{
    for (int i = 0; i < n; i++) {
        for (int r = 0; r < items[i]->n; r++)
            if (items[i]->rows[r].ids.ids == b->slots[i].ids.ids)
                items[i]->rows[r].ids = (struct atom_ids){0};
        free_rows(items[i]);
    }
}

enum atom_status atom_task_batch_score(struct atom_task_batch *b, struct atom_task_work *const *items, int n,
                                       int *n_done, struct atom_error *err)
{
    int32_t *held[MAX_SEQUENCES]; /* the ids of the batch before */
    int count = batch_end(b, items, n);
    bool more = true;
    enum atom_status st = fit_slots(b, count, err);
    st = st ? st : fit_wanted(b, items, count, err);
    if (st)
        return st;
    for (int i = 0; i < count; i++)
        held[i] = b->slots[i].ids.ids;
    while (more && !st)
        st = step_round(b, items, count, &more, err);
    if (st) {
        for (int i = 0; i < count; i++)
            b->slots[i].ids = (struct atom_ids){0};
    } else {
        take_ids(b, items, count);
        *n_done = count;
    }
    for (int i = 0; i < count; i++)
        free(held[i]);
    return st;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

enum atom_status atom_task_batch_create(struct atom_model *model, int longest, struct atom_task_batch **out,
                                        struct atom_error *err)
{
    struct atom_task_batch *b = calloc(1, sizeof *b);
    if (!b)
        return atom_fail_nomem(err, sizeof *b);
    b->vocab = atom_model_info(model)->vocab;
    b->step_tokens = longest > STEP_TOKENS ? longest : STEP_TOKENS;
    b->logits = malloc((size_t)LOGIT_ROWS * (size_t)b->vocab * sizeof *b->logits);
    const struct atom_session_options so = {MAX_SEQUENCES, b->step_tokens, b->step_tokens};
    enum atom_status st = b->logits ? atom_session_create(model, &so, &b->session, err)
                                    : atom_fail_nomem(err, (size_t)LOGIT_ROWS * (size_t)b->vocab * sizeof *b->logits);
    if (st) {
        atom_task_batch_free(b);
        return st;
    }
    *out = b;
    return ATOM_OK;
}

void atom_task_batch_free(struct atom_task_batch *b)
{
    if (!b)
        return;
    while (b->n_slots > 0)
        drop_slot(b);
    atom_session_free(b->session);
    free(b->wanted);
    free(b->logits);
    free(b);
}
