/* SPDX-License-Identifier: Apache-2.0 */
/* Items of a task through the model, many in one step.
 *
 * An item is one sequence. Its rows take turns: each forgets what it does not share with the one before, so a context
 * with four choices is computed once. A batch is items whose longest rows fit a step together; its rounds are their
 * first rows, their second rows and so on. */
#include "backend/backend.h"
#include "base/thread.h"
#include "engine/session.h"
#include "eval/task_examples.h"
#include "eval/task_rows.h"
#include "eval/task_scores.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_TOKENS = 2048, MAX_SEQUENCES = 256, LOGIT_ROWS = 256 };

struct item {
    struct atom_task_row *rows; /* [n] */
    double *loglikelihoods;     /* [n] */
    int *n_tokens;              /* [n] */
    int n, longest;             /* tokens of the longest row that are fed: all but its last */
    int sequence;
    bool greedy; /* every token of every row so far was the likeliest */
    bool known;  /* from an earlier run */
    enum atom_status status;
};

/* A token to be scored. */
struct wanted {
    int row; /* of the step */
    int32_t token;
    struct item *item;
    int of; /* row of the item */
    double loglikelihood;
    bool likeliest;
};

struct scorer {
    struct atom_model *model;
    const struct atom_task_options *opt;
    int prefix, vocab, step_tokens;
    struct atom_task_items items, examples;
    int n; /* that count */
    struct item *at;
    struct atom_task_verdict *verdicts;
    int *todo, n_todo; /* items that are not known yet, in their order */
    struct atom_session *session;
    float *logits;         /* [LOGIT_ROWS, vocab] */
    struct wanted *wanted; /* [step_tokens] of a round, in the order of the step */
    struct wanted *chunk;  /* those whose logits are there */
};

/* ---- rows of tokens ---------------------------------------------------------------------------------------------- */

static enum atom_status at_line(const struct atom_task_source *source, const struct atom_error *why,
                                struct atom_error *err)
{
    return atom_fail(err, why->code, "line %d: %.900s", source->line, why->message);
}

static enum atom_status encode_item(struct scorer *sc, int i, struct atom_error *err)
{
    const struct atom_task_source *source = &sc->items.at[i];
    const struct atom_tokenizer *tok = atom_model_tokenizer(sc->model);
    struct item *item = &sc->at[i];
    size_t n = (size_t)source->n;
    item->rows = calloc(n, sizeof *item->rows);
    item->loglikelihoods = calloc(n, sizeof *item->loglikelihoods);
    item->n_tokens = calloc(n, sizeof *item->n_tokens);
    if (!item->rows || !item->loglikelihoods || !item->n_tokens)
        return atom_fail_nomem(err, n * sizeof *item->rows);
    item->n = source->n;
    item->greedy = true;
    enum atom_status st = atom_task_rows_encode(tok, sc->prefix, source, item->rows, err);
    if (st)
        return st;
    for (int r = 0; r < source->n; r++) {
        const struct atom_task_row *row = &item->rows[r];
        int fed = (int)row->ids.n - 1, most = atom_model_info(sc->model)->max_position;
        if (fed > most)
            return atom_fail(err, ATOM_ERR_CAPACITY, "%d tokens: the model takes %d positions at most", fed, most);
        item->n_tokens[r] = (int)row->ids.n - row->start;
        item->longest = fed > item->longest ? fed : item->longest;
    }
    return ATOM_OK;
}

static void free_item(struct item *item)
{
    for (int r = 0; r < item->n; r++)
        atom_ids_free(&item->rows[r].ids);
    free(item->rows);
    free(item->loglikelihoods);
    free(item->n_tokens);
    *item = (struct item){.status = item->status};
}

static void encode_one(void *ctx, int i, int worker)
{
    struct scorer *sc = ctx;
    (void)worker;
    sc->at[i].status = encode_item(sc, i, NULL);
}

