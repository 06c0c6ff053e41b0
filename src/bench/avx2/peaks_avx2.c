/* SPDX-License-Identifier: Apache-2.0 */
/* Each loop is one block of assembly over fixed registers: accumulators that a compiler places may end up in memory. */
#include "bench/peaks.h"

#include <immintrin.h>

#define USED                                                                                                           \
    "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11", "ymm12",         \
        "ymm13", "ymm14", "ymm15", "cc"
#define TWELVE(ONE)                                                                                                    \
    ONE("0") ONE("1") ONE("2") ONE("3") ONE("4") ONE("5") ONE("6") ONE("7") ONE("8") ONE("9") ONE("10") ONE("11")
#define ZERO(r) "vpxor %%ymm" r ", %%ymm" r ", %%ymm" r "\n\t"
#define FMA(r)  "vfmadd231ps %%ymm12, %%ymm13, %%ymm" r "\n\t"
#define DOT(r)  "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" r "\n\t"
#define MADD(r)                                                                                                        \
    "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n\t"                                                                         \
    "vpaddw %%ymm14, %%ymm" r ", %%ymm" r "\n\t"

enum { PER_ROUND = 48 };

/* clang-format off */
#define PEAK_LOOP(ONE, word)                                                                                           \
    __asm__ volatile("vmovd %1, %%xmm12\n\tvpbroadcastd %%xmm12, %%ymm12\n\tvmovdqa %%ymm12, %%ymm13\n\t"              \
                     TWELVE(ZERO)                                                                                      \
                     "1:\n\t" TWELVE(ONE) TWELVE(ONE) TWELVE(ONE) TWELVE(ONE) "dec %0\n\tjnz 1b"                       \
                     : "+r"(rounds) : "r"(word) : USED)
/* clang-format on */

static void run_fma(long rounds) { PEAK_LOOP(FMA, 0x3F800000); }
static void run_madd(long rounds) { PEAK_LOOP(MADD, 0x01010101); }
static void run_dot(long rounds) { PEAK_LOOP(DOT, 0x01010101); }

enum { STRIDE = 256 };

static uint64_t read_32(const uint8_t *from, size_t n_bytes, size_t ahead, int streams)
{
    size_t each = n_bytes / (size_t)streams;
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i < each; i += STRIDE)
        for (int s = 0; s < streams; s++) {
            const uint8_t *at = from + (size_t)s * each + i;
            for (int j = 0; j < STRIDE && ahead; j += 64)
                _mm_prefetch((const char *)at + ahead + j, _MM_HINT_T0);
            for (int j = 0; j < STRIDE / 32; j++)
                sum[j % 4] = _mm256_xor_si256(sum[j % 4], _mm256_load_si256((const void *)(at + 32 * j)));
        }
    sum[0] = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
    return (uint64_t)_mm256_extract_epi64(sum[0], 0) ^ (uint64_t)_mm256_extract_epi64(sum[0], 1) ^
           (uint64_t)_mm256_extract_epi64(sum[0], 2) ^ (uint64_t)_mm256_extract_epi64(sum[0], 3);
}

void atom_peaks_avx2(struct atom_peaks *p)
{
    p->f32 = (struct atom_peak){"vfmadd231ps ymm", run_fma, PER_ROUND * 8 * 2};
    p->int8 = (struct atom_peak){"vpmaddubsw + vpaddw ymm", run_madd, PER_ROUND * 32 * 2};
    p->readers[0].how = "32-byte loads";
    p->readers[0].read = read_32;
}

void atom_peaks_avxvnni(struct atom_peaks *p)
{
    p->int8 = (struct atom_peak){"vpdpbusd ymm", run_dot, PER_ROUND * 32 * 2};
}
