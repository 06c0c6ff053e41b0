/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm, order and quantization, two tokens at a time: rows of 16-bit floats that lie at even places.
 *
 * Two tokens' numbers of a channel lie side by side in shared memory, so that one access gathers both, by one place.
 * What lanes add up or compare for each token they do for one of the two: even lanes have the first, odd lanes the
 * second. A pair of rows then takes little longer than a row. */
#include "cuda/early.cuh"
#include "cuda/row_ops.cuh"

enum { PAIR = 2, HALF_LEAF = LEAF / PAIR /* channels of both tokens in 16 bytes */ };

/* A row of pairs in shared memory is cut in planes of 16 bytes a thread: of half leaf h of thread i's LEAVES leaves,
 * plane h. Neither stores of a leaf nor loads then meet in a bank. Where channel c's pair lies: */
template <int LEAVES> static __device__ __forceinline__ uint32_t pair_at(int c)
{
    int leaf = c / LEAF, plane = leaf % LEAVES * PAIR + c % LEAF / HALF_LEAF;
    return (uint32_t)((plane * (int)blockDim.x + leaf / LEAVES) * 16 + c % HALF_LEAF * 4);
}

/* Of a thread's N channels: which of a row's they are, and their weights, 0 in the padding. */
template <int N> struct channels {
    int32_t from[N];
    float weight[N];
    bool there;
};

/* Of a chunk. */
template <int N> static __device__ __forceinline__ void load_channels(const row_args &a, int chunk, channels<N> &c)
{
    int first = 0;
    c.there = chunk * N < a.chunks * CHUNK && chunk_channels<N>(a, chunk, first) > 0;
#pragma unroll
    for (int j = 0; j < N; j++) {
        c.from[j] = first + j;
        c.weight[j] = c.there ? 1.0f : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        if (a.order && c.there)
            *reinterpret_cast<int4 *>(c.from + j) = *reinterpret_cast<const int4 *>(a.order + first + j);
        if (a.weight && c.there)
            *reinterpret_cast<float4 *>(c.weight + j) = *reinterpret_cast<const float4 *>(a.weight + first + j);
    }
}

/* Where they lie goes to `places`, two to a word, eight a uint4, blockDim.x apart. */
template <int N, int LEAVES> static __device__ __forceinline__ void put_places(const channels<N> &c, uint4 *places)
{
#pragma unroll
    for (int j = 0; j < N; j += 8) {
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            two[i] = c.there ? pair_at<LEAVES>(c.from[j + 2 * i]) | pair_at<LEAVES>(c.from[j + 2 * i + 1]) << 16 : 0;
        places[j / 8 * blockDim.x] = make_uint4(two[0], two[1], two[2], two[3]);
    }
}

/* This thread's parts of tokens t and t + 1; of one that is not there, zeros. */
template <class T, int LEAVES>
static __device__ __forceinline__ void load_pair(const row_args &a, int t, piece<T, LEAF> (&x)[PAIR][LEAVES])
{
    const T *rows = static_cast<const T *>(a.x);
#pragma unroll
    for (int p = 0; p < PAIR; p++)
#pragma unroll
        for (int i = 0; i < LEAVES; i++) {
            int first = ((int)threadIdx.x * LEAVES + i) * LEAF;
            int n = t + p < a.n_tok && first < a.k ? LEAF : 0;
            load_piece<true>(rows + (size_t)(t + p) * a.stride + first, n, x[p][i]);
        }
}

template <class T> static __device__ __forceinline__ float sum_of_squares(const piece<T, LEAF> &x)
{
    float v[LEAF], sum = 0.0f;
    piece_floats(x, v);
#pragma unroll
    for (int j = 0; j < LEAF; j++)
        sum = fmaf(v[j], v[j], sum);
    return sum;
}

