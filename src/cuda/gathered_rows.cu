/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm, order and quantization in one pass: a row goes through shared memory, where it is gathered from.
 *
 * A block's threads keep their channels' places and weights in registers and go through many tokens, the next one's
 * numbers on their way while this one's are worked on. */
#include "cuda/row_ops.cuh"

static __device__ __forceinline__ void four_words(const void *p, void *to)
{
    *static_cast<uint4 *>(to) = *static_cast<const uint4 *>(p);
}

/* Where the channels of a chunk lie in a row, and their weights, 0 in the padding. */
static __device__ __forceinline__ void load_places(const row_args &a, int chunk, int (&from)[PIECE],
                                                   float (&weight)[PIECE])
{
    int first = 0, n = chunk < a.chunks ? chunk_channels(a, chunk, first) : 0;
    bool whole = n == PIECE && first % 4 == 0;
#pragma unroll
    for (int j = 0; j < PIECE; j++) {
        from[j] = j < n ? first + j : 0;
        weight[j] = j < n ? 1.0f : 0.0f;
    }
    if (a.order && whole) {
        four_words(a.order + first, from);
        four_words(a.order + first + 4, from + 4);
    } else if (a.order) {
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            from[j] = j < n ? a.order[first + j] : 0;
    }
    if (a.weight && whole) {
        four_words(a.weight + first, weight);
        four_words(a.weight + first + 4, weight + 4);
    } else if (a.weight) {
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            weight[j] = j < n ? a.weight[first + j] : 0.0f;
    }
}

/* This thread's piece of a row as it lies in memory; of a row that is not there, zeros. */
template <class T> static __device__ __forceinline__ piece<T> load_part(const row_args &a, const T *row, int i)
{
    int first = (threadIdx.x + i * blockDim.x) * PIECE;
    return load_piece(row + first, row ? max(0, min(PIECE, a.k - first)) : 0);
}

template <class T> static __device__ __forceinline__ void stage(T *row, int i, const piece<T> &x, float &sum)
{
    float v[PIECE];
    reinterpret_cast<piece<T> *>(row)[threadIdx.x + i * blockDim.x] = x;
    piece_floats(x, v);
#pragma unroll
    for (int j = 0; j < PIECE; j++)
        sum = fmaf(v[j], v[j], sum);
}

template <class T>
static __device__ __forceinline__ void gather(const T *row, float r, const int (&from)[PIECE],
                                              const float (&weight)[PIECE], float (&v)[PIECE])
{
#pragma unroll
    for (int j = 0; j < PIECE; j++)
        v[j] = __fmul_rn(__fmul_rn(as_float(row[from[j]]), r), weight[j]);
}

static __device__ __forceinline__ float find_r(const row_args &a, bool there, float sum, row_shared &shared)
{
    sum = block_sum(sum, shared);
    return !there ? NAN : a.source == ROW_NORM ? inverse_rms(sum, a.k, a.eps) : 1.0f;
}

/* A chunk a thread. */
template <class T> static __global__ void __launch_bounds__(MAX_THREADS) gathered(row_args a)
{
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *row = reinterpret_cast<T *>(memory);
    int from[PIECE];
    float weight[PIECE], v[1][PIECE];
    const T *source = row_of<T>(a, blockIdx.x);
    piece<T> x = load_part(a, source, 0);
    if (threadIdx.x == 0)
        shared.largest[0] = 0;
    load_places(a, threadIdx.x, from, weight);
    for (int t = blockIdx.x, turn = 0; t < a.n_tok; t += gridDim.x, turn++) {
        bool there = source;
        float sum = 0.0f;
        stage(row, 0, x, sum);
        if (t + gridDim.x < a.n_tok) {
            source = row_of<T>(a, t + gridDim.x);
            x = load_part(a, source, 0);
        }
        float r = find_r(a, there, sum, shared);
        gather(row, r, from, weight, v[0]);
        put_row(a, t, turn, v, shared);
    }
}

/* Several chunks a thread, with no registers left to keep anything in. */
template <class T, int CHUNKS> static __global__ void __launch_bounds__(MAX_THREADS) gathered_wide(row_args a)
{
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *row = reinterpret_cast<T *>(memory);
    int from[PIECE];
    float weight[PIECE], v[CHUNKS][PIECE];
    if (threadIdx.x == 0)
        shared.largest[0] = 0;
    for (int t = blockIdx.x, turn = 0; t < a.n_tok; t += gridDim.x, turn++) {
        const T *source = row_of<T>(a, t);
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
            stage(row, i, load_part(a, source, i), sum);
        float r = find_r(a, source, sum, shared);
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            load_places(a, threadIdx.x + i * blockDim.x, from, weight);
            gather(row, r, from, weight, v[i]);
        }
        put_row(a, t, turn, v, shared);
    }
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    int each = (a.chunks + MAX_THREADS - 1) / MAX_THREADS, n_sm = atom_cuda_opened()->n_sm;
    each = each == 3 ? 4 : each;
    int threads = ((a.chunks + each - 1) / each + 31) / 32 * 32;
    size_t n_bytes = (size_t)threads * each * sizeof(piece<T>);
    auto kernel = each == 1 ? gathered<T> : each == 2 ? gathered_wide<T, 2> : gathered_wide<T, 4>;
    if (n_bytes > 48 * 1024)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    int blocks = min(a.n_tok, n_sm * max(1, min(16, 2048 / threads)));
    kernel<<<blocks, threads, n_bytes, s>>>(a);
}

void atom_cuda_gathered_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s)
{
    if (type == ATOM_CUDA_F32)
        launch<float>(a, s);
    else if (type == ATOM_CUDA_F16)
        launch<__half>(a, s);
    else
        launch<__nv_bfloat16>(a, s);
}
