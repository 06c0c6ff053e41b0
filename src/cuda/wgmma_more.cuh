/* SPDX-License-Identifier: Apache-2.0 */
/* More wgmma of sm_90a, one instruction a function: s8 with both operands in shared memory, 16-bit floats with A in
 * registers. PTX ISA, "wgmma.mma_async". */
#ifndef ATOM_CUDA_WGMMA_MORE_CUH
#define ATOM_CUDA_WGMMA_MORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

/* clang-format off */

/* Names of the first 8, 16, ... operands, and d's elements from i on as operands of kind c. */
#define WG_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define WG_16 WG_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define WG_24 WG_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define WG_32 WG_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define WG_40 WG_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define WG_48 WG_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define WG_56 WG_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define WG_64 WG_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define WG_72 WG_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define WG_80 WG_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define WG_88 WG_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define WG_96 WG_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define WG_104 WG_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define WG_112 WG_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define WG_120 WG_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define WG_128 WG_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define WG_D8(c, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define WG_D16(c, i) WG_D8(c, i), WG_D8(c, i + 8)
#define WG_D32(c, i) WG_D16(c, i), WG_D16(c, i + 16)
#define WG_D64(c, i) WG_D32(c, i), WG_D32(c, i + 32)
#define WG_ALL8(c) WG_D8(c, 0)
#define WG_ALL16(c) WG_D16(c, 0)
#define WG_ALL24(c) WG_D16(c, 0), WG_D8(c, 16)
#define WG_ALL32(c) WG_D32(c, 0)
#define WG_ALL48(c) WG_D32(c, 0), WG_D16(c, 32)
#define WG_ALL64(c) WG_D64(c, 0)
#define WG_ALL80(c) WG_D64(c, 0), WG_D16(c, 64)
#define WG_ALL96(c) WG_D64(c, 0), WG_D32(c, 64)
#define WG_ALL128(c) WG_D64(c, 0), WG_D64(c, 64)

/* D [64, N] (+)= A [64, 32] * B [N, 32]^T, both in shared memory as their descriptors say. more 0: D starts at zero.
 * Of warp w and lane l, d[4j + i]: row 16w + l/4 + i/2*8, column 8j + 2(l%4) + i%2. */
template <int N> struct wgmma_s8_smem;

#define WGMMA_S8_SMEM(n, count, a_at, b_at, more_at)                                                                   \
    template <> struct wgmma_s8_smem<n> {                                                                              \
        static __device__ __forceinline__ void run(int (&d)[count], uint64_t a, uint64_t b, int more)                  \
        {                                                                                                              \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #more_at ", 0;"                                            \
                         " wgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" WG_##count "}, %" #a_at ", %" #b_at \
                         ", p; }"                                                                                      \
                         : WG_ALL##count("+r")                                                                         \
                         : "l"(a), "l"(b), "r"(more));                                                                 \
        }                                                                                                              \
    }
WGMMA_S8_SMEM(16, 8, 8, 9, 10);
WGMMA_S8_SMEM(32, 16, 16, 17, 18);
WGMMA_S8_SMEM(48, 24, 24, 25, 26);
WGMMA_S8_SMEM(64, 32, 32, 33, 34);
WGMMA_S8_SMEM(96, 48, 48, 49, 50);
WGMMA_S8_SMEM(128, 64, 64, 65, 66);
WGMMA_S8_SMEM(160, 80, 80, 81, 82);
WGMMA_S8_SMEM(192, 96, 96, 97, 98);
WGMMA_S8_SMEM(256, 128, 128, 129, 130);

/* D [64, N] (+)= A [64, 16] * B [N, 16]^T in float32; A in registers, of type T (two to a register): row 16w + l/4
 * (a[0], a[2]) and 8 more (a[1], a[3]); channels 2(l%4), +1, and 8 more in a[2], a[3]. D as above. */
template <int N, class T> struct wgmma_half;

#define WGMMA_HALF(n, count, type, name, a0, a1, a2, a3, b_at, more_at)                                                \
    template <> struct wgmma_half<n, type> {                                                                           \
        static __device__ __forceinline__ void run(float (&d)[count], const uint32_t (&a)[4], uint64_t b, int more)    \
        {                                                                                                              \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #more_at ", 0;"                                            \
                         " wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." name " {" WG_##count "}, {%" #a0 ", %" #a1 \
                         ", %" #a2 ", %" #a3 "}, %" #b_at ", p, 1, 1, 0; }"                                            \
                         : WG_ALL##count("+f")                                                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more));                             \
        }                                                                                                              \
    }
WGMMA_HALF(32, 16, __half, "f16.f16", 16, 17, 18, 19, 20, 21);
WGMMA_HALF(64, 32, __half, "f16.f16", 32, 33, 34, 35, 36, 37);
WGMMA_HALF(96, 48, __half, "f16.f16", 48, 49, 50, 51, 52, 53);
WGMMA_HALF(128, 64, __half, "f16.f16", 64, 65, 66, 67, 68, 69);
WGMMA_HALF(192, 96, __half, "f16.f16", 96, 97, 98, 99, 100, 101);
WGMMA_HALF(256, 128, __half, "f16.f16", 128, 129, 130, 131, 132, 133);
WGMMA_HALF(32, 16, __nv_bfloat16, "bf16.bf16", 16, 17, 18, 19, 20, 21);
WGMMA_HALF(64, 32, __nv_bfloat16, "bf16.bf16", 32, 33, 34, 35, 36, 37);
WGMMA_HALF(96, 48, __nv_bfloat16, "bf16.bf16", 48, 49, 50, 51, 52, 53);
WGMMA_HALF(128, 64, __nv_bfloat16, "bf16.bf16", 64, 65, 66, 67, 68, 69);
WGMMA_HALF(192, 96, __nv_bfloat16, "bf16.bf16", 96, 97, 98, 99, 100, 101);
WGMMA_HALF(256, 128, __nv_bfloat16, "bf16.bf16", 128, 129, 130, 131, 132, 133);

/* clang-format on */

#endif