/* The thread's part of both rows goes to shared memory; their sums of squares come back. */
template <class T, int LEAVES>
static __device__ __forceinline__ float2 stage(uint4 *pairs, const piece<T, LEAF> (&x)[PAIR][LEAVES])
{
    float2 sums[LEAVES];
#pragma unroll
    for (int i = 0; i < LEAVES; i++) {
        const uint4 a = x[0][i].words[0], b = x[1][i].words[0];
        pairs[(i * PAIR) * blockDim.x + threadIdx.x] =
            make_uint4(__byte_perm(a.x, b.x, 0x5410), __byte_perm(a.x, b.x, 0x7632), __byte_perm(a.y, b.y, 0x5410),
                       __byte_perm(a.y, b.y, 0x7632));
        pairs[(i * PAIR + 1) * blockDim.x + threadIdx.x] =
            make_uint4(__byte_perm(a.z, b.z, 0x5410), __byte_perm(a.z, b.z, 0x7632), __byte_perm(a.w, b.w, 0x5410),
                       __byte_perm(a.w, b.w, 0x7632));
        sums[i] = make_float2(sum_of_squares(x[0][i]), sum_of_squares(x[1][i]));
    }
#pragma unroll
    for (int h = 1; h < LEAVES; h *= 2)
#pragma unroll
        for (int i = 0; i < LEAVES; i += 2 * h)
            sums[i] = make_float2(__fadd_rn(sums[i].x, sums[i + h].x), __fadd_rn(sums[i].y, sums[i + h].y));
    return sums[0];
}

/* Asks for this thread's parts of a pair in the L2 cache: what another kernel still writes, it writes there. */
template <class T, int LEAVES> static __device__ __forceinline__ void ask_for_pair(const row_args &a, int t)
{
    const T *rows = static_cast<const T *>(a.x);
    int first = (int)threadIdx.x * LEAVES * LEAF;
#pragma unroll
    for (int p = 0; p < PAIR; p++)
        if (t + p < a.n_tok && first < a.k)
            ask_for(rows + (size_t)(t + p) * a.stride + first);
}

static __device__ __forceinline__ bool is_odd() { return threadIdx.x % 2; }

/* A warp's sum of x.x in even lanes, of x.y in odd ones: the tree that warp_sum has. */
static __device__ __forceinline__ float warp_sums(float2 x)
{
    float other = __shfl_xor_sync(0xFFFFFFFFu, is_odd() ? x.x : x.y, 1);
    float sum = __fadd_rn(is_odd() ? x.y : x.x, other);
#pragma unroll
    for (int h = 2; h < 32; h *= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(0xFFFFFFFFu, sum, h));
    return sum;
}

/* In memory shared by a block, for this pair and the one that other threads may still be at, or already. */
struct pair_shared {
    float sums[2][PAIR][MAX_WARPS];
    uint32_t largest[4][PAIR];
};

/* One barrier. */
static __device__ __forceinline__ float2 find_r(const row_args &a, float2 sums, pair_shared &m, int turn)
{
    if (a.source != ROW_NORM) {
        __syncthreads();
        return make_float2(1.0f, 1.0f);
    }
    float x = warp_sums(sums);
    int lane = threadIdx.x % 32;
    if (lane < PAIR)
        m.sums[turn % 2][lane][threadIdx.x / 32] = x;
    __syncthreads();
    bool is = lane < (int)blockDim.x / 32;
    x = warp_sums(make_float2(is ? m.sums[turn % 2][0][lane] : 0.0f, is ? m.sums[turn % 2][1][lane] : 0.0f));
    float r = inverse_rms(a, x);
    return make_float2(__shfl_sync(0xFFFFFFFFu, r, 0), __shfl_sync(0xFFFFFFFFu, r, 1));
}

static __device__ __forceinline__ float2 both_floats(uint32_t pair, __nv_bfloat16)
{
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
}
static __device__ __forceinline__ float2 both_floats(uint32_t pair, __half)
{
    return __half22float2(*reinterpret_cast<__half2 *>(&pair));
}

