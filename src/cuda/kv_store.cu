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
    float scale;
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
    g.zero = __float2int_rn(fminf(__fdiv_rn(-low, g.scale), (float)g.top));
    return g;
}

static __device__ int quantize(float x, const grid &g)
{
    float t = fminf(fmaxf(__fdiv_rn(x, g.scale), -1024.0f), 1024.0f);
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

static __device__ enum role role_of(const shape &s, int head)
{
    return head < s.heads ? QUERY : head < s.heads + s.kv_heads ? KEY : VALUE;
}

/* Where a row's keys and values go. */
struct target {
    uint8_t *page;
    int slot, row;
};

template <int WIDE, int N>
static __device__ void put(const vector<N> &v, const store_args &a, const target &t, int head)
{
    bool keys = role_of(a.s, head) == KEY, fine = is_finite(v, a.s.bits == 16);
    uint8_t *to = t.page + (size_t)(2 * ((head - a.s.heads) % a.s.kv_heads) + !keys) * a.s.half_bytes;
    if (a.s.bits == 16)
        put_half<WIDE>(v, a.s, keys, t.slot, fine, to);
    else if (a.s.bits == 8)
        put_integers<WIDE, 8>(v, a.s, keys, t.slot, fine, to);
    else
        put_integers<WIDE, 4>(v, a.s, keys, t.slot, fine, to);
    if (!fine && threadIdx.x % 32 == 0)
        atomicCAS(a.bad + t.row, 0, a.where);
}

template <class T, int N> static __device__ vector<N> read_vector(const T *x, const shape &s, int head)
{
    int lane = threadIdx.x % 32, half = s.head_dim / 2;
    bool value = role_of(s, head) == VALUE;
    vector<N> v;
#pragma unroll
    for (int j = 0; j < 2 * N; j++) {
        int i = lane + j / 2 * 32;
        v.x[j / 2][j % 2] = i < half ? to_float(x[value ? 2 * i + j % 2 : i + j % 2 * half]) : 0.0f;
    }
    return v;
}

template <class T, int N> static __device__ void write_query(const vector<N> &v, T *x, int half)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 2 * N; j++)
        if (lane + j / 2 * 32 < half)
            x[lane + j / 2 * 32 + j % 2 * half] = from_float<T>(v.x[j / 2][j % 2]);
}

/* A warp takes `each` heads of a row, the next one's numbers on their way while it works on one. */
template <class T, int WIDE>
static __global__ void __launch_bounds__(STORE_WARPS * 32) store(const store_args a, int each)
{
    constexpr int N = (WIDE + 63) / 64;
    extern __shared__ float scratch[];
    int warp = threadIdx.x / 32, row = blockIdx.y, half = a.s.head_dim / 2, seq = a.step.seq_of[row];
    int head = (int)(blockIdx.x * STORE_WARPS + warp) * each, end = min(head + each, a.s.heads + 2 * a.s.kv_heads);
    if (head >= end || seq < 0)
        return;
    T *x = (T *)a.qkv + (size_t)row * a.stride;
    vector<N> next = read_vector<T, N>(x + (size_t)head * a.s.head_dim, a.s, head);
    const struct atom_cuda_seq *of = &a.step.seqs[seq];
    int pos = of->pos0 + row - of->first_tok, page = a.step.tables[(size_t)seq * a.step.max_pages + pos / PAGE];
    const target to = {a.pages + (size_t)page * a.s.page_bytes, pos % PAGE, row};
    for (; head < end; head++) {
        vector<N> v = next;
        enum role role = role_of(a.s, head);
        if (head + 1 < end)
            next = read_vector<T, N>(x + (size_t)(head + 1) * a.s.head_dim, a.s, head + 1);
        if (role == QUERY || (role == KEY && a.s.rope_keys))
            rope(v, a.turns + (size_t)pos * half, half);
        if (role == VALUE ? a.s.rotate_v : a.s.rotate_qk)
            rotate(v, a.s, role == VALUE, scratch + warp * a.s.head_dim);
        if (role == QUERY)
            write_query(v, x + (size_t)head * a.s.head_dim, half);
        else
            put<WIDE>(v, a, to, head);
    }
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
    /* Where rows are many, warps are, and finding the row is better done once for several heads. */
    int heads = a.s.heads + 2 * a.s.kv_heads, each = a.step.max_tok >= 512 ? 8 : 1;
    int warps = (heads + each - 1) / each;
    dim3 grid((unsigned)((warps + STORE_WARPS - 1) / STORE_WARPS), (unsigned)a.step.max_tok);
    size_t scratch = a.s.rotate_qk || a.s.rotate_v ? (size_t)(STORE_WARPS * a.s.head_dim) * sizeof(float) : 0;
    if (a.s.wide == 64)
        store<T, 64><<<grid, STORE_WARPS * 32, scratch, s>>>(a, each);
    else if (a.s.wide == 96)
        store<T, 96><<<grid, STORE_WARPS * 32, scratch, s>>>(a, each);
    else if (a.s.wide == 128)
        store<T, 128><<<grid, STORE_WARPS * 32, scratch, s>>>(a, each);
    else
        store<T, 256><<<grid, STORE_WARPS * 32, scratch, s>>>(a, each);
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
