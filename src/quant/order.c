/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ranked {
    double energy;
    int32_t channel;
};

static int compare(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->energy != y->energy)
        return x->energy < y->energy ? -1 : 1;
    return x->channel < y->channel ? -1 : x->channel > y->channel;
}

int atom_outliers_of(int requested, int k)
{
    if (requested < 0)
        return 0;
    return requested < k ? requested : k;
}

int atom_outliers_quarter(int requested, int k) { return atom_outliers_of(requested, k / 4); }

enum atom_status atom_order_rank(const char *site, const double *energy, int k, int outliers, int32_t *order,
                                 struct atom_error *err)
{
    for (int i = 0; i < k; i++)
        if (!(energy[i] >= 0) || !isfinite(energy[i]))
            return atom_fail(err, ATOM_ERR_NUMERIC, "site '%s': channel %d has energy %g", site, i, energy[i]);
    if (outliers == 0) {
        for (int i = 0; i < k; i++)
            order[i] = i;
        return ATOM_OK;
    }
    struct ranked *list = malloc((size_t)k * sizeof *list);
    if (!list)
        return atom_fail_nomem(err, (size_t)k * sizeof *list);
    for (int i = 0; i < k; i++)
        list[i] = (struct ranked){energy[i], i};
    qsort(list, (size_t)k, sizeof *list, compare);
    for (int i = 0; i < k; i++)
        order[i] = list[i].channel;
    free(list);
    return ATOM_OK;
}

void atom_order_columns(const float *w, int n, int k, const int32_t *order, float *out)
{
    for (int r = 0; r < n; r++) {
        const float *from = w + (size_t)r * (size_t)k;
        float *to = out + (size_t)r * (size_t)k;
        for (int i = 0; i < k; i++)
            to[i] = from[order[i]];
    }
}

void atom_order_rows(const float *w, int n, int k, const int32_t *order, float *out)
{
    for (int i = 0; i < n; i++)
        memcpy(out + (size_t)i * (size_t)k, w + (size_t)order[i] * (size_t)k, (size_t)k * sizeof *w);
}