template <class T, int N>
static __device__ __forceinline__ void gather(const uint4 *pairs, float2 r, const uint4 *places,
                                              const float (&weight)[N], float (&v)[PAIR][N])
{
    const char *at = reinterpret_cast<const char *>(pairs);
#pragma unroll
    for (int j = 0; j < N; j += 8) {
        uint4 two = places[j / 8 * blockDim.x];
        const uint32_t words[4] = {two.x, two.y, two.z, two.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t place = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xFFFF;
            float2 x = both_floats(*reinterpret_cast<const uint32_t *>(at + place), T());
            v[0][j + i] = __fmul_rn(__fmul_rn(x.x, r.x), weight[j + i]);
            v[1][j + i] = __fmul_rn(__fmul_rn(x.y, r.y), weight[j + i]);
        }
    }
}

/* Of this lane's token and run: m the largest magnitude of what shares its scale. The scale is stored where `puts`;
 * its reciprocal comes back, 0 when the numbers are not finite. */
static __device__ __forceinline__ float put_scale(const row_args &a, int t, int run, float m, bool puts)
{
    bool outlier = run >= a.normal_runs;
    float top = outlier ? 127.0f : a.top, s = 1.0f;
    if (m >= 0x1p-100f)
        s = divided(outlier ? m : __fmul_rn(a.clip, m), top, outlier ? 1.0f / 127 : a.inv_top);
    float inv = __frcp_rn(s);
    if (t >= a.n_tok)
        return inv;
    if (!(m < INFINITY)) {
        s = marks(a) ? 0.0f : NAN;
        inv = 0.0f;
        mark_bad(a, t);
    }
    if (puts) {
        size_t at = (size_t)(a.whole ? 0 : outlier ? a.outlier_scale : run) * a.tok_stride + t;
        a.scales[at] = s;
        if (a.scale_parts)
            reinterpret_cast<float4 *>(a.scale_parts)[at] = scale_parts(s, outlier);
    }
    return inv;
}

/* A pair's values go out; a barrier where runs share a scale. */
template <int N>
static __device__ __forceinline__ void put_pair(const row_args &a, int t, int turn, int chunk,
                                                const float (&v)[PAIR][N], pair_shared &shared)
{
    const int EACH = ATOM_CUDA_RUN / N;
    int run = chunk / EACH, own = is_odd();
    float first = abs_max(v[0]), second = abs_max(v[1]);
    float m = max_nan(own ? second : first, __shfl_xor_sync(0xFFFFFFFFu, own ? first : second, 1));
#pragma unroll
    for (int h = EACH / 2; h > 1; h /= 2)
        m = max_nan(m, __shfl_xor_sync(0xFFFFFFFFu, m, h));
    if (a.first_shared < a.chunks) {
        if (run >= a.first_shared && chunk % EACH < PAIR)
            atomicMax(&shared.largest[turn % 4][own], __float_as_uint(m));
        if (threadIdx.x < PAIR)
            shared.largest[(turn + 1) % 4][threadIdx.x] = 0;
        __syncthreads();
        if (run >= a.first_shared)
            m = __uint_as_float(shared.largest[turn % 4][own]);
    }
    bool there = chunk * N < a.chunks * CHUNK;
    float inv = put_scale(a, t + own, run, m, there && chunk % EACH < PAIR && run <= a.first_shared);
    float other = __shfl_xor_sync(0xFFFFFFFFu, inv, 1);
#pragma unroll
    for (int p = 0; p < PAIR; p++) {
        float by = p == own ? inv : other;
        uint32_t q[N / 4];
        quantize(v[p], by, run >= a.normal_runs ? 127.0f : a.top, q);
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            q[i] = by == 0.0f ? 0 : q[i];
        if (there && t + p < a.n_tok)
            store_words(a.q + (size_t)(t + p) * a.k_padded + chunk * N, q);
    }
}

