/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/hessian.h"

#include "base/thread.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EDGE = 64, ROWS = 64 };

int atom_blas_threads(int n)
{
    int before = openblas_get_num_threads();
    openblas_set_num_threads(n);
    return before;
}

struct fill {
    float *h;
    float *u;
    int k;
    float scale;
};

/* Scales EDGE rows of the upper triangle and mirrors them below it. */
static void mirror_rows(void *ctx, int i, int worker)
{
    (void)worker;
    const struct fill *f = ctx;
    const int k = f->k, first = i * EDGE, end = first + EDGE < k ? first + EDGE : k;
    for (int c0 = first; c0 < k; c0 += EDGE) {
        int c1 = c0 + EDGE < k ? c0 + EDGE : k;
        for (int r = first; r < end; r++)
            for (int c = c0 > r ? c0 : r; c < c1; c++) {
                float x = f->h[(size_t)r * (size_t)k + (size_t)c] * f->scale;
                f->h[(size_t)r * (size_t)k + (size_t)c] = x;
                f->h[(size_t)c * (size_t)k + (size_t)r] = x;
            }
    }
}

/* u = H with both indices turned round, which is the flat array backwards. */
static void reverse_rows(void *ctx, int i, int worker)
{
    (void)worker;
    const struct fill *f = ctx;
    const size_t k = (size_t)f->k, last = k * k - 1;
    const size_t first = (size_t)i * EDGE * k, end = first + EDGE * k < last + 1 ? first + EDGE * k : last + 1;
    for (size_t a = first; a < end; a++)
        f->u[a] = f->h[last - a];
}

static void reverse_in_place(float *a, size_t n)
{
    for (size_t i = 0, j = n - 1; i < j; i++, j--) {
        float x = a[i];
        a[i] = a[j];
        a[j] = x;
    }
}

/* H + damp * mean = R R' with R upper is the Cholesky of H turned round, turned back; U = R^-1. LAPACK is called by
 * columns, which sees the transpose: upper for our lower, and no copy is made. */
static bool factor(struct atom_hessian *hs, double mean)
{
    const int k = hs->k;
    const size_t n = (size_t)k * (size_t)k;
    struct fill f = {hs->h, hs->u, k, 0};
    atom_parallel((k - 1) / EDGE + 1, reverse_rows, &f);
    for (int i = 0; i < k; i++) {
        float *d = &hs->u[n - 1 - (size_t)i * ((size_t)k + 1)];
        *d = (float)((*d == 0 ? 1.0 : (double)*d) + (double)hs->damp * mean);
    }
    if (LAPACKE_spotrf_work(LAPACK_COL_MAJOR, 'U', k, hs->u, k) != 0)
        return false;
    reverse_in_place(hs->u, n);
    if (LAPACKE_strtri_work(LAPACK_COL_MAJOR, 'L', 'N', k, hs->u, k) != 0)
        return false;
    for (int r = 0; r < k; r++) {
        memset(hs->u + (size_t)r * (size_t)k, 0, (size_t)r * sizeof *hs->u);
        if (!isfinite(hs->u[(size_t)r * ((size_t)k + 1)]))
            return false;
    }
    return true;
}

static enum atom_status check_sum(const char *site, const float *sum, int k, struct atom_error *err)
{
    for (int r = 0; r < k; r++)
        for (int c = r; c < k; c++)
            if (!isfinite(sum[(size_t)r * (size_t)k + (size_t)c]))
                return atom_fail(err, ATOM_ERR_NUMERIC, "site '%s': the Hessian is not finite at [%d, %d]", site, r, c);
    return ATOM_OK;
}

static enum atom_status factor_damped(const char *site, struct atom_hessian *hs, struct atom_error *err)
{
    double mean = 0;
    for (int i = 0; i < hs->k; i++) {
        float d = hs->h[(size_t)i * ((size_t)hs->k + 1)];
        hs->n_dead += d == 0;
        mean += d == 0 ? 1.0 : (double)d;
    }
    mean /= hs->k;
    for (hs->damp = 0.01f; hs->damp < 20; hs->damp *= 10)
        if (factor(hs, mean))
            return ATOM_OK;
    return atom_fail(err, ATOM_ERR_NUMERIC, "site '%s': the Hessian has no Cholesky factor", site);
}

