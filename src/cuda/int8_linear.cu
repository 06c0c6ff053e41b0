/* SPDX-License-Identifier: Apache-2.0 */
/* INT8 linears: packing, checks, and the kernel of mma.sync for devices before Hopper. */
#include "cuda/int8_linear.cuh"

#include <stdlib.h>

/* ---- packing ----------------------------------------------------------------------------------------------------- */

struct packer {
    struct atom_cuda_int8_tensors parts[ATOM_CUDA_MAX_PARTS];
    int n, n_padded, k, k_padded;
    bool by_turns;
    int8_t *q;
    float *scales;
};

/* A block a stacked row; rows past the last are zeros. */
static __global__ void pack(const struct packer p)
{
    int stacked = blockIdx.x, r = stacked, part = 0;
    if (p.by_turns) {
        part = r / 8 % 2;
        r = r / 16 * 8 + r % 8;
    } else
        while (stacked < p.n && r >= p.parts[part].n)
            r -= p.parts[part++].n;
    const struct atom_cuda_int8_tensors &t = p.parts[part];
    const int8_t *from = t.qweight + (size_t)r * (size_t)p.k;
    for (int c = threadIdx.x; c < p.k_padded; c += blockDim.x)
        p.q[int8_at(p.n_padded, stacked, c)] = stacked < p.n && c < p.k ? from[c] : (int8_t)0;
    if (threadIdx.x == 0 && stacked < p.n)
        p.scales[stacked] = t.scales ? __half2float(reinterpret_cast<const __half *>(t.scales)[r / t.rows_per_scale])
                                     : t.scales_f32[r / t.rows_per_scale];
}

static enum atom_status check_parts(const struct atom_cuda_site *site, const struct atom_cuda_int8_tensors *parts,
                                    int n_parts, bool by_turns, struct atom_error *err)
{
    if (!site->whole || site->k > ATOM_CUDA_INT8_MAX_K)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "an INT8 linear of %d channels: expected a site of one scale a token, and at most %d", site->k,
                         ATOM_CUDA_INT8_MAX_K);
    if (n_parts < 1 || n_parts > ATOM_CUDA_MAX_PARTS)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d parts; expected 1 to %d", n_parts, ATOM_CUDA_MAX_PARTS);
    if (by_turns && (n_parts != 2 || parts[0].n != parts[1].n || parts[0].n % 8))
        return atom_fail(err, ATOM_ERR_INVALID, "rows by turns want two parts of the same rows, a multiple of 8");
    for (int i = 0; i < n_parts; i++)
        if (parts[i].n < 1 || parts[i].rows_per_scale < 1 || !parts[i].qweight ||
            (!parts[i].scales && !parts[i].scales_f32))
            return atom_fail(err, ATOM_ERR_INVALID, "part %d of an INT8 linear has no rows or lacks a tensor", i);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_int8_weights_create(const struct atom_cuda_site *site,
                                                          const struct atom_cuda_int8_tensors *parts, int n_parts,
                                                          bool by_turns, atom_cuda_stream s,
                                                          struct atom_cuda_int8_weights **out, struct atom_error *err)
{
    enum atom_status st = check_parts(site, parts, n_parts, by_turns, err);
    if (st)
        return st;
    struct atom_cuda_int8_weights *w = (struct atom_cuda_int8_weights *)calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    struct packer p = {};
    for (int i = 0; i < n_parts; i++) {
        p.parts[i] = parts[i];
        w->n += parts[i].n;
    }
    w->site = *site;
    w->by_turns = by_turns;
    w->n_padded = (w->n + INT8_EDGE - 1) / INT8_EDGE * INT8_EDGE;
    st = atom_cuda_alloc((size_t)w->n_padded * (size_t)site->k_padded, (void **)&w->q, err);
    st = st ? st : atom_cuda_alloc((size_t)w->n * sizeof(float), (void **)&w->scales, err);
    if (!st) {
        p.n = w->n;
        p.n_padded = w->n_padded;
        p.k = site->k;
        p.k_padded = site->k_padded;
        p.by_turns = by_turns;
        p.q = w->q;
        p.scales = w->scales;
        pack<<<(unsigned)w->n_padded, 256, 0, s>>>(p);
        st = atom_cuda_launched("packing an INT8 linear", err);
    }
    if (st) {
        atom_cuda_int8_weights_free(w);
        return st;
    }
    *out = w;
    return ATOM_OK;
}

