/* SPDX-License-Identifier: Apache-2.0 */
/* A step's queries rotated in place, its keys and values quantized into their pages: a warp for a head's vector.
 *
 * Floats follow the CPU's kernels operation by operation, so that the integers are the same. */
#include "cuda/check.cuh"
#include "cuda/hadamard.cuh"
#include "cuda/kv_pages.cuh"
#include "kernels/hadamard.h"

enum { STORE_WARPS = 4 };

/* ---- the cache's shape ------------------------------------------------------------------------------------------- */

extern "C" enum atom_status atom_cuda_kv_init(struct atom_cuda_kv *kv, struct atom_error *err)
{
    int hd = kv->head_dim, bits = kv->bits;
    if (hd < 2 || hd % 2 || hd > ATOM_CUDA_MAX_HEAD)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "heads of size %d: even sizes from 2 to %d are done on CUDA", hd,
                         ATOM_CUDA_MAX_HEAD);
    if (kv->kv_heads < 1 || kv->heads < 1 || kv->heads % kv->kv_heads)
        return atom_fail(err, ATOM_ERR_INVALID, "%d heads over %d key-value heads: expected a multiple", kv->heads,
                         kv->kv_heads);
    if (bits != 16 && bits != 8 && bits != 4 && bits != 3)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "a KV cache of %d bits: CUDA does 16, 8, 4 and 3", bits);
    if (kv->rotate && !atom_hadamard_has(hd))
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "heads of size %d have no Hadamard rotation", hd);
    if ((kv->rotate & ATOM_ROTATE_QK) && kv->rope == ATOM_KV_PRE)
        return atom_fail(err, ATOM_ERR_INVALID, "keys stored before RoPE cannot be rotated after it");
    kv->wide = hd <= 64 ? 64 : hd <= 96 ? 96 : hd <= 128 ? 128 : 256;
    kv->half_bytes = (size_t)half_bytes(kv->wide, bits);
    kv->page_bytes = 2 * kv->half_bytes * (size_t)kv->kv_heads;
    return ATOM_OK;
}

static __global__ void fill_turns(float2 *turns, int n, int half, const double *inv_freq)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)n * half)
        return;
    double angle = (double)(i / half) * inv_freq[i % half];
    turns[i] = make_float2((float)cos(angle), (float)sin(angle));
}

extern "C" enum atom_status atom_cuda_turns(float *turns, int max_position, int half, const double *inv_freq,
                                            atom_cuda_stream s, struct atom_error *err)
{
    if (max_position < 1 || half < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "angles of %d positions, %d pairs", max_position, half);
    size_t n = (size_t)max_position * (size_t)half;
    fill_turns<<<(unsigned)((n + 255) / 256), 256, 0, s>>>((float2 *)turns, max_position, half, inv_freq);
    return atom_cuda_launched("finding the angles of RoPE", err);
}

/* ---- a vector in a warp ------------------------------------------------------------------------------------------
 * Lane l holds pairs i = l, l+32, ...: of q and k channels i and i+H, of v channels 2i and 2i+1. */

struct shape {
    int heads, kv_heads, head_dim, bits, wide;
    float clip;
    hadamard_shape hadamard;
    bool rope_keys, rotate_qk, rotate_v;
    size_t half_bytes, page_bytes;
};

struct store_args {
    struct shape s;
    struct atom_cuda_step step;
    void *qkv;
    size_t stride;
    const float2 *turns;
    uint8_t *pages;
    int32_t *bad, where;
};

template <int N> struct vector {
    float x[N][2];
};

template <int N> static __device__ void rope(vector<N> &v, const float2 *turns, int half)
{
#pragma unroll
    for (int k = 0; k < N; k++) {
        int i = threadIdx.x % 32 + 32 * k;
        if (i >= half)
            continue;
        float2 t = turns[i];
        float a = v.x[k][0], b = v.x[k][1];
        v.x[k][0] = __fsub_rn(__fmul_rn(a, t.x), __fmul_rn(b, t.y));
        v.x[k][1] = __fmaf_rn(b, t.x, __fmul_rn(a, t.y));
    }
}

