/* SPDX-License-Identifier: Apache-2.0 */
/* The checkpoint's tensors of a linear's parts, read as one matrix of stacked rows: what packing kernels start from. */
#ifndef ATOM_CUDA_STACKED_CUH
#define ATOM_CUDA_STACKED_CUH

#include "cuda/ops.h"

struct stacked {
    struct atom_cuda_site site;
    struct atom_cuda_tensors parts[ATOM_CUDA_MAX_PARTS];
    int n_parts, n;
    bool by_turns;
};

/* The part that stacked row r comes from; r becomes its row there. False: a row past the last. */
static __device__ inline bool row_of(const struct stacked &p, int &r, int &part)
{
    part = 0;
    if (r >= p.n)
        return false;
    if (p.by_turns) {
        part = r / 8 % 2;
        r = r / 16 * 8 + r % 8;
        return true;
    }
    while (r >= p.parts[part].n)
        r -= p.parts[part++].n;
    return true;
}

/* q of stacked row r, channel c of a run; 0 past the last of either. */
static __device__ inline int stored_q(const struct stacked &p, int r, int run, int c)
{
    int part, normal = p.site.k - p.site.outliers;
    if (!row_of(p, r, part))
        return 0;
    const struct atom_cuda_tensors &t = p.parts[part];
    if (run >= p.site.n_groups) {
        c += (run - p.site.n_groups) * ATOM_CUDA_RUN;
        return c < p.site.outliers ? t.outlier_qweight[(size_t)r * p.site.outliers + c] : 0;
    }
    c += run * ATOM_CUDA_RUN;
    if (c >= normal)
        return 0;
    int both = t.qweight[(size_t)r * ((normal + 1) / 2) + c / 2];
    return (c % 2 ? both >> 4 : both & 15) - 8;
}

static __device__ inline uint16_t stored_scale(const struct stacked &p, int r, int run)
{
    int part;
    if (!row_of(p, r, part))
        return 0;
    const struct atom_cuda_tensors &t = p.parts[part];
    if (run >= p.site.n_groups)
        return t.outlier_scales[r];
    return t.scales[(size_t)(r / t.rows_per_scale) * p.site.n_groups + run];
}

#endif
