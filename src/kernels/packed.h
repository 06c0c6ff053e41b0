/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of packed weights: of which kind one is, and where in its panel it starts. */
#ifndef ATOM_KERNELS_PACKED_H
#define ATOM_KERNELS_PACKED_H

#include "kernels/kernels.h"

static inline bool is_nibbles(const struct atom_packed *w, const struct atom_run *run)
{
    return w->kind == ATOM_W_NIBBLE && run->scale < w->lay->n_groups;
}

/* In bytes: nibble runs take 16 a channel for the 32 rows, byte runs 32. */
static inline size_t run_at(const struct atom_packed *w, const struct atom_run *run)
{
    const struct atom_layout *lay = w->lay;
    if (w->kind == ATOM_W_BYTE)
        return (size_t)run->offset * 32;
    size_t normal =
        lay->first_outlier_run < lay->n_runs ? (size_t)lay->runs[lay->first_outlier_run].offset : (size_t)lay->k_padded;
    size_t at = (size_t)run->offset;
    return at < normal ? at * 16 : normal * 16 + (at - normal) * 32;
}

#endif
