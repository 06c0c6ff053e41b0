/* SPDX-License-Identifier: Apache-2.0 */
/* The ablation's table, printed row by row as rungs are finished. */
#ifndef ATOM_CLI_ABLATE_ROWS_H
#define ATOM_CLI_ABLATE_ROWS_H

#include "atom/atom.h"

struct ablate_rows {
    const char *model, *text; /* names */
    const struct atom_ablate_options *opt;
    bool json;
    bool begins_ladder;         /* the next row is another ladder's first */
    struct atom_ablate_row *at; /* [n], malloc'd; `why` is "" or NULL, `damage` NULL */
    int n;
};

/* Prints a row, with the change from the one before it, and keeps it. */
void ablate_rows_add(struct ablate_rows *rows, const struct atom_ablate_row *row);
/* "MODEL on TEXT", file names without their directories. */
void ablate_rows_title(const struct ablate_rows *rows, char *buf, size_t n_bytes);
/* What is to be said under the table. */
void ablate_rows_end(const struct ablate_rows *rows);

#endif
