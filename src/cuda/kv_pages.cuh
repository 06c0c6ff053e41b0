/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie in a page half (drawn in kv_cache.h), and rows of floats of any type. */
#ifndef ATOM_CUDA_KV_PAGES_CUH
#define ATOM_CUDA_KV_PAGES_CUH

#include "cuda/kv_cache.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { PAGE = ATOM_CUDA_PAGE, KEY_UNITS = 64, VALUE_UNITS = 32 };

/* Bits a number takes in memory. */
static __host__ __device__ constexpr int stored_bits(int bits) { return bits == 3 ? 4 : bits; }

/* Words of a unit. */
static __host__ __device__ constexpr int key_words(int wide, int bits) { return wide * stored_bits(bits) / 128; }
static __host__ __device__ constexpr int value_words(int wide, int bits) { return wide * stored_bits(bits) / 64; }

static __host__ __device__ constexpr int data_bytes(int wide, int bits) { return PAGE * wide * stored_bits(bits) / 8; }
static __host__ __device__ constexpr int half_bytes(int wide, int bits)
{
    return data_bytes(wide, bits) + (bits == 16 ? 0 : ATOM_CUDA_KV_TAIL);
}

/* Byte offset of word w of a unit: whole pieces of 16 bytes first, a piece of all units after another. */
static __host__ __device__ constexpr int word_offset(int w, int n_words, int unit, int n_units)
{
    return w < n_words / 4 * 4 ? (w / 4 * n_units + unit) * 16 + w % 4 * 4
                               : n_words / 4 * 16 * n_units + unit * (n_words % 4 * 4) + w % 4 * 4;
}

static __host__ __device__ constexpr int tail_offset(int wide, int bits, int p)
{
    return data_bytes(wide, bits) + 4 * (p % 8 * 2 + p / 8);
}

/* Where channels i and i+H of the key of position p lie, the second `apart` bytes after the first. 4 bits: one byte
 * for both, apart is 0. */
struct place {
    int at, apart;
};
static __host__ __device__ inline place key_place(int wide, int bits, int p, int i)
{
    int pairs = wide / 8, unit = p * 4 + i / pairs, r = i % pairs, n = key_words(wide, bits);
    if (bits == 16)
        return {word_offset(r / 2 * 2, n, unit, KEY_UNITS) + r % 2 * 2, 4};
    if (bits == 8)
        return {word_offset(r / 2, n, unit, KEY_UNITS) + r % 2, 2};
    return {word_offset(r / 4, n, unit, KEY_UNITS) + (r % 4 == 1 ? 2 : r % 4 == 2 ? 1 : r % 4), 0};
}

/* The same for channels 2i and 2i+1 of a value. */
static __host__ __device__ inline place value_place(int wide, int bits, int p, int i)
{
    int tiles = wide / 16, unit = i / tiles * 4 + p % 8 / 2, t = i % tiles, n = value_words(wide, bits);
    if (bits == 16)
        return {word_offset(4 * t + p / 8 * 2, n, unit, VALUE_UNITS) + p % 2 * 2, 4};
    if (bits == 8)
        return {word_offset(2 * t + p / 8, n, unit, VALUE_UNITS) + p % 2, 2};
    return {word_offset(t, n, unit, VALUE_UNITS) + p % 2 * 2 + p / 8, 0};
}

/* ---- rows of F32, F16 or BF16 ---- */

static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* At an even index. */
static __device__ __forceinline__ void write_two(enum atom_cuda_float type, void *x, size_t i, float a, float b)
{
    if (type == ATOM_CUDA_F32)
        *reinterpret_cast<float2 *>((float *)x + i) = make_float2(a, b);
    else if (type == ATOM_CUDA_F16)
        *reinterpret_cast<__half2 *>((__half *)x + i) = __floats2half2_rn(a, b);
    else
        *reinterpret_cast<__nv_bfloat162 *>((__nv_bfloat16 *)x + i) = __floats2bfloat162_rn(a, b);
}

#endif