extern "C" void atom_cuda_int8_weights_free(struct atom_cuda_int8_weights *w)
{
    if (!w)
        return;
    atom_cuda_free(w->q);
    atom_cuda_free(w->scales);
    free(w);
}

extern "C" size_t atom_cuda_int8_weights_bytes(const struct atom_cuda_int8_weights *w)
{
    return (size_t)w->n_padded * (size_t)w->site.k_padded + (size_t)w->n * sizeof(float);
}

/* ---- mma.sync ---------------------------------------------------------------------------------------------------- */

/* A block has 64 tokens by 64 rows, four warps, each 32 by 32; a step brings 64 channels to shared memory, where lines
 * are 16 bytes longer than they hold, so that eight of them lie in different banks. */
enum { EDGE = INT8_EDGE, CHANNELS = 64, LINE = CHANNELS + 16, PLAIN_THREADS = 128 };

static __device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
                 " {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 64 lines of 64 bytes of activations, those past `lines` zeros. */
static __device__ __forceinline__ void fetch_acts(const int8_t *from, size_t stride, int lines, int8_t *to)
{
    for (int i = threadIdx.x; i < EDGE * CHANNELS / 16; i += PLAIN_THREADS) {
        int line = i / (CHANNELS / 16), at = i % (CHANNELS / 16) * 16;
        uint4 v = make_uint4(0, 0, 0, 0);
        if (line < lines)
            v = *reinterpret_cast<const uint4 *>(from + (size_t)line * stride + at);
        *reinterpret_cast<uint4 *>(to + line * LINE + at) = v;
    }
}

/* The same of a block's weights. */
static __device__ __forceinline__ void fetch_weights(const int8_t *weights, int n_padded, int row0, int c, int8_t *to)
{
    for (int i = threadIdx.x; i < EDGE * CHANNELS / 16; i += PLAIN_THREADS) {
        int line = i / (CHANNELS / 16), at = i % (CHANNELS / 16) * 16;
        *reinterpret_cast<uint4 *>(to + line * LINE + at) =
            *reinterpret_cast<const uint4 *>(weights + int8_at(n_padded, row0 + line, c + at));
    }
}

static __device__ __forceinline__ uint32_t word(const int8_t *line, int at)
{
    return *reinterpret_cast<const uint32_t *>(line + at);
}

/* 32 channels of a warp's 32 x 32. */
static __device__ __forceinline__ void step(const int8_t *acts, const int8_t *weights, int c, int (&sums)[2][4][4])
{
    int lane = threadIdx.x % 32, at = c + lane % 4 * 4;
    uint32_t a[2][4], b[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            a[i][e] = word(acts + (16 * i + lane / 4 + e % 2 * 8) * LINE, at + e / 2 * 16);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        b[0] = word(weights + (8 * j + lane / 4) * LINE, at);
        b[1] = word(weights + (8 * j + lane / 4) * LINE, at + 16);
#pragma unroll
        for (int i = 0; i < 2; i++)
            mma_s8(sums[i][j], a[i], b);
    }
}

template <class T, bool SILU>
static __device__ __forceinline__ void put(const struct int8_results &r, int tok0, int row0, int (&sums)[2][4][4])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j += SILU ? 2 : 1)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int tok = tok0 + 16 * i + lane / 4 + e / 2 * 8, row = row0 + 8 * j + lane % 4 * 2 + e % 2;
                if constexpr (SILU)
                    put_one_silu<T>(r, tok, row, sums[i][j][e], sums[i][j + 1][e]);
                else
                    put_one<T>(r, tok, row, sums[i][j][e]);
            }
}

