/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/timing.h"

#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double atom_median(double *seconds, int n)
{
    qsort(seconds, (size_t)n, sizeof *seconds, by_size);
    return n % 2 ? seconds[n / 2] : (seconds[n / 2 - 1] + seconds[n / 2]) / 2;
}

void atom_line_times(struct atom_bench_line *line, double *seconds, int n, const struct atom_ceilings *ceilings)
{
    static const enum atom_ceiling_id ids[] = {ATOM_N_CEILINGS, ATOM_CEIL_INT8, ATOM_CEIL_F32, ATOM_CEIL_BF16,
                                               ATOM_CEIL_READ};
    line->median_s = atom_median(seconds, n);
    line->fastest_s = seconds[0];
    double most = line->bound ? ceilings->at[ids[line->bound]].all : 0;
    double amount = line->bound == ATOM_BOUND_READ ? line->bytes : line->ops;
    line->share = most > 0 && line->median_s > 0 ? amount / line->median_s / most : 0;
}

enum atom_status atom_bench_tell(const struct atom_bench_options *opt, const char *phase, int done, int total,
                                 struct atom_error *err)
{
    const struct atom_progress p = {.phase = phase, .unit = "measurement", .done = done, .total = total};
    if (!opt->progress || opt->progress(opt->user, &p))
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_CANCELLED, "interrupted");
}
