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
    const size_t columns = (size_t)q->k + 6;
    const size_t floats = columns * (size_t)ld;
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
                                      .rounded = after + 5 * ld};
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

/* What is too large is cut, so that the arithmetic goes on with numbers; atom_qlinear_fits tells it afterwards. */
static uint16_t half_scale(float s)
{
    uint16_t h = atom_float_f16(s);
    if (h == 0)
        return 1; /* 2^-24 */
    return h < 0x7bff ? h : 0x7bff;
}

void atom_tile_round(const struct atom_tile *t, int j, const float *s, float *restrict q)
{
    const float lo = (float)-(1 << (t->opt->bits - 1)), hi = -lo - 1.0f;
    const float *restrict w = t->w + (size_t)j * (size_t)t->ld;
    if (t->opt->form.format == ATOM_FORMAT_INT)
        for (int r = 0; r < t->ld; r++)
            q[r] = atom_round_to(w[r], s[r], lo, hi);
    else
        for (int r = 0; r < t->ld; r++)
            q[r] = atom_e2m1_over(w[r], s[r]);
}

/* cost[r] = sum of weight[j] (w - wq)^2 over the columns [j0, j1), with scales s[r]. */
static void find_cost(struct atom_tile *t, int j0, int j1, const float *restrict s, float *restrict cost)
{
    const int ld = t->ld;
    float *restrict q = t->rounded;
    memset(cost, 0, (size_t)ld * sizeof *cost);
    for (int j = j0; j < j1; j++) {
        const float *restrict w = t->w + (size_t)j * (size_t)ld;
        const float weight = t->weight ? t->weight[j] : 1.0f;
        atom_tile_round(t, j, s, q);
        for (int r = 0; r < ld; r++) {
            float e = w[r] - q[r] * s[r];
            cost[r] += weight * e * e;
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

static uint16_t scale_code(const struct atom_tile *t, float ratio, float max)
{
    const int bits = t->opt->bits;
    if (t->opt->form.format != ATOM_FORMAT_INT)
        return atom_scale_code(t->opt->form.format, ratio * max, t->q->tensor_scale);
    return half_scale(t->gptq ? 2.0f * ratio * max / (float)((1 << bits) - 1)
                              : ratio * max / (float)((1 << (bits - 1)) - 1));
}

/* The code that a scale was made from: as if it were of a group whose largest number it scales to 6. */
static uint16_t code_of(const struct atom_tile *t, float s)
{
    if (t->opt->form.format == ATOM_FORMAT_INT)
        return atom_float_f16(s);
    return atom_scale_code(t->opt->form.format, ATOM_E2M1_MAX * s, t->q->tensor_scale);
}

/* s[r] for all rows, from the maxima over C rows in t->max. */
static void scales_for(const struct atom_tile *t, float ratio, float *s)
{
    const int set = t->q->rows_per_scale;
    for (int r = 0; r < t->ld; r++)
        s[r] = 1.0f;
    for (int r = 0; r < t->rows; r += set) {
        float rounded = atom_weight_scale(t->q, scale_code(t, ratio, t->max[r]));
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

/* Tries ratios from opt->clip down in 32nds: to a half of it, to a quarter under 4 bits. Scales that are powers of two
 * try three: twice the ratio, under which nothing saturates, it, and its half. Leaves the best in t->s. */
static void search_ratio(struct atom_tile *t, int j0, int j1)
{
    const bool powers = t->opt->form.format == ATOM_FORMAT_MXFP4;
    const int steps = powers ? 2 : t->opt->bits < 4 ? 24 : 16;
    for (int i = 0; i <= steps; i++) {
        const float share = powers ? 2.0f / (float)(1 << i) : 1.0f - (float)i / 32.0f;
        scales_for(t, t->opt->clip * share, t->trial);
        find_cost(t, j0, j1, t->trial, t->cost);
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
    if (t->opt->search)
        search_ratio(t, j0, j1);
    else
        scales_for(t, t->opt->clip, t->s);
    for (int r = 0; r < t->rows; r += set)
        q->scales[(size_t)((t->first + r) / set) * (size_t)q->groups + (size_t)g] = code_of(t, t->s[r]);
}

static float at(const struct atom_tile *t, int j, int r) { return t->w[(size_t)j * (size_t)t->ld + (size_t)r]; }

/* Outliers of row r in 8 bits. */
static void store_eighths(const struct atom_tile *t, int r)
{
    const struct atom_qlinear *q = t->q;
    const int first = q->k - q->outliers;
    const bool integers = q->form.format == ATOM_FORMAT_INT;
    const uint16_t h = half_scale(t->max[r] / (integers ? 127.0f : ATOM_E4M3_MAX));
    const float s = atom_f16_float(h);
    int8_t *to = q->outlier_q + (size_t)(t->first + r) * (size_t)q->outliers;
    q->outlier_scales[t->first + r] = h;
    for (int j = first; j < q->k; j++)
        to[j - first] = integers ? (int8_t)atom_round_to(at(t, j, r), s, -128.0f, 127.0f)
                                 : (int8_t)atom_float_e4m3(at(t, j, r) / s);
}

static void store_halves(const struct atom_tile *t, int r)
{
    const struct atom_qlinear *q = t->q;
    const int first = q->k - q->outliers;
    uint16_t *to = q->outlier_halves + (size_t)(t->first + r) * (size_t)q->outliers;
    for (int j = first; j < q->k; j++)
        to[j - first] = atom_float_f16(at(t, j, r));
}

void atom_tile_store(struct atom_tile *t)
{
    const struct atom_qlinear *q = t->q;
    const int main = q->k - q->outliers;
    const float units = 1.0f / atom_weight_unit(q->form.format);
    column_maxima(t, main, q->k, t->max);
    for (int r = 0; r < t->rows; r++) {
        int8_t *to = q->q + (size_t)(t->first + r) * (size_t)main;
        for (int j = 0; j < main; j++)
            to[j] = (int8_t)(at(t, j, r) * units);
        if (q->outlier_halves)
            store_halves(t, r);
        else if (q->outliers)
            store_eighths(t, r);
    }
}