template <class T, bool SILU>
static __global__ void __launch_bounds__(PLAIN_THREADS)
    int8_linear(const int8_t *acts, const int8_t *weights, int k_padded, int n_padded, const struct int8_results r)
{
    __shared__ __align__(16) int8_t a[EDGE * LINE], w[EDGE * LINE];
    int tok0 = blockIdx.y * EDGE, row0 = blockIdx.x * EDGE, warp = threadIdx.x / 32;
    int sums[2][4][4] = {};
    size_t stride = (size_t)k_padded;
    for (int c = 0; c < k_padded; c += CHANNELS) {
        fetch_acts(acts + (size_t)tok0 * stride + c, stride, r.n_tok - tok0, a);
        fetch_weights(weights, n_padded, row0, c, w);
        __syncthreads();
        for (int half = 0; half < CHANNELS; half += 32)
            step(a + warp / 2 * 32 * LINE, w + warp % 2 * 32 * LINE, half, sums);
        __syncthreads();
    }
    put<T, SILU>(r, tok0 + warp / 2 * 32, row0 + warp % 2 * 32, sums);
}

template <class T> static void launch(const struct atom_cuda_int8_linear *j, atom_cuda_stream s)
{
    const struct int8_results r = int8_results_of(j);
    dim3 grid((unsigned)((r.n + EDGE - 1) / EDGE), (unsigned)((r.n_tok + EDGE - 1) / EDGE));
    if (j->silu)
        int8_linear<T, true><<<grid, PLAIN_THREADS, 0, s>>>(j->a->q, j->w->q, j->w->site.k_padded, j->w->n_padded, r);
    else
        int8_linear<T, false><<<grid, PLAIN_THREADS, 0, s>>>(j->a->q, j->w->q, j->w->site.k_padded, j->w->n_padded, r);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static enum atom_status check_job(const struct atom_cuda_int8_linear *j, struct atom_error *err)
{
    int columns = j->silu ? j->w->n / 2 : j->w->n;
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (j->a->site.k != j->w->site.k || !j->a->site.whole)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "activations of %d channels, %s, for an INT8 linear of %d: expected one scale a token",
                         j->a->site.k, j->a->site.whole ? "one scale a token" : "in groups", j->w->site.k);
    if (j->a->n_tok < 1 || j->a->tok_stride < j->a->n_tok || j->a->tok_stride % 64)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "activations of %d tokens, stride %d: expected 1 or more, and a multiple of 64", j->a->n_tok,
                         j->a->tok_stride);
    if (j->silu && (!j->w->by_turns || j->add))
        return atom_fail(err, ATOM_ERR_INVALID, "silu wants rows by turns and nothing to add");
    if (j->y_stride < (size_t)columns || j->y_stride % 8 || (uintptr_t)j->y % 16 || (uintptr_t)j->add % 16)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "rows of %d results, %zu apart: expected a multiple of 8, at 16-byte addresses", columns,
                         j->y_stride);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_int8_linear_run_plain(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                                            struct atom_error *err)
{
    enum atom_status st = check_job(job, err);
    if (st)
        return st;
    if (job->type == ATOM_CUDA_F32)
        launch<float>(job, s);
    else if (job->type == ATOM_CUDA_F16)
        launch<__half>(job, s);
    else
        launch<__nv_bfloat16>(job, s);
    return atom_cuda_launched("starting an INT8 linear", err);
}

extern "C" enum atom_status atom_cuda_int8_linear_run(const struct atom_cuda_int8_linear *job, atom_cuda_stream s,
                                                      struct atom_error *err)
{
    if (!atom_cuda_opened() || atom_cuda_opened()->major != 9)
        return atom_cuda_int8_linear_run_plain(job, s, err);
    enum atom_status st = check_job(job, err);
    return st ? st : atom_cuda_int8_linear_sm90(job, s, err);
}
