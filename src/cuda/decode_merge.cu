/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: splits of a sequence added up in order, a block for each query head. */
#include "cuda/check.cuh"
#include "cuda/decode_few.cuh"
#include "cuda/hadamard.cuh"

enum { MERGE_WARPS = 4 };

struct merge_args {
    struct atom_cuda_step step;
    decode_space space;
    void *out;
    size_t out_stride;
    int heads, head_dim, wide;
    enum atom_cuda_float type;
    bool undo_v;
    hadamard_shape hadamard;
};

struct total {
    float max, sum;
};

/* Of all splits of a row; every warp finds it by itself. */
static __device__ total add_weights(const merge_args &a, int seq, int n_tok, int tok, int n_splits)
{
    int lane = threadIdx.x % 32, head = blockIdx.x;
    total t = {-INFINITY, 0.0f};
    for (int s = lane; s < n_splits; s += 32)
        t.max = fmaxf(t.max, a.space.weight[slot_of(a.space, seq, s * n_tok + tok, a.heads, head)].x);
    for (int by = 1; by < 32; by *= 2)
        t.max = fmaxf(t.max, __shfl_xor_sync(0xFFFFFFFFu, t.max, by));
    for (int s = lane; s < n_splits; s += 32) {
        float2 w = a.space.weight[slot_of(a.space, seq, s * n_tok + tok, a.heads, head)];
        t.sum = fmaf(w.y, exp2_fast(w.x - t.max), t.sum);
    }
    for (int by = 1; by < 32; by *= 2)
        t.sum += __shfl_xor_sync(0xFFFFFFFFu, t.sum, by);
    return t;
}

/* A warp's quarter of the splits, four channels a lane. */
static __device__ void add_splits(const merge_args &a, int seq, int n_tok, int tok, int n_splits, float max, float *to)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.x;
    for (int d = 4 * lane; d < a.wide; d += 128) {
        float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (int s = n_splits * warp / MERGE_WARPS; s < n_splits * (warp + 1) / MERGE_WARPS; s++) {
            size_t slot = slot_of(a.space, seq, s * n_tok + tok, a.heads, head);
            float by = exp2_fast(a.space.weight[slot].x - max);
            float4 x = *reinterpret_cast<const float4 *>(a.space.part + slot * a.wide + d);
            o = make_float4(fmaf(x.x, by, o.x), fmaf(x.y, by, o.y), fmaf(x.z, by, o.z), fmaf(x.w, by, o.w));
        }
        *reinterpret_cast<float4 *>(to + d) = o;
    }
}

/* The row into the first part. */
static __device__ void add_many(const merge_args &a, int seq, int n_tok, int tok, int n_splits,
                                float (*parts)[ATOM_CUDA_MAX_HEAD])
{
    total t = add_weights(a, seq, n_tok, tok, n_splits);
    add_splits(a, seq, n_tok, tok, n_splits, t.max, parts[threadIdx.x / 32]);
    __syncthreads();
    for (int d = threadIdx.x; d < a.head_dim; d += MERGE_WARPS * 32)
        parts[0][d] = (parts[0][d] + parts[1][d] + parts[2][d] + parts[3][d]) / t.sum;
}

static __global__ void __launch_bounds__(MERGE_WARPS * 32) merge(const merge_args a)
{
    __shared__ __align__(16) float parts[MERGE_WARPS][ATOM_CUDA_MAX_HEAD];
    int head = blockIdx.x, seq = blockIdx.y;
    wait_for_last();
    struct atom_cuda_seq of = a.step.seqs[seq];
    int n_splits = of.n_tok ? splits_of((of.pos0 + of.n_tok + PAGE - 1) / PAGE, of.n_tok) : 0;
    if (of.n_tok < 1 || of.n_tok > ATOM_CUDA_DECODE_TOK || (n_splits == 1 && !a.undo_v))
        return;
    for (int tok = 0; tok < of.n_tok; tok++) {
        if (n_splits > FEW_SPLITS)
            add_many(a, seq, of.n_tok, tok, n_splits, parts);
        else if (threadIdx.x < 32)
            add_few_splits(a.space, slot_of(a.space, seq, tok, a.heads, head), (size_t)(of.n_tok * a.heads), n_splits,
                           a.wide, [&](int d, float4 x) { *reinterpret_cast<float4 *>(parts[0] + d) = x; });
        __syncthreads();
        if (a.undo_v && threadIdx.x < 32)
            hadamard(parts[0], a.hadamard, true);
        __syncthreads();
        size_t at = (size_t)(of.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim);
        for (int d = 2 * threadIdx.x; d < a.head_dim; d += 2 * MERGE_WARPS * 32)
            write_two(a.type, a.out, at + d, parts[0][d], parts[0][d + 1]);
        __syncthreads();
    }
}

enum atom_status atom_cuda_decode_merge(const struct atom_cuda_attend *job, const decode_space &space,
                                        atom_cuda_stream s, struct atom_error *err)
{
    const struct atom_cuda_kv *kv = job->kv;
    bool undo = (kv->rotate & ATOM_ROTATE_V) != 0;
    if (splits_of(job->step->max_pages, 1) == 1 && !undo)
        return ATOM_OK;
    const merge_args a = {*job->step, space,     job->out, job->out_stride,          kv->heads, kv->head_dim,
                          kv->wide,   job->type, undo,     hadamard_of(kv->head_dim)};
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)kv->heads, (unsigned)job->step->max_seqs);
    config.blockDim = dim3(MERGE_WARPS * 32);
    config.stream = s;
    config.attrs = &early;
    config.numAttrs = atom_cuda_opened()->major >= 9;
    return atom_cuda_status(cudaLaunchKernelEx(&config, merge, a), "merging decode attention", err);
}
