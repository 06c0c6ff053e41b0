/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention: checks, and the choice of a kernel. */
#include "cuda/attention_plan.cuh"
#include "cuda/hadamard.cuh"
#include "kernels/hadamard.h"

static enum atom_status check_job(const struct atom_cuda_attend *j, struct atom_error *err)
{
    const struct atom_cuda_kv *kv = j->kv;
    const struct atom_cuda_step *step = j->step;
    size_t row = (size_t)kv->heads * (size_t)kv->head_dim;
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (!kv->page_bytes || !kv->pages || (kv->rope == ATOM_KV_PRE && (!kv->turns || kv->max_position < 1)))
        return atom_fail(err, ATOM_ERR_INVALID, "a KV cache without shape, pages or angles");
    if (step->max_seqs < 1 || step->max_seqs > 2048 || step->max_tok < 1 || step->max_tok > 65535 ||
        step->max_pages < 1)
        return atom_fail(
            err, ATOM_ERR_INVALID,
            "a step of %d sequences, %d tokens, %d pages: expected 1 or more, 2048 sequences and 65535 tokens at most",
            step->max_seqs, step->max_tok, step->max_pages);
    if (j->q_stride < row || j->out_stride < row || j->q_stride % 8 || j->out_stride % 8 || (uintptr_t)j->q % 16 ||
        (uintptr_t)j->out % 16)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "rows of %zu numbers, %zu and %zu apart: expected multiples of 8, at 16-byte addresses", row,
                         j->q_stride, j->out_stride);
    if (!(j->scale > 0.0f))
        return atom_fail(err, ATOM_ERR_INVALID, "scores scaled by %g: expected a number above 0", (double)j->scale);
    return ATOM_OK;
}

static struct prefill_args args_of(const struct atom_cuda_attend *j)
{
    const struct atom_cuda_kv *kv = j->kv;
    struct prefill_args a = {};
    a.step = *j->step;
    a.pages = kv->pages;
    a.page_bytes = kv->page_bytes;
    a.half_bytes = kv->half_bytes;
    a.turns = kv->rope == ATOM_KV_PRE ? (const float2 *)kv->turns : NULL;
    a.n_turns = kv->max_position;
    a.kv_heads = kv->kv_heads;
    a.head_dim = kv->head_dim;
    a.group = kv->heads / kv->kv_heads;
    a.type = j->type;
    a.q = j->q;
    a.out = j->out;
    a.q_stride = j->q_stride;
    a.out_stride = j->out_stride;
    a.scale = j->scale * 1.44269504f;
    return a;
}

/* ---- values that were rotated ------------------------------------------------------------------------------------ */

struct undo_args {
    struct prefill_args a;
    hadamard_shape shape;
    int heads;
};
enum { UNDO_WARPS = 4 };

/* A warp for a head of a row. */
template <class T> static __global__ void __launch_bounds__(32 * UNDO_WARPS) undo_values(const undo_args u)
{
    extern __shared__ float scratch[];
    const prefill_args &a = u.a;
    int row = blockIdx.y, head = blockIdx.x * UNDO_WARPS + threadIdx.x / 32, seq = a.step.seq_of[row];
    if (seq < 0 || head >= u.heads || a.step.seqs[seq].n_tok <= ATOM_CUDA_DECODE_TOK)
        return;
    float *x = scratch + threadIdx.x / 32 * a.head_dim;
    T *out = (T *)a.out + (size_t)row * a.out_stride + (size_t)head * a.head_dim;
    for (int d = threadIdx.x % 32; d < a.head_dim; d += 32)
        x[d] = to_float(out[d]);
    hadamard(x, u.shape, true);
    for (int d = threadIdx.x % 32; d < a.head_dim; d += 32)
        out[d] = from_float<T>(x[d]);
}

static enum atom_status undo(const struct atom_cuda_attend *j, const prefill_args &a, atom_cuda_stream s,
                             struct atom_error *err)
{
    if (!(j->kv->rotate & ATOM_ROTATE_V))
        return ATOM_OK;
    const undo_args u = {a, hadamard_of(a.head_dim), j->kv->heads};
    dim3 grid((unsigned)((u.heads + UNDO_WARPS - 1) / UNDO_WARPS), (unsigned)a.step.max_tok);
    size_t scratch = (size_t)(UNDO_WARPS * a.head_dim) * sizeof(float);
    if (a.type == ATOM_CUDA_F32)
        undo_values<float><<<grid, 32 * UNDO_WARPS, scratch, s>>>(u);
    else if (a.type == ATOM_CUDA_F16)
        undo_values<__half><<<grid, 32 * UNDO_WARPS, scratch, s>>>(u);
    else
        undo_values<__nv_bfloat16><<<grid, 32 * UNDO_WARPS, scratch, s>>>(u);
    return atom_cuda_launched("rotating values back", err);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

extern "C" enum atom_status atom_cuda_prefill_plain(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                                    struct atom_error *err)
{
    enum atom_status st = check_job(job, err);
    if (st)
        return st;
    const struct prefill_args a = args_of(job);
    st = atom_cuda_prefill_mma(&a, job->kv->wide, job->kv->bits, s, err);
    return st ? st : undo(job, a, s, err);
}

/* Hopper's kernel has heads of up to 128. */
static bool is_plain(const struct atom_cuda_kv *kv) { return atom_cuda_opened()->major != 9 || kv->wide > 128; }

extern "C" size_t atom_cuda_prefill_workspace(const struct atom_cuda_kv *kv, const struct atom_cuda_step *step)
{
    return is_plain(kv) ? 0 : layout_of(kv, step).n_bytes;
}

extern "C" enum atom_status atom_cuda_prefill_run(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                                  struct atom_error *err)
{
    enum atom_status st = check_job(job, err);
    if (st)
        return st;
    const struct prefill_args a = args_of(job);
    st = is_plain(job->kv) ? atom_cuda_prefill_mma(&a, job->kv->wide, job->kv->bits, s, err)
                           : atom_cuda_prefill_sm90(job, &a, s, err);
    return st ? st : undo(job, a, s, err);
}
