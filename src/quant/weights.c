/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/weights.h"

#include "base/half.h"
#include "base/thread.h"
#include "quant/hessian.h"
#include "quant/order.h"
#include "quant/tile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void atom_weight_options_of(const struct atom_scheme *scheme, int k, struct atom_weight_options *out)
{
    *out = (struct atom_weight_options){
        .bits = scheme->wbits,
        .group = scheme->group,
        .outliers = atom_outliers_of(scheme->outliers, k),
        .rows_per_scale = scheme->rows_per_scale,
        .clip = scheme->weight_clip,
        .search = scheme->clip_search,
        .form = {scheme->format, scheme->outlier_bits},
    };
}

static enum atom_status check_options(const char *name, int n, int k, const struct atom_weight_options *opt,
                                      struct atom_error *err)
{
    if (n < 1 || k < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': shape [%d, %d]", name, n, k);
    if (opt->bits != 8 && (opt->bits < 2 || opt->bits > 4))
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': %d bits a weight; 8, 4, 3 and 2 are possible", name,
                         opt->bits);
    if (opt->form.format != ATOM_FORMAT_INT && opt->bits != 4)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': %d bits a weight; %s has 4", name, opt->bits,
                         atom_format_name(opt->form.format));
    if (opt->group < 0 || opt->outliers < 0 || opt->outliers > k || opt->rows_per_scale < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': groups of %d, %d outliers of %d, %d rows a scale", name,
                         opt->group, opt->outliers, k, opt->rows_per_scale);
    if (!(opt->clip > 0 && opt->clip <= 2))
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': clip ratio %g is not in (0, 2]", name, (double)opt->clip);
    return ATOM_OK;
}

enum atom_status atom_qlinear_create(const char *name, int n, int k, const struct atom_weight_options *opt,
                                     struct atom_qlinear **out, struct atom_error *err)
{
    enum atom_status st = check_options(name, n, k, opt, err);
    if (st)
        return st;
    const int main = k - opt->outliers;
    const int group = opt->group && opt->group < main ? opt->group : main ? main : 1;
    const int rows_per_scale = opt->rows_per_scale < n ? opt->rows_per_scale : n;
    struct atom_qlinear *q = calloc(1, sizeof *q);
    if (!q)
        return atom_fail_nomem(err, sizeof *q);
    *q = (struct atom_qlinear){.n = n,
                               .k = k,
                               .outliers = opt->outliers,
                               .group = group,
                               .bits = opt->bits,
                               .form = opt->form,
                               .tensor_scale = 1.0f,
                               .groups = (main + group - 1) / group,
                               .rows_per_scale = rows_per_scale};
    const size_t n_values = (size_t)n * (size_t)main, n_outliers = (size_t)n * (size_t)q->outliers;
    const size_t n_scales = (size_t)((n - 1) / rows_per_scale + 1) * (size_t)q->groups;
    q->q = malloc(n_values + 1);
    q->scales = malloc((n_scales + 1) * sizeof *q->scales);
    bool halves = q->outliers && q->form.outlier_bits == 16, eighths = q->outliers && !halves;
    q->outlier_q = eighths ? malloc(n_outliers) : NULL;
    q->outlier_scales = eighths ? malloc((size_t)n * sizeof *q->outlier_scales) : NULL;
    q->outlier_halves = halves ? malloc(n_outliers * sizeof *q->outlier_halves) : NULL;
    if (!q->q || !q->scales || (eighths && (!q->outlier_q || !q->outlier_scales)) || (halves && !q->outlier_halves)) {
        atom_qlinear_free(q);
        return atom_fail_nomem(err, n_values + 2 * n_outliers + n_scales * sizeof *q->scales);
    }
    *out = q;
    return ATOM_OK;
}

void atom_qlinear_free(struct atom_qlinear *q)
{
    if (!q)
        return;
    free(q->q);
    free(q->scales);
    free(q->outlier_q);
    free(q->outlier_scales);
    free(q->outlier_halves);
    free(q);
}

static void outlier_floats(const struct atom_qlinear *q, int row, float *out)
{
    const size_t first = (size_t)row * (size_t)q->outliers;
    const float s = q->outlier_q ? atom_f16_float(q->outlier_scales[row]) : 1.0f;
    for (int j = 0; j < q->outliers; j++) {
        const size_t i = first + (size_t)j;
        if (q->outlier_halves)
            out[j] = atom_f16_float(q->outlier_halves[i]);
        else if (q->form.format == ATOM_FORMAT_INT)
            out[j] = (float)q->outlier_q[i] * s;
        else
            out[j] = atom_e4m3_float((uint8_t)q->outlier_q[i]) * s;
    }
}

