/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `atom bench gpu`, understood: which matrices, which models, which schemes. */
#ifndef ATOM_BENCH_GPU_PLAN_H
#define ATOM_BENCH_GPU_PLAN_H

#include "bench/gpu_bench.h"
#include "bench/shape.h"

enum { ATOM_GPU_MAX_MATRICES = 4 * ATOM_BENCH_MAX_LIST };

struct atom_gpu_matrix {
    int n, k, outliers;         /* 128 outliers, a quarter of k at most */
    char shape[ATOM_GPU_NAME];  /* "11008x4096" */
    char whose[ATOM_GPU_WHOSE]; /* "7b qkv, 8b o"; empty: given by numbers */
};

struct atom_gpu_plan {
    struct atom_gpu_matrix matrices[ATOM_GPU_MAX_MATRICES]; /* none twice */
    int n_matrices;
    const struct atom_shape *models[ATOM_BENCH_MAX_LIST];
    int n_models;
    bool schemes[ATOM_GPU_N_SCHEMES];
    struct atom_bench_list tokens; /* ascending */
    int max_tok;
};

/* ATOM_ERR_INVALID for shapes and schemes that are not known. */
enum atom_status atom_gpu_plan_make(const struct atom_gpu_options *opt, struct atom_gpu_plan *out,
                                    struct atom_error *err);

#endif
