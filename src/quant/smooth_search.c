/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/smooth_search.h"

#include "base/thread.h"
#include "quant/hessian.h"
#include "quant/weights.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 }; /* rows of a linear that are tried at once */

struct search {
    const struct atom_smooth_site *site;
    int k, n, n_blocks;
    float *x;      /* [n_rows, k] in stored order, as all that follows */
    float *w;      /* [n, k] */
    float *y;      /* [n, n_rows]: what float weights give */
    double *sizes; /* [n]: ||y||^2 of a row */
    float *size;   /* [k] channels as the formula sees them: peak or rms */
    float *column; /* [k] max|w_j| */
    /* of the factors that are tried */
    float *f, *best; /* [k] */
    float *xq;       /* [n_rows, k] */
    float *wf;       /* [n, k] */
    float *weight;   /* [k] */
    struct atom_qlinear *q;
    double *errors; /* [n] */
    float *scratch; /* [workers, BLOCK, k + n_rows] */
};

/* ---- what is tried ----------------------------------------------------------------------------------------------- */

/* Channels that share a factor take the largest of what they are. */
static void share(const struct atom_smooth_site *site, float *natural)
{
    if (!site->heads_per_kv)
        return;
    int kv_heads = site->lay->k / site->head_dim / site->heads_per_kv;
    for (int h = 0; h < kv_heads; h++)
        for (int d = 0; d < site->head_dim; d++) {
            float *x = natural + h * site->heads_per_kv * site->head_dim + d, most = 0;
            for (int i = 0; i < site->heads_per_kv; i++)
                most = x[i * site->head_dim] > most ? x[i * site->head_dim] : most;
            for (int i = 0; i < site->heads_per_kv; i++)
                x[i * site->head_dim] = most;
        }
}

static void measure_channels(struct search *s, float *natural)
{
    const struct atom_smooth_site *site = s->site;
    bool peak = site->scheme->smooth_search == ATOM_SMOOTH_PEAK;
    for (int j = 0; j < s->k; j++)
        natural[j] = peak ? site->peak[j] : (float)sqrt(site->energy[j]);
    share(site, natural);
    for (int i = 0; i < s->k; i++)
        s->size[i] = natural[site->order[i]];
    memset(natural, 0, (size_t)s->k * sizeof *natural);
    for (int r = 0; r < s->n; r++)
        for (int j = 0; j < s->k; j++) {
            float w = fabsf(site->w[(size_t)r * (size_t)s->k + (size_t)j]);
            natural[j] = w > natural[j] ? w : natural[j];
        }
    share(site, natural);
    for (int i = 0; i < s->k; i++)
        s->column[i] = natural[site->order[i]];
}

/* Of geometric mean 1; a channel that is next to nothing, or that nobody reads, keeps its size. */
static void set_factors(struct search *s, double a)
{
    bool peak = s->site->scheme->smooth_search == ATOM_SMOOTH_PEAK;
    double sum = 0;
    float largest = 0;
    int n = 0;
    for (int i = 0; i < s->k; i++)
        largest = s->size[i] > largest ? s->size[i] : largest;
    for (int i = 0; i < s->k; i++) {
        bool alive = s->size[i] > 1e-6f * largest && s->column[i] > 0;
        double f = a * log(alive ? (double)s->size[i] : 1);
        f -= alive && peak ? (1 - a) * log((double)s->column[i]) : 0;
        s->f[i] = alive ? (float)f : NAN;
        sum += alive ? f : 0;
        n += alive;
    }
    for (int i = 0; i < s->k; i++)
        s->f[i] = isnan(s->f[i]) ? 1.0f : (float)exp((double)s->f[i] - sum / n);
}

/* ---- one try ----------------------------------------------------------------------------------------------------- */

