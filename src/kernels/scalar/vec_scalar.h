/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen float32 or int32 lanes in plain C: what the other tiers' vec headers must equal, lane by lane. */
#ifndef ATOM_VEC_SCALAR_H
#define ATOM_VEC_SCALAR_H

#include "base/half.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { VEC_TILE = 2 }; /* tokens of a gemm tile */

typedef struct {
    float f[16];
} vec;
typedef struct {
    int32_t i[16];
} ivec;

#define VEC_FN static inline __attribute__((always_inline, unused))
#define VEC_LANES(expr)                                                                                                \
    for (int l = 0; l < 16; l++)                                                                                       \
    expr

/* One line a function, like the table it is. */
/* clang-format off */
VEC_FN vec v_set(float a) { vec r; VEC_LANES(r.f[l] = a); return r; }
VEC_FN vec v_load(const float *p) { vec r; memcpy(r.f, p, sizeof r.f); return r; }
VEC_FN void v_store(float *p, vec a) { memcpy(p, a.f, sizeof a.f); }
VEC_FN vec v_load_n(const float *p, int n) { vec r; VEC_LANES(r.f[l] = l < n ? p[l] : 0.0f); return r; }
VEC_FN void v_store_n(float *p, vec a, int n) { VEC_LANES(if (l < n) p[l] = a.f[l]); }
VEC_FN vec v_gather(const float *p, const int32_t *at) { vec r; VEC_LANES(r.f[l] = p[at[l]]); return r; }
VEC_FN vec v_f16(const uint16_t *p) { vec r; VEC_LANES(r.f[l] = atom_f16_float(p[l])); return r; }
VEC_FN vec v_bf16(const uint16_t *p) { vec r; VEC_LANES(r.f[l] = atom_bf16_float(p[l])); return r; }

VEC_FN vec v_add(vec a, vec b) { VEC_LANES(a.f[l] += b.f[l]); return a; }
VEC_FN vec v_sub(vec a, vec b) { VEC_LANES(a.f[l] -= b.f[l]); return a; }
VEC_FN vec v_mul(vec a, vec b) { VEC_LANES(a.f[l] *= b.f[l]); return a; }
VEC_FN vec v_div(vec a, vec b) { VEC_LANES(a.f[l] /= b.f[l]); return a; }
VEC_FN vec v_fma(vec a, vec b, vec c) { VEC_LANES(c.f[l] = fmaf(a.f[l], b.f[l], c.f[l])); return c; }
/* a where a > b, else b, as the x86 instructions have it */
VEC_FN vec v_max(vec a, vec b) { VEC_LANES(a.f[l] = a.f[l] > b.f[l] ? a.f[l] : b.f[l]); return a; }
VEC_FN vec v_min(vec a, vec b) { VEC_LANES(a.f[l] = a.f[l] < b.f[l] ? a.f[l] : b.f[l]); return a; }
/* r where a >= b, else 0 */
VEC_FN vec v_keep_ge(vec a, vec b, vec r) { VEC_LANES(r.f[l] = a.f[l] >= b.f[l] ? r.f[l] : 0.0f); return r; }

/* lane l takes what lane l ^ h has; h is 1, 2, 4 or 8 */
VEC_FN vec v_swap(vec a, const int h) { vec r; VEC_LANES(r.f[l] = a.f[l ^ h]); return r; }

VEC_FN ivec i_set(int32_t a) { ivec r; VEC_LANES(r.i[l] = a); return r; }
VEC_FN ivec i_u8(const uint8_t *p) { ivec r; VEC_LANES(r.i[l] = p[l]); return r; }
VEC_FN ivec i_load(const int32_t *p) { ivec r; memcpy(r.i, p, sizeof r.i); return r; }
VEC_FN void i_store(int32_t *p, ivec a) { memcpy(p, a.i, sizeof a.i); }
VEC_FN void i_store_8(void *p, ivec a) { int8_t b[16]; VEC_LANES(b[l] = (int8_t)(uint8_t)a.i[l]); memcpy(p, b, 16); }
VEC_FN ivec i_and(ivec a, ivec b) { VEC_LANES(a.i[l] &= b.i[l]); return a; }
VEC_FN ivec i_add(ivec a, ivec b) { VEC_LANES(a.i[l] += b.i[l]); return a; }
VEC_FN ivec i_max(ivec a, ivec b) { VEC_LANES(a.i[l] = a.i[l] > b.i[l] ? a.i[l] : b.i[l]); return a; }
VEC_FN ivec i_min(ivec a, ivec b) { VEC_LANES(a.i[l] = a.i[l] < b.i[l] ? a.i[l] : b.i[l]); return a; }
VEC_FN ivec i_shr(ivec a, int n) { VEC_LANES(a.i[l] = (int32_t)((uint32_t)a.i[l] >> n)); return a; }
VEC_FN ivec i_shl(ivec a, int n) { VEC_LANES(a.i[l] = (int32_t)((uint32_t)a.i[l] << n)); return a; }

VEC_FN ivec v_round(vec a) { ivec r; VEC_LANES(r.i[l] = (int32_t)lrintf(a.f[l])); return r; } /* ties to even */
VEC_FN vec v_int(ivec a) { vec r; VEC_LANES(r.f[l] = (float)a.i[l]); return r; }
VEC_FN ivec v_bits(vec a) { ivec r; memcpy(&r, &a, sizeof r); return r; }
VEC_FN vec i_bits(ivec a) { vec r; memcpy(&r, &a, sizeof r); return r; }

/* clang-format on */

/* Folds: lanes l and l+8, then 4, 2, 1. */
VEC_FN float v_fold_add(vec a)
{
    for (int h = 8; h; h /= 2)
        for (int l = 0; l < h; l++)
            a.f[l] += a.f[l + h];
    return a.f[0];
}
VEC_FN float v_fold_max(vec a)
{
    for (int h = 8; h; h /= 2)
        for (int l = 0; l < h; l++)
            a.f[l] = a.f[l] > a.f[l + h] ? a.f[l] : a.f[l + h];
    return a.f[0];
}
VEC_FN int32_t i_fold_max(ivec a)
{
    int32_t m = a.i[0];
    VEC_LANES(m = a.i[l] > m ? a.i[l] : m);
    return m;
}
VEC_FN int32_t i_fold_add(ivec a)
{
    int32_t s = 0;
    VEC_LANES(s += a.i[l]);
    return s;
}

#endif