/* N channels of both rows a thread, LEAVES leaves of each to bring: a pair takes 8 * LEAVES / N blocks. */
template <class T, int N, int LEAVES, int THREADS, int BLOCKS>
static __global__ void __launch_bounds__(THREADS, BLOCKS) paired(row_args a)
{
    const int SLICES = LEAF * LEAVES / N, PLANES = LEAVES * PAIR;
    extern __shared__ uint4
        memory[]; /* two rows of pairs: a thread may be at one when others are at the next; places */
    __shared__ pair_shared shared;
    piece<T, LEAF> x[PAIR][LEAVES];
    channels<N> c;
    float v[PAIR][N];
    uint4 *places = memory + 2 * PLANES * blockDim.x + threadIdx.x;
    int chunk = blockIdx.x % SLICES * blockDim.x + threadIdx.x, step = PAIR * (gridDim.x / SLICES);
    int t = PAIR * (blockIdx.x / SLICES);
    early_next();
    ask_for_pair<T, LEAVES>(a, t);
    load_channels(a, chunk, c);
    put_places<N, LEAVES>(c, places);
    early_wait();
    load_pair(a, t, x);
    if (threadIdx.x < 4 * PAIR)
        shared.largest[threadIdx.x / PAIR][threadIdx.x % PAIR] = 0;
    if (a.first_shared < a.chunks)
        __syncthreads();
    for (int turn = 0; t < a.n_tok; t += step, turn++) {
        uint4 *pairs = memory + turn % 2 * PLANES * blockDim.x;
        float2 sums = stage(pairs, x);
        if (t + step < a.n_tok)
            load_pair(a, t + step, x);
        float2 r = find_r(a, sums, shared, turn);
        gather<T>(pairs, r, places, c.weight, v);
        put_pair(a, t, turn, chunk, v, shared);
    }
}

/* ---- the choice of a kernel -------------------------------------------------------------------------------------- */

struct config {
    void (*kernel)(row_args);
    int width, leaves; /* channels of a thread, leaves of a row it brings */
    int each;          /* blocks a multiprocessor */
};

/* Measured best on an H100: threads of 8 channels where few turns are to be short, of 16 where many cost instructions.
 * A second block takes a multiprocessor's turn from one pair to two, and two thirds more time. Of narrow rows several
 * blocks are like one of wide ones. */
template <class T> static struct config choose(const row_args &a)
{
    int alike = max(1, 256 / a.chunks), slots = atom_cuda_opened()->n_sm * alike, pairs = (a.n_tok + PAIR - 1) / PAIR;
    int turns = (pairs + slots - 1) / slots, double_turns = (pairs + 2 * slots - 1) / (2 * slots);
    bool two = a.chunks <= 320 && 5 * double_turns < 3 * turns;
    if (a.chunks <= 256 && (turns == 3 || turns > 12))
        return {paired<T, 16, 2, 256, 3>, 16, 2, 3 * alike};
    if (turns > (a.chunks > 320 ? 1 : a.chunks > 256 ? 4 : 3))
        return {paired<T, 16, 2, 512, 1>, 16, 2, two ? 2 * alike : alike};
    if (two)
        return {paired<T, 8, 1, 640, 2>, 8, 1, 2 * alike};
    return {paired<T, 8, 1, 1024, 1>, 8, 1, alike};
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    struct config c = choose<T>(a);
    int threads = (a.chunks * CHUNK / LEAF / c.leaves + 31) / 32 * 32;
    size_t n_bytes = (size_t)threads * (2 * PAIR * c.leaves * sizeof(piece<T, LEAF>) + c.width * sizeof(uint16_t));
    int blocks = min((a.n_tok + PAIR - 1) / PAIR, atom_cuda_opened()->n_sm * c.each);
    if (n_bytes > 40 * 1024) /* 48 with what has its place fixed */
        cudaFuncSetAttribute(c.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    launch_early(c.kernel, {dim3((unsigned)blocks), threads, n_bytes}, s, a);
}

/* Where one token a block fills the multiprocessors with short turns, pairs gain nothing. */
bool atom_cuda_paired_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s)
{
    enum { MOST = 512 /* chunks, for two rows and their places in shared memory and in registers */ };
    int n_sm = atom_cuda_opened()->n_sm, singles = a.chunks > 320 ? n_sm : a.chunks > 256 ? n_sm / 2 : 2 * n_sm;
    if (!a.even || !a.q || type == ATOM_CUDA_F32 || a.chunks > MOST || a.n_tok <= singles)
        return false;
    if (type == ATOM_CUDA_F16)
        launch<__half>(a, s);
    else
        launch<__nv_bfloat16>(a, s);
    return true;
}