static void round_row(void *ctx, int t, int worker)
{
    struct search *s = ctx;
    const struct atom_scheme *scheme = s->site->scheme;
    const struct atom_layout *lay = s->site->lay;
    float *x = s->xq + (size_t)t * (size_t)s->k, *scales = s->scratch + (size_t)worker * (size_t)(4 * lay->k_padded);
    int32_t *sums = (int32_t *)(scales + lay->k_padded);
    int8_t *q = (int8_t *)(sums + lay->k_padded);
    for (int i = 0; i < s->k; i++)
        x[i] = s->x[(size_t)t * (size_t)s->k + (size_t)i] / s->f[i];
    if (scheme->abits == 16)
        return;
    if (scheme->format != ATOM_FORMAT_INT) {
        atom_round_row(&(struct atom_number_form){scheme->format, scheme->outlier_bits}, lay, scheme->act_clip, x);
        return;
    }
    atom_cpu_kernels()->quantize(x, lay, scheme->abits, scheme->act_clip, q, scales, sums);
    for (int r = 0; r < (scheme->outlier_bits == 16 ? lay->first_outlier_run : lay->n_runs); r++) {
        const struct atom_run *run = &lay->runs[r];
        for (int c = 0; c < run->len; c++)
            x[run->first + c] = (float)q[run->offset + c] * scales[run->scale];
    }
}

static int block_rows(const struct search *s, int i) { return s->n - i * BLOCK < BLOCK ? s->n - i * BLOCK : BLOCK; }

/* y [rows, n_rows] = w [rows, k] x' */
static void multiply(const struct search *s, const float *w, const float *x, int rows, float *y)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, s->site->n_rows, s->k, 1.0f, w, s->k, x, s->k, 0.0f, y,
                s->site->n_rows);
}

static void exact_block(void *ctx, int i, int worker)
{
    struct search *s = ctx;
    const size_t n_rows = (size_t)s->site->n_rows;
    float *y = s->y + (size_t)i * BLOCK * n_rows;
    (void)worker;
    multiply(s, s->w + (size_t)i * BLOCK * (size_t)s->k, s->x, block_rows(s, i), y);
    for (int r = 0; r < block_rows(s, i); r++) {
        s->sizes[i * BLOCK + r] = 0;
        for (size_t t = 0; t < n_rows; t++)
            s->sizes[i * BLOCK + r] += (double)y[(size_t)r * n_rows + t] * (double)y[(size_t)r * n_rows + t];
    }
}

static void try_block(void *ctx, int i, int worker)
{
    struct search *s = ctx;
    const size_t n_rows = (size_t)s->site->n_rows, k = (size_t)s->k;
    float *w = s->scratch + (size_t)worker * BLOCK * (k + n_rows), *y = w + BLOCK * k;
    const float *exact = s->y + (size_t)i * BLOCK * n_rows;
    atom_qlinear_floats(s->q, i * BLOCK, block_rows(s, i), w);
    multiply(s, w, s->xq, block_rows(s, i), y);
    for (int r = 0; r < block_rows(s, i); r++) {
        double sum = 0;
        for (size_t t = 0; t < n_rows; t++) {
            double e = (double)(y[(size_t)r * n_rows + t] - exact[(size_t)r * n_rows + t]);
            sum += e * e;
        }
        s->errors[i * BLOCK + r] = sum;
    }
}

static double relative_error(const struct search *s)
{
    double total = 0;
    for (int p = 0, r = 0; p < s->site->n_parts; p++) {
        double error = 0, size = 0;
        for (int end = r + s->site->part_rows[p]; r < end; r++) {
            error += s->errors[r];
            size += s->sizes[r];
        }
        total += size > 0 ? error / size : 0;
    }
    return total;
}

