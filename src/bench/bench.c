/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench.h"

#include "base/error.h"
#include "bench/operations.h"
#include "bench/timing.h"
#include "bench/whole_model.h"

#include <string.h>

static void tell_ceilings(const struct atom_bench_options *opt, const struct atom_ceilings *c)
{
    for (int i = 0; i < ATOM_N_CEILINGS; i++) {
        int threads[2] = {1, atom_runtime_threads()};
        double rates[2] = {c->at[i].one, c->at[i].all};
        for (int t = 0; t < 2; t++) {
            if (t && threads[1] == 1)
                continue;
            struct atom_bench_line line = {
                .what = ATOM_BENCH_CEILING, .name = atom_ceiling_names[i], .how = c->at[i].how, .threads = threads[t]};
            *(i == ATOM_CEIL_READ ? &line.bytes : &line.ops) = rates[t];
            opt->on_line(opt->user, &line);
        }
    }
}

static bool only_tests(const struct atom_shape *const *shapes, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(shapes[i]->name, "tiny") != 0)
            return false;
    return n > 0;
}

enum atom_status atom_bench_cpu(const struct atom_bench_options *opt, struct atom_error *err)
{
    const struct atom_shape *shapes[ATOM_BENCH_MAX_LIST];
    struct atom_ceilings ceilings;
    enum atom_status st = ATOM_OK;
    if (opt->n_shapes > ATOM_BENCH_MAX_LIST)
        return atom_fail(err, ATOM_ERR_INVALID, "%d shapes; %d are the most", opt->n_shapes, ATOM_BENCH_MAX_LIST);
    for (int i = 0; i < opt->n_shapes && !st; i++)
        st = atom_shape_find(opt->shapes[i], &shapes[i], err);
    const struct atom_ceilings_options how = {.one = opt->ceilings, .brief = !st && only_tests(shapes, opt->n_shapes)};
    st = st ? st : atom_bench_tell(opt, "ceilings", 0, 1, err);
    st = st ? st : atom_ceilings_measure(&how, &ceilings, err);
    if (!st && opt->ceilings)
        tell_ceilings(opt, &ceilings);
    for (int i = 0; i < opt->n_shapes && opt->kernels && !st; i++)
        st = atom_bench_operations(opt, shapes[i], &ceilings, err);
    for (int i = 0; i < opt->n_shapes && opt->models && !st; i++)
        st = atom_bench_model(opt, shapes[i], &ceilings, err);
    return st;
}
