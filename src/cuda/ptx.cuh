/* SPDX-License-Identifier: Apache-2.0 */
/* PTX of sm_90 in one-instruction helpers: barriers in shared memory, bulk copies, clusters. */
#ifndef ATOM_CUDA_PTX_CUH
#define ATOM_CUDA_PTX_CUH

#include <cuda.h>
#include <stdint.h>

#define PTX_FN static __device__ __forceinline__

PTX_FN uint32_t smem_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- mbarrier ---- */

PTX_FN void barrier_init(uint64_t *b, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(b)), "r"(arrivals));
}
PTX_FN void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
PTX_FN void barrier_arrive_expect(uint64_t *b, uint32_t n_bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(b)), "r"(n_bytes)
                 : "memory");
}
/* At the same barrier of CTA `rank` of the cluster. */
PTX_FN void barrier_arrive_remote(uint64_t *b, uint32_t rank)
{
    asm volatile("{ .reg .b32 a; mapa.shared::cluster.u32 a, %0, %1;"
                 " mbarrier.arrive.shared::cluster.b64 _, [a]; }" ::"r"(smem_address(b)),
                 "r"(rank)
                 : "memory");
}
PTX_FN void barrier_wait(uint64_t *b, uint32_t parity)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done: }" ::"r"(smem_address(b)),
                 "r"(parity)
                 : "memory");
}

/* ---- copies into shared memory, completing on a barrier ---- */

PTX_FN void bulk_copy(void *to, const void *from, uint32_t n_bytes, uint64_t *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     smem_address(to)),
                 "l"(from), "r"(n_bytes), "r"(smem_address(b))
                 : "memory");
}
/* To the same place in every CTA of the mask, completing on each one's own barrier. */
PTX_FN void bulk_copy(void *to, const void *from, uint32_t n_bytes, uint64_t *b, uint16_t mask)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1], %2, [%3], %4;" ::"r"(smem_address(to)),
                 "l"(from), "r"(n_bytes), "r"(smem_address(b)), "h"(mask)
                 : "memory");
}
/* A box of a tensor from (x, y) on, to the same place in every CTA of the mask. */
PTX_FN void tensor_copy(void *to, const CUtensorMap *map, int x, int y, uint64_t *b, uint16_t mask)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(smem_address(to)),
                 "l"(map), "r"(x), "r"(y), "r"(smem_address(b)), "h"(mask)
                 : "memory");
}
PTX_FN void tensor_copy(void *to, const CUtensorMap *map, int x, int y, uint64_t *b)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}],"
                 " [%4];" ::"r"(smem_address(to)),
                 "l"(map), "r"(x), "r"(y), "r"(smem_address(b))
                 : "memory");
}
PTX_FN void tensor_prefetch(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

/* ---- clusters, warpgroups ---- */

PTX_FN uint32_t cluster_rank()
{
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
PTX_FN void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
template <int N> PTX_FN void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> PTX_FN void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

PTX_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> PTX_FN void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

/* K-major rows of 128 bytes, swizzled by 128 as the tensor copy left them, 8 rows an atom of 1024 bytes. */
PTX_FN uint64_t swizzled_descriptor(const void *rows)
{
    return (uint64_t)((smem_address(rows) & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

/* An 8x8 tile of b16: thread l gives row l/4, columns 2(l%4) and +1; it gets column l/4, rows 2(l%4) and +1. */
PTX_FN uint32_t transpose_8x8(uint32_t x)
{
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/* Of four lanes, lane q gives v[i] and gets lane i's v[q]. */
PTX_FN void swap_quad(uint32_t (&v)[4], int q)
{
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!(i & bit)) {
                uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, q & bit ? v[i] : v[i | bit], bit);
                v[i] = q & bit ? other : v[i];
                v[i | bit] = q & bit ? v[i | bit] : other;
            }
}

#endif
