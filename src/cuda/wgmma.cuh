/* SPDX-License-Identifier: Apache-2.0 */
/* wgmma of sm_90 with A in registers, one instruction a function: s8 sums, and tf32 for products of scales. PTX ISA,
 * "wgmma.mma_async". */
#ifndef ATOM_CUDA_WGMMA_CUH
#define ATOM_CUDA_WGMMA_CUH

#include <stdint.h>

/* D [64, N] (+)= A [64, 32] * B [32, N]; B [N, 32] lies in shared memory as `desc` says. more 0: D starts at zero.
 * Of warp w and lane l, a: row 16w + l/4 (a[0], a[2]) and 8 more (a[1], a[3]); channels 4(l%4) to +3, and 16 more in
 * a[2], a[3]. d[4j + i]: row as a[i/2], column 8j + 2(l%4) + i%2. */
template <int N> struct wgmma_s8;

/* D [64, N] = A [64, 8] * B [8, N] in tf32, with the same places: of A, rows as above, k = l%4 (a[0], a[1]) and 4 more
 * (a[2], a[3]). */
template <int N> struct wgmma_tf32;

/* Operands of the asm, by eights: the text of their numbers, and the registers. */
#define TEXT_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TEXT_1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define TEXT_2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define TEXT_3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define EIGHT(how, d, i)                                                                                               \
    how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3]), how(d[i + 4]), how(d[i + 5]), how(d[i + 6]), how(d[i + 7])

/* N, how many registers D has, the texts of D, the numbers of what follows (a, desc, more), the registers of D. */
#define DEFINE_WGMMA_S8(n, regs, text, a0, a1, a2, a3, at, more_at, ...)                                               \
    template <> struct wgmma_s8<n> {                                                                                   \
        static __device__ __forceinline__ void run(int (&d)[regs], const uint32_t (&a)[4], uint64_t desc, int more)    \
        {                                                                                                              \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" more_at ", 0;"                                             \
                         " wgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" text "}, {%" a0 ", %" a1 ", %" a2   \
                         ", %" a3 "}, %" at ", p; }"                                                                   \
                         : __VA_ARGS__                                                                                 \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc), "r"(more));                          \
        }                                                                                                              \
    };
#define DEFINE_WGMMA_TF32(n, regs, text, a0, a1, a2, a3, at, ...)                                                      \
    template <> struct wgmma_tf32<n> {                                                                                 \
        static __device__ __forceinline__ void run(float (&d)[regs], const uint32_t (&a)[4], uint64_t desc)            \
        {                                                                                                              \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, 0, 0;"                                                        \
                         " wgmma.mma_async.sync.aligned.m64n" #n "k8.f32.tf32.tf32 {" text "}, {%" a0 ", %" a1         \
                         ", %" a2 ", %" a3 "}, %" at ", p, 1, 1; }"                                                    \
                         : __VA_ARGS__                                                                                 \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(desc));                                     \
        }                                                                                                              \
    };
#define INT_REG(x)   "+r"(x)
#define FLOAT_REG(x) "+f"(x)

/* clang-format off */
DEFINE_WGMMA_S8(16, 8, TEXT_0, "8", "9", "10", "11", "12", "13",
    EIGHT(INT_REG, d, 0))
DEFINE_WGMMA_S8(32, 16, TEXT_0 ", " TEXT_1, "16", "17", "18", "19", "20", "21",
    EIGHT(INT_REG, d, 0), EIGHT(INT_REG, d, 8))
DEFINE_WGMMA_S8(48, 24, TEXT_0 ", " TEXT_1 ", " TEXT_2, "24", "25", "26", "27", "28", "29",
    EIGHT(INT_REG, d, 0), EIGHT(INT_REG, d, 8), EIGHT(INT_REG, d, 16))
DEFINE_WGMMA_S8(64, 32, TEXT_0 ", " TEXT_1 ", " TEXT_2 ", " TEXT_3, "32", "33", "34", "35", "36", "37",
    EIGHT(INT_REG, d, 0), EIGHT(INT_REG, d, 8), EIGHT(INT_REG, d, 16), EIGHT(INT_REG, d, 24))
DEFINE_WGMMA_TF32(32, 16, TEXT_0 ", " TEXT_1, "16", "17", "18", "19", "20",
    EIGHT(FLOAT_REG, d, 0), EIGHT(FLOAT_REG, d, 8))
DEFINE_WGMMA_TF32(48, 24, TEXT_0 ", " TEXT_1 ", " TEXT_2, "24", "25", "26", "27", "28",
    EIGHT(FLOAT_REG, d, 0), EIGHT(FLOAT_REG, d, 8), EIGHT(FLOAT_REG, d, 16))
DEFINE_WGMMA_TF32(64, 32, TEXT_0 ", " TEXT_1 ", " TEXT_2 ", " TEXT_3, "32", "33", "34", "35", "36",
    EIGHT(FLOAT_REG, d, 0), EIGHT(FLOAT_REG, d, 8), EIGHT(FLOAT_REG, d, 16), EIGHT(FLOAT_REG, d, 24))
/* clang-format on */

#undef TEXT_0
#undef TEXT_1
#undef TEXT_2
#undef TEXT_3
#undef EIGHT
#undef INT_REG
#undef FLOAT_REG
#undef DEFINE_WGMMA_S8
#undef DEFINE_WGMMA_TF32

#endif
