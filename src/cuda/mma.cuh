/* SPDX-License-Identifier: Apache-2.0 */
/* PTX of sm_80 in one-instruction helpers: copies that run by themselves, tensor cores on halves. */
#ifndef ATOM_CUDA_MMA_CUH
#define ATOM_CUDA_MMA_CUH

#include <stdint.h>

#define MMA_FN static __device__ __forceinline__

MMA_FN uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

MMA_FN void copy_16(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
MMA_FN void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> MMA_FN void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* c[16, 8] += a[16, 16] * b[16, 8]. Lane 4g + i holds of a rows g, g+8 by columns 2i, 2i+1 (a0, a1), then the same by
 * columns 2i+8, 2i+9; of b rows 2i, 2i+1, then 2i+8, 2i+9 of column g; of c rows g, then g+8 of columns 2i, 2i+1. */
MMA_FN void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
        " {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The same with both words of b in one number: registers side by side, as the instruction takes them. */
MMA_FN void mma(float (&c)[4], const uint32_t (&a)[4], uint64_t b)
{
    asm("{ .reg .b32 b0, b1; mov.b64 {b0, b1}, %8;"
        " mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {b0, b1},"
        " {%0, %1, %2, %3}; }"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* An 8x8 tile of halves: lane l gives row l/4, columns 2(l%4) and +1; it gets column l/4, rows 2(l%4) and +1. */
MMA_FN uint32_t transpose(uint32_t x)
{
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/* 2^x, 2^-inf = 0; tiny results are 0. */
MMA_FN float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* From sm_90 on a kernel may be brought in while the one before still runs; it waits for that one's results. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
MMA_FN void let_next_come() { asm volatile("griddepcontrol.launch_dependents;"); }
MMA_FN void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
MMA_FN void let_next_come() {}
MMA_FN void wait_for_last() {}
#endif

#endif
