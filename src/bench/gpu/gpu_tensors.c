/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_tensors.h"

#include "bench/gpu/gpu_random.h"

enum { ROWS_PER_SCALE = 2 };

/* A seed for each tensor of each copy. */
enum { QWEIGHT, SCALES, OUTLIERS, OUTLIER_SCALES, N_TENSORS };
static uint32_t seed_of(int tensor, int copy) { return (uint32_t)(1000 + tensor + copy * N_TENSORS); }

enum atom_status atom_gpu_tensors_make(const struct atom_cuda_site *site, int n, int copy,
                                       struct atom_cuda_tensors *out, struct atom_error *err)
{
    size_t rows = (size_t)n, normal = (size_t)(site->k - site->outliers), o = (size_t)site->outliers;
    size_t sets = (rows + ROWS_PER_SCALE - 1) / ROWS_PER_SCALE * (size_t)site->n_groups;
    const struct {
        size_t n_bytes;
        enum atom_gpu_random kind;
    } tensors[N_TENSORS] = {[QWEIGHT] = {rows * ((normal + 1) / 2), ATOM_GPU_BYTES},
                            [SCALES] = {2 * sets, ATOM_GPU_SCALES},
                            [OUTLIERS] = {rows * o, ATOM_GPU_BYTES},
                            [OUTLIER_SCALES] = {2 * rows, ATOM_GPU_SCALES}};
    void *at[N_TENSORS] = {NULL};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < N_TENSORS && !st; i++)
        st = atom_gpu_alloc_random(tensors[i].n_bytes + 4, tensors[i].kind, seed_of(i, copy), &at[i], err);
    *out = (struct atom_cuda_tensors){.n = n,
                                      .rows_per_scale = ROWS_PER_SCALE,
                                      .qweight = at[QWEIGHT],
                                      .scales = at[SCALES],
                                      .outlier_qweight = at[OUTLIERS],
                                      .outlier_scales = at[OUTLIER_SCALES]};
    return st;
}

void atom_gpu_tensors_drop(struct atom_cuda_tensors *t)
{
    atom_cuda_free((void *)(uintptr_t)t->qweight);
    atom_cuda_free((void *)(uintptr_t)t->scales);
    atom_cuda_free((void *)(uintptr_t)t->outlier_qweight);
    atom_cuda_free((void *)(uintptr_t)t->outlier_scales);
}

int atom_gpu_tensors_q(const struct atom_cuda_site *site, int copy, int row, int channel)
{
    size_t row_bytes = ((size_t)(site->k - site->outliers) + 1) / 2;
    int both =
        atom_gpu_byte_at(ATOM_GPU_BYTES, seed_of(QWEIGHT, copy), (size_t)row * row_bytes + (size_t)(channel / 2));
    return (channel % 2 ? both >> 4 : both & 15) - 8;
}

int atom_gpu_tensors_outlier(const struct atom_cuda_site *site, int copy, int row, int outlier)
{
    return (int8_t)atom_gpu_byte_at(ATOM_GPU_BYTES, seed_of(OUTLIERS, copy),
                                    (size_t)row * (size_t)site->outliers + (size_t)outlier);
}

double atom_gpu_tensors_scale(const struct atom_cuda_site *site, int copy, int row, int scale)
{
    bool outlier = scale >= site->n_groups;
    size_t at = outlier ? (size_t)row : (size_t)(row / ROWS_PER_SCALE) * (size_t)site->n_groups + (size_t)scale;
    return (double)atom_gpu_half_at(ATOM_GPU_SCALES, seed_of(outlier ? OUTLIER_SCALES : SCALES, copy), at);
}
