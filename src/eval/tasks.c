/* SPDX-License-Identifier: Apache-2.0 */
/* A task from its files to its scores. */
#include "base/thread.h"
#include "eval/task_batch.h"
#include "eval/task_examples.h"
#include "eval/task_scores.h"

#include <stdlib.h>
#include <string.h>

struct scorer {
    struct atom_model *model;
    const struct atom_task_options *opt;
    struct atom_task_items items, examples;
    int n; /* items that count */
    struct atom_task_work *work;
    enum atom_status *status; /* of encoding */
    bool *cut;
    struct atom_task_verdict *verdicts;
    int *todo, n_todo;             /* items that are not known yet, in their order */
    struct atom_task_work **works; /* [n_todo] theirs */
};

/* ---- files ------------------------------------------------------------------------------------------------------- */

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

static enum atom_status put_fronts(struct scorer *sc, struct atom_error *err)
{
    const struct atom_task_examples examples = {
        .format = atom_task_format(sc->opt->format),
        .from = sc->opt->examples ? &sc->examples : &sc->items,
        .n = sc->opt->n_examples,
        .seed = sc->opt->seed,
    };
    return atom_task_put_fronts(&sc->items, sc->n, &examples, err);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static enum atom_status encode_item(struct scorer *sc, int i, struct atom_error *err)
{
    return atom_task_work_init(&sc->work[i], sc->model, &sc->items.at[i], sc->opt->cut, &sc->cut[i], err);
}

static void encode_one(void *ctx, int i, int worker)
{
    struct scorer *sc = ctx;
    (void)worker;
    sc->status[i] = encode_item(sc, i, NULL);
}

/* All of them before any is scored, so that what is wrong is said at once. */
static enum atom_status encode_items(struct scorer *sc, struct atom_error *err)
{
    atom_parallel(sc->n, encode_one, sc);
    for (int i = 0; i < sc->n; i++) {
        struct atom_error why = {0};
        if (sc->status[i]) {
            atom_task_work_fini(&sc->work[i]); /* once more, for the sentence */
            sc->status[i] = encode_item(sc, i, &why);
        }
        if (sc->status[i])
            return atom_fail(err, why.code, "line %d: %.900s", sc->items.at[i].line, why.message);
    }
    return ATOM_OK;
}

/* ---- items one after the other ----------------------------------------------------------------------------------- */

/* Its verdict; whoever listens hears of what was scored. */
static void judge_item(struct scorer *sc, int i, bool known)
{
    const struct atom_task_source *source = &sc->items.at[i];
    struct atom_task_work *work = &sc->work[i];
    struct atom_task_item told = {.line = source->line,
                                  .subtask = source->subtask,
                                  .n = work->n,
                                  .gold = source->gold,
                                  .loglikelihoods = work->loglikelihoods,
                                  .n_tokens = work->n_tokens,
                                  .cut = sc->cut[i]};
    atom_task_judge(sc->items.kind, source, work->greedy, &told);
    sc->verdicts[i] = (struct atom_task_verdict){told.right, told.right_norm, told.cut, work->loglikelihoods[0]};
    if (sc->opt->on_item && !known)
        sc->opt->on_item(sc->opt->item_user, &told);
    atom_task_work_fini(work);
}

/* Those that an earlier run scored get their verdicts; the others are what is to do. */
static void recall_items(struct scorer *sc)
{
    for (int i = 0; i < sc->n; i++) {
        struct atom_task_work *work = &sc->work[i];
        if (sc->opt->recall &&
            sc->opt->recall(sc->opt->recall_user, sc->items.at[i].line, work->n, work->loglikelihoods, &work->greedy))
            judge_item(sc, i, true);
        else
            sc->todo[sc->n_todo++] = i;
    }
}

static enum atom_status score_batch(struct scorer *sc, struct atom_task_batch *batch, int first, int *n_done,
                                    struct atom_error *err)
{
    struct atom_error why = {0};
    if (atom_task_batch_score(batch, sc->works + first, sc->n_todo - first, n_done, &why))
        return atom_fail(err, why.code, "line %d or soon after: %.900s", sc->items.at[sc->todo[first]].line,
                         why.message);
    for (int i = first; i < first + *n_done; i++)
        judge_item(sc, sc->todo[i], false);
    return ATOM_OK;
}

static enum atom_status score_todo(struct scorer *sc, struct atom_task_batch *batch, struct atom_error *err)
{
    struct atom_progress p = {.phase = "task", .unit = "item", .total = sc->n};
    for (int first = 0, n_done; first < sc->n_todo; first += n_done) {
        enum atom_status st = score_batch(sc, batch, first, &n_done, err);
        if (st)
            return st;
        p.done = sc->n - sc->n_todo + first + n_done;
        if (sc->opt->progress && !sc->opt->progress(sc->opt->user, &p))
            return atom_fail(err, ATOM_ERR_CANCELLED, "the task was stopped after %.0f items", p.done);
    }
    return ATOM_OK;
}

static enum atom_status score_items(struct scorer *sc, struct atom_error *err)
{
    struct atom_task_batch *batch = NULL;
    int longest = 0;
    recall_items(sc);
    for (int i = 0; i < sc->n_todo; i++) {
        sc->works[i] = &sc->work[sc->todo[i]];
        longest = sc->works[i]->longest > longest ? sc->works[i]->longest : longest;
    }
    enum atom_status st = sc->n_todo ? atom_task_batch_create(sc->model, longest, &batch, err) : ATOM_OK;
    st = st ? st : score_todo(sc, batch, err);
    atom_task_batch_free(batch);
    return st;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static enum atom_status make_room(struct scorer *sc, struct atom_error *err)
{
    size_t n = (size_t)sc->n;
    sc->work = calloc(n, sizeof *sc->work);
    sc->status = calloc(n, sizeof *sc->status);
    sc->cut = calloc(n, sizeof *sc->cut);
    sc->verdicts = calloc(n, sizeof *sc->verdicts);
    sc->todo = calloc(n, sizeof *sc->todo);
    sc->works = calloc(n, sizeof *sc->works);
    bool all = sc->work && sc->status && sc->cut && sc->verdicts && sc->todo && sc->works;
    return all ? ATOM_OK : atom_fail_nomem(err, n * sizeof *sc->work);
}

static enum atom_status score_file(struct scorer *sc, struct atom_task_result *out, struct atom_error *err)
{
    enum atom_status st = make_room(sc, err);
    st = st ? st : put_fronts(sc, err);
    st = st ? st : encode_items(sc, err);
    st = st ? st : score_items(sc, err);
    return st ? st : atom_task_sum_up(&sc->items, sc->verdicts, sc->n, out, err);
}

static void fini(struct scorer *sc)
{
    for (int i = 0; i < sc->n && sc->work; i++)
        atom_task_work_fini(&sc->work[i]);
    atom_task_items_fini(&sc->items);
    atom_task_items_fini(&sc->examples);
    free(sc->work);
    free(sc->status);
    free(sc->cut);
    free(sc->verdicts);
    free(sc->todo);
    free(sc->works);
}

enum atom_status atom_eval_task(struct atom_model *model, const struct atom_task_file *file,
                                const struct atom_task_options *opt, struct atom_task_result *out,
                                struct atom_error *err)
{
    const struct atom_task_options none = {0};
    struct scorer sc = {.model = model, .opt = opt ? opt : &none};
    struct atom_error why = {0};
    enum atom_status st = read_files(&sc, file, err);
    if (!st && score_file(&sc, out, &why)) {
        const char *name = file->records.name;
        st = atom_fail(err, why.code, "%s%s%.900s", name ? name : "", name ? ": " : "", why.message);
    }
    fini(&sc);
    return st;
}
