/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers that device and host agree on: word i of a seed is a hash, so that a sample of what a kernel was fed
 * is known without copying it back. */
#ifndef ATOM_BENCH_GPU_RANDOM_H
#define ATOM_BENCH_GPU_RANDOM_H

#include "cuda/cuda.h"

#include "base/half.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __CUDACC__
#define ATOM_GPU_BOTH static inline __host__ __device__
#else
#define ATOM_GPU_BOTH static inline
#endif

enum atom_gpu_random {
    ATOM_GPU_BYTES,   /* every byte, evenly */
    ATOM_GPU_NIBBLES, /* bytes from -8 to 7 */
    ATOM_GPU_E4M3,    /* 1/8 to 2, both signs */
    ATOM_GPU_HALVES,  /* about normal, deviation 1, in half precision */
    ATOM_GPU_SCALES,  /* half precision, 2^-7 to 2^-6 */
    ATOM_GPU_FSCALES, /* float32, 2^-7 to 2^-6 */
    ATOM_GPU_FLOATS,  /* float32, about normal, deviation 1 */
};

ATOM_GPU_BOTH uint32_t atom_gpu_hash(uint32_t seed, uint32_t i)
{
    uint32_t x = i * 0x9E3779B1u + seed * 0x85EBCA77u + 0x165667B1u;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
}

/* The sum of four bytes, in steps of 2^-7: exact in half precision. */
ATOM_GPU_BOTH float atom_gpu_bell(uint32_t h)
{
    int sum = (int)(h & 255) + (int)(h >> 8 & 255) + (int)(h >> 16 & 255) + (int)(h >> 24) - 510;
    return (float)sum * 0x1p-7f;
}

/* The halves of the bell: its 10 bits of magnitude fit in a half's 11. */
ATOM_GPU_BOTH uint32_t atom_gpu_half_bell(uint32_t h)
{
    int sum = (int)(h & 255) + (int)(h >> 8 & 255) + (int)(h >> 16 & 255) + (int)(h >> 24) - 510, up = 0;
    uint32_t sign = sum < 0 ? 0x8000u : 0, m = (uint32_t)(sum < 0 ? -sum : sum);
    if (!m)
        return sign;
    while (!(m << up & 0x400u))
        up++;
    return sign | (uint32_t)(18 - up) << 10 | (m << up & 0x3FFu); /* m * 2^-7 = 1.f * 2^(10-up-7) */
}

ATOM_GPU_BOTH uint32_t atom_gpu_word(enum atom_gpu_random kind, uint32_t seed, uint32_t i)
{
    uint32_t h = atom_gpu_hash(seed, i);
    switch (kind) {
    case ATOM_GPU_BYTES:
        return h;
    case ATOM_GPU_NIBBLES: /* sign extension, byte by byte */
        return (h & 0x07070707u) | (h & 0x08080808u) * 31;
    case ATOM_GPU_E4M3:
        return (h & 0x87878787u) | ((h >> 4 & 0x03030303u) + 0x04040404u) << 3;
    case ATOM_GPU_HALVES:
        return atom_gpu_half_bell(h) | atom_gpu_half_bell(atom_gpu_hash(seed ^ 0x55555555u, i)) << 16;
    case ATOM_GPU_SCALES:
        return (h & 0x03FF03FFu) | 0x20002000u;
    case ATOM_GPU_FSCALES:
        return (h & 0x7FFFFFu) | 0x3C000000u;
    default:
        break;
    }
    union {
        float f;
        uint32_t bits;
    } u;
    u.f = atom_gpu_bell(h);
    return u.bits;
}

/* Elements as the host reads them. */
static inline uint8_t atom_gpu_byte_at(enum atom_gpu_random kind, uint32_t seed, size_t i)
{
    return (uint8_t)(atom_gpu_word(kind, seed, (uint32_t)(i / 4)) >> (8 * (i % 4)));
}
/* Of HALVES without the way through a half, which is exact and slow. */
static inline float atom_gpu_half_at(enum atom_gpu_random kind, uint32_t seed, size_t i)
{
    if (kind == ATOM_GPU_HALVES)
        return atom_gpu_bell(atom_gpu_hash(i % 2 ? seed ^ 0x55555555u : seed, (uint32_t)(i / 2)));
    return atom_f16_float((uint16_t)(atom_gpu_word(kind, seed, (uint32_t)(i / 2)) >> (16 * (i % 2))));
}
static inline float atom_gpu_float_at(enum atom_gpu_random kind, uint32_t seed, size_t i)
{
    return atom_bits_float(atom_gpu_word(kind, seed, (uint32_t)i));
}

/* Fills device memory, n_bytes rounded down to whole words. */
enum atom_status atom_gpu_fill(void *device, size_t n_bytes, enum atom_gpu_random kind, uint32_t seed,
                               atom_cuda_stream s, struct atom_error *err);
/* Memory and its numbers in one. */
enum atom_status atom_gpu_alloc_random(size_t n_bytes, enum atom_gpu_random kind, uint32_t seed, void **out,
                                       struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
