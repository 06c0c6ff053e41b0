/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention for every device: mma m16n8k16 of f16.
 *
 * A block has 64 query rows of one KV head, 16 a warp. It expands 64 positions of pages at a time into shared memory,
 * and its warps go over them with a softmax that grows. Keys come in ascending order, so that every row has a finite
 * maximum from its first tile on. */
#include "cuda/attention_prefill.cuh"
#include "cuda/mma.cuh"

enum { ROWS = 64, WARPS = 4, THREADS = 32 * WARPS };

struct place_of {
    struct atom_cuda_seq seq;
    const int32_t *table;
    int head, row0, n_rows;
};

template <bool TURNED> static __device__ __forceinline__ void load_matrices(uint32_t (&x)[4], const void *row)
{
    if constexpr (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(shared_address(row)));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(shared_address(row)));
}

template <int WIDE, class T> static __device__ void load_queries(const prefill_args &a, const place_of &at, uint8_t *to)
{
    enum { UNITS = (WIDE + 63) / 64 * 8 };
    for (int i = threadIdx.x; i < ROWS * UNITS; i += THREADS) {
        int r = at.row0 + i / UNITS, u = i % UNITS;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (r < at.n_rows && u * 8 < WIDE) {
            int tok = at.seq.first_tok + r / a.group, head = at.head * a.group + r % a.group;
            x = query_unit<WIDE>((const T *)a.q + (size_t)tok * a.q_stride + (size_t)head * a.head_dim, u, a.head_dim);
        }
        *reinterpret_cast<uint4 *>(to + unit_at<ROWS>(i / UNITS, u)) = x;
    }
}

/* Positions from `first` on, those from `end` on as zeros. */
template <int WIDE, int BITS>
static __device__ void expand_tile(const prefill_args &a, const place_of &at, int first, int end, uint8_t *keys,
                                   uint8_t *values)
{
    enum { UNITS = KEY_UNITS + VALUE_UNITS };
    for (int i = threadIdx.x; i < ROWS / PAGE * UNITS; i += THREADS) {
        int row0 = i / UNITS * PAGE, unit = i % UNITS, pos = first + row0;
        if (pos >= end) {
            for (int j = unit; j < PAGE * (tile_bytes(WIDE, 1) / 16); j += UNITS)
                *reinterpret_cast<uint4 *>(values + unit_at<ROWS>(row0 + j % PAGE, j / PAGE)) = make_uint4(0, 0, 0, 0);
            continue;
        }
        const uint8_t *half =
            a.pages + (size_t)at.table[pos / PAGE] * a.page_bytes + (size_t)(2 * at.head) * a.half_bytes;
        if (unit < KEY_UNITS) {
            int p = min(pos + unit / 4, end - 1), pairs = a.head_dim / 2;
            if (a.turns)
                expand_key_unit<WIDE, BITS, ROWS>(
                    half, unit, table_turns{a.turns + (size_t)p * pairs, unit % 4 * (WIDE / 8), pairs}, keys,
                    row0 + unit / 4);
            else
                expand_key_unit<WIDE, BITS, ROWS>(half, unit, no_turns{}, keys, row0 + unit / 4);
        } else {
            expand_value_unit<WIDE, BITS, ROWS>(half + a.half_bytes, unit - KEY_UNITS, values, row0);
        }
    }
}

template <int WIDE>
static __device__ __forceinline__ void score(const uint8_t *queries, const uint8_t *keys, float (&s)[8][4])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < 8; j++)
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll 4
    for (int k = 0; k < WIDE / 16; k++) {
        uint32_t q[4], x[4];
        load_matrices<false>(q, queries + unit_at<ROWS>(warp * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int j = 0; j < 4; j++) { /* 16 keys: rows of 8, units 2k and 2k+1 of each */
            load_matrices<false>(x, keys + unit_at<ROWS>(16 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
            mma(s[2 * j], q, x[0], x[1]);
            mma(s[2 * j + 1], q, x[2], x[3]);
        }
    }
}

template <int WIDE>
static __device__ __forceinline__ void weigh(const float (&s)[8][4], const uint8_t *values, float (&o)[WIDE / 8][4])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
        const uint32_t p[4] = {halves(s[2 * k][0], s[2 * k][1]), halves(s[2 * k][2], s[2 * k][3]),
                               halves(s[2 * k + 1][0], s[2 * k + 1][1]), halves(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < WIDE / 16; j++) {
            uint32_t x[4];
            load_matrices<true>(x, values + unit_at<ROWS>(16 * k + lane % 16, 2 * j + lane / 16));
            mma(o[2 * j], p, x[0], x[1]);
            mma(o[2 * j + 1], p, x[2], x[3]);
        }
    }
}

/* Scores to weights; last: the last key that each of this thread's rows sees, counted from the tile's first. */
static __device__ __forceinline__ void soften(float (&s)[8][4], float scale, const int (&last)[2], float (&max)[2],
                                              float (&sum)[2], float (&by)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = max[h], total = 0.0f;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            float &x = s[j / 2][2 * h + j % 2];
            x = 8 * (j / 2) + (int)threadIdx.x % 4 * 2 + j % 2 > last[h] ? -INFINITY : x;
            top = fmaxf(top, x);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        by[h] = exp2_fast((max[h] - top) * scale);
        max[h] = top;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            float &x = s[j / 2][2 * h + j % 2];
            x = exp2_fast(fmaf(x, scale, -top * scale));
            total += x;
        }
        sum[h] = fmaf(sum[h], by[h], total);
    }
}

