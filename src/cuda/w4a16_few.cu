/* SPDX-License-Identifier: Apache-2.0 */
/* INT4 weights times few 16-bit tokens: time is what reading the weights takes.
 *
 * A block has STRIPS times 16 rows and all of K, as many blocks as multiprocessors where rows allow. Its eight warps
 * take groups of 128 channels in turn, weights and tokens straight from global memory to registers, the next group's
 * while this one's multiply (mma.sync m16n8k16, tokens being its 8 columns); a group's sums are scaled by themselves.
 * In the end the warps' sums are added up in order. Nothing of that depends on the number of tokens. */
#include "cuda/lanes.cuh"
#include "cuda/w4a16.cuh"

enum { WARPS = 16, STRIP = 16, TOKENS = 8 };

struct few_args {
    struct atom_cuda_w4a16 job;
    const uint8_t *data;
    int n, k, n_groups, n_strips;
};

/* A group of some strips. */
template <int COUNT> struct fetched {
    uint4 weights[COUNT][2];
    __half2 scales[COUNT]; /* of rows l/4 and 8 more */
};

template <int COUNT>
static __device__ __forceinline__ void fetch(const struct few_args &a, int strip0, int group, struct fetched<COUNT> &f)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 0; s < COUNT; s++) {
        int strip = strip0 + s < a.n_strips ? strip0 + s : a.n_strips - 1;
        const uint8_t *from = a.data + ((size_t)(strip / 8) * (size_t)a.n_groups + (size_t)group) * W4_GROUP_BYTES;
        f.scales[s] = reinterpret_cast<const __half2 *>(from + W4_NIBBLE_BYTES)[strip % 8 * 8 + lane / 4];
        from += strip % 8 / 4 * 4096 + strip % 4 * 512 + lane * 16;
        f.weights[s][0] = __ldcs(reinterpret_cast<const uint4 *>(from));
        f.weights[s][1] = __ldcs(reinterpret_cast<const uint4 *>(from + 2048));
    }
}

/* Eight channels of a token from c on; those past k are zeros. */
template <class X> static __device__ __forceinline__ uint4 eight_of(const X *row, int c, int k)
{
    if (c + 8 <= k)
        return __ldg(reinterpret_cast<const uint4 *>(row + c));
    uint32_t words[4] = {};
    for (int i = 0; i < 8; i++)
        if (c + i < k)
            words[i / 2] |= (uint32_t) reinterpret_cast<const uint16_t *>(row)[c + i] << (i % 2 * 16);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* A group of the tokens, as B of eight products. A lane's token of each tile is l/4; it reads 8 channels of every 32,
 * and lanes of four swap, so that each gets its pairs. */
template <class X, int TILES>
static __device__ __forceinline__ void fetch_x(const struct few_args &a, int tok0, int group,
                                               uint32_t (&x)[TILES][4][4])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        int tok = tok0 + t * TOKENS + lane / 4;
        const X *row = static_cast<const X *>(a.job.x) + (size_t)tok * a.job.x_stride;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint4 v = tok < a.job.n_tok ? eight_of(row, group * ATOM_CUDA_RUN + i * 32 + lane % 4 * 8, a.k)
                                        : make_uint4(0, 0, 0, 0);
            x[t][i][0] = v.x, x[t][i][1] = v.y, x[t][i][2] = v.z, x[t][i][3] = v.w;
        }
    }
#pragma unroll
    for (int i = 0; i < TILES * 4; i++)
        swap_quad(x[i / 4][i % 4], lane % 4);
}

static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b, __half *)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
                 " {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b, __nv_bfloat16 *)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
                 " {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A group of a strip: sums[tile][i] is of row l/4 + i/2*8 and token 2(l%4) + i%2. Two chains, as a product takes long.
 */
template <class X, int TILES>
static __device__ __forceinline__ void multiply(const uint4 (&weights)[2], const uint32_t (&x)[TILES][4][4],
                                                float (&sums)[TILES][4])
{
    float odd[TILES][4] = {};
#pragma unroll
    for (int step = 0; step < 8; step++) {
        const uint4 &w = weights[step / 4];
        uint32_t word = step % 4 == 0 ? w.x : step % 4 == 1 ? w.y : step % 4 == 2 ? w.z : w.w, a[4];
        typename pair_of<X>::type q[4];
        unpack(word, q);
#pragma unroll
        for (int e = 0; e < 4; e++)
            a[e] = *reinterpret_cast<uint32_t *>(&q[e]);
#pragma unroll
        for (int t = 0; t < TILES; t++)
            mma(step % 2 ? odd[t] : sums[t], a, x[t][step / 2] + step % 2 * 2, (X *)0);
    }
#pragma unroll
    for (int i = 0; i < TILES * 4; i++)
        sums[i / 4][i % 4] += odd[i / 4][i % 4];
}

