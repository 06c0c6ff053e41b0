/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: splits of a sequence added up in order, a block for some query heads: a warp each where splits are
 * few, else all for one after another. */
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
    int each; /* heads of a block */
    hadamard_shape hadamard;
};

/* Whose results. */
struct merge_row {
    int seq, n_tok, tok, n_splits, head;
};

static __device__ size_t split_at(const merge_args &a, const merge_row &r, int split)
{
    return slot_of(a.space, r.seq, split * r.n_tok + r.tok, a.heads, r.head);
}

struct total {
    float max, sum;
};

/* Of all splits of a row; every warp finds it by itself. */
static __device__ total add_weights(const merge_args &a, const merge_row &r)
{
    int lane = threadIdx.x % 32;
    total t = {-INFINITY, 0.0f};
    for (int s = lane; s < r.n_splits; s += 32)
        t.max = fmaxf(t.max, a.space.weight[split_at(a, r, s)].x);
    for (int by = 1; by < 32; by *= 2)
        t.max = fmaxf(t.max, __shfl_xor_sync(0xFFFFFFFFu, t.max, by));
    for (int s = lane; s < r.n_splits; s += 32) {
        float2 w = a.space.weight[split_at(a, r, s)];
        t.sum = fmaf(w.y, exp2_fast(w.x - t.max), t.sum);
    }
    for (int by = 1; by < 32; by *= 2)
        t.sum += __shfl_xor_sync(0xFFFFFFFFu, t.sum, by);
    return t;
}

/* A warp's quarter of the splits, four channels a lane. */
static __device__ void add_splits(const merge_args &a, const merge_row &r, float max, float *to)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int d = 4 * lane; d < a.wide; d += 128) {
        float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (int s = r.n_splits * warp / MERGE_WARPS; s < r.n_splits * (warp + 1) / MERGE_WARPS; s++) {
            size_t slot = split_at(a, r, s);
            float by = exp2_fast(a.space.weight[slot].x - max);
            float4 x = *reinterpret_cast<const float4 *>(a.space.part + slot * a.wide + d);
            o = make_float4(fmaf(x.x, by, o.x), fmaf(x.y, by, o.y), fmaf(x.z, by, o.z), fmaf(x.w, by, o.w));
        }
        *reinterpret_cast<float4 *>(to + d) = o;
    }
}

/* The row into the first part. */
static __device__ void add_many(const merge_args &a, const merge_row &r, float (*parts)[ATOM_CUDA_MAX_HEAD])
{
    total t = add_weights(a, r);
    add_splits(a, r, t.max, parts[threadIdx.x / 32]);
    __syncthreads();
    for (int d = threadIdx.x; d < a.head_dim; d += MERGE_WARPS * 32)
        parts[0][d] = (parts[0][d] + parts[1][d] + parts[2][d] + parts[3][d]) / t.sum;
    __syncthreads();
}

/* A row that lies in shared memory, by so many lanes in step; `lane` counts within them. */
static __device__ void write_sum(const merge_args &a, float *row, size_t at, int lane, int n_lanes)
{
    if (a.undo_v && lane < 32) {
        __syncwarp();
        hadamard(row, a.hadamard, true);
    }
    n_lanes == 32 ? __syncwarp() : __syncthreads();
    for (int d = 2 * lane; d < a.head_dim; d += 2 * n_lanes)
        write_two(a.type, a.out, at + d, row[d], row[d + 1]);
    n_lanes == 32 ? __syncwarp() : __syncthreads();
}

static __global__ void __launch_bounds__(MERGE_WARPS * 32) merge(const merge_args a)
{
    __shared__ __align__(16) float parts[MERGE_WARPS][ATOM_CUDA_MAX_HEAD];
    int first = blockIdx.x * a.each, end = min(first + a.each, a.heads), seq = blockIdx.y;
    wait_for_last();
    let_next_come();
    struct atom_cuda_seq of = a.step.seqs[seq];
    int n_splits = of.n_tok ? splits_of((of.pos0 + of.n_tok + PAGE - 1) / PAGE, of.n_tok) : 0;
    bool few = n_splits <= FEW_SPLITS;
    if (of.n_tok < 1 || of.n_tok > ATOM_CUDA_DECODE_TOK || (n_splits == 1 && !a.undo_v))
        return;
    for (int tok = 0; tok < of.n_tok; tok++)
        for (int head = few ? first + (int)threadIdx.x / 32 : first; head < end; head += few ? MERGE_WARPS : 1) {
            size_t at = (size_t)(of.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim);
            float *row = parts[few ? threadIdx.x / 32 : 0];
            if (few)
                add_few_splits(a.space, slot_of(a.space, seq, tok, a.heads, head), (size_t)(of.n_tok * a.heads),
                               n_splits, a.wide, [&](int d, float4 x) { *reinterpret_cast<float4 *>(row + d) = x; });
            else
                add_many(a, {seq, of.n_tok, tok, n_splits, head}, parts);
            write_sum(a, row, at, few ? threadIdx.x % 32 : threadIdx.x, few ? 32 : MERGE_WARPS * 32);
        }
}

enum atom_status atom_cuda_decode_merge(const struct atom_cuda_attend *job, const decode_space &space,
                                        atom_cuda_stream s, struct atom_error *err)
{
    const struct atom_cuda_kv *kv = job->kv;
    bool undo = (kv->rotate & ATOM_ROTATE_V) != 0;
    if (splits_of(job->step->max_pages, 1) == 1 && !undo)
        return ATOM_OK;
    const merge_args a = {*job->step,
                          space,
                          job->out,
                          job->out_stride,
                          kv->heads,
                          kv->head_dim,
                          kv->wide,
                          job->type,
                          undo,
                          splits_of(job->step->max_pages, 1) > FEW_SPLITS ? 1 : MERGE_WARPS,
                          hadamard_of(kv->head_dim)};
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)((kv->heads + a.each - 1) / a.each), (unsigned)job->step->max_seqs);
    config.blockDim = dim3(MERGE_WARPS * 32);
    config.stream = s;
    config.attrs = &early;
    config.numAttrs = atom_cuda_opened()->major >= 9;
    return atom_cuda_status(cudaLaunchKernelEx(&config, merge, a), "merging decode attention", err);
}
