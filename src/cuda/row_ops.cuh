/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the row operations: how a row is shared out among threads, and how values become integers.
 *
 * A row in stored order, padded as its site is, is cut in chunks of 16 (or 8) channels, a thread's:
 * eight (or sixteen) threads have a run. A block takes a token at a time, its values in registers. */
#ifndef ATOM_CUDA_ROW_OPS_CUH
#define ATOM_CUDA_ROW_OPS_CUH

#include "cuda/check.cuh"
#include "cuda/float_rows.cuh"
#include "cuda/row_ops.h"
#include "cuda/scale_parts.cuh"

enum { MAX_THREADS = 1024, MAX_CHUNKS = 2 /* of a thread, in registers */, MAX_WARPS = MAX_THREADS / 32, CHUNK = 16 };

/* Where the values of a block's token come from. */
enum row_source { ROW_GATHERED, ROW_NORM, ROW_SILU, ROW_PLAIN };

struct row_args {
    enum row_source source;
    const void *x;
    size_t stride;
    bool even; /* rows are tokens, and every 16 channels lie at 16-byte addresses in all that is read, and in one run */
    int n_rows, n_tok;
    const int32_t *rows, *order;
    const float *weight;
    float eps;
    /* the cut of a row, integers or not */
    int k, normal, normal_runs, chunks /* of 16 */;
    /* integers: q NULL when there are none */
    int8_t *q;
    float *scales, *scale_parts; /* parts NULL: not wanted */
    int k_padded, tok_stride, outlier_scale;
    int first_shared; /* from this run on, runs share a scale */
    bool whole;
    float top, inv_top, clip, inv_k;
    /* floats: y NULL when there are none */
    void *y;
    size_t y_stride;
    enum atom_cuda_float y_type;
    int32_t *bad;
    int where;
};

/* In memory shared by a block; places for this token and for those that other threads may still be at, or already. */
struct row_shared {
    float sums[2][MAX_WARPS];
    uint32_t largest[4]; /* of the runs that share a scale, as bits */
};

/* Stored channels of a chunk of N: how many, from `first` on. */
template <int N> static __device__ __forceinline__ int chunk_channels(const row_args &a, int chunk, int &first)
{
    int at = chunk * N, end = a.normal;
    first = at;
    if (at >= a.normal_runs * ATOM_CUDA_RUN) {
        first = a.normal + at - a.normal_runs * ATOM_CUDA_RUN;
        end = a.k;
    }
    return max(0, min(N, end - first));
}

/* The row that token t is, or NULL. */
template <class T> static __device__ __forceinline__ const T *row_of(const row_args &a, int t)
{
    int row = a.rows ? a.rows[t] : t;
    return row >= 0 && row < a.n_rows ? static_cast<const T *>(a.x) + (size_t)row * a.stride : nullptr;
}

/* ---- sums and maxima --------------------------------------------------------------------------------------------- */

/* All sums of squares are one binary tree over leaves of 8 consecutive channels, neighbours first, whatever part of it
 * a thread has: the same for every way to share a row out. */
enum { LEAF = 8 };

static __device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int h = 1; h < 32; h *= 2)
        x = __fadd_rn(x, __shfl_xor_sync(0xFFFFFFFFu, x, h));
    return x;
}

/* One barrier; the sum of all threads' x. `turn` counts the block's tokens. */
static __device__ __forceinline__ float block_sum(float x, row_shared &m, int turn)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0)
        m.sums[turn % 2][threadIdx.x / 32] = x;
    __syncthreads();
    unsigned lane = threadIdx.x % 32;
    return warp_sum(lane < blockDim.x / 32 ? m.sums[turn % 2][lane] : 0.0f);
}

/* As the CPU backend has it: NaN, which spreads, when the mean is not finite. */
static __device__ __forceinline__ float inverse_rms(const row_args &a, float sum)
{
    float mean = __fmul_rn(sum, a.inv_k);
    return mean < INFINITY ? rsqrtf(__fadd_rn(mean, a.eps)) : NAN;
}

