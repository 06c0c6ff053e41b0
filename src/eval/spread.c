/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/spread.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(const double *sorted, int64_t n, double share)
{
    double at = share * (double)(n - 1);
    int64_t below = (int64_t)at, above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

struct atom_spread atom_spread_of(double *x, int64_t n)
{
    double sum = 0, squares = 0;
    qsort(x, (size_t)n, sizeof *x, compare);
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return (struct atom_spread){.mean = mean,
                                .standard_error = n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : 0,
                                .min = x[0],
                                .p0_1 = percentile(x, n, 0.001),
                                .p1 = percentile(x, n, 0.01),
                                .p10 = percentile(x, n, 0.1),
                                .median = percentile(x, n, 0.5),
                                .p90 = percentile(x, n, 0.9),
                                .p99 = percentile(x, n, 0.99),
                                .p99_9 = percentile(x, n, 0.999),
                                .max = x[n - 1]};
}