/* All of them before any is scored, so that what is wrong is said at once. */
static enum atom_status encode_items(struct scorer *sc, struct atom_error *err)
{
    atom_parallel(sc->n, encode_one, sc);
    for (int i = 0; i < sc->n; i++) {
        struct atom_error why = {0};
        if (sc->at[i].status) {
            free_item(&sc->at[i]); /* once more, for the sentence */
            sc->at[i].status = encode_item(sc, i, &why);
        }
        if (sc->at[i].status)
            return at_line(&sc->items.at[i], &why, err);
        sc->step_tokens = sc->at[i].longest > sc->step_tokens ? sc->at[i].longest : sc->step_tokens;
    }
    return ATOM_OK;
}

/* ---- one round: row r of each item of a batch ------------------------------------------------------------------- */

/* Tokens of row r that the sequence holds already. The last token of the context is fed again: its logits are wanted.
 */
static int shared_tokens(const struct scorer *sc, const struct item *item, int r)
{
    const struct atom_task_row *row = &item->rows[r], *before = row - 1;
    int n = r == 0 ? 0 : atom_session_length(sc->session, item->sequence), shared = 0;
    n = n < row->start - 1 ? n : row->start - 1;
    while (shared < n && row->ids.ids[shared] == before->ids.ids[shared])
        shared++;
    return shared;
}

static void score_token(void *ctx, int i, int worker)
{
    struct scorer *sc = ctx;
    struct wanted *w = &sc->chunk[i];
    const float *row = sc->logits + (size_t)i * (size_t)sc->vocab;
    (void)worker;
    w->loglikelihood = (double)row[w->token] - (double)atom_cpu_kernels()->logsumexp(row, sc->vocab);
    w->likeliest = true;
    for (int v = 0; v < sc->vocab && w->likeliest; v++)
        w->likeliest = v < w->token ? row[v] < row[w->token] : row[v] <= row[w->token];
}

static enum atom_status score_tokens(struct scorer *sc, int n, struct atom_error *err)
{
    int rows[LOGIT_ROWS];
    for (int first = 0; first < n; first += LOGIT_ROWS) {
        int count = n - first < LOGIT_ROWS ? n - first : LOGIT_ROWS;
        sc->chunk = sc->wanted + first;
        for (int i = 0; i < count; i++)
            rows[i] = sc->chunk[i].row;
        enum atom_status st = atom_session_logits(sc->session, rows, count, sc->logits, err);
        if (st)
            return st;
        atom_parallel(count, score_token, sc);
        for (int i = 0; i < count; i++) {
            const struct wanted *w = &sc->chunk[i];
            w->item->loglikelihoods[w->of] += w->loglikelihood;
            w->item->greedy &= w->likeliest;
        }
    }
    return ATOM_OK;
}

static struct item *item_at(const struct scorer *sc, int i) { return &sc->at[sc->todo[i]]; }

static enum atom_status step_round(struct scorer *sc, int first, int last, int r, struct atom_error *err)
{
    struct atom_step_seq steps[MAX_SEQUENCES];
    int n_steps = 0, n_tok = 0, n_wanted = 0;
    for (int i = first; i < last; i++) {
        struct item *item = item_at(sc, i);
        if (r >= item->n)
            continue;
        const struct atom_task_row *row = &item->rows[r];
        int kept = shared_tokens(sc, item, r), fed = (int)row->ids.n - 1;
        atom_session_cut(sc->session, item->sequence, kept);
        steps[n_steps++] =
            (struct atom_step_seq){.sequence = item->sequence, .tokens = row->ids.ids + kept, .n_tokens = fed - kept};
        for (int p = row->start; p <= fed; p++)
            sc->wanted[n_wanted++] =
                (struct wanted){.row = n_tok + p - 1 - kept, .token = row->ids.ids[p], .item = item, .of = r};
        n_tok += fed - kept;
    }
    if (n_steps == 0)
        return ATOM_OK;
    enum atom_status st = atom_session_step(sc->session, steps, n_steps, err);
    return st ? st : score_tokens(sc, n_wanted, err);
}

