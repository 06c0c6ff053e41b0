/* SPDX-License-Identifier: Apache-2.0 */
/* Float rows of the three types, as tests on a device make and read them. */
#ifndef ATOM_TESTS_CUDA_FLOATS_H
#define ATOM_TESTS_CUDA_FLOATS_H

#include "base/half.h"
#include "cuda/ops.h"

#include <string.h>

static inline size_t type_bytes(enum atom_cuda_float t) { return t == ATOM_CUDA_F32 ? 4 : 2; }

static inline float element(enum atom_cuda_float type, const void *y, size_t i)
{
    uint16_t h;
    float f;
    if (type == ATOM_CUDA_F32) {
        memcpy(&f, (const uint8_t *)y + 4 * i, 4);
        return f;
    }
    memcpy(&h, (const uint8_t *)y + 2 * i, 2);
    return type == ATOM_CUDA_F16 ? atom_f16_float(h) : atom_bf16_float(h);
}

static inline void put_element(enum atom_cuda_float type, void *y, size_t i, float x)
{
    uint16_t h = type == ATOM_CUDA_F16 ? atom_float_f16(x) : atom_float_bf16(x);
    if (type == ATOM_CUDA_F32)
        memcpy((uint8_t *)y + 4 * i, &x, 4);
    else
        memcpy((uint8_t *)y + 2 * i, &h, 2);
}

static inline float rounded(enum atom_cuda_float type, float x)
{
    uint8_t y[4];
    put_element(type, y, 0, x);
    return element(type, y, 0);
}

#endif