void atom_qlinear_floats(const struct atom_qlinear *q, int first, int n, float *out)
{
    const int main = q->k - q->outliers;
    for (int r = first; r < first + n; r++, out += q->k) {
        const int8_t *values = q->q + (size_t)r * (size_t)main;
        const uint16_t *scales = q->scales + (size_t)(r / q->rows_per_scale) * (size_t)q->groups;
        for (int g = 0, j = 0; g < q->groups; g++) {
            const float s = atom_weight_unit(q->form.format) * atom_weight_scale(q, scales[g]);
            for (int end = j + q->group < main ? j + q->group : main; j < end; j++)
                out[j] = (float)values[j] * s;
        }
        outlier_floats(q, r, out + main);
    }
}

double atom_qlinear_bits(const struct atom_qlinear *q)
{
    const double main = q->k - q->outliers, n = q->n, sets = (q->n - 1) / q->rows_per_scale + 1;
    const double values = q->bits == 8 ? main : (double)((q->k - q->outliers + 1) / 2);
    const double outliers = q->outlier_halves ? 2 * n * q->outliers : q->outliers ? n * q->outliers + 2 * n : 0;
    const bool bytes = q->form.format == ATOM_FORMAT_NVFP4 || q->form.format == ATOM_FORMAT_MXFP4;
    const double scales = (bytes ? 1 : 2) * sets * q->groups + (q->form.format == ATOM_FORMAT_NVFP4 ? 4 : 0);
    return 8 * (n * values + scales + outliers) / (n * q->k);
}

enum atom_status atom_weights_check(const char *name, const float *w, int n, int k, struct atom_error *err)
{
    for (int r = 0; r < n; r++) {
        const float *row = w + (size_t)r * (size_t)k;
        float sum = 0; /* stays 0 unless a value is not finite */
        for (int j = 0; j < k; j++)
            sum += row[j] * 0.0f;
        for (int j = 0; j < k && sum != 0; j++)
            if (!isfinite(row[j]))
                return atom_fail(err, ATOM_ERR_NUMERIC, "tensor '%s': the weight at [%d, %d] is %s", name, r, j,
                                 isnan(row[j]) ? "not a number" : "infinite");
    }
    return ATOM_OK;
}

void atom_qlinear_measure(struct atom_qlinear *q, const float *w)
{
    float max = 0;
    if (q->form.format != ATOM_FORMAT_NVFP4)
        return;
    for (int r = 0; r < q->n; r++)
        for (int j = 0; j < q->k - q->outliers; j++)
            max = fmaxf(max, fabsf(w[(size_t)r * (size_t)q->k + (size_t)j]));
    q->tensor_scale = atom_tensor_scale(q->form.format, max);
}

struct rtn {
    struct atom_tile *tiles; /* one a worker */
    const float *w;
};

static void round_tile(void *ctx, int i, int worker)
{
    const struct rtn *job = ctx;
    struct atom_tile *t = &job->tiles[worker];
    const struct atom_qlinear *q = t->q;
    atom_tile_load(t, job->w, i);
    for (int g = 0, j = 0; g < q->groups; g++) {
        atom_tile_scale(t, g);
        for (int end = j + q->group < q->k - q->outliers ? j + q->group : q->k - q->outliers; j < end; j++) {
            atom_tile_round(t, j, t->s, t->rounded);
            memcpy(t->w + (size_t)j * (size_t)t->ld, t->rounded, (size_t)t->ld * sizeof *t->rounded);
        }
    }
    atom_tile_store(t);
}

enum atom_status atom_quantize_weighed(const char *name, const float *w, int n, int k,
                                       const struct atom_weight_options *opt, const float *weight,
                                       struct atom_qlinear **out, struct atom_error *err)
{
    struct atom_qlinear *q = NULL;
    struct atom_tile *tiles = NULL;
    enum atom_status st = atom_qlinear_create(name, n, k, opt, &q, err);
    if (!st)
        st = atom_weights_check(name, w, n, k, err);
    if (!st)
        st = atom_tiles_create(q, opt, &tiles, err);
    if (st)
        goto fail;
    atom_qlinear_measure(q, w);
    for (int i = 0; i < atom_pool_size(); i++)
        tiles[i].weight = weight;
    atom_parallel(atom_tile_count(q), round_tile, &(struct rtn){tiles, w});
    *out = q;
    q = NULL;
fail:
    atom_tiles_free(tiles);
    atom_qlinear_free(q);
    return st;
}

/* The first of n codes of halves that is the largest finite one or above; n: none is. */
static size_t first_cut(const uint16_t *codes, size_t n, uint16_t most)
{
    size_t i = 0;
    while (i < n && (codes[i] & 0x7fff) < most)
        i++;
    return i;
}