/* A vector of 64 N channels, butterflies in registers and between lanes, in the order of atom_hadamard: in v the sides
 * are a channel's lowest bit, in q and k its highest. */
template <int N> static __device__ void butterflies(vector<N> &v, bool sides_first, float by)
{
    for (int turn = 0; turn < 2; turn++)
        if (turn == (sides_first ? 0 : 1)) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                float a = v.x[k][0], b = v.x[k][1];
                v.x[k][0] = __fadd_rn(a, b);
                v.x[k][1] = __fsub_rn(a, b);
            }
        } else {
#pragma unroll
            for (int span = 1; span < 32; span *= 2)
#pragma unroll
                for (int j = 0; j < 2 * N; j++) {
                    float &x = v.x[j / 2][j % 2], other = __shfl_xor_sync(0xFFFFFFFFu, x, span);
                    x = __fmaf_rn(x, threadIdx.x & span ? -1.0f : 1.0f, other);
                }
#pragma unroll
            for (int span = 1; span < N; span *= 2)
#pragma unroll
                for (int j = 0; j < 2 * N; j++)
                    if (!(j / 2 & span)) {
                        float a = v.x[j / 2][j % 2], b = v.x[j / 2 + span][j % 2];
                        v.x[j / 2][j % 2] = __fadd_rn(a, b);
                        v.x[j / 2 + span][j % 2] = __fsub_rn(a, b);
                    }
        }
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        v.x[j / 2][j % 2] = __fmul_rn(v.x[j / 2][j % 2], by);
}

/* Any size, through shared memory; step, apart: channel of pair i, side z is i*step + z*apart. */
template <int N> static __device__ void rotate_any(vector<N> &v, const shape &s, int step, int apart, float *scratch)
{
    int lane = threadIdx.x % 32, half = s.head_dim / 2;
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        if (lane + j / 2 * 32 < half)
            scratch[(lane + j / 2 * 32) * step + j % 2 * apart] = v.x[j / 2][j % 2];
    hadamard(scratch, s.hadamard, false);
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        if (lane + j / 2 * 32 < half)
            v.x[j / 2][j % 2] = scratch[(lane + j / 2 * 32) * step + j % 2 * apart];
}

template <int N> static __device__ void rotate(vector<N> &v, const shape &s, bool value, float *scratch)
{
    if (s.head_dim == 64 * N)
        butterflies(v, value, s.hadamard.by);
    else
        rotate_any(v, s, value ? 2 : 1, value ? 1 : s.head_dim / 2, scratch);
}

/* ---- into a page ------------------------------------------------------------------------------------------------- */

static __device__ float warp_max(float nonnegative)
{
    return __uint_as_float(__reduce_max_sync(0xFFFFFFFFu, __float_as_uint(nonnegative)));
}

/* Scale, zero point and integers as atom_kv_quantize_fn finds them. */
struct grid {
    float scale, inverse;
    int zero, top;
    __half stored;
};

template <int N> static __device__ grid find_grid(const vector<N> &v, const shape &s)
{
    float lo = 0.0f, hi = 0.0f;
    grid g;
#pragma unroll
    for (int j = 0; j < 2 * N; j++) {
        hi = fmaxf(hi, v.x[j / 2][j % 2]);
        lo = fmaxf(lo, -v.x[j / 2][j % 2]);
    }
    g.top = (1 << s.bits) - 1;
    float low = __fmul_rn(-warp_max(lo), s.clip), high = __fmul_rn(warp_max(hi), s.clip);
    float wide = __fdiv_rn(fmaxf(__fsub_rn(high, low), 1e-5f), (float)g.top);
    g.stored = __float2half_rn(fminf(wide, 65504.0f));
    g.scale = __half2float(g.stored);
    g.inverse = __frcp_rn(g.scale);
    g.zero = __float2int_rn(fminf(__fdiv_rn(-low, g.scale), (float)g.top));
    return g;
}

/* x / scale as division rounds it, where it matters: from the rounded inverse, two corrections by exact remainders
 * (Markstein, IBM J. Res. Dev. 34, 1990). Beyond 2048 scales the result is clamped anyway. */
