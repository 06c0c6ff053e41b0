/* SPDX-License-Identifier: Apache-2.0 */
/* Exact conversions between float32 and the 16-bit formats, to nearest with ties to even; portable, and plain enough
 * for a compiler to vectorize. */
#ifndef ATOM_BASE_HALF_H
#define ATOM_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float atom_bits_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t atom_float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float atom_f16_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    /* The exponent's bias goes from 15 to 127; all ones must stay all ones; without an exponent it counts 2^-24. */
    uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) | 0x7f800000;
    uint32_t tiny = atom_float_bits((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude < 0x0400 ? tiny : magnitude < 0x7c00 ? normal : special;
    return atom_bits_float(sign | bits);
}

/* Overflow gives infinity; a NaN stays one, quiet. */
static inline uint16_t atom_float_f16(float x)
{
    uint32_t bits = atom_float_bits(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000)
        half = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    else if (magnitude >= 0x477ff000) /* 65520 and more */
        half = 0x7c00;
    else if (magnitude < 0x38800000) /* below 2^-14: adding 0.5, whose last bit is 2^-24, rounds */
        half = atom_float_bits(atom_bits_float(magnitude) + 0.5f) - 0x3f000000;
    else
        half = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    return (uint16_t)(sign | half);
}

static inline float atom_bf16_float(uint16_t b) { return atom_bits_float((uint32_t)b << 16); }

static inline uint16_t atom_float_bf16(float x)
{
    uint32_t bits = atom_float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#endif
