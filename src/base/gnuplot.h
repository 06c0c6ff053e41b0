/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing by gnuplot, a process of its own. */
#ifndef ATOM_BASE_GNUPLOT_H
#define ATOM_BASE_GNUPLOT_H

#include "atom/atom.h"

#include <stdio.h>

/* What writes a script that draws lines [n]. */
struct atom_drawing {
    void (*put)(FILE *script, const void *lines, int n);
    const void *lines;
    int n;
};

/* Writes text into a script between single quotes; what would end them or the line becomes a space. */
void atom_gnuplot_text(FILE *script, const char *text);

/* Runs gnuplot; its output appears at `path` whole or not at all. With n 0 nothing is drawn, but whether it could be is
 * found out. ATOM_ERR_UNSUPPORTED when there is no gnuplot. */
enum atom_status atom_gnuplot(const struct atom_drawing *d, const char *path, struct atom_error *err);

#endif
