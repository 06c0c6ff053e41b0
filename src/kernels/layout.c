/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/layout.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

static int add_runs(struct atom_layout *lay, int first, int end, int scale)
{
    while (first < end) {
        int len = end - first < ATOM_RUN_MAX ? end - first : ATOM_RUN_MAX;
        int padded = (len + ATOM_RUN_PAD - 1) / ATOM_RUN_PAD * ATOM_RUN_PAD;
        if (lay->runs)
            lay->runs[lay->n_runs] = (struct atom_run){first, len, lay->k_padded, padded, scale};
        lay->n_runs++;
        lay->k_padded += padded;
        first += len;
    }
    return first;
}

static void cut(struct atom_layout *lay)
{
    int normal = lay->k - lay->outliers, group = lay->group > 0 ? lay->group : normal;
    lay->n_runs = lay->k_padded = lay->n_groups = 0;
    for (int first = 0; first < normal; lay->n_groups++)
        first = add_runs(lay, first, normal - first > group ? first + group : normal, lay->n_groups);
    lay->first_outlier_run = lay->n_runs;
    add_runs(lay, normal, lay->k, lay->n_groups);
    lay->n_scales = lay->n_groups + (lay->outliers > 0);
    lay->row_bytes = ((lay->k_padded + LINE - 1) / LINE | 1) * LINE;
}

enum atom_status atom_layout_init(struct atom_layout *lay, int k, int group, int outliers, struct atom_error *err)
{
    assert(k > 0 && group >= 0 && outliers >= 0 && outliers <= k);
    memset(lay, 0, sizeof *lay);
    lay->k = k;
    lay->group = group;
    lay->outliers = outliers;
    cut(lay);
    size_t n_bytes = (size_t)lay->n_runs * sizeof *lay->runs;
    lay->runs = malloc(n_bytes);
    if (!lay->runs)
        return atom_fail_nomem(err, n_bytes);
    cut(lay);
    return ATOM_OK;
}

void atom_layout_fini(struct atom_layout *lay)
{
    free(lay->runs);
    memset(lay, 0, sizeof *lay);
}