static __device__ float over_scale(float x, const grid &g)
{
    x = fminf(fmaxf(x, -2048.0f * g.scale), 2048.0f * g.scale);
    float q = __fmul_rn(x, g.inverse);
    q = __fmaf_rn(__fmaf_rn(-q, g.scale, x), g.inverse, q);
    return __fmaf_rn(__fmaf_rn(-q, g.scale, x), g.inverse, q);
}

static __device__ int quantize(float x, const grid &g)
{
    float t = fminf(fmaxf(over_scale(x, g), -1024.0f), 1024.0f);
    return min(max(__float2int_rn(t) + g.zero, 0), g.top);
}

template <int N> static __device__ bool is_finite(const vector<N> &v, bool half)
{
    bool fine = true;
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        fine &= fabsf(v.x[j / 2][j % 2]) < (half ? 65520.0f : INFINITY);
    return __all_sync(0xFFFFFFFFu, fine);
}

template <int WIDE, int N>
static __device__ void put_half(const vector<N> &v, const shape &s, bool keys, int p, bool fine, uint8_t *to)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N; k++) {
        int i = lane + 32 * k;
        if (i >= s.head_dim / 2)
            continue;
        place at = keys ? key_place(WIDE, 16, p, i) : value_place(WIDE, 16, p, i);
        *(__half *)(to + at.at) = __float2half_rn(fine ? v.x[k][0] : 0.0f);
        *(__half *)(to + at.at + at.apart) = __float2half_rn(fine ? v.x[k][1] : 0.0f);
    }
}

/* BITS: 8 or 4, which 3 are kept as. */
template <int WIDE, int BITS, int N>
static __device__ void put_integers(const vector<N> &v, const shape &s, bool keys, int p, bool fine, uint8_t *to)
{
    int lane = threadIdx.x % 32;
    grid g = {};
    if (fine)
        g = find_grid(v, s);
#pragma unroll
    for (int k = 0; k < N; k++) {
        int i = lane + 32 * k, a = fine ? quantize(v.x[k][0], g) : 0, b = fine ? quantize(v.x[k][1], g) : 0;
        if (i >= s.head_dim / 2)
            continue;
        place at = keys ? key_place(WIDE, BITS, p, i) : value_place(WIDE, BITS, p, i);
        to[at.at] = (uint8_t)(BITS == 8 ? a : a | b << 4);
        if (BITS == 8)
            to[at.at + at.apart] = (uint8_t)b;
    }
    if (lane == 0)
        *(uint32_t *)(to + tail_offset(WIDE, BITS, p)) = fine ? __half_as_ushort(g.stored) | (uint32_t)g.zero << 16 : 0;
}

/* ---- the kernel -------------------------------------------------------------------------------------------------- */

enum role { QUERY, KEY, VALUE };

template <int WIDE, int N>
static __device__ void put(const vector<N> &v, const store_args &a, enum role role, int head, int row)
{
    const struct atom_cuda_seq *seq = &a.step.seqs[a.step.seq_of[row]];
    int pos = seq->pos0 + row - seq->first_tok;
    int page = a.step.tables[(size_t)a.step.seq_of[row] * a.step.max_pages + pos / PAGE];
    uint8_t *to = a.pages + (size_t)page * a.s.page_bytes + (size_t)(2 * head + (role == VALUE)) * a.s.half_bytes;
    bool fine = is_finite(v, a.s.bits == 16);
    if (a.s.bits == 16)
        put_half<WIDE>(v, a.s, role == KEY, pos % PAGE, fine, to);
    else if (a.s.bits == 8)
        put_integers<WIDE, 8>(v, a.s, role == KEY, pos % PAGE, fine, to);
    else
        put_integers<WIDE, 4>(v, a.s, role == KEY, pos % PAGE, fine, to);
    if (!fine && threadIdx.x % 32 == 0)
        atomicCAS(a.bad + row, 0, a.where);
}

