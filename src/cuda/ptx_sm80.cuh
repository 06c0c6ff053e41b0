/* SPDX-License-Identifier: Apache-2.0 */
/* PTX of sm_80 in one-instruction helpers: copies into shared memory, matrix loads, integer products. */
#ifndef ATOM_CUDA_PTX_SM80_CUH
#define ATOM_CUDA_PTX_SM80_CUH

#include "cuda/ptx.cuh"

#include <cuda_fp16.h>

/* ---- asynchronous copies, counted in groups ---- */

/* 16 bytes past the first-level cache; zeros where !valid, and nothing is read. */
PTX_FN void copy_16(uint32_t to, const void *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
PTX_FN void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until no more than N groups are under way. */
template <int N> PTX_FN void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* ---- fragments ---- */

/* Four 8x8 tiles of b16, tile i's row r at the address of lane 8i+r: a lane gets bytes 4(l%4) to +3 of row l/4. */
PTX_FN void load_tiles(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

PTX_FN void load_16(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ld.volatile.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}
/* Two F16. */
PTX_FN float2 load_half2(uint32_t address)
{
    uint32_t two;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(two) : "r"(address) : "memory");
    return __half22float2(*reinterpret_cast<__half2 *>(&two));
}

/* Bits of a where those of mask are set, of b elsewhere. */
PTX_FN uint32_t select_bits(uint32_t mask, uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(d) : "r"(mask), "r"(a), "r"(b));
    return d;
}

/* d = a b + c: 16 rows, 8 columns, 64 nibbles or 32 bytes deep. c and d may be different registers, so that a sum can
 * start at a constant without being set to it. */
PTX_FN void multiply_s4(int (&d)[4], const uint32_t (&a)[4], const uint32_t *b, const int *c)
{
    asm("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
        " {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
PTX_FN void multiply_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t *b, const int *c)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9},"
        " {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

#endif