/* ---- batches: numbers of items to do ----------------------------------------------------------------------------- */

static int batch_end(const struct scorer *sc, int first)
{
    int n_tok = 0, i = first;
    while (i < sc->n_todo && i - first < MAX_SEQUENCES && n_tok + item_at(sc, i)->longest <= sc->step_tokens)
        n_tok += item_at(sc, i++)->longest;
    return i;
}

static enum atom_status score_batch(struct scorer *sc, int first, int last, struct atom_error *err)
{
    struct atom_error why = {0};
    enum atom_status st = ATOM_OK;
    int rounds = 0, added = first;
    for (; added < last && !st; added++) {
        rounds = item_at(sc, added)->n > rounds ? item_at(sc, added)->n : rounds;
        st = atom_session_add(sc->session, &item_at(sc, added)->sequence, &why);
    }
    for (int r = 0; r < rounds && !st; r++)
        st = step_round(sc, first, last, r, &why);
    for (int i = first; i < added; i++)
        atom_session_remove(sc->session, item_at(sc, i)->sequence);
    if (st)
        return atom_fail(err, st, "lines %d to %d: %.900s", sc->items.at[sc->todo[first]].line,
                         sc->items.at[sc->todo[last - 1]].line, why.message);
    return ATOM_OK;
}

/* Its verdict; whoever listens hears of what was scored. */
static void judge_item(struct scorer *sc, int i)
{
    const struct atom_task_source *source = &sc->items.at[i];
    const struct item *item = &sc->at[i];
    struct atom_task_item told = {.line = source->line,
                                  .subtask = source->subtask,
                                  .n = item->n,
                                  .gold = source->gold,
                                  .loglikelihoods = item->loglikelihoods,
                                  .n_tokens = item->n_tokens};
    atom_task_judge(sc->items.kind, source, item->greedy, &told);
    sc->verdicts[i] = (struct atom_task_verdict){told.right, told.right_norm, item->loglikelihoods[0]};
    if (sc->opt->on_item && !item->known)
        sc->opt->on_item(sc->opt->item_user, &told);
    free_item(&sc->at[i]);
}

/* Those that an earlier run scored get their verdicts; the others are what is to do. */
static void recall_items(struct scorer *sc)
{
    for (int i = 0; i < sc->n; i++) {
        struct item *item = &sc->at[i];
        item->known = sc->opt->recall && sc->opt->recall(sc->opt->recall_user, sc->items.at[i].line, item->n,
                                                         item->loglikelihoods, &item->greedy);
        if (item->known)
            judge_item(sc, i);
        else
            sc->todo[sc->n_todo++] = i;
    }
}

