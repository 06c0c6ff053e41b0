/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of an embedding, one block a token. */
#include "cuda/early.cuh"
#include "cuda/float_rows.cuh"
#include "cuda/row_ops.h"

enum { PIECE = 8 };

template <class T> static __global__ void embed(struct atom_cuda_embed job)
{
    early_next();
    early_wait();
    int t = blockIdx.x, id = job.tokens[t], width = job.out.width;
    bool there = id >= 0 && id < job.vocab;
    const T *row = static_cast<const T *>(job.table) + (size_t)(there ? id : 0) * width;
    piece<T, PIECE> x;
    float v[PIECE];
    for (int i = threadIdx.x * PIECE; i < width; i += blockDim.x * PIECE) {
        int n = min(PIECE, width - i);
        load_piece<false>(row + i, there ? n : 0, x);
        piece_floats(x, v);
        store_floats(job.out.type, job.out.x, (size_t)t * job.out.stride + i, v, n);
    }
    if (threadIdx.x == 0 && job.bad)
        job.bad[t] = there ? 0 : job.where;
}

extern "C" enum atom_status atom_cuda_embed(const struct atom_cuda_embed *job, atom_cuda_stream s,
                                            struct atom_error *err)
{
    const struct atom_cuda_rows *out = &job->out;
    if (!job->table || !job->tokens || job->vocab < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "an embedding of %d rows, or one without table or tokens", job->vocab);
    if (!out->x || out->n_tok < 1 || out->width < 1 || out->stride < (size_t)out->width)
        return atom_fail(err, ATOM_ERR_INVALID, "%d rows of %d floats, %zu apart, for an embedding", out->n_tok,
                         out->width, out->stride);
    int threads = min(1024, max(32, (out->width / PIECE + 31) / 32 * 32));
    auto kernel = job->type == ATOM_CUDA_F32   ? embed<float>
                  : job->type == ATOM_CUDA_F16 ? embed<__half>
                                               : embed<__nv_bfloat16>;
    launch_early(kernel, {dim3((unsigned)out->n_tok), threads, 0}, s, *job);
    return atom_cuda_launched("the embedding", err);
}
