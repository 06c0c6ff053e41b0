/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy sampling: the best token of every row, many blocks to a row when there are few. */
#include "cuda/sampling.cuh"

enum { BEST_THREADS = 256, LEAST_SHARE = 4096 /* logits of a block */ };

static __device__ __forceinline__ rank warp_best(rank best)
{
#pragma unroll
    for (int h = 16; h; h /= 2) {
        rank other = __shfl_xor_sync(0xFFFFFFFFu, best, h);
        best = other > best ? other : best;
    }
    return best;
}

/* By one thread of the block that was the last of its row; leaves the row's counters as they began. */
static __device__ void settle(const struct atom_cuda_sample &job, int row, struct sample_row *to)
{
    rank best = atomicExch(&to->best, 0);
    bool fine = (uint32_t)(best >> 32) != NOT_FINITE;
    to->arrived = 0;
    to->token = fine ? rank_id(best) : -1;
    to->top = rank_logit(best);
    job.tokens[row] = to->token;
}

static __global__ void __launch_bounds__(BEST_THREADS) find_best(struct atom_cuda_sample job, int share)
{
    __shared__ rank bests[BEST_THREADS / 32];
    early_next();
    early_wait();
    int row = blockIdx.y, first = blockIdx.x * share, end = min(job.vocab, first + share);
    struct sample_row *to = static_cast<struct sample_row *>(job.workspace) + row;
    float top = -INFINITY, worst = 0.0f;
    int at = first;
    each_logit(job.logits + (size_t)row * job.stride, first, end, [&](float x, int id, bool there) {
        bool above = there && x > top;
        top = above ? x : top;
        at = above ? id : at;
        worst = there && !(fabsf(x) < INFINITY) ? NAN : worst;
    });
    rank best = worst == 0 ? (top > -INFINITY ? rank_of(top, at) : 0) : (rank)NOT_FINITE << 32;
    best = warp_best(best);
    if (threadIdx.x % 32 == 0)
        bests[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int w = 1; w < BEST_THREADS / 32; w++)
        best = bests[w] > best ? bests[w] : best;
    atomicMax(&to->best, best);
    __threadfence();
    if (atomicAdd(&to->arrived, 1u) + 1 == gridDim.x)
        settle(job, row, to);
}

static enum atom_status check_job(const struct atom_cuda_sample *j, struct atom_error *err)
{
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (j->n < 1 || j->n > 65535 || j->vocab < 1 || j->vocab > ATOM_CUDA_MAX_VOCAB || j->stride < (size_t)j->vocab)
        return atom_fail(err, ATOM_ERR_INVALID, "%d rows of %d logits, %zu apart: expected 1 to 65535 of 1 to %d", j->n,
                         j->vocab, j->stride, (int)ATOM_CUDA_MAX_VOCAB);
    if (!j->logits || !j->tokens || !j->workspace)
        return atom_fail(err, ATOM_ERR_INVALID, "sampling has no logits, no tokens or no workspace");
    return ATOM_OK;
}

/* Rows in shares for that many blocks in all, none smaller than `least`. */
static struct sample_cut cut_rows(const struct atom_cuda_sample *j, int blocks, int least, int most)
{
    int want = max(1, min(most, blocks / j->n));
    int share = max(least, ((j->vocab + want - 1) / want + 3) / 4 * 4);
    return {share, (j->vocab + share - 1) / share};
}

extern "C" size_t atom_cuda_sample_workspace(int max_n) { return (size_t)max_n * sizeof(struct sample_row); }

extern "C" enum atom_status atom_cuda_sample_run(const struct atom_cuda_sample *job, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    enum atom_status st = check_job(job, err);
    if (st)
        return st;
    struct sample_cut cut = cut_rows(job, 4 * atom_cuda_opened()->n_sm, LEAST_SHARE, 65535);
    launch_early(find_best, {dim3((unsigned)cut.n_shares, (unsigned)job->n), BEST_THREADS, 0}, s, *job, cut.share);
    if (job->how) {
        cut = cut_rows(job, 4 * atom_cuda_opened()->n_sm, LEAST_SHARE, MAX_SHARES);
        atom_cuda_weigh(job, cut, s);
        atom_cuda_draw(job, cut, s);
    }
    return atom_cuda_launched("sampling", err);
}