/* y += a group of COUNT strips. */
template <class X, int COUNT, int TILES>
static __device__ __forceinline__ void add_group(const struct fetched<COUNT> &f, const uint32_t (&x)[TILES][4][4],
                                                 float (*y)[TILES][4])
{
#pragma unroll
    for (int s = 0; s < COUNT; s++) {
        float2 by = __half22float2(f.scales[s]);
        float sums[TILES][4] = {};
        multiply<X, TILES>(f.weights[s], x, sums);
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[s][t][i] = fmaf(sums[t][i], i / 2 ? by.y : by.x, y[s][t][i]);
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

template <class T> static __device__ __forceinline__ void put_as(const struct few_args &a, size_t at, float v)
{
    if (a.job.add)
        v += to_float(static_cast<const T *>(a.job.add)[at]);
    from_float(v, static_cast<T *>(a.job.y)[at]);
}

static __device__ __forceinline__ void put(const struct few_args &a, int tok, int column, float v)
{
    size_t at = (size_t)tok * a.job.y_stride + (size_t)column;
    if (a.job.type == ATOM_CUDA_F16)
        put_as<__half>(a, at, v);
    else if (a.job.type == ATOM_CUDA_BF16)
        put_as<__nv_bfloat16>(a, at, v);
    else
        put_as<float>(a, at, v);
}

/* The warps' sums of a block's row and token, added up in order, with bias. parts [WARPS][STRIPS][TILES][4][32 lanes]
 */
template <int STRIPS, int TILES>
static __device__ __forceinline__ float total(const struct few_args &a, const float *parts, int row, int tok)
{
    int at = ((row / STRIP * TILES + tok / TOKENS) * 4 + row % STRIP / 8 * 2 + tok % 2) * 32 + row % 8 * 4 +
             tok % TOKENS / 2;
    int stacked = blockIdx.x * STRIPS * STRIP + row;
    float sum = parts[at];
#pragma unroll
    for (int w = 1; w < WARPS; w++)
        sum += parts[at + w * (STRIPS * TILES * 4 * 32)];
    return a.job.bias && stacked < a.n ? sum + a.job.bias[stacked] : sum;
}

template <int STRIPS, int TILES>
static __device__ __forceinline__ void put_all(const struct few_args &a, int tok0, const float *parts)
{
    enum { ROWS = STRIPS * STRIP, ALL = ROWS * TILES * TOKENS };
    int row0 = blockIdx.x * ROWS;
    for (int i = threadIdx.x; i < ALL; i += WARPS * 32) {
        int row = i % ROWS, tok = i / ROWS;
        if (row0 + row >= a.n || tok0 + tok >= a.job.n_tok)
            continue;
        if (!a.job.silu)
            put(a, tok0 + tok, row0 + row, total<STRIPS, TILES>(a, parts, row, tok));
        else if (row % 16 < 8)
            put(a, tok0 + tok, (row0 + row) / 16 * 8 + row % 8,
                silu(total<STRIPS, TILES>(a, parts, row, tok), total<STRIPS, TILES>(a, parts, row + 8, tok)));
    }
}

template <class X, int STRIPS, int TILES>
static __global__ void __launch_bounds__(WARPS * 32, 1) w4a16_few(const struct few_args a)
{
    extern __shared__ float parts[];
    enum { COUNT = STRIPS <= 4 ? STRIPS : STRIPS / 2 }; /* strips at a time: registers hold no more */
    int warp = threadIdx.x / 32, tok0 = blockIdx.y * TILES * TOKENS;
    float y[STRIPS][TILES][4] = {};
    for (int group = warp; group < a.n_groups; group += WARPS) {
        uint32_t x[TILES][4][4];
        struct fetched<COUNT> f;
        fetch<COUNT>(a, blockIdx.x * STRIPS, group, f);
        fetch_x<X, TILES>(a, tok0, group, x);
#pragma unroll
        for (int s = 0; s < STRIPS; s += COUNT) {
            if (s > 0)
                fetch<COUNT>(a, blockIdx.x * STRIPS + s, group, f);
            add_group<X, COUNT, TILES>(f, x, y + s);
        }
    }
    float *mine = parts + warp * (STRIPS * TILES * 4 * 32) + threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < STRIPS * TILES * 4; i++)
        mine[i * 32] = y[i / 4 / TILES][i / 4 % TILES][i % 4];
    __syncthreads();
    put_all<STRIPS, TILES>(a, tok0, parts);
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <class X, int STRIPS, int TILES>
static enum atom_status launch(const struct few_args *a, atom_cuda_stream s, struct atom_error *err)
{
    enum { SMEM_BYTES = WARPS * STRIPS * TILES * 4 * 32 * sizeof(float) };
    enum atom_status st = atom_cuda_status(
        cudaFuncSetAttribute(w4a16_few<X, STRIPS, TILES>, cudaFuncAttributeMaxDynamicSharedMemorySize, SMEM_BYTES),
        "asking for shared memory", err);
    if (st)
        return st;
    dim3 grid((unsigned)((a->n_strips + STRIPS - 1) / STRIPS),
              (unsigned)((a->job.n_tok + TILES * TOKENS - 1) / (TILES * TOKENS)));
    w4a16_few<X, STRIPS, TILES><<<grid, WARPS * 32, SMEM_BYTES, s>>>(*a);
    return atom_cuda_launched("starting a w4a16 linear", err);
}

/* As few strips as give every multiprocessor a block, up to what registers hold: then blocks come in rounds. */
template <class X, int TILES>
static enum atom_status launch(const struct few_args *a, atom_cuda_stream s, struct atom_error *err)
{
    int each = (a->n_strips + atom_cuda_opened()->n_sm - 1) / atom_cuda_opened()->n_sm;
    if (each <= 1)
        return launch<X, 1, TILES>(a, s, err);
    if (each <= 2)
        return launch<X, 2, TILES>(a, s, err);
    if constexpr (TILES == 2)
        return launch<X, 3, TILES>(a, s, err);
    else
        return each <= 4 ? launch<X, 4, TILES>(a, s, err) : launch<X, 6, TILES>(a, s, err);
}

template <class X> static enum atom_status launch(const struct few_args *a, atom_cuda_stream s, struct atom_error *err)
{
    return a->job.n_tok <= TOKENS ? launch<X, 1>(a, s, err) : launch<X, 2>(a, s, err);
}

enum atom_status atom_cuda_w4a16_few(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err)
{
    const struct few_args a = {*job, job->w->data, job->w->n, job->w->k, job->w->n_groups, (job->w->n + 15) / STRIP};
    return job->x_type == ATOM_CUDA_F16 ? launch<__half>(&a, s, err) : launch<__nv_bfloat16>(&a, s, err);
}