static enum atom_status try_factors(struct search *s, double *error, struct atom_error *err)
{
    struct atom_weight_options wo;
    for (int i = 0; i < s->k; i++)
        s->weight[i] = (float)(s->site->energy[s->site->order[i]] / ((double)s->f[i] * (double)s->f[i]));
    for (size_t r = 0; r < (size_t)s->n; r++)
        for (size_t i = 0; i < (size_t)s->k; i++)
            s->wf[r * (size_t)s->k + i] = s->w[r * (size_t)s->k + i] * s->f[i];
    atom_weight_options_of(s->site->scheme, s->k, &wo);
    enum atom_status st =
        atom_quantize_weighed("weights that are tried", s->wf, s->n, s->k, &wo, s->weight, &s->q, err);
    if (st)
        return st;
    int before = atom_blas_threads(1);
    atom_parallel(s->site->n_rows, round_row, s);
    atom_parallel(s->n_blocks, try_block, s);
    atom_blas_threads(before);
    atom_qlinear_free(s->q);
    s->q = NULL;
    *error = relative_error(s);
    return ATOM_OK;
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

static enum atom_status make_room(struct search *s, struct atom_error *err)
{
    const size_t k = (size_t)s->k, n = (size_t)s->n, n_rows = (size_t)s->site->n_rows;
    const size_t block = BLOCK * (k + n_rows), row = 4 * (size_t)s->site->lay->k_padded;
    const size_t scratch = (block > row ? block : row) * (size_t)atom_pool_size();
    s->x = malloc(n_rows * k * sizeof(float));
    s->xq = malloc(n_rows * k * sizeof(float));
    s->w = malloc(n * k * sizeof(float));
    s->wf = malloc(n * k * sizeof(float));
    s->y = malloc(n * n_rows * sizeof(float));
    s->size = malloc(5 * k * sizeof(float));
    s->sizes = malloc(2 * n * sizeof(double));
    s->scratch = malloc(scratch * sizeof(float));
    if (!s->x || !s->xq || !s->w || !s->wf || !s->y || !s->size || !s->sizes || !s->scratch)
        return atom_fail_nomem(err, 2 * n * k * sizeof(float));
    s->column = s->size + k;
    s->f = s->column + k;
    s->best = s->f + k;
    s->weight = s->best + k;
    s->errors = s->sizes + n;
    return ATOM_OK;
}

static void free_room(struct search *s)
{
    free(s->x);
    free(s->xq);
    free(s->w);
    free(s->wf);
    free(s->y);
    free(s->size);
    free(s->sizes);
    free(s->scratch);
}

static void load(struct search *s)
{
    const int32_t *order = s->site->order;
    const size_t k = (size_t)s->k;
    for (size_t t = 0; t < (size_t)s->site->n_rows; t++)
        for (size_t i = 0; i < k; i++)
            s->x[t * k + i] = s->site->rows[t * k + (size_t)order[i]];
    for (size_t r = 0; r < (size_t)s->n; r++)
        for (size_t i = 0; i < k; i++)
            s->w[r * k + i] = s->site->w[r * k + (size_t)order[i]];
    measure_channels(s, s->f);
    int before = atom_blas_threads(1);
    atom_parallel(s->n_blocks, exact_block, s);
    atom_blas_threads(before);
}

static enum atom_status try_all(struct search *s, struct atom_smooth_found *found, struct atom_error *err)
{
    for (int i = -1; i <= ATOM_SMOOTH_STEPS; i++) {
        double a = (double)s->site->scheme->smooth * i / ATOM_SMOOTH_STEPS, error;
        if (i < 0)
            for (int j = 0; j < s->k; j++)
                s->f[j] = 1;
        else
            set_factors(s, a);
        enum atom_status st = try_factors(s, &error, err);
        if (st)
            return st;
        if (i >= 0 && !(error < found->error))
            continue;
        *found = (struct atom_smooth_found){(float)a, error, i < 0 ? error : found->error_before};
        memcpy(s->best, s->f, (size_t)s->k * sizeof *s->f);
    }
    return ATOM_OK;
}

enum atom_status atom_smooth_find(const struct atom_smooth_site *site, float *f, struct atom_smooth_found *found,
                                  struct atom_error *err)
{
    struct search s = {.site = site, .k = site->lay->k};
    struct atom_smooth_found got = {0};
    for (int p = 0; p < site->n_parts; p++)
        s.n += site->part_rows[p];
    s.n_blocks = (s.n + BLOCK - 1) / BLOCK;
    enum atom_status st = make_room(&s, err);
    if (!st)
        load(&s);
    st = st ? st : try_all(&s, &got, err);
    for (int i = 0; i < s.k && !st; i++)
        f[site->order[i]] = s.best[i];
    if (!st && found)
        *found = got;
    free_room(&s);
    return st;
}
