/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/task_examples.h"

#include "base/python_random.h"

#include <stdlib.h>
#include <string.h>

/* What items of one "task" draw from. */
struct pool {
    const char *subtask; /* NULL: all */
    int *at;             /* [n] indices of examples */
    int n;
    struct atom_python_random random;
};

struct pools {
    struct pool *at;
    int n;
};

/* ---- pools ------------------------------------------------------------------------------------------------------- */

static bool same_subtask(const char *a, const char *b) { return !a || (b && strcmp(a, b) == 0); }

static bool fill_pool(struct pool *p, const struct atom_task_examples *ex, const char *subtask)
{
    *p = (struct pool){.subtask = subtask, .at = calloc((size_t)ex->from->n, sizeof *p->at)};
    for (int i = 0; p->at && i < ex->from->n; i++)
        if (same_subtask(subtask, ex->from->at[i].subtask))
            p->at[p->n++] = i;
    atom_python_random_seed(&p->random, ex->seed);
    return p->at;
}

/* NULL when memory is out. */
static struct pool *find_pool(struct pools *pools, const struct atom_task_examples *ex, const char *subtask)
{
    for (int i = pools->n - 1; i >= 0; i--)
        if (same_subtask(subtask, pools->at[i].subtask))
            return &pools->at[i];
    struct pool *more = realloc(pools->at, ((size_t)pools->n + 1) * sizeof *more);
    if (!more)
        return NULL;
    pools->at = more;
    return fill_pool(&more[pools->n], ex, subtask) ? &more[pools->n++] : NULL;
}

/* ---- which ------------------------------------------------------------------------------------------------------- */

/* Examples that were drawn for one item. */
struct drawn {
    const struct atom_task_source *at[ATOM_PYTHON_SAMPLE_MOST];
    int n;
};

static enum atom_status too_few(const struct atom_task_source *item, int want, int n, struct atom_error *err)
{
    const char *of = item->subtask;
    return atom_fail(err, ATOM_ERR_INVALID, "line %d: %d examples are wanted%s%.200s%s; there are %d", item->line, want,
                     of ? " of task '" : "", of ? of : "", of ? "'" : "", n);
}

static enum atom_status draw(const struct atom_task_examples *ex, struct pool *pool,
                             const struct atom_task_source *item, struct drawn *out, struct atom_error *err)
{
    int places[ATOM_PYTHON_SAMPLE_MOST];
    const bool others = ex->from->at <= item && item < ex->from->at + ex->from->n;
    const bool random = ex->format->draw == ATOM_DRAW_RANDOM;
    int n = random ? ex->n + (others || ex->format->more) : pool->n;
    out->n = 0;
    if (n > pool->n)
        return too_few(item, n, pool->n, err);
    if (random)
        atom_python_sample(&pool->random, pool->n, n, places);
    for (int i = 0; i < n && out->n < ex->n; i++) {
        const struct atom_task_source *example = &ex->from->at[pool->at[random ? places[i] : i]];
        if (example != item && !json_equal(example->record, item->record))
            out->at[out->n++] = example;
    }
    return out->n < ex->n ? too_few(item, ex->n, out->n, err) : ATOM_OK;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static char *append(char *to, const char *text)
{
    size_t n = strlen(text);
    memcpy(to, text, n + 1);
    return to + n;
}

/* Context and continuation of the right row. */
static const char *context_of(const struct atom_task_source *e)
{
    return atom_task_context(e, e->gold < 0 ? 0 : e->gold);
}

static const char *answer_of(const struct atom_task_source *e)
{
    return atom_task_continuation(e, e->gold < 0 ? 0 : e->gold);
}

static enum atom_status write_front(struct atom_task_source *item, const struct drawn *drawn, const char *gap,
                                    struct atom_error *err)
{
    const char *description = item->description ? item->description : "";
    size_t n_bytes = strlen(description) + 1;
    for (int i = 0; i < drawn->n; i++)
        n_bytes += strlen(context_of(drawn->at[i])) + strlen(gap) + strlen(answer_of(drawn->at[i])) + 2;
    item->front = malloc(n_bytes);
    if (!item->front)
        return atom_fail_nomem(err, n_bytes);
    char *to = append(item->front, description);
    for (int i = 0; i < drawn->n; i++) {
        to = append(to, context_of(drawn->at[i]));
        to = append(to, gap);
        to = append(to, answer_of(drawn->at[i]));
        to = append(to, "\n\n");
    }
    return ATOM_OK;
}

enum atom_status atom_task_put_fronts(struct atom_task_items *items, int n, const struct atom_task_examples *ex,
                                      struct atom_error *err)
{
    struct pools pools = {0};
    struct drawn drawn = {.n = 0};
    enum atom_status st = ATOM_OK;
    if (ex->n > 0 && ex->format->draw == ATOM_DRAW_NONE)
        return atom_fail(err, ATOM_ERR_INVALID, "'%s' takes no examples", ex->format->name);
    for (int i = 0; i < n && !st; i++) {
        struct atom_task_source *item = &items->at[i];
        if (ex->n > 0) {
            struct pool *pool = find_pool(&pools, ex, item->subtask);
            st = pool ? draw(ex, pool, item, &drawn, err) : atom_fail_nomem(err, sizeof *pool);
        }
        if (!st && (item->description || drawn.n))
            st = write_front(item, &drawn, ex->format->gap ? ex->format->gap : "", err);
    }
    for (int i = 0; i < pools.n; i++)
        free(pools.at[i].at);
    free(pools.at);
    return st;
}
