/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the linears of 16-bit activations: packed weights, and the kernel of Hopper. */
#ifndef ATOM_CUDA_W4A16_CUH
#define ATOM_CUDA_W4A16_CUH

#include "cuda/check.cuh"
#include "cuda/floats.cuh"
#include "cuda/w4a16.h"

/* Rows are cut in tiles of 128, an even number of them; those past n are zeros. A tile is its groups one after the
 * other, each [2 warpgroups][2 halves of 64 channels][4 warps][32 lanes][16 bytes] and the F16 scales of its 128 rows,
 * of every 16 rows r and r + 8 side by side.
 *
 * A lane's 16 bytes are its share of A of four products of 16 channels (wgmma_more.cuh; m16n8k16 of mma.sync has the
 * same), a word each: of a[e]'s two values, the low one at bit 4e, the high one at bit 4e + 16, as q+8. */
enum {
    W4_ROWS = 128,
    W4_NIBBLE_BYTES = 8192,
    W4_GROUP_BYTES = W4_NIBBLE_BYTES + 2 * W4_ROWS,
};

struct atom_cuda_w4a16_weights {
    int n, k, n_groups, n_tiles;
    bool by_turns;
    uint8_t *data; /* [n_tiles][n_groups][W4_GROUP_BYTES] */
};

/* (a & b) | c */
static __device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* q of a word's eight q+8, as A of one product of 16 channels. Nibbles become floats by writing them into the last bits
 * of a power of two, from which it is subtracted again: both are exact. */
static __device__ __forceinline__ void unpack(uint32_t word, __half2 (&a)[4])
{
    const __half2 low = __float2half2_rn(-1032.0f), high = __float2half2_rn(-72.0f), by = __float2half2_rn(0.0625f);
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
        uint32_t x = word >> (4 * e), v0 = and_or(x, 0x000F000Fu, 0x64006400u), /* 1024 + (q+8) */
            v1 = and_or(x, 0x00F000F0u, 0x64006400u);                           /* 1024 + 16 (q+8) */
        a[e] = __hadd2(*reinterpret_cast<__half2 *>(&v0), low);
        a[e + 1] = __hfma2(*reinterpret_cast<__half2 *>(&v1), by, high);
    }
}
static __device__ __forceinline__ void unpack(uint32_t word, __nv_bfloat162 (&a)[4])
{
    const __nv_bfloat162 low = __float2bfloat162_rn(-136.0f), one = __float2bfloat162_rn(1.0f);
#pragma unroll
    for (int e = 0; e < 4; e++) {
        uint32_t v = and_or(word >> (4 * e), 0x000F000Fu, 0x43004300u); /* 128 + (q+8) */
        a[e] = __hfma2(*reinterpret_cast<__nv_bfloat162 *>(&v), one, low);
    }
}

/* A type of activations, two to a register. */
template <class X> struct pair_of;
template <> struct pair_of<__half> {
    typedef __half2 type;
    static __device__ __forceinline__ __half2 twice(__half s) { return __half2half2(s); }
};
template <> struct pair_of<__nv_bfloat16> {
    typedef __nv_bfloat162 type;
    static __device__ __forceinline__ __nv_bfloat162 twice(__half s) { return __float2bfloat162_rn(__half2float(s)); }
};

size_t atom_cuda_w4a16_workspace_sm90(const struct atom_cuda_w4a16_weights *w);
enum atom_status atom_cuda_w4a16_sm90(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err);
/* Any number of tokens on any device; fast for few. */
enum atom_status atom_cuda_w4a16_few(const struct atom_cuda_w4a16 *job, atom_cuda_stream s, struct atom_error *err);

#endif
