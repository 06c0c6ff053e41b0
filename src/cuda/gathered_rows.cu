/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm, order and quantization in one pass: a row goes through shared memory, where it is gathered from.
 *
 * A block's threads keep their channels' places and weights in registers and go through many tokens, the next one's
 * numbers on their way while this one's are worked on. With few tokens a row's channels are shared out among several
 * blocks, each of which reads all of the row: the multiprocessors' instructions are what such a step waits for. */
#include "cuda/early.cuh"
#include "cuda/row_ops.cuh"

/* n of N numbers of 4 bytes, `rest` after them. */
template <bool EVEN, class T, int N>
static __device__ __forceinline__ void load_words(const T *p, int n, T rest, T (&to)[N])
{
#pragma unroll
    for (int j = 0; j < N; j++)
        to[j] = rest;
    if (EVEN && n) {
#pragma unroll
        for (int j = 0; j < N; j += 4)
            *reinterpret_cast<uint4 *>(to + j) = *reinterpret_cast<const uint4 *>(p + j);
    }
#pragma unroll
    for (int j = 0; j < N && !EVEN; j++)
        if (j < n)
            to[j] = p[j];
}

/* What a thread knows of its N channels: weights, 0 in the padding, in registers; and where they lie in a row, first as
 * numbers, then as byte offsets, two a word, eight in from[0], the next eight blockDim.x after it, in shared memory. */
template <int N> struct places {
    float weight[N];
    int32_t channel[N];
    uint4 *from;
};

/* Of a chunk. */
template <bool EVEN, int N>
static __device__ __forceinline__ void load_places(const row_args &a, int chunk, places<N> &p)
{
    int first = 0, n = chunk * N < a.chunks * CHUNK ? chunk_channels<N>(a, chunk, first) : 0;
    if (a.order)
        load_words<EVEN>(a.order + first, n, 0, p.channel);
    if (a.weight)
        load_words<EVEN>(a.weight + first, n, 0.0f, p.weight);
#pragma unroll
    for (int j = 0; j < N; j++) {
        if (!a.weight)
            p.weight[j] = j < n ? 1.0f : 0.0f;
        if (!a.order)
            p.channel[j] = j < n ? first + j : 0;
    }
}

/* In rows of numbers of `size` bytes. */
template <int N> static __device__ __forceinline__ void put_places(int size, const places<N> &p)
{
#pragma unroll
    for (int j = 0; j < N; j += 8) {
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            two[i] = (uint32_t)(p.channel[j + 2 * i] * size) | (uint32_t)(p.channel[j + 2 * i + 1] * size) << 16;
        p.from[j / 8 * blockDim.x] = make_uint4(two[0], two[1], two[2], two[3]);
    }
}

/* Leaf i of this thread's LEAVES consecutive ones. Neighbours take theirs in different orders, so that 16-byte stores
 * do not meet in a bank; exchanging leaves by a bit of their number leaves the tree of sums the same. */
template <int LEAVES> static __device__ __forceinline__ int leaf_at(int i)
{
    int own = LEAVES > 1 ? threadIdx.x / (8 / LEAVES) % LEAVES : 0;
    return (threadIdx.x * LEAVES + (i ^ own)) * LEAF;
}

/* This thread's part of token t; of a row that is not there, NaN (bits all set). */
template <bool EVEN, class T, int LEAVES>
static __device__ __forceinline__ void load_row(const row_args &a, int t, piece<T, LEAF> (&x)[LEAVES])
{
    const T *row = EVEN ? static_cast<const T *>(a.x) + (size_t)t * a.stride : row_of<T>(a, t);
#pragma unroll
    for (int i = 0; i < LEAVES; i++) {
        int first = leaf_at<LEAVES>(i);
        load_piece<EVEN>(row + first, EVEN || row ? max(0, min((int)LEAF, a.k - first)) : 0, x[i]);
#pragma unroll
        for (unsigned w = 0; w < sizeof x[i].words / 16 && !EVEN; w++)
            if (!row)
                x[i].words[w] = make_uint4(~0u, ~0u, ~0u, ~0u);
    }
}