template <class T, int WIDE> static __global__ void __launch_bounds__(STORE_WARPS * 32) store(const store_args a)
{
    constexpr int N = (WIDE + 63) / 64;
    extern __shared__ float scratch[];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.y, half = a.s.head_dim / 2;
    int head = blockIdx.x * STORE_WARPS + warp, seq = a.step.seq_of[row];
    if (head >= a.s.heads + 2 * a.s.kv_heads || seq < 0)
        return;
    T *x = (T *)a.qkv + (size_t)row * a.stride + (size_t)head * a.s.head_dim;
    enum role role = head < a.s.heads ? QUERY : head < a.s.heads + a.s.kv_heads ? KEY : VALUE;
    int step = role == VALUE ? 2 : 1, apart = role == VALUE ? 1 : half;
    vector<N> v;
#pragma unroll
    for (int j = 0; j < 2 * N; j++) {
        int i = lane + j / 2 * 32;
        v.x[j / 2][j % 2] = i < half ? to_float(x[i * step + j % 2 * apart]) : 0.0f;
    }
    const struct atom_cuda_seq *of = &a.step.seqs[seq];
    if (role == QUERY || (role == KEY && a.s.rope_keys))
        rope(v, a.turns + (size_t)(of->pos0 + row - of->first_tok) * half, half);
    if (role == VALUE ? a.s.rotate_v : a.s.rotate_qk)
        rotate(v, a.s, role == VALUE, scratch + warp * a.s.head_dim);
    if (role != QUERY)
        return put<WIDE>(v, a, role, (head - a.s.heads) % a.s.kv_heads, row);
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        if (lane + j / 2 * 32 < half)
            x[lane + j / 2 * 32 + j % 2 * half] = from_float<T>(v.x[j / 2][j % 2]);
}

static shape shape_of(const struct atom_cuda_kv *kv)
{
    return {kv->heads,
            kv->kv_heads,
            kv->head_dim,
            kv->bits,
            kv->wide,
            kv->clip,
            hadamard_of(kv->head_dim),
            kv->rope == ATOM_KV_POST,
            (kv->rotate & ATOM_ROTATE_QK) != 0,
            (kv->rotate & ATOM_ROTATE_V) != 0,
            kv->half_bytes,
            kv->page_bytes};
}

template <class T> static void launch_store(const store_args &a, cudaStream_t s)
{
    int heads = a.s.heads + 2 * a.s.kv_heads;
    dim3 grid((unsigned)((heads + STORE_WARPS - 1) / STORE_WARPS), (unsigned)a.step.max_tok);
    size_t scratch = a.s.rotate_qk || a.s.rotate_v ? (size_t)(STORE_WARPS * a.s.head_dim) * sizeof(float) : 0;
    if (a.s.wide == 64)
        store<T, 64><<<grid, STORE_WARPS * 32, scratch, s>>>(a);
    else if (a.s.wide == 96)
        store<T, 96><<<grid, STORE_WARPS * 32, scratch, s>>>(a);
    else if (a.s.wide == 128)
        store<T, 128><<<grid, STORE_WARPS * 32, scratch, s>>>(a);
    else
        store<T, 256><<<grid, STORE_WARPS * 32, scratch, s>>>(a);
}

extern "C" enum atom_status atom_cuda_store_run(const struct atom_cuda_store *job, atom_cuda_stream s,
                                                struct atom_error *err)
{
    const struct atom_cuda_kv *kv = job->kv;
    size_t row = (size_t)(kv->heads + 2 * kv->kv_heads) * (size_t)kv->head_dim;
    if (!kv->page_bytes || !kv->pages || !kv->turns)
        return atom_fail(err, ATOM_ERR_INVALID, "a KV cache without shape, pages or angles");
    if (job->step->max_tok < 1 || job->step->max_tok > 65535 || job->qkv_stride < row)
        return atom_fail(err, ATOM_ERR_INVALID, "%d rows of %zu numbers, %zu apart: expected 1 to 65535 rows",
                         job->step->max_tok, row, job->qkv_stride);
    const store_args a = {shape_of(kv), *job->step, job->qkv,  job->qkv_stride, (const float2 *)kv->turns,
                          kv->pages,    job->bad,   job->where};
    if (job->type == ATOM_CUDA_F32)
        launch_store<float>(a, s);
    else if (job->type == ATOM_CUDA_F16)
        launch_store<__half>(a, s);
    else
        launch_store<__nv_bfloat16>(a, s);
    return atom_cuda_launched("writing keys and values", err);
}
