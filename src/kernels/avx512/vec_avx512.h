/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in one 512-bit register; vec_scalar.h says what each function means. */
#ifndef ATOM_VEC_AVX512_H
#define ATOM_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

enum { VEC_TILE = 12 };

typedef __m512 vec;
typedef __m512i ivec;

#define VEC_FN static inline __attribute__((always_inline, unused))

VEC_FN __mmask16 lanes_below(int n) { return (__mmask16)(n >= 16 ? 0xFFFFu : (1u << n) - 1u); }

VEC_FN vec v_set(float a) { return _mm512_set1_ps(a); }
VEC_FN vec v_load(const float *p) { return _mm512_loadu_ps(p); }
VEC_FN void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
VEC_FN vec v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
VEC_FN void v_store_n(float *p, vec a, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), a); }
VEC_FN vec v_gather(const float *p, const int32_t *at) { return _mm512_i32gather_ps(_mm512_loadu_si512(at), p, 4); }
VEC_FN vec v_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
VEC_FN vec v_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}

VEC_FN vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
VEC_FN vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
VEC_FN vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
VEC_FN vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
VEC_FN vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
VEC_FN vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
VEC_FN vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
VEC_FN vec v_keep_ge(vec a, vec b, vec r) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), r); }

VEC_FN vec v_swap(vec a, const int h)
{
    return h == 1   ? _mm512_permute_ps(a, 0xB1)
           : h == 2 ? _mm512_permute_ps(a, 0x4E)
           : h == 4 ? _mm512_shuffle_f32x4(a, a, 0xB1)
                    : _mm512_shuffle_f32x4(a, a, 0x4E);
}

VEC_FN ivec i_set(int32_t a) { return _mm512_set1_epi32(a); }
VEC_FN ivec i_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
VEC_FN ivec i_load(const int32_t *p) { return _mm512_loadu_si512(p); }
VEC_FN void i_store(int32_t *p, ivec a) { _mm512_storeu_si512(p, a); }
VEC_FN void i_store_8(void *p, ivec a) { _mm_storeu_si128(p, _mm512_cvtepi32_epi8(a)); }
VEC_FN ivec i_and(ivec a, ivec b) { return _mm512_and_si512(a, b); }
VEC_FN ivec i_add(ivec a, ivec b) { return _mm512_add_epi32(a, b); }
VEC_FN ivec i_max(ivec a, ivec b) { return _mm512_max_epi32(a, b); }
VEC_FN ivec i_min(ivec a, ivec b) { return _mm512_min_epi32(a, b); }
VEC_FN ivec i_shr(ivec a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
VEC_FN ivec i_shl(ivec a, int n) { return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n)); }

VEC_FN ivec v_round(vec a) { return _mm512_cvtps_epi32(a); }
VEC_FN vec v_int(ivec a) { return _mm512_cvtepi32_ps(a); }
VEC_FN ivec v_bits(vec a) { return _mm512_castps_si512(a); }
VEC_FN vec i_bits(ivec a) { return _mm512_castsi512_ps(a); }

VEC_FN __m256 upper_ps(vec a) { return _mm512_extractf32x8_ps(a, 1); }
VEC_FN float v_fold_add(vec a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), upper_ps(a));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN float v_fold_max(vec a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), upper_ps(a));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
VEC_FN int32_t i_fold_max(ivec a) { return _mm512_reduce_max_epi32(a); }
VEC_FN int32_t i_fold_add(ivec a) { return _mm512_reduce_add_epi32(a); }

#endif