/* Asks for it in the L2 cache. */
template <class T, int LEAVES> static __device__ __forceinline__ void ask_for_row(const row_args &a, int t)
{
    const T *row = static_cast<const T *>(a.x) + (size_t)t * a.stride;
#pragma unroll
    for (int i = 0; i < LEAVES; i++) {
        int first = leaf_at<LEAVES>(i);
        if (first < a.k)
            ask_for(row + first);
    }
}

/* The thread's part of the row goes to shared memory; its sum of squares comes back. */
template <class T, int LEAVES> static __device__ __forceinline__ float stage(T *row, const piece<T, LEAF> (&x)[LEAVES])
{
    float sums[LEAVES];
#pragma unroll
    for (int i = 0; i < LEAVES; i++) {
        float v[LEAF];
        *reinterpret_cast<piece<T, LEAF> *>(row + leaf_at<LEAVES>(i)) = x[i];
        piece_floats(x[i], v);
        sums[i] = 0.0f;
#pragma unroll
        for (int j = 0; j < LEAF; j++)
            sums[i] = fmaf(v[j], v[j], sums[i]);
    }
#pragma unroll
    for (int h = 1; h < LEAVES; h *= 2)
#pragma unroll
        for (int i = 0; i < LEAVES; i += 2 * h)
            sums[i] = __fadd_rn(sums[i], sums[i + h]);
    return sums[0];
}

template <class T, int N>
static __device__ __forceinline__ void gather(const T *row, float r, const places<N> &p, float (&v)[N])
{
    const char *at = reinterpret_cast<const char *>(row);
#pragma unroll
    for (int j = 0; j < N; j += 8) {
        uint4 two = p.from[j / 8 * blockDim.x];
        const uint32_t words[4] = {two.x, two.y, two.z, two.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t from = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xFFFF;
            v[j + i] = __fmul_rn(__fmul_rn(as_float(*reinterpret_cast<const T *>(at + from)), r), p.weight[j + i]);
        }
    }
}

/* One barrier. */
static __device__ __forceinline__ float find_r(const row_args &a, float sum, row_shared &shared, int turn)
{
    if (a.source == ROW_NORM)
        return inverse_rms(a, block_sum(sum, shared, turn));
    __syncthreads();
    return 1.0f;
}

/* N channels of a row a thread, LEAVES leaves of it to bring: a row takes 8 * LEAVES / N blocks. */
template <class T, bool INTEGERS, bool EVEN, int N, int LEAVES>
static __global__ void __launch_bounds__(MAX_THREADS) gathered(row_args a)
{
    const int SLICES = LEAF * LEAVES / N;
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *rows = reinterpret_cast<T *>(memory); /* two: a thread may be at one token when others are at the next */
    piece<T, LEAF> x[LEAVES];
    places<N> p;
    float v[1][N];
    int chunk = blockIdx.x % SLICES * blockDim.x + threadIdx.x, step = gridDim.x / SLICES;
    p.from = memory + 2 * LEAVES * LEAF * sizeof(T) / 16 * blockDim.x + threadIdx.x;
    early_next();
    if (EVEN)
        ask_for_row<T, LEAVES>(a, blockIdx.x / SLICES);
    load_places<EVEN>(a, chunk, p);
    put_places(sizeof(T), p);
    early_wait();
    load_row<EVEN>(a, blockIdx.x / SLICES, x);
    begin_shared(shared);
    for (int t = blockIdx.x / SLICES, turn = 0; t < a.n_tok; t += step, turn++) {
        T *row = rows + turn % 2 * LEAVES * LEAF * blockDim.x;
        float sum = stage(row, x);
        if (t + step < a.n_tok)
            load_row<EVEN>(a, t + step, x);
        float r = find_r(a, sum, shared, turn);
        gather(row, r, p, v[0]);
        put_row<INTEGERS>(a, t, turn, chunk, v, shared);
    }
}

