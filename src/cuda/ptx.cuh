/* SPDX-License-Identifier: Apache-2.0 */
/* PTX of sm_90 in one-instruction helpers: barriers in shared memory, bulk copies, clusters. */
#ifndef ATOM_CUDA_PTX_CUH
#define ATOM_CUDA_PTX_CUH

#include <cuda.h>
#include <stdint.h>

#define PTX_FN static __device__ __forceinline__

PTX_FN uint32_t smem_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- mbarrier ---- */

PTX_FN void barrier_init(uint32_t at, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals));
}
PTX_FN void barrier_init(uint64_t *b, int arrivals) { barrier_init(smem_address(b), arrivals); }
PTX_FN void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
PTX_FN void barrier_arrive_expect(uint32_t at, uint32_t n_bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(n_bytes) : "memory");
}
PTX_FN void barrier_arrive_expect(uint64_t *b, uint32_t n_bytes) { barrier_arrive_expect(smem_address(b), n_bytes); }
PTX_FN void barrier_arrive(uint32_t at)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
PTX_FN void barrier_arrive(uint64_t *b) { barrier_arrive(smem_address(b)); }
/* At the same barrier of CTA `rank` of the cluster, if there is one; no branch, which would cut what the compiler knows
 * of a wgmma in flight. */
PTX_FN void barrier_arrive_remote(uint64_t *b, uint32_t rank, uint32_t n_ranks)
{
    asm volatile("{ .reg .b32 a; .reg .pred p; setp.lt.u32 p, %1, %2;"
                 " @p mapa.shared::cluster.u32 a, %0, %1;"
                 " @p mbarrier.arrive.shared::cluster.b64 _, [a]; }" ::"r"(smem_address(b)),
                 "r"(rank), "r"(n_ranks)
                 : "memory");
}
/* An address in shared memory as it is in CTA `rank` of the cluster. */
PTX_FN uint32_t cluster_address(uint32_t at, uint32_t rank)
{
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
    return there;
}
/* At a barrier of the cluster, of the lanes that want to; again no branch. */
PTX_FN void barrier_arrive_cluster(uint32_t at, bool want)
{
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0;"
                 " @p mbarrier.arrive.shared::cluster.b64 _, [%0]; }" ::"r"(at),
                 "r"((uint32_t)want)
                 : "memory");
}
PTX_FN void barrier_wait(uint32_t at, uint32_t parity)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done: }" ::"r"(at),
                 "r"(parity)
                 : "memory");
}
PTX_FN void barrier_wait(uint64_t *b, uint32_t parity) { barrier_wait(smem_address(b), parity); }

/* Barriers of a cluster's blocks: who waits sees what those have stored that arrived. */
PTX_FN void barrier_arrive_release_cluster(uint32_t at)
{
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(at) : "memory");
}
PTX_FN void barrier_wait_cluster(uint64_t *b, uint32_t parity)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n"
                 "@p bra done;\n"
                 "bra again;\n"
                 "done: }" ::"r"(smem_address(b)),
                 "r"(parity)
                 : "memory");
}
/* To shared memory of the cluster; `at`: from cluster_address. */
PTX_FN void store_cluster(uint32_t at, float x)
{
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(at), "f"(x) : "memory");
}

/* ---- plain loads, in the order in which they stand among the other asm ---- */

PTX_FN uint4 load_16(uint32_t at)
{
    uint4 x;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(at)
                 : "memory");
    return x;
}
PTX_FN float4 load_floats(uint32_t at)
{
    float4 x;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
                 : "r"(at)
                 : "memory");
    return x;
}
PTX_FN float2 load_two_floats(uint32_t at)
{
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at) : "memory");
    return x;
}
/* The bits of the float32 that an F16 is. */
PTX_FN uint32_t load_half_as_float(uint32_t at)
{
    uint32_t x;
    asm volatile("{ .reg .b16 h; .reg .f32 f; ld.shared.b16 h, [%1]; cvt.f32.f16 f, h; mov.b32 %0, f; }"
                 : "=r"(x)
                 : "r"(at)
                 : "memory");
    return x;
}
/* A zero that has a register. */
PTX_FN uint32_t opaque_zero()
{
    uint32_t x;
    asm volatile("mov.u32 %0, 0;" : "=r"(x));
    return x;
}