/* A NaN wins. */
static __device__ __forceinline__ float max_nan(float a, float b)
{
    float r;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

template <int N> static __device__ __forceinline__ float abs_max(const float (&v)[N])
{
    float m = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++)
        m = max_nan(m, fabsf(v[i]));
    return m;
}

/* The largest of a run's threads, N channels each. */
template <int N> static __device__ __forceinline__ float run_max(float m)
{
#pragma unroll
    for (int h = ATOM_CUDA_RUN / N / 2; h; h /= 2)
        m = max_nan(m, __shfl_xor_sync(0xFFFFFFFFu, m, h));
    return m;
}

/* ---- silu -------------------------------------------------------------------------------------------------------- */

/* exp as the CPU kernels compute it (kernels/rows.h), every rounding the same. */
static __device__ __forceinline__ float exp_as_cpu(float x)
{
    const float magic = 0x1.8p23f; /* adding it rounds to an integer, which its low bits then are */
    float y = fminf(fmaxf(x, -87.0f), 88.0f);
    float n_magic = __fadd_rn(__fmul_rn(y, 1.44269504f), magic), n = __fadd_rn(n_magic, -magic);
    float r = fmaf(n, -0.693359375f, y);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.0f / 720;
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    float two_n = __int_as_float((__float_as_int(n_magic) << 23) + (127 << 23));
    return x >= -87.0f ? __fmul_rn(p, two_n) : 0.0f;
}

static __device__ __noinline__ float silu_mul_exact(float gate, float up)
{
    return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0f, exp_as_cpu(-gate))), up);
}

/* The same without a branch, for a gate that is finite and at least -87: of denominators whose reciprocal is no
 * denormal, Newton's steps leave the quotient rounded once. */
static __device__ __forceinline__ float silu_mul(float gate, float up)
{
    float d = __fadd_rn(1.0f, exp_as_cpu(-gate)), y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(d));
    y = fmaf(y, fmaf(-d, y, 1.0f), y);
    float q = __fmul_rn(gate, y);
    q = fmaf(fmaf(-d, q, gate), y, q);
    q = fmaf(fmaf(-d, q, gate), y, q);
    return __fmul_rn(q, up);
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t four_bytes(float a, float b, float c, float d)
{
    uint32_t ab = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x0040);
    uint32_t cd = __byte_perm(__float_as_uint(c), __float_as_uint(d), 0x0040);
    return __byte_perm(ab, cd, 0x5410);
}

