/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/gptq.h"

#include "base/thread.h"
#include "quant/tile.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

struct gptq {
    struct atom_tile *tiles; /* one a worker */
    float *errors;           /* [workers, block, ld] */
    const struct atom_hessian *hessian;
    const float *w;
    int block;
};

/* Where the block that starts at column j ends: whole groups, or part of one that started no later than the block. A
 * group's first column then always comes after every error before it has reached the whole group. */
static int block_end(const struct atom_qlinear *q, int j, int block)
{
    const int main = q->k - q->outliers, in_group = j % q->group;
    int end;
    if (in_group || q->group > block)
        end = q->group - in_group < block ? j + q->group - in_group : j + block;
    else
        end = j + block / q->group * q->group;
    return end < main ? end : main;
}

/* Rounds column j of the tile to its integers (or numbers of E2M1), leaving its error over U[j,j] in e. */
static void round_column(struct atom_tile *t, int j, float diagonal, float *restrict e)
{
    const float *restrict s = t->s, *restrict q = t->rounded;
    float *restrict w = t->w + (size_t)j * (size_t)t->ld;
    atom_tile_round(t, j, s, t->rounded);
    for (int r = 0; r < t->ld; r++) {
        e[r] = (w[r] - q[r] * s[r]) / diagonal;
        w[r] = q[r];
    }
}

static void subtract(float *restrict w, float u, const float *restrict e, int n)
{
    for (int r = 0; r < n; r++)
        w[r] -= u * e[r];
}

static void quantize_block(struct atom_tile *t, const struct atom_hessian *hs, int j0, int j1, float *errors)
{
    const size_t ld = (size_t)t->ld, k = (size_t)hs->k;
    for (int j = j0; j < j1; j++) {
        const float *u = hs->u + (size_t)j * k;
        float *e = errors + (size_t)(j - j0) * ld;
        if (j % t->q->group == 0)
            atom_tile_scale(t, j / t->q->group);
        round_column(t, j, u[j], e);
        for (int i = j + 1; i < j1; i++)
            subtract(t->w + (size_t)i * ld, u[i], e, t->ld);
    }
    if (j1 < hs->k)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, hs->k - j1, t->ld, j1 - j0, -1.0f,
                    hs->u + (size_t)j0 * k + (size_t)j1, hs->k, errors, t->ld, 1.0f, t->w + (size_t)j1 * ld, t->ld);
}

static void quantize_tile(void *ctx, int i, int worker)
{
    const struct gptq *job = ctx;
    struct atom_tile *t = &job->tiles[worker];
    const struct atom_hessian *hs = job->hessian;
    const int main = hs->k - t->q->outliers;
    float *errors = job->errors + (size_t)worker * (size_t)job->block * (size_t)t->ld;
    atom_tile_load(t, job->w, i);
    for (int j = 0; j < hs->k && hs->n_dead; j++)
        if (hs->h[(size_t)j * ((size_t)hs->k + 1)] == 0)
            memset(t->w + (size_t)j * (size_t)t->ld, 0, (size_t)t->ld * sizeof(float));
    for (int j = 0, end; j < main; j = end) {
        end = block_end(t->q, j, job->block);
        quantize_block(t, hs, j, end, errors);
    }
    atom_tile_store(t);
}

enum atom_status atom_gptq_blocked(const char *name, const float *w, int n, int k,
                                   const struct atom_weight_options *opt, const struct atom_hessian *hessian, int block,
                                   struct atom_qlinear **out, struct atom_error *err)
{
    if (hessian->k != k)
        return atom_fail(err, ATOM_ERR_INVALID, "tensor '%s': %d inputs, a Hessian of %d", name, k, hessian->k);
    struct atom_qlinear *q = NULL;
    struct gptq job = {.hessian = hessian, .w = w, .block = block};
    float *weight = NULL;
    enum atom_status st = atom_qlinear_create(name, n, k, opt, &q, err);
    if (!st)
        st = atom_weights_check(name, w, n, k, err);
    if (!st)
        st = atom_tiles_create(q, opt, &job.tiles, err);
    if (st)
        goto fail;
    atom_qlinear_measure(q, w);
    const size_t n_bytes = (size_t)atom_pool_size() * (size_t)block * (size_t)job.tiles->ld * sizeof(float);
    job.errors = malloc(n_bytes);
    weight = atom_hessian_diagonal(hessian);
    if (!job.errors || !weight) {
        st = atom_fail_nomem(err, n_bytes);
        goto fail;
    }
    for (int i = 0; i < atom_pool_size(); i++) {
        job.tiles[i].gptq = true;
        job.tiles[i].weight = weight;
    }
    int before = atom_blas_threads(1);
    atom_parallel(atom_tile_count(q), quantize_tile, &job);
    atom_blas_threads(before);
    st = atom_qlinear_fits(name, q, err);
    if (st)
        goto fail;
    *out = q;
    q = NULL;
fail:
    atom_tiles_free(job.tiles);
    free(job.errors);
    free(weight);
    atom_qlinear_free(q);
    return st;
}

enum atom_status atom_gptq(const char *name, const float *w, int n, int k, const struct atom_weight_options *opt,
                           const struct atom_hessian *hessian, struct atom_qlinear **out, struct atom_error *err)
{
    return atom_gptq_blocked(name, w, n, k, opt, hessian, 128, out, err);
}
