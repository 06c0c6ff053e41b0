/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of rows that are drawn from, many blocks to a row: the sum of each share, and for those that come in
 * order how many tokens lie at which depth. */
#include "cuda/sampling.cuh"

enum { WEIGH_THREADS = 512 };

static __device__ mass warp_mass(mass x)
{
#pragma unroll
    for (int h = 16; h; h /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, h);
    return x;
}

static __global__ void __launch_bounds__(WEIGH_THREADS) weigh(struct atom_cuda_sample job, struct sample_cut cut)
{
    __shared__ unsigned counts[BINS];
    __shared__ mass sums[WEIGH_THREADS / 32];
    early_next();
    early_wait();
    const struct atom_cuda_sampling how = job.how[blockIdx.y];
    struct sample_row *row = static_cast<struct sample_row *>(job.workspace) + blockIdx.y;
    if (row->token < 0 || !draws(how))
        return;
    weigher w = {row->top, __frcp_rn(how.temperature)};
    bool in_order = draws_in_order(how, job.vocab);
    int first = blockIdx.x * cut.share, end = min(job.vocab, first + cut.share);
    mass sum = 0;
    for (int i = threadIdx.x; i < BINS; i += blockDim.x)
        counts[i] = 0;
    __syncthreads();
    each_logit(job.logits + (size_t)blockIdx.y * job.stride, first, end, [&](float x, int, bool there) {
        float depth = depth_of(w, x);
        sum += there ? weight_of(depth) : 0;
        if (in_order && there)
            atomicAdd(&counts[depth_bin(depth)], 1u);
    });
    sum = warp_mass(sum);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = sum;
    __syncthreads();
    for (int i = threadIdx.x; i < BINS && in_order; i += blockDim.x)
        if (counts[i])
            atomicAdd(&row->counts[i], counts[i]);
    if (threadIdx.x)
        return;
    for (int i = 1; i < WEIGH_THREADS / 32; i++)
        sum += sums[i];
    row->shares[blockIdx.x] = sum;
}

void atom_cuda_weigh(const struct atom_cuda_sample *job, struct sample_cut cut, atom_cuda_stream s)
{
    launch_early(weigh, {dim3((unsigned)cut.n_shares, (unsigned)job->n), WEIGH_THREADS, 0}, s, *job, cut);
}
