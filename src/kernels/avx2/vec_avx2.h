/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in two 256-bit registers; vec_scalar.h says what each function means. */
#ifndef ATOM_VEC_AVX2_H
#define ATOM_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { VEC_TILE = 3 };

typedef struct {
    __m256 a, b;
} vec;
typedef struct {
    __m256i a, b;
} ivec;

#define VEC_FN static inline __attribute__((always_inline, unused))

VEC_FN vec v_set(float x) { return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
VEC_FN vec v_load(const float *p) { return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
VEC_FN void v_store(float *p, vec x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
VEC_FN __m256i lanes_below(int first, int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC_FN vec v_load_n(const float *p, int n)
{
    return (vec){_mm256_maskload_ps(p, lanes_below(0, n)), _mm256_maskload_ps(p + 8, lanes_below(8, n))};
}
VEC_FN void v_store_n(float *p, vec x, int n)
{
    _mm256_maskstore_ps(p, lanes_below(0, n), x.a);
    _mm256_maskstore_ps(p + 8, lanes_below(8, n), x.b);
}
VEC_FN vec v_gather(const float *p, const int32_t *at)
{
    return (vec){_mm256_i32gather_ps(p, _mm256_loadu_si256((const void *)at), 4),
                 _mm256_i32gather_ps(p, _mm256_loadu_si256((const void *)(at + 8)), 4)};
}
VEC_FN vec v_f16(const uint16_t *p)
{
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}
VEC_FN __m256 bf16_8(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
VEC_FN vec v_bf16(const uint16_t *p) { return (vec){bf16_8(p), bf16_8(p + 8)}; }

VEC_FN vec v_add(vec x, vec y) { return (vec){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
VEC_FN vec v_sub(vec x, vec y) { return (vec){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
VEC_FN vec v_mul(vec x, vec y) { return (vec){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
VEC_FN vec v_div(vec x, vec y) { return (vec){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
VEC_FN vec v_fma(vec x, vec y, vec z) { return (vec){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
VEC_FN vec v_max(vec x, vec y) { return (vec){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
VEC_FN vec v_min(vec x, vec y) { return (vec){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
VEC_FN vec v_keep_ge(vec x, vec y, vec r)
{
    return (vec){_mm256_and_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), r.a),
                 _mm256_and_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ), r.b)};
}

VEC_FN __m256 swap_8(__m256 x, const int h)
{
    return h == 1 ? _mm256_permute_ps(x, 0xB1) : h == 2 ? _mm256_permute_ps(x, 0x4E) : _mm256_permute2f128_ps(x, x, 1);
}
VEC_FN vec v_swap(vec x, const int h) { return h == 8 ? (vec){x.b, x.a} : (vec){swap_8(x.a, h), swap_8(x.b, h)}; }

VEC_FN ivec i_set(int32_t x) { return (ivec){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
VEC_FN ivec i_u8(const uint8_t *p)
{
    return (ivec){_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)),
                  _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + 8)))};
}
VEC_FN ivec i_load(const int32_t *p)
{
    return (ivec){_mm256_loadu_si256((const void *)p), _mm256_loadu_si256((const void *)(p + 8))};
}
VEC_FN void i_store(int32_t *p, ivec x)
{
    _mm256_storeu_si256((void *)p, x.a);
    _mm256_storeu_si256((void *)(p + 8), x.b);
}
VEC_FN __m128i low_bytes(__m256i x)
{
    const __m128i pick = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    return _mm_unpacklo_epi32(_mm_shuffle_epi8(_mm256_castsi256_si128(x), pick),
                              _mm_shuffle_epi8(_mm256_extracti128_si256(x, 1), pick));
}
VEC_FN void i_store_8(void *p, ivec x) { _mm_storeu_si128(p, _mm_unpacklo_epi64(low_bytes(x.a), low_bytes(x.b))); }
VEC_FN ivec i_and(ivec x, ivec y) { return (ivec){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
VEC_FN ivec i_add(ivec x, ivec y) { return (ivec){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
VEC_FN ivec i_max(ivec x, ivec y) { return (ivec){_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
VEC_FN ivec i_min(ivec x, ivec y) { return (ivec){_mm256_min_epi32(x.a, y.a), _mm256_min_epi32(x.b, y.b)}; }
VEC_FN ivec i_shr(ivec x, int n)
{
    __m128i by = _mm_cvtsi32_si128(n);
    return (ivec){_mm256_srl_epi32(x.a, by), _mm256_srl_epi32(x.b, by)};
}
VEC_FN ivec i_shl(ivec x, int n)
{
    __m128i by = _mm_cvtsi32_si128(n);
    return (ivec){_mm256_sll_epi32(x.a, by), _mm256_sll_epi32(x.b, by)};
}

VEC_FN ivec v_round(vec x) { return (ivec){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
VEC_FN vec v_int(ivec x) { return (vec){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
VEC_FN ivec v_bits(vec x) { return (ivec){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
VEC_FN vec i_bits(ivec x) { return (vec){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }

VEC_FN float v_fold_add(vec x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN float v_fold_max(vec x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN int32_t i_fold_max(ivec x)
{
    __m256i b = _mm256_max_epi32(x.a, x.b);
    __m128i c = _mm_max_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_max_epi32(c, _mm_shuffle_epi32(c, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(c, _mm_shuffle_epi32(c, 0xB1)));
}
VEC_FN int32_t i_fold_add(ivec x)
{
    __m256i b = _mm256_add_epi32(x.a, x.b);
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 0xB1)));
}

#endif