template <int WIDE, class T>
static __device__ void put_rows(const prefill_args &a, const place_of &at, const float (&o)[WIDE / 8][4],
                                const float (&sum)[2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float total = sum[h];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        int r = at.row0 + threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
        if (r >= at.n_rows)
            continue;
        int tok = at.seq.first_tok + r / a.group, head = at.head * a.group + r % a.group;
        T *to = (T *)a.out + (size_t)tok * a.out_stride + (size_t)head * a.head_dim;
        float by = 1.0f / total;
#pragma unroll
        for (int j = 0; j < WIDE / 8; j++)
            if (8 * j + lane % 4 * 2 < a.head_dim)
                put2(to + 8 * j + lane % 4 * 2, o[j][2 * h] * by, o[j][2 * h + 1] * by);
    }
}

template <int WIDE, int BITS, class T> static __device__ void attend_rows(const prefill_args &a, const place_of &at)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    enum { BYTES = tile_bytes(WIDE, ROWS) };
    uint8_t *keys = shared + BYTES, *values = keys + BYTES;
    int row = at.row0 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    int tile_end = at.seq.pos0 + min(at.row0 + ROWS - 1, at.n_rows - 1) / a.group + 1;
    float o[WIDE / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    load_queries<WIDE, T>(a, at, shared);
    for (int first = 0; first < tile_end; first += ROWS) {
        float s[8][4], by[2];
        const int last[2] = {at.seq.pos0 + row / a.group - first, at.seq.pos0 + (row + 8) / a.group - first};
        __syncthreads();
        expand_tile<WIDE, BITS>(a, at, first, at.seq.pos0 + at.seq.n_tok, keys, values);
        __syncthreads();
        score<WIDE>(shared, keys, s);
        soften(s, a.scale, last, max, sum, by);
#pragma unroll
        for (int j = 0; j < WIDE / 8 * 4; j++)
            o[j / 4][j % 4] *= by[j % 4 / 2];
        weigh<WIDE>(s, values, o);
    }
    put_rows<WIDE, T>(a, at, o, sum);
}

template <int WIDE, int BITS> static __global__ void __launch_bounds__(THREADS) attend(const prefill_args a)
{
    place_of at;
    at.seq = a.step.seqs[blockIdx.z];
    at.table = a.step.tables + (size_t)blockIdx.z * a.step.max_pages;
    at.head = blockIdx.y;
    at.n_rows = at.seq.n_tok * a.group;
    at.row0 = (int)(gridDim.x - 1 - blockIdx.x) * ROWS; /* the longest rows first */
    if (at.seq.n_tok <= ATOM_CUDA_DECODE_TOK || at.row0 >= at.n_rows)
        return;
    if (a.type == ATOM_CUDA_F32)
        attend_rows<WIDE, BITS, float>(a, at);
    else if (a.type == ATOM_CUDA_F16)
        attend_rows<WIDE, BITS, __half>(a, at);
    else
        attend_rows<WIDE, BITS, __nv_bfloat16>(a, at);
}

template <int WIDE, int BITS>
static enum atom_status launch(const prefill_args *a, atom_cuda_stream s, struct atom_error *err)
{
    int bytes = 3 * tile_bytes(WIDE, ROWS);
    enum atom_status st =
        atom_cuda_status(cudaFuncSetAttribute(attend<WIDE, BITS>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                         "asking for shared memory", err);
    if (st)
        return st;
    dim3 grid((unsigned)(((size_t)a->step.max_tok * a->group + ROWS - 1) / ROWS), (unsigned)a->kv_heads,
              (unsigned)a->step.max_seqs);
    attend<WIDE, BITS><<<grid, THREADS, (size_t)bytes, s>>>(*a);
    return atom_cuda_launched("starting prefill attention", err);
}

template <int WIDE>
static enum atom_status launch(const prefill_args *a, int bits, atom_cuda_stream s, struct atom_error *err)
{
    return bits == 16  ? launch<WIDE, 16>(a, s, err)
           : bits == 8 ? launch<WIDE, 8>(a, s, err)
                       : launch<WIDE, 4>(a, s, err);
}

enum atom_status atom_cuda_prefill_mma(const prefill_args *a, int wide, int bits, atom_cuda_stream s,
                                       struct atom_error *err)
{
    return wide == 64    ? launch<64>(a, bits, s, err)
           : wide == 96  ? launch<96>(a, bits, s, err)
           : wide == 128 ? launch<128>(a, bits, s, err)
                         : launch<256>(a, bits, s, err);
}
