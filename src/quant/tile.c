/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/tile.h"

#include "base/half.h"
#include "base/thread.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = 16 }; /* ld is a multiple, for vector loops without tails */

static int tile_rows(const struct atom_qlinear *q)
{
    const int set = q->rows_per_scale;
    return set >= ATOM_TILE_ROWS ? set : ATOM_TILE_ROWS - ATOM_TILE_ROWS % set;
}

int atom_tile_count(const struct atom_qlinear *q) { return (q->n - 1) / tile_rows(q) + 1; }

enum atom_status atom_tiles_create(struct atom_qlinear *q, const struct atom_weight_options *opt,
                                   struct atom_tile **out, struct atom_error *err)
{
    const int workers = atom_pool_size(), ld = (tile_rows(q) + LANES - 1) / LANES * LANES;
    const size_t columns = (size_t)q->k + 5;
    const size_t scratch =
        opt->search == ATOM_CLIP_FEEDBACK ? ATOM_TILE_FEEDBACK * (size_t)(ATOM_TILE_FEEDBACK + ld) : 0;
    const size_t floats = columns * (size_t)ld + scratch;
    const size_t tile_bytes = floats * sizeof(float);
    struct atom_tile *tiles = malloc((size_t)workers * (sizeof *tiles + tile_bytes));
    if (!tiles)
        return atom_fail_nomem(err, (size_t)workers * (sizeof *tiles + tile_bytes));
    float *room = (float *)(tiles + workers);
    for (int i = 0; i < workers; i++, room += floats) {
        float *after = room + (size_t)q->k * (size_t)ld;
        tiles[i] = (struct atom_tile){.q = q,
                                      .opt = opt,
                                      .ld = ld,
                                      .w = room,
                                      .s = after,
                                      .max = after + ld,
                                      .trial = after + 2 * ld,
                                      .cost = after + 3 * ld,
                                      .best = after + 4 * ld,
                                      .scratch = after + 5 * ld};
    }
    *out = tiles;
    return ATOM_OK;
}

void atom_tiles_free(struct atom_tile *tiles) { free(tiles); }

void atom_tile_load(struct atom_tile *t, const float *w, int i)
{
    const int step = 16, k = t->q->k, full = tile_rows(t->q);
    t->first = i * full;
    t->rows = t->q->n - t->first < full ? t->q->n - t->first : full;
    for (int j0 = 0; j0 < k; j0 += step) {
        int j1 = j0 + step < k ? j0 + step : k;
        for (int r = 0; r < t->rows; r++) {
            const float *from = w + (size_t)(t->first + r) * (size_t)k;
            for (int j = j0; j < j1; j++)
                t->w[(size_t)j * (size_t)t->ld + (size_t)r] = from[j];
        }
        for (int j = j0; j < j1; j++)
            for (int r = t->rows; r < t->ld; r++)
                t->w[(size_t)j * (size_t)t->ld + (size_t)r] = 0;
    }
}

static uint16_t half_scale(float s)
{
    uint16_t h = atom_float_f16(s);
    if (h == 0)
        return 1; /* 2^-24 */
    return h < 0x7bff ? h : 0x7bff;
}

/* cost[r] of the columns [j0, j1) with scales s[r], every column on its own. */
static void cost_alone(struct atom_tile *t, int j0, int j1, const float *restrict s, float *restrict cost)
{
    const float lo = (float)-(1 << (t->opt->bits - 1)), hi = -lo - 1.0f;
    const int ld = t->ld;
    memset(cost, 0, (size_t)ld * sizeof *cost);
    for (int j = j0; j < j1; j++) {
        const float *restrict w = t->w + (size_t)j * (size_t)ld;
        const float weight = t->weight ? t->weight[j] : 1.0f;
        for (int r = 0; r < ld; r++) {
            float e = w[r] - atom_round_to(w[r], s[r], lo, hi) * s[r];
            cost[r] += weight * e * e;
        }
    }
}

/* The columns [j0, j1) of U, turned so that what reaches a column lies together: ut[(j - j0) * width + i - j0] = U[i,
 * j].
 */
static void turn_factor(const struct atom_tile *t, int j0, int j1, float *ut)
{
    const int width = j1 - j0;
    for (int i = 0; i < width; i++)
        for (int j = i; j < width; j++)
            ut[j * width + i] = t->u[(size_t)(j0 + i) * (size_t)t->q->k + (size_t)(j0 + j)];
}

/* x -= u[0] e[0] + u[1] e[1] + ... for n rows e [n, ld], in this order. Eight at a time: x is loaded and stored
 * that much less often. */
static void subtract_errors(float *restrict x, const float *restrict u, const float *restrict e, int n, int ld)
{
    int i = 0;
    for (; i + 8 <= n; i += 8, e += 8 * ld)
        for (int r = 0; r < ld; r++) {
            float y = x[r] - u[i] * e[r] - u[i + 1] * e[ld + r] - u[i + 2] * e[2 * ld + r] - u[i + 3] * e[3 * ld + r];
            x[r] = y - u[i + 4] * e[4 * ld + r] - u[i + 5] * e[5 * ld + r] - u[i + 6] * e[6 * ld + r] -
                   u[i + 7] * e[7 * ld + r];
        }
    for (; i < n; i++, e += ld)
        for (int r = 0; r < ld; r++)
            x[r] -= u[i] * e[r];
}

/* As cost_alone when each column's error is passed on to the rest of the group, as GPTQ will, with the same roundings:
 * only that a column takes all errors before it at once. */