/* Two chunks a thread, with no registers left to keep anything in, nor bytes in 16 bits. */
template <class T, bool INTEGERS> static __global__ void __launch_bounds__(MAX_THREADS) gathered_wide(row_args a)
{
    const int LEAVES = MAX_CHUNKS * CHUNK / LEAF;
    extern __shared__ uint4 memory[];
    __shared__ row_shared shared;
    T *row = reinterpret_cast<T *>(memory);
    piece<T, LEAF> x[LEAVES];
    float v[MAX_CHUNKS][CHUNK];
    int t = blockIdx.x;
    early_next();
    early_wait();
    load_row<false>(a, t, x);
    begin_shared(shared);
    float r = find_r(a, stage(row, x), shared, 0);
#pragma unroll
    for (int i = 0; i < MAX_CHUNKS; i++) {
        int chunk = threadIdx.x + i * blockDim.x, first = 0;
        int n = chunk < a.chunks ? chunk_channels<CHUNK>(a, chunk, first) : 0;
#pragma unroll
        for (int j = 0; j < CHUNK; j++) {
            float number = j < n ? as_float(row[a.order ? a.order[first + j] : first + j]) : 0.0f;
            v[i][j] = __fmul_rn(__fmul_rn(number, r), a.weight && j < n ? a.weight[first + j] : 1.0f);
        }
    }
    put_row<INTEGERS>(a, t, 0, threadIdx.x, v, shared);
}

/* ---- the choice of a kernel -------------------------------------------------------------------------------------- */

struct config {
    void (*kernel)(row_args);
    int width, leaves; /* channels of a thread, leaves it brings */
};

/* Measured best on an H100. */
template <class T> static struct config choose(const row_args &a)
{
    int n_sm = atom_cuda_opened()->n_sm, work = a.n_tok * a.chunks / n_sm;
    bool shares = a.first_shared < a.chunks;
    if (a.chunks > MAX_THREADS)
        return {a.q ? gathered_wide<T, true> : gathered_wide<T, false>, MAX_CHUNKS * CHUNK, MAX_CHUNKS * CHUNK / LEAF};
    if (!a.q)
        return {a.even ? gathered<T, false, true, 16, 2> : gathered<T, false, false, 16, 2>, 16, 2};
    if (!a.even)
        return {gathered<T, true, false, 16, 2>, 16, 2};
    if (!shares && (a.chunks > 256 ? 2 : 4) * a.n_tok <= n_sm)
        return {gathered<T, true, true, 8, 2>, 8, 2};
    if (2 * a.chunks <= MAX_THREADS && work >= (shares ? 120 : 60) && work <= 520)
        return {gathered<T, true, true, 8, 1>, 8, 1};
    return {gathered<T, true, true, 16, 2>, 16, 2};
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    struct config c = choose<T>(a);
    int n_sm = atom_cuda_opened()->n_sm, slices = LEAF * c.leaves / c.width;
    int threads = (a.chunks * CHUNK / LEAF / c.leaves + 31) / 32 * 32;
    size_t row = (size_t)threads * c.leaves * sizeof(piece<T, LEAF>);
    size_t n_bytes = c.width > CHUNK ? row : 2 * row + (size_t)threads * c.width * 2;
    if (n_bytes > 40 * 1024) /* 48 with what has its place fixed */
        cudaFuncSetAttribute(c.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    /* Two blocks a multiprocessor leave room for the next kernel to start early; much work wants all of it. */
    int each = a.n_tok <= 8 * n_sm ? min(2, MAX_THREADS / threads) : MAX_THREADS / threads;
    int blocks = a.n_tok * slices;
    if (c.width <= CHUNK && slices == 1)
        blocks = min(blocks, n_sm * max(1, each));
    launch_early(c.kernel, {dim3((unsigned)blocks), threads, n_bytes}, s, a);
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