/* q = clamp(round(v * inv)): clamping first leaves the same, and adding 1.5 * 2^23 rounds with q in the low byte. */
template <int N>
static __device__ __forceinline__ void quantize(const float (&v)[N], float inv, float top, uint32_t (&q)[N / 4])
{
    float b[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        b[i] = __fadd_rn(fmaxf(fminf(__fmul_rn(v[i], inv), top), -top - 1.0f), 0x1.8p23f);
#pragma unroll
    for (int i = 0; i < N; i += 4)
        q[i / 4] = four_bytes(b[i], b[i + 1], b[i + 2], b[i + 3]);
}

static __device__ __forceinline__ void store_words(void *to, const uint32_t (&q)[4])
{
    *static_cast<uint4 *>(to) = make_uint4(q[0], q[1], q[2], q[3]);
}
static __device__ __forceinline__ void store_words(void *to, const uint32_t (&q)[2])
{
    *static_cast<uint2 *>(to) = make_uint2(q[0], q[1]);
}

static __device__ __forceinline__ bool marks(const row_args &a) { return a.bad && a.where; }

/* a / q, rounded once, of an a that is not tiny: the remainder is exact, and y the nearest to 1 / q (Markstein 1990).
 */
static __device__ __forceinline__ float divided(float a, float q, float y)
{
    float about = __fmul_rn(a, y);
    return fmaf(fmaf(-about, q, a), y, about);
}

static __device__ __forceinline__ void mark_bad(const row_args &a, int t)
{
    if (marks(a) && !a.bad[t])
        a.bad[t] = a.where;
}

/* A chunk of token t whose group's largest magnitude is m. */
template <int N>
static __device__ __forceinline__ void put_integers(const row_args &a, int t, int chunk, const float (&v)[N], float m)
{
    int run = chunk / (ATOM_CUDA_RUN / N);
    bool outlier = run >= a.normal_runs;
    float top = outlier ? 127.0f : a.top, s = 1.0f;
    if (m >= 0x1p-100f)
        s = divided(outlier ? m : __fmul_rn(a.clip, m), top, outlier ? 1.0f / 127 : a.inv_top);
    uint32_t q[N / 4];
    quantize(v, __frcp_rn(s), top, q);
    if (!(m < INFINITY)) {
        s = marks(a) ? 0.0f : NAN;
        mark_bad(a, t);
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            q[i] = 0;
    }
    store_words(a.q + (size_t)t * a.k_padded + chunk * N, q);
    int scale = a.whole ? 0 : outlier ? a.outlier_scale : run;
    if (chunk % (ATOM_CUDA_RUN / N) == 0 && run <= a.first_shared) {
        size_t at = (size_t)scale * a.tok_stride + t;
        a.scales[at] = s;
        if (a.scale_parts)
            reinterpret_cast<float4 *>(a.scale_parts)[at] = scale_parts(s, outlier);
    }
}

template <int N>
static __device__ __forceinline__ void put_floats(const row_args &a, int t, int chunk, const float (&v)[N], float m)
{
    int first, n = chunk_channels<N>(a, chunk, first);
    bool bad = !(m < INFINITY);
    float out[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        out[i] = bad && marks(a) ? 0.0f : v[i];
    if (bad)
        mark_bad(a, t);
    if (a.y)
        store_floats(a.y_type, a.y, (size_t)t * a.y_stride + (size_t)first, out, n);
}

/* A token's values, those of chunk0 + i * blockDim in v[i], go out. A barrier where runs share a scale. */
template <bool INTEGERS, int CHUNKS, int N>
static __device__ __forceinline__ void put_row(const row_args &a, int t, int turn, int chunk0,
                                               const float (&v)[CHUNKS][N], row_shared &shared)
{
    const int EACH = ATOM_CUDA_RUN / N;
    float m[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int chunk = chunk0 + i * blockDim.x;
        m[i] = abs_max(v[i]);
        if (INTEGERS)
            m[i] = run_max<N>(m[i]);
        if (INTEGERS && chunk / EACH >= a.first_shared && chunk % EACH == 0)
            atomicMax(&shared.largest[turn % 4], __float_as_uint(m[i]));
    }
    if (INTEGERS && a.first_shared < a.chunks) {
        if (threadIdx.x == 0)
            shared.largest[(turn + 1) % 4] = 0;
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int chunk = chunk0 + i * blockDim.x;
        if (INTEGERS && chunk / EACH >= a.first_shared)
            m[i] = __uint_as_float(shared.largest[turn % 4]);
        if (chunk * N >= a.chunks * CHUNK)
            continue;
        if (INTEGERS)
            put_integers(a, t, chunk, v[i], m[i]);
        else
            put_floats(a, t, chunk, v[i], m[i]);
    }
}

static __device__ __forceinline__ void begin_shared(row_shared &m)
{
    if (threadIdx.x < 4)
        m.largest[threadIdx.x] = 0;
    __syncthreads();
}

/* The kernels: rows through shared memory, by twos or one by one, rows in the order they lie in, rows too long for
 * registers. */
bool atom_cuda_paired_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s); /* false: not its job */
void atom_cuda_gathered_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s);
void atom_cuda_direct_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s);
void atom_cuda_long_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s);

#endif
