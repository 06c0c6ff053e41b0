/* SPDX-License-Identifier: Apache-2.0 */
/* Each loop is one block of assembly over fixed registers: accumulators that a compiler places may end up in memory. */
#include "bench/peaks.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

#define USED                                                                                                           \
    "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12",         \
        "zmm13", "cc"
#define TWELVE(ONE)                                                                                                    \
    ONE("0") ONE("1") ONE("2") ONE("3") ONE("4") ONE("5") ONE("6") ONE("7") ONE("8") ONE("9") ONE("10") ONE("11")
#define ZERO(r)     "vpxord %%zmm" r ", %%zmm" r ", %%zmm" r "\n\t"
#define FMA(r)      "vfmadd231ps %%zmm12, %%zmm13, %%zmm" r "\n\t"
#define DOT(r)      "vpdpbusd %%zmm12, %%zmm13, %%zmm" r "\n\t"
#define DOT_BF16(r) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" r "\n\t"

enum { PER_ROUND = 48 };

/* clang-format off */
#define PEAK_LOOP(ONE, word)                                                                                           \
    __asm__ volatile("vpbroadcastd %1, %%zmm12\n\tvmovdqa64 %%zmm12, %%zmm13\n\t" TWELVE(ZERO)                         \
                     "1:\n\t" TWELVE(ONE) TWELVE(ONE) TWELVE(ONE) TWELVE(ONE) "dec %0\n\tjnz 1b"                       \
                     : "+r"(rounds) : "r"(word) : USED)
/* clang-format on */

static void run_fma(long rounds) { PEAK_LOOP(FMA, 0x3F800000); }
static void run_dot(long rounds) { PEAK_LOOP(DOT, 0x01010101); }
static void run_dot_bf16(long rounds) { PEAK_LOOP(DOT_BF16, 0x3F803F80); }

static bool has_bf16(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

enum { STRIDE = 256 };

static uint64_t read_64(const uint8_t *from, size_t n_bytes, size_t ahead, int streams)
{
    size_t each = n_bytes / (size_t)streams;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i < each; i += STRIDE)
        for (int s = 0; s < streams; s++) {
            const uint8_t *at = from + (size_t)s * each + i;
            for (int j = 0; j < STRIDE && ahead; j += 64)
                _mm_prefetch((const char *)at + ahead + j, _MM_HINT_T0);
            for (int j = 0; j < STRIDE / 64; j++)
                sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(at + 64 * j));
        }
    sum[0] = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
}

void atom_peaks_avx512(struct atom_peaks *p)
{
    p->f32 = (struct atom_peak){"vfmadd231ps zmm", run_fma, PER_ROUND * 16 * 2};
    p->int8 = (struct atom_peak){"vpdpbusd zmm", run_dot, PER_ROUND * 64 * 2};
    if (has_bf16())
        p->bf16 = (struct atom_peak){"vdpbf16ps zmm", run_dot_bf16, PER_ROUND * 32 * 2};
    p->readers[1].how = "64-byte loads";
    p->readers[1].read = read_64;
    p->n_readers = 2;
}
