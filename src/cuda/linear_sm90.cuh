/* SPDX-License-Identifier: Apache-2.0 */
/* What both linears of Hopper share: the arguments, weights from a stage into registers, results into memory. */
#ifndef ATOM_CUDA_LINEAR_SM90_CUH
#define ATOM_CUDA_LINEAR_SM90_CUH

#include "cuda/floats.cuh"
#include "cuda/linear.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ring.cuh"
#include "cuda/wgmma.cuh"

enum {
    CONSUMERS = 2,
    THREADS = 128 * (CONSUMERS + 1),
    FEW = 64,       /* tokens at most: a kernel of their own */
    FEW_SPLITS = 8, /* of a tile of few tokens, at most: the blocks of a cluster */
};

/* The workspace: a counter for each tile of rows, in front of partial sums, wherever linears of other sizes share it.
 */
enum { MAX_SPLIT_TILES = 4096, ARRIVED_BYTES = MAX_SPLIT_TILES * 4 };

struct args {
    const uint8_t *weights;
    size_t tile_bytes;
    const float *tok_scales, *scale_parts;
    int n, n_tok, tok_stride, n_groups, n_runs;
    int row_tiles, tok_tiles;
    int splits;      /* of a tile's runs, where they are split */
    int whole_pairs; /* many tokens: the first pairs of tiles, whose runs are not */
    float *partials; /* [slot][BN/2][256] */
    int *arrived;    /* a word for each tile that is split */
    void *y;
    const void *add;
    const float *bias;
    size_t y_stride;
    uint32_t zero; /* always; the compiler does not know */
};

/* A tile of rows by tokens, and the runs to sum there; which split of the tile's they are, where it leaves its sums
 * (the others before and after it), and the tile's word. */
struct item {
    int row_tile, tok0;
    int run0, run1;
    int split, n_splits, slot, word;
};

/* Where a run of a tile starts. */
static __device__ __forceinline__ size_t run_at(const struct args &a, int run)
{
    return run <= a.n_groups ? (size_t)run * NIBBLE_RUN_BYTES
                             : (size_t)a.n_groups * NIBBLE_RUN_BYTES + (size_t)(run - a.n_groups) * BYTE_RUN_BYTES;
}

/* Sixteen bytes of nibbles as A of two steps, 16 times their value. */
static __device__ __forceinline__ void unpack(uint4 w, uint32_t (&first)[4], uint32_t (&second)[4])
{
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        first[i] = words[i] << 4 & 0xF0F0F0F0u;
        second[i] = words[i] & 0xF0F0F0F0u;
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* One element, with all that may come with it. */
template <class T> static __device__ __forceinline__ void put(const struct args &a, int tok, int row, float v)
{
    if (tok >= a.n_tok || row >= a.n)
        return;
    if (a.bias)
        v += a.bias[row];
    size_t at = (size_t)tok * a.y_stride + (size_t)row;
    if (a.add)
        v += to_float(static_cast<const T *>(a.add)[at]);
    from_float(v, static_cast<T *>(a.y)[at]);
}

template <int BN, class T>
static __device__ __forceinline__ void put_plain(const struct args &a, const struct item &it, int row0,
                                                 float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            put<T>(a, it.tok0 + 8 * j + lane % 4 * 2 + i % 2, row0 + lane / 4 + i / 2 * 8, y[4 * j + i]);
}

/* Sixteen bits: an 8x8 tile is transposed, so that a thread has two rows of one token and four threads eight. */
template <int BN, class T>
static __device__ __forceinline__ void put_pairs(const struct args &a, const struct item &it, int row0,
                                                 float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        int tok = it.tok0 + 8 * j + lane / 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = row0 + 8 * h + lane % 4 * 2;
            uint32_t two = transpose_8x8(pack2(y[4 * j + 2 * h], y[4 * j + 2 * h + 1], (T *)0));
            if (tok < a.n_tok)
                *reinterpret_cast<uint32_t *>(static_cast<T *>(a.y) + (size_t)tok * a.y_stride + row) = two;
        }
    }
}

template <int BN, class T>
static __device__ __forceinline__ void put_silu(const struct args &a, const struct item &it, int row0,
                                                float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int tok = it.tok0 + 8 * j + lane % 4 * 2 + i, row = row0 + lane / 4;
            float g = y[4 * j + i], u = y[4 * j + 2 + i];
            if (a.bias && row + 8 < a.n)
                g += a.bias[row], u += a.bias[row + 8];
            if (tok < a.n_tok && row < a.n)
                from_float(silu(g, u), static_cast<T *>(a.y)[(size_t)tok * a.y_stride + row0 / 2 + lane / 4]);
        }
}

template <int BN, class T, bool SILU>
static __device__ __forceinline__ void put_tile(const struct args &a, const struct item &it, int row0,
                                                float (&y)[BN / 2])
{
    if constexpr (SILU)
        put_silu<BN, T>(a, it, row0, y);
    else if (sizeof(T) == 2 && !a.bias && !a.add && row0 + 16 <= a.n)
        if constexpr (sizeof(T) == 2)
            put_pairs<BN, T>(a, it, row0, y);
        else
            ;
    else
        put_plain<BN, T>(a, it, row0, y);
}

/* Among how many blocks a tile's runs are split when tokens are few. */
int atom_cuda_sm90_few_splits(const struct atom_cuda_weights *w);
/* And where those of more tokens are. */
struct atom_cuda_cut atom_cuda_sm90_cut(const struct atom_cuda_weights *w, int n_tok);
/* Arguments that do not depend on the kernel. */
struct args atom_cuda_sm90_args(const struct atom_cuda_linear *j);
/* `rows` tokens a box of one run, swizzled by 128. */
enum atom_status atom_cuda_sm90_map(const struct atom_cuda_acts *a, int rows, CUtensorMap *map, struct atom_error *err);
/* Rows of results, or of what is added to them: n_tok tokens a box of 64 rows, swizzled by 128 bytes; 32 of silu, by
 * 64. Types of two bytes. */
enum atom_status atom_cuda_sm90_map_rows(const struct atom_cuda_linear *j, const void *rows, int n_tok,
                                         CUtensorMap *map, struct atom_error *err);

enum atom_status atom_cuda_linear_few(const struct atom_cuda_linear *job, int tile, atom_cuda_stream s,
                                      struct atom_error *err);
enum atom_status atom_cuda_linear_many(const struct atom_cuda_linear *job, int tile, atom_cuda_stream s,
                                       struct atom_error *err);

#endif