static enum atom_status score_items(struct scorer *sc, struct atom_error *err)
{
    struct atom_progress p = {.phase = "task", .unit = "item", .total = sc->n};
    for (int first = 0, last; first < sc->n_todo; first = last) {
        last = batch_end(sc, first);
        enum atom_status st = score_batch(sc, first, last, err);
        if (st)
            return st;
        for (int i = first; i < last; i++)
            judge_item(sc, sc->todo[i]);
        p.done = sc->n - sc->n_todo + last;
        if (sc->opt->progress && !sc->opt->progress(sc->opt->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "the task was stopped after %.0f items", p.done);
    }
    return ATOM_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* Sentences name the file they are about. */
static enum atom_status read_files(struct scorer *sc, const struct atom_task_file *file, struct atom_error *err)
{
    const struct atom_task_options *opt = sc->opt;
    const struct atom_task_format *format = atom_task_format(opt->format);
    if (!format)
        return atom_fail(err, ATOM_ERR_INVALID, "format %d: there is none", opt->format);
    if (opt->n_examples < 0 || opt->n_examples > ATOM_TASK_EXAMPLES_MOST)
        return atom_fail(err, ATOM_ERR_INVALID, "%d examples; 0 to %d can be had", opt->n_examples,
                         ATOM_TASK_EXAMPLES_MOST);
    enum atom_status st = atom_task_items_parse(file, format, &sc->items, err);
    if (!st && opt->examples)
        st = atom_task_items_parse(opt->examples, format, &sc->examples, err);
    if (!st && opt->examples && sc->examples.kind != sc->items.kind)
        st = atom_fail(err, ATOM_ERR_FORMAT, "%s: its examples are of another kind than the items",
                       opt->examples->records.name ? opt->examples->records.name : "examples");
    sc->n = opt->limit > 0 && opt->limit < sc->items.n ? opt->limit : sc->items.n;
    return st;
}

static enum atom_status make_room(struct scorer *sc, struct atom_error *err)
{
    size_t n = (size_t)sc->n;
    sc->at = calloc(n, sizeof *sc->at);
    sc->verdicts = calloc(n, sizeof *sc->verdicts);
    sc->todo = calloc(n, sizeof *sc->todo);
    sc->step_tokens = STEP_TOKENS;
    return sc->at && sc->verdicts && sc->todo ? ATOM_OK : atom_fail_nomem(err, n * sizeof *sc->at);
}

static enum atom_status open_session(struct scorer *sc, struct atom_error *err)
{
    struct atom_session_options so = {MAX_SEQUENCES, sc->step_tokens, sc->step_tokens};
    sc->wanted = calloc((size_t)sc->step_tokens, sizeof *sc->wanted);
    sc->logits = malloc((size_t)LOGIT_ROWS * (size_t)sc->vocab * sizeof *sc->logits);
    if (!sc->wanted || !sc->logits)
        return atom_fail_nomem(err, (size_t)LOGIT_ROWS * (size_t)sc->vocab * sizeof *sc->logits);
    return atom_session_create(sc->model, &so, &sc->session, err);
}

static enum atom_status score_file(struct scorer *sc, struct atom_task_result *out, struct atom_error *err)
{
    const struct atom_task_examples examples = {
        .format = atom_task_format(sc->opt->format),
        .from = sc->opt->examples ? &sc->examples : &sc->items,
        .n = sc->opt->n_examples,
        .seed = sc->opt->seed,
    };
    enum atom_status st = make_room(sc, err);
    st = st ? st : atom_task_put_fronts(&sc->items, sc->n, &examples, err);
    st = st ? st : encode_items(sc, err);
    if (!st)
        recall_items(sc);
    st = st || !sc->n_todo ? st : open_session(sc, err);
    st = st ? st : score_items(sc, err);
    return st ? st : atom_task_sum_up(&sc->items, sc->verdicts, sc->n, out, err);
}

static void fini(struct scorer *sc)
{
    for (int i = 0; i < sc->n && sc->at; i++)
        free_item(&sc->at[i]);
    atom_task_items_fini(&sc->items);
    atom_task_items_fini(&sc->examples);
    atom_session_free(sc->session);
    free(sc->at);
    free(sc->verdicts);
    free(sc->todo);
    free(sc->wanted);
    free(sc->logits);
}

enum atom_status atom_eval_task(struct atom_model *model, const struct atom_task_file *file,
                                const struct atom_task_options *opt, struct atom_task_result *out,
                                struct atom_error *err)
{
    const struct atom_task_options none = {0};
    const struct atom_model_info *info = atom_model_info(model);
    struct scorer sc = {.model = model, .opt = opt ? opt : &none, .prefix = info->bos, .vocab = info->vocab};
    struct atom_error why = {0};
    enum atom_status st = read_files(&sc, file, err);
    if (!st && score_file(&sc, out, &why)) {
        const char *name = file->records.name;
        st = atom_fail(err, why.code, "%s%s%.900s", name ? name : "", name ? ": " : "", why.message);
    }
    fini(&sc);
    return st;
}
