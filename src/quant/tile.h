/* SPDX-License-Identifier: Apache-2.0 */
/* A tile: some rows of a linear, all columns, turned so that one column of its rows is contiguous. Quantization goes
 * column by column, so that every loop over rows is a vector loop.
 *
 *     w[j * ld + r]    column j of row first + r; rows <= r < ld are zeros
 *
 * Tiles hold whole sets of C rows and are cut alike for any number of threads. */
#ifndef ATOM_QUANT_TILE_H
#define ATOM_QUANT_TILE_H

#include "quant/weights.h"

#include <math.h>

enum { ATOM_TILE_ROWS = 64 };

struct atom_tile {
    struct atom_qlinear *q;
    const struct atom_weight_options *opt;
    bool gptq;           /* s = 2 c max / (2^b - 1) instead of c max / Q */
    const float *weight; /* [k]: what the clip search weighs squared errors with; NULL: 1 */
    int first, rows, ld;
    float *w;                         /* [k, ld]; rounded columns hold their integers, or numbers of E2M1 */
    float *s;                         /* [ld]: the scales of the current group */
    float *max, *trial, *cost, *best; /* [ld] each, of the current group */
    float *rounded;                   /* [ld] */
};

/* How many tiles q makes. */
int atom_tile_count(const struct atom_qlinear *q);

/* One tile for each worker of the pool; weight and gptq are the caller's to set. */
enum atom_status atom_tiles_create(struct atom_qlinear *q, const struct atom_weight_options *opt,
                                   struct atom_tile **out, struct atom_error *err);
void atom_tiles_free(struct atom_tile *tiles);

/* Tile i of w [n, k]. */
void atom_tile_load(struct atom_tile *t, const float *w, int i);
/* Finds the scales of group g from the tile's columns as they are now: into t->s and q->scales. */
void atom_tile_scale(struct atom_tile *t, int g);
/* q[r] = column j over the scales s[r], rounded to what the format has. */
void atom_tile_round(const struct atom_tile *t, int j, const float *s, float *restrict q);
/* Rounds the outlier columns, then writes all integers into q. */
void atom_tile_store(struct atom_tile *t);

/* Nearest integer, ties to even, of x / s within [lo, hi]; a NaN becomes lo. |lo|, |hi| < 2^22. */
static inline float atom_round_to(float x, float s, float lo, float hi)
{
    const float big = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to an integer */
    float y = x / s;
    y = y > lo ? y : lo;
    y = y < hi ? y : hi;
    return (y + big) - big;
}

#endif
