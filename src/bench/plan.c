/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/plan.h"

#include "kernels/kernels.h"

#include <stdlib.h>

static const struct atom_bench_list all_batches = {6, {1, 2, 4, 8, 16, 32}}, one_batch = {1, {1}},
                                    prefill_depths = {2, {0, 1024}}, decode_depths = {3, {0, 1024, 4096}};

static int smaller(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static struct atom_bench_list sorted(const struct atom_bench_list *given, const struct atom_bench_list *otherwise)
{
    struct atom_bench_list list = given->n ? *given : *otherwise;
    qsort(list.at, (size_t)list.n, sizeof list.at[0], smaller);
    return list;
}

static bool holds(const struct atom_bench_list *list, int x)
{
    for (int i = 0; i < list->n; i++)
        if (list->at[i] == x)
            return true;
    return false;
}

/* A large batch is as sure after fewer steps. */
static int usual_steps(int batch) { return batch <= 4 ? 64 : batch <= 8 ? 32 : 16; }

struct list {
    struct atom_phase *at;
    int n;
};

static void add(struct list *to, const struct atom_phase *phase)
{
    if (phase->tokens > 0)
        to->at[to->n++] = *phase;
}

static void add_depth(const struct atom_bench_plan *plan, const struct atom_bench_list *prefill, int depth,
                      bool to_prefill, struct list *to)
{
    struct atom_bench_list batches = sorted(&plan->batch, depth ? &one_batch : &all_batches);
    for (int i = 0; to_prefill && i < prefill->n; i++)
        add(to, &(struct atom_phase){false, prefill->at[i], depth, 1});
    for (int b = 0; b < batches.n; b++) {
        const struct atom_bench_list usual = {1, {usual_steps(batches.at[b])}}, steps = sorted(&plan->decode, &usual);
        for (int i = 0; i < steps.n; i++)
            add(to, &(struct atom_phase){true, steps.at[i], depth, batches.at[b]});
    }
}

enum atom_status atom_plan_phases(const struct atom_bench_plan *plan, const struct atom_shape *shape,
                                  struct atom_phase **out, int *n, struct atom_error *err)
{
    enum { MAX = ATOM_BENCH_MAX_LIST };
    const struct atom_bench_list usual = {1, {shape->prefill}}, prefill = sorted(&plan->prefill, &usual),
                                 to_prefill = sorted(&plan->depth, &prefill_depths),
                                 depths = sorted(&plan->depth, &decode_depths);
    size_t n_bytes = sizeof(struct atom_phase) * MAX * (MAX + MAX * MAX);
    struct list list = {malloc(n_bytes), 0};
    if (!list.at)
        return atom_fail_nomem(err, n_bytes);
    for (int i = 0; i < depths.n; i++)
        add_depth(plan, &prefill, depths.at[i], holds(&to_prefill, depths.at[i]), &list);
    *out = list.at;
    *n = list.n;
    return ATOM_OK;
}

void atom_plan_room(const struct atom_phase *phases, int n, int *sequences, int *positions)
{
    *sequences = 1;
    *positions = 0;
    for (int i = 0; i < n; i++)
        *sequences = phases[i].batch > *sequences ? phases[i].batch : *sequences;
    for (int s = 0; s < *sequences; s++) {
        int most = 0;
        for (int i = 0; i < n; i++) {
            int length = phases[i].depth + phases[i].tokens;
            most = s < phases[i].batch && length > most ? length : most;
        }
        *positions += (most + ATOM_PAGE - 1) / ATOM_PAGE * ATOM_PAGE;
    }
}
