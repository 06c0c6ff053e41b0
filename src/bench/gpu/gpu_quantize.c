/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_quantize.h"

#include "base/error.h"
#include "bench/gpu/gpu_random.h"
#include "cuda/row_ops.h"

#include <stdlib.h>

struct atom_gpu_quantize {
    struct atom_cuda_site site;
    int bits;
    void *x, *q, *scales;
};

static int stride_of(int n_tok) { return (n_tok + 63) / 64 * 64; }

enum atom_status atom_gpu_quantize_create(const struct atom_cuda_site *site, int bits, int max_tok,
                                          struct atom_gpu_quantize **out, struct atom_error *err)
{
    struct atom_gpu_quantize *q = calloc(1, sizeof *q);
    size_t stride = (size_t)stride_of(max_tok);
    if (!q)
        return atom_fail_nomem(err, sizeof *q);
    q->site = *site;
    q->bits = bits;
    enum atom_status st =
        atom_gpu_alloc_random((size_t)max_tok * (size_t)site->k * sizeof(uint16_t), ATOM_GPU_HALVES, 7, &q->x, err);
    st = st ? st : atom_cuda_alloc(stride * (size_t)site->k_padded, &q->q, err);
    st = st ? st : atom_cuda_alloc(stride * (size_t)site->n_scales * sizeof(float), &q->scales, err);
    if (st) {
        atom_gpu_quantize_free(q);
        return st;
    }
    *out = q;
    return ATOM_OK;
}

void atom_gpu_quantize_free(struct atom_gpu_quantize *q)
{
    if (!q)
        return;
    atom_cuda_free(q->x);
    atom_cuda_free(q->q);
    atom_cuda_free(q->scales);
    free(q);
}

enum atom_status atom_gpu_quantize_put(const struct atom_gpu_quantize *q, int n_tok, atom_cuda_stream s,
                                       struct atom_error *err)
{
    const struct atom_cuda_row_op job = {
        .in = {ATOM_CUDA_F16, q->x, (size_t)q->site.k, n_tok, q->site.k},
        .to = {.bits = q->bits, .clip = 0.9f, .acts = {q->site, n_tok, stride_of(n_tok), q->q, q->scales}}};
    return atom_cuda_gather(&job, s, err);
}