enum atom_status atom_hessian_create(const char *site, float *sum, int k, int64_t n_tokens, struct atom_hessian **out,
                                     struct atom_error *err)
{
    if (n_tokens < 1 || k < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "site '%s': a Hessian of %d channels over %lld tokens", site, k,
                         (long long)n_tokens);
    enum atom_status st = check_sum(site, sum, k, err);
    if (st)
        return st;
    const size_t n_bytes = (size_t)k * (size_t)k * sizeof(float);
    struct atom_hessian *hs = calloc(1, sizeof *hs);
    float *u = malloc(n_bytes);
    if (!hs || !u) {
        free(hs);
        free(u);
        return atom_fail_nomem(err, n_bytes);
    }
    hs->k = k;
    hs->h = sum;
    hs->u = u;
    struct fill f = {sum, u, k, (float)(2.0 / (double)n_tokens)};
    atom_parallel((k - 1) / EDGE + 1, mirror_rows, &f);
    int before = atom_blas_threads(1); /* the factor is then the same for any number of threads */
    st = factor_damped(site, hs, err);
    atom_blas_threads(before);
    if (st) {
        atom_hessian_free(hs);
        return st;
    }
    *out = hs;
    return ATOM_OK;
}

float *atom_hessian_diagonal(const struct atom_hessian *hs)
{
    float *d = malloc((size_t)hs->k * sizeof *d);
    for (int i = 0; d && i < hs->k; i++)
        d[i] = hs->h[(size_t)i * ((size_t)hs->k + 1)];
    return d;
}

void atom_hessian_free(struct atom_hessian *hs)
{
    if (!hs)
        return;
    free(hs->u);
    free(hs);
}

/* Half the work of a whole product: a H a' = 2 a T a' - a diag(H) a', with T the upper triangle of H. */
double atom_hessian_norm(const struct atom_hessian *hs, const float *a, int rows, float *scratch)
{
    const int k = hs->k;
    double sum = 0;
    memcpy(scratch, a, (size_t)rows * (size_t)k * sizeof *a);
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, k, 1.0f, hs->h, k, scratch, k);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < k; j++) {
            size_t at = (size_t)r * (size_t)k + (size_t)j;
            double x = (double)a[at], diagonal = (double)hs->h[(size_t)j * ((size_t)k + 1)];
            sum += x * (2 * (double)scratch[at] - diagonal * x);
        }
    return sum > 0 ? sum : 0;
}

struct retarget {
    const struct atom_hessian *hs;
    const float *cross;
    float *w;
    float *moves; /* [workers, ROWS, k] */
    float scale;
    int n;
};

static void retarget_rows(void *ctx, int i, int worker)
{
    const struct retarget *t = ctx;
    const int k = t->hs->k, first = i * ROWS, rows = t->n - first < ROWS ? t->n - first : ROWS;
    float *w = t->w + (size_t)first * (size_t)k, *move = t->moves + (size_t)worker * ROWS * (size_t)k;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, k, k, t->scale, w, k, t->cross, k, 0.0f, move, k);
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, rows, k, 1.0f, t->hs->u, k, move, k);
    cblas_strmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, k, 1.0f, t->hs->u, k, move, k);
    for (size_t j = 0; j < (size_t)rows * (size_t)k; j++)
        w[j] += move[j];
}

enum atom_status atom_retarget(const struct atom_hessian *hs, const float *cross, int64_t n_tokens, float alpha,
                               float *w, int n, struct atom_error *err)
{
    if (n_tokens < 1 || !(alpha >= 0 && alpha <= 1))
        return atom_fail(err, ATOM_ERR_INVALID, "retarget: strength %g over %lld tokens", (double)alpha,
                         (long long)n_tokens);
    const size_t n_bytes = (size_t)atom_pool_size() * ROWS * (size_t)hs->k * sizeof(float);
    float *moves = malloc(n_bytes);
    if (!moves)
        return atom_fail_nomem(err, n_bytes);
    struct retarget t = {hs, cross, w, moves, (float)((double)alpha * 2.0 / (double)n_tokens), n};
    int before = atom_blas_threads(1);
    atom_parallel((n - 1) / ROWS + 1, retarget_rows, &t);
    atom_blas_threads(before);
    free(moves);
    return ATOM_OK;
}
