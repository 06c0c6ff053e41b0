/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of eight bits and less, to nearest with ties to even:
 *
 *     E2M1   sign, 2 bits of exponent, 1 of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
 *     E4M3   up to 448, down to 2^-9, no infinity; 0x7f and 0xff are no numbers
 *     E8M0   powers of two alone, 2^(code - 127); 0xff is no number
 *
 * E2M1 and E8M0 as in the OCP Microscaling Formats (MX) Specification, v1.0, E4M3 as in the OCP 8-bit Floating Point
 * Specification; what is beyond the largest number becomes that number ("saturating"). */
#ifndef ATOM_BASE_MINIFLOAT_H
#define ATOM_BASE_MINIFLOAT_H

#include "base/half.h"

#include <math.h>
#include <stdbool.h>

#define ATOM_E2M1_MAX 6.0f
#define ATOM_E4M3_MAX 448.0f

/* The number of E2M1 nearest to x, as a float; a NaN stays one. */
static inline float atom_e2m1_round(float x)
{
    const float big = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to an integer */
    float a = fabsf(x);
    a = a > ATOM_E2M1_MAX ? ATOM_E2M1_MAX : a;
    /* Numbers lie 0.5 apart up to 2, then 1, from 4 on 2: as even and odd counts of steps as their mantissas are. */
    const float magic = a < 2.0f ? big * 0.5f : a < 4.0f ? big : big * 2.0f;
    return copysignf((a + magic) - magic, x);
}

static inline float atom_e2m1_float(unsigned code)
{
    static const float values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return values[code & 15];
}

/* The code of a number of E2M1, given in halves: -12 to 12. Zero has no sign. */
static inline unsigned atom_e2m1_of_halves(int halves)
{
    static const uint8_t codes[13] = {0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7};
    return halves < 0 ? codes[-halves] | 8u : codes[halves];
}

static inline bool atom_e4m3_is_number(uint8_t code) { return (code & 0x7f) != 0x7f; }

static inline float atom_e4m3_float(uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24, magnitude = code & 0x7f;
    /* The exponent's bias goes from 7 to 127; without an exponent the mantissa counts 2^-9. */
    uint32_t normal = (magnitude << 20) + (120u << 23), tiny = atom_float_bits((float)(int32_t)magnitude * 0x1p-9f);
    uint32_t bits = magnitude == 0x7f ? 0x7fc00000 : magnitude < 8 ? tiny : normal;
    return atom_bits_float(sign | bits);
}

/* A NaN gives one. */
static inline uint8_t atom_float_e4m3(float x)
{
    uint32_t bits = atom_float_bits(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff, code;
    if (magnitude > 0x7f800000)
        code = 0x7f;
    else if (magnitude >= 0x43e00000) /* 448 */
        code = 0x7e;
    else if (magnitude < 0x3c800000) /* below 2^-6: adding 2^14, whose last bit is 2^-9, rounds */
        code = atom_float_bits(atom_bits_float(magnitude) + 16384.0f) - 0x46800000;
    else
        code = (magnitude - (120u << 23) + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
    return (uint8_t)(sign | code);
}

static inline float atom_e8m0_float(uint8_t code)
{
    /* 2^-127 is a denormal float. */
    return code == 0xff ? NAN : code == 0 ? 0x1p-127f : atom_bits_float((uint32_t)code << 23);
}

/* The largest power of two that is not above x > 0; 2^-127 for less than that, 2^127 for more. */
static inline uint8_t atom_e8m0_below(float x)
{
    uint32_t exponent = atom_float_bits(x) >> 23;
    return (uint8_t)(exponent < 254 ? exponent : 254);
}

#endif
