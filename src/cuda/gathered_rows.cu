/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm, order and quantization in one pass: a row goes through shared memory, where it is gathered from.
 *
 * A block's threads keep their channels' places and weights in registers and go through many tokens, the next one's
 * numbers on their way while this one's are worked on. */
#include "cuda/row_ops.cuh"

/* n of a chunk's numbers of 4 bytes, `rest` after them. */
template <class T> static __device__ __forceinline__ void load_words(const T *p, int n, T rest, T (&to)[PIECE])
{
    if (n == PIECE && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
#pragma unroll
        for (int j = 0; j < PIECE; j += 4)
            *reinterpret_cast<uint4 *>(to + j) = *reinterpret_cast<const uint4 *>(p + j);
        return;
    }
#pragma unroll
    for (int j = 0; j < PIECE; j++)
        to[j] = j < n ? p[j] : rest;
}

/* What stays in a thread's registers of a chunk. */
struct places {
    uint32_t from[PIECE / 2]; /* byte offsets in the row, two a word */
    float weight[PIECE];      /* 0 in the padding */
};

/* Where the channels of a chunk lie in a row of numbers of `size` bytes. */
static __device__ __forceinline__ void load_places(const row_args &a, int chunk, int size, places &p)
{
    int first = 0, n = chunk < a.chunks ? chunk_channels(a, chunk, first) : 0;
    int32_t from[PIECE];
    if (a.order)
        load_words(a.order + first, n, 0, from);
    if (a.weight)
        load_words(a.weight + first, n, 0.0f, p.weight);
#pragma unroll
    for (int j = 0; j < PIECE; j++) {
        if (!a.weight)
            p.weight[j] = j < n ? 1.0f : 0.0f;
        if (!a.order)
            from[j] = j < n ? first + j : 0;
    }
#pragma unroll
    for (int j = 0; j < PIECE / 2; j++)
        p.from[j] = (uint32_t)(from[2 * j] * size) | (uint32_t)(from[2 * j + 1] * size) << 16;
}

/* This thread's piece of a row as it lies in memory; of a row that is not there, zeros. */
template <class T> static __device__ __forceinline__ piece<T> load_part(const row_args &a, const T *row, int i)
{
    int first = (threadIdx.x + i * blockDim.x) * PIECE;
    return load_piece(row + first, row ? max(0, min(PIECE, a.k - first)) : 0, a.aligned);
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
static __device__ __forceinline__ void gather(const T *row, float r, const places &p, float (&v)[PIECE])
{
    const char *at = reinterpret_cast<const char *>(row);
#pragma unroll
    for (int j = 0; j < PIECE; j++) {
        uint32_t from = j % 2 ? p.from[j / 2] >> 16 : p.from[j / 2] & 0xFFFF;
        v[j] = __fmul_rn(__fmul_rn(as_float(*reinterpret_cast<const T *>(at + from)), r), p.weight[j]);
    }
}

static __device__ __forceinline__ float find_r(const row_args &a, bool there, float sum, row_shared &shared)
{
    sum = block_sum(sum, shared);
    return !there ? NAN : a.source == ROW_NORM ? inverse_rms(a, sum) : 1.0f;
}

/* A chunk a thread. */
template <class T, bool INTEGERS> static __global__ void __launch_bounds__(MAX_THREADS) gathered(row_args a)
{
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *row = reinterpret_cast<T *>(memory);
    places p;
    float v[1][PIECE];
    const T *source = row_of<T>(a, blockIdx.x);
    piece<T> x = load_part(a, source, 0);
    if (threadIdx.x == 0)
        shared.largest[0] = 0;
    load_places(a, threadIdx.x, sizeof(T), p);
    for (int t = blockIdx.x, turn = 0; t < a.n_tok; t += gridDim.x, turn++) {
        bool there = source;
        float sum = 0.0f;
        stage(row, 0, x, sum);
        if (t + gridDim.x < a.n_tok) {
            source = row_of<T>(a, t + gridDim.x);
            x = load_part(a, source, 0);
        }
        float r = find_r(a, there, sum, shared);
        gather(row, r, p, v[0]);
        put_row<INTEGERS>(a, t, turn, v, shared);
    }
}

/* Two chunks a thread, with no registers left to keep anything in, nor bytes in 16 bits. */
template <class T, bool INTEGERS> static __global__ void __launch_bounds__(MAX_THREADS) gathered_wide(row_args a)
{
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *row = reinterpret_cast<T *>(memory);
    float v[MAX_CHUNKS][PIECE];
    const T *source = row_of<T>(a, blockIdx.x);
    int t = blockIdx.x;
    float sum = 0.0f;
    if (threadIdx.x == 0)
        shared.largest[0] = 0;
#pragma unroll
    for (int i = 0; i < MAX_CHUNKS; i++)
        stage(row, i, load_part(a, source, i), sum);
    float r = find_r(a, source, sum, shared);
#pragma unroll
    for (int i = 0; i < MAX_CHUNKS; i++) {
        int chunk = threadIdx.x + i * blockDim.x, first = 0;
        int n = chunk < a.chunks ? chunk_channels(a, chunk, first) : 0;
#pragma unroll
        for (int j = 0; j < PIECE; j++) {
            float x = j < n ? as_float(row[a.order ? a.order[first + j] : first + j]) : 0.0f;
            v[i][j] = __fmul_rn(__fmul_rn(x, r), a.weight && j < n ? a.weight[first + j] : 1.0f);
        }
    }
    put_row<INTEGERS>(a, t, 0, v, shared);
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    bool wide = a.chunks > MAX_THREADS;
    int each = wide ? MAX_CHUNKS : 1, threads = ((a.chunks + each - 1) / each + 31) / 32 * 32;
    size_t n_bytes = (size_t)threads * each * sizeof(piece<T>);
    auto kernel = a.q    ? (wide ? gathered_wide<T, true> : gathered<T, true>)
                  : wide ? gathered_wide<T, false>
                         : gathered<T, false>;
    if (n_bytes > 48 * 1024)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    int blocks = wide ? a.n_tok : min(a.n_tok, atom_cuda_opened()->n_sm * max(1, MAX_THREADS / threads));
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