/* ---- copies into shared memory, completing on a barrier ---- */

PTX_FN void bulk_copy(uint32_t to, const void *from, uint32_t n_bytes, uint32_t b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(n_bytes), "r"(b)
                 : "memory");
}
PTX_FN void bulk_copy(void *to, const void *from, uint32_t n_bytes, uint64_t *b)
{
    bulk_copy(smem_address(to), from, n_bytes, smem_address(b));
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
PTX_FN void tensor_copy(uint32_t to, const CUtensorMap *map, int x, int y, uint32_t b)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}],"
                 " [%4];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(b)
                 : "memory");
}
PTX_FN void tensor_copy(void *to, const CUtensorMap *map, int x, int y, uint64_t *b)
{
    tensor_copy(smem_address(to), map, x, y, smem_address(b));
}
/* A box from shared memory, of which nothing outside the tensor is written; committed as a group of its own. */
PTX_FN void tensor_store(const CUtensorMap *map, int x, int y, const void *from)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n"
                 "cp.async.bulk.commit_group;" ::"l"(map),
                 "r"(x), "r"(y), "r"(smem_address(from))
                 : "memory");
}
/* Until this thread's stores have read their shared memory. */
PTX_FN void tensor_store_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/* Until all but the last N have. */
template <int N> PTX_FN void tensor_store_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
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
/* What was there before; everything that this thread's block knows to be stored is seen by whoever adds later. */
PTX_FN int add_acq_rel(int *p, int x)
{
    int old;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(x) : "memory");
    return old;
}
/* Four floats into the shared memory of a block of the cluster, of which they tell the barrier there. */
PTX_FN void store_remote(uint32_t to, const float *v, uint32_t barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier)
                 : "memory");
}
/* Only of a kernel that was launched as clusters: elsewhere the wait is one for all threads of the block. Says nothing
 * of memory but what barrier_init_fence does. */
PTX_FN void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
PTX_FN void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
PTX_FN void warpgroup_sync(int barrier) { asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory"); }
template <int N> PTX_FN void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> PTX_FN void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

PTX_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> PTX_FN void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

/* What this thread stored to shared memory is seen by wgmma and copies after the next barrier. */
PTX_FN void shared_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* K-major core matrices of 8 rows of 16 bytes: `k_bytes` to the next along K, `row_bytes` to the next 8 rows. */
PTX_FN uint64_t plain_descriptor(const void *first, uint32_t k_bytes, uint32_t row_bytes)
{
    return (uint64_t)((smem_address(first) & 0x3FFFF) >> 4) | (uint64_t)(k_bytes >> 4) << 16 |
           (uint64_t)(row_bytes >> 4) << 32;
}

/* K-major rows of 128 bytes, swizzled by 128 as the tensor copy left them, 8 rows an atom of 1024 bytes. */
PTX_FN uint64_t swizzled_descriptor_at(uint32_t rows)
{
    return (uint64_t)((rows & 0x3FFFF) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
PTX_FN uint64_t swizzled_descriptor(const void *rows) { return swizzled_descriptor_at(smem_address(rows)); }

/* 8x8 tiles of b16 in shared memory, one row of 16 bytes at each lane's address, eight lanes a tile; of the tile, or
 * of the transposed one, thread l has row l/4, columns 2(l%4) and +1. */
PTX_FN void load_4x8x8_transposed(uint32_t (&x)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
PTX_FN void store_4x8x8(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c),
                 "r"(d)
                 : "memory");
}
PTX_FN void store_4x8x8_transposed(uint32_t at, const uint32_t (&x)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x[0]),
                 "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}
PTX_FN void store_2x8x8_transposed(uint32_t at, const uint32_t (&x)[2])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(at), "r"(x[0]), "r"(x[1])
                 : "memory");
}

/* An 8x8 tile of b16: thread l gives row l/4, columns 2(l%4) and +1; it gets column l/4, rows 2(l%4) and +1. */
PTX_FN uint32_t transpose_8x8(uint32_t x)
{
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

#endif