enum atom_status atom_qlinear_fits(const char *name, const struct atom_qlinear *q, struct atom_error *err)
{
    enum { MOST = 0x7bff, INFINITE = 0x7c00 };
    const bool halves = q->form.format == ATOM_FORMAT_INT || q->form.format == ATOM_FORMAT_FP4;
    const size_t n = (size_t)q->n, groups = (size_t)q->groups, o = (size_t)q->outliers;
    const size_t n_scales = halves ? ((n - 1) / (size_t)q->rows_per_scale + 1) * groups : 0;
    const size_t n_outlier_scales = q->outlier_scales ? n : 0, n_outliers = q->outlier_halves ? n * o : 0;
    static const char why[] = "half precision, which holds less than 65504";
    size_t i = first_cut(q->scales, n_scales, MOST);
    if (i < n_scales)
        return atom_fail(err, ATOM_ERR_NUMERIC, "tensor '%s': weights of row %zu are too large for a scale of %s", name,
                         i / groups * (size_t)q->rows_per_scale, why);
    i = first_cut(q->outlier_scales, n_outlier_scales, MOST);
    if (i < n_outlier_scales)
        return atom_fail(err, ATOM_ERR_NUMERIC, "tensor '%s': outliers of row %zu are too large for a scale of %s",
                         name, i, why);
    i = first_cut(q->outlier_halves, n_outliers, INFINITE);
    if (i < n_outliers)
        return atom_fail(err, ATOM_ERR_NUMERIC, "tensor '%s': an outlier of row %zu is too large for %s", name, i / o,
                         why);
    return ATOM_OK;
}

enum atom_status atom_quantize_rtn(const char *name, const float *w, int n, int k,
                                   const struct atom_weight_options *opt, const struct atom_hessian *hessian,
                                   struct atom_qlinear **out, struct atom_error *err)
{
    float *weight = hessian && opt->search ? atom_hessian_diagonal(hessian) : NULL;
    if (hessian && opt->search && !weight)
        return atom_fail_nomem(err, (size_t)k * sizeof *weight);
    struct atom_qlinear *q = NULL;
    enum atom_status st = atom_quantize_weighed(name, w, n, k, opt, weight, &q, err);
    free(weight);
    st = st ? st : atom_qlinear_fits(name, q, err);
    if (st)
        atom_qlinear_free(q);
    else
        *out = q;
    return st;
}

enum { ERROR_ROWS = 64 };

struct error_job {
    const struct atom_qlinear *q;
    const float *w;
    const struct atom_hessian *hessian;
    float *rows;       /* [workers, 2, ERROR_ROWS, k] */
    double (*sums)[2]; /* by task, so that they add up in one order */
};

static double norm(const struct atom_hessian *hessian, const float *a, int rows, int k, float *scratch)
{
    if (hessian)
        return atom_hessian_norm(hessian, a, rows, scratch);
    double sum = 0;
    for (size_t i = 0; i < (size_t)rows * (size_t)k; i++)
        sum += (double)a[i] * (double)a[i];
    return sum;
}

static void error_of_rows(void *ctx, int i, int worker)
{
    const struct error_job *job = ctx;
    const int k = job->q->k, first = i * ERROR_ROWS;
    const int rows = job->q->n - first < ERROR_ROWS ? job->q->n - first : ERROR_ROWS;
    float *e = job->rows + (size_t)worker * 2 * ERROR_ROWS * (size_t)k, *scratch = e + (size_t)ERROR_ROWS * (size_t)k;
    const float *w = job->w + (size_t)first * (size_t)k;
    job->sums[i][1] = norm(job->hessian, w, rows, k, scratch);
    atom_qlinear_floats(job->q, first, rows, e);
    for (size_t j = 0; j < (size_t)rows * (size_t)k; j++)
        e[j] -= w[j];
    job->sums[i][0] = norm(job->hessian, e, rows, k, scratch);
}

enum atom_status atom_qlinear_error(const struct atom_qlinear *q, const float *w, const struct atom_hessian *hessian,
                                    double *out, struct atom_error *err)
{
    const int tasks = (q->n - 1) / ERROR_ROWS + 1;
    const size_t n_bytes = (size_t)atom_pool_size() * 2 * ERROR_ROWS * (size_t)q->k * sizeof(float);
    struct error_job job = {q, w, hessian, malloc(n_bytes), malloc((size_t)tasks * sizeof *job.sums)};
    enum atom_status st = ATOM_OK;
    if (!job.rows || !job.sums) {
        st = atom_fail_nomem(err, n_bytes);
        goto fail;
    }
    int before = atom_blas_threads(1);
    atom_parallel(tasks, error_of_rows, &job);
    atom_blas_threads(before);
    double error = 0, whole = 0;
    for (int i = 0; i < tasks; i++) {
        error += job.sums[i][0];
        whole += job.sums[i][1];
    }
    *out = whole > 0 ? sqrt(error / whole) : 0;
fail:
    free(job.rows);
    free(job.sums);
    return st;
}