static void cost_with_feedback(struct atom_tile *t, int j0, int j1, const float *restrict s, float *restrict cost)
{
    const float lo = (float)-(1 << (t->opt->bits - 1)), hi = -lo - 1.0f;
    const int width = j1 - j0, ld = t->ld;
    float *errors = t->scratch + ATOM_TILE_FEEDBACK * ATOM_TILE_FEEDBACK; /* [width, ld] */
    memset(cost, 0, (size_t)ld * sizeof *cost);
    for (int j = 0; j < width; j++) {
        const float *ut = t->scratch + j * width;
        float *restrict x = errors + (size_t)j * (size_t)ld;
        memcpy(x, t->w + (size_t)(j0 + j) * (size_t)ld, (size_t)ld * sizeof *x);
        subtract_errors(x, ut, errors, j, ld);
        for (int r = 0; r < ld; r++) {
            float e = (x[r] - atom_round_to(x[r], s[r], lo, hi) * s[r]) / ut[j];
            x[r] = e;
            cost[r] += e * e;
        }
    }
}

static void column_maxima(const struct atom_tile *t, int j0, int j1, float *restrict max)
{
    const int ld = t->ld;
    memset(max, 0, (size_t)ld * sizeof *max);
    for (int j = j0; j < j1; j++) {
        const float *restrict w = t->w + (size_t)j * (size_t)ld;
        for (int r = 0; r < ld; r++) {
            float a = fabsf(w[r]);
            max[r] = a > max[r] ? a : max[r];
        }
    }
}

/* s[r] for all rows, from the maxima over C rows in t->max. */
static void scales_for(const struct atom_tile *t, float ratio, float *s)
{
    const int bits = t->opt->bits, set = t->q->rows_per_scale;
    for (int r = 0; r < t->ld; r++)
        s[r] = 1.0f;
    for (int r = 0; r < t->rows; r += set) {
        float x = t->gptq ? 2.0f * ratio * t->max[r] / (float)((1 << bits) - 1)
                          : ratio * t->max[r] / (float)((1 << (bits - 1)) - 1);
        float rounded = atom_f16_float(half_scale(x));
        for (int i = r; i < r + set && i < t->rows; i++)
            s[i] = rounded;
    }
}

/* x[r] = the fold over each set of C rows, in all rows of the set. */
static void fold_sets(const struct atom_tile *t, bool sum, float *x)
{
    const int set = t->q->rows_per_scale;
    for (int r = 0; r < t->rows; r += set) {
        int end = r + set < t->rows ? r + set : t->rows;
        float y = x[r];
        for (int i = r + 1; i < end; i++)
            y = sum ? y + x[i] : y > x[i] ? y : x[i];
        for (int i = r; i < end; i++)
            x[i] = y;
    }
}

/* Tries ratios from opt->clip down in 32nds: to a half of it, to a quarter under 4 bits. Leaves the best in t->s. */
static void search_ratio(struct atom_tile *t, int j0, int j1)
{
    const int steps = t->opt->bits < 4 ? 24 : 16;
    const bool feedback = t->opt->search == ATOM_CLIP_FEEDBACK && t->u && j1 - j0 <= ATOM_TILE_FEEDBACK;
    if (feedback)
        turn_factor(t, j0, j1, t->scratch);
    for (int i = 0; i <= steps; i++) {
        scales_for(t, t->opt->clip * (1.0f - (float)i / 32.0f), t->trial);
        if (feedback)
            cost_with_feedback(t, j0, j1, t->trial, t->cost);
        else
            cost_alone(t, j0, j1, t->trial, t->cost);
        fold_sets(t, true, t->cost);
        for (int r = 0; r < t->ld; r++)
            if (i == 0 || t->cost[r] < t->best[r]) {
                t->best[r] = t->cost[r];
                t->s[r] = t->trial[r];
            }
    }
}

void atom_tile_scale(struct atom_tile *t, int g)
{
    const struct atom_qlinear *q = t->q;
    const int set = t->q->rows_per_scale, end = q->k - q->outliers;
    const int j0 = g * q->group, j1 = end - j0 < q->group ? end : j0 + q->group;
    column_maxima(t, j0, j1, t->max);
    fold_sets(t, false, t->max);
    if (t->opt->search == ATOM_CLIP_FIXED)
        scales_for(t, t->opt->clip, t->s);
    else
        search_ratio(t, j0, j1);
    for (int r = 0; r < t->rows; r += set)
        q->scales[(size_t)((t->first + r) / set) * (size_t)q->groups + (size_t)g] = atom_float_f16(t->s[r]);
}

static void round_outliers(struct atom_tile *t)
{
    const struct atom_qlinear *q = t->q;
    const int first = q->k - q->outliers;
    column_maxima(t, first, q->k, t->max);
    for (int r = 0; r < t->rows; r++) {
        uint16_t h = half_scale(t->max[r] / 127.0f);
        float s = atom_f16_float(h);
        q->outlier_scales[t->first + r] = h;
        for (int j = first; j < q->k; j++) {
            float *x = &t->w[(size_t)j * (size_t)t->ld + (size_t)r];
            *x = atom_round_to(*x, s, -128.0f, 127.0f);
        }
    }
}

void atom_tile_store(struct atom_tile *t)
{
    const struct atom_qlinear *q = t->q;
    const int main = q->k - q->outliers;
    if (q->outliers)
        round_outliers(t);
    for (int r = 0; r < t->rows; r++) {
        int8_t *to = q->q + (size_t)(t->first + r) * (size_t)main;
        for (int j = 0; j < main; j++)
            to[j] = (int8_t)t->w[(size_t)j * (size_t)t->ld + (size_t)r];
        if (!q->outliers)
            continue;
        to = q->outlier_q + (size_t)(t->first + r) * (size_t)q->outliers;
        for (int j = main; j < q->k; j++)
            to[j - main] = (int8_t)t->w[(size_t)j * (size_t)t->ld + (size_t)r];
    }
}
