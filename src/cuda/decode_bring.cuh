/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: pages brought into a warp's ring, each completing on a barrier of its own; from sm_90 on by one
 * bulk copy a page, which a lane starts, before that by copies of 16 bytes from all lanes. */
#ifndef ATOM_CUDA_DECODE_BRING_CUH
#define ATOM_CUDA_DECODE_BRING_CUH

#include "cuda/decode_page.cuh"

/* Pages of a KV head, for a stage: lane from + i holds the number of the i-th of n. */
struct some_pages {
    const uint8_t *first; /* page 0 */
    uint32_t bytes;       /* from a page to the next */
    int ids, from, n;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900

enum { PAGE_ARRIVALS = 32 };

template <class D> PAGE_FN void bring_pages(uint32_t stage, uint32_t full, const some_pages &p)
{
    int at16 = (int)(threadIdx.x % 32) * 16;
    for (int i = 0; i < p.n; i++) {
        uint32_t page = (uint32_t)__shfl_sync(0xFFFFFFFFu, p.ids, p.from + i);
        const uint8_t *source = p.first + (size_t)page * p.bytes + at16;
#pragma unroll
        for (int at = 0; at < D::page; at += 512)
            if (at + 512 <= D::page || at + at16 < D::page)
                copy_16(stage + i * D::page + at + at16, source + at);
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(full) : "memory");
}

PAGE_FN void wait_stage(uint32_t full, uint32_t turn)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.test_wait.parity.shared.b64 p, [%0], %1;\n"
                 "@!p bra again; }" ::"r"(full),
                 "r"(turn)
                 : "memory");
}

#else

enum { PAGE_ARRIVALS = 1 };

/* One lane of a warp that is all here, in a way that lets the compiler know that it is one. */
PAGE_FN bool is_elected()
{
    uint32_t is;
    asm volatile("{ .reg .pred p; elect.sync _|p, 0xFFFFFFFF; selp.u32 %0, 1, 0, p; }" : "=r"(is));
    return is;
}

/* Pages are read once: what else lies in the L2 cache stays there. */
PAGE_FN void bulk_copy(uint32_t to, const uint8_t *from, uint32_t n_bytes, uint32_t full)
{
    asm volatile("{ .reg .b64 once; createpolicy.fractional.L2::evict_first.b64 once, 1.0;"
                 " cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2,"
                 " [%3], once; }" ::"r"(to),
                 "l"(from), "r"(n_bytes), "r"(full)
                 : "memory");
}

template <class D> PAGE_FN void bring_pages(uint32_t stage, uint32_t full, const some_pages &p)
{
    uint32_t first = (uint32_t)__shfl_sync(0xFFFFFFFFu, p.ids, p.from),
             second = D::step == 2 ? (uint32_t)__shfl_sync(0xFFFFFFFFu, p.ids, p.from + 1) : 0;
    if (is_elected()) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(p.n * D::page)
                     : "memory");
        bulk_copy(stage, p.first + (size_t)first * p.bytes, D::page, full);
        if (D::step == 2 && p.n == 2)
            bulk_copy(stage + D::page, p.first + (size_t)second * p.bytes, D::page, full);
    }
    __syncwarp();
}

PAGE_FN void wait_stage(uint32_t full, uint32_t turn)
{
    asm volatile("{ .reg .pred p;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra again; }" ::"r"(full),
                 "r"(turn)
                 : "memory");
}

#endif

/* By one lane, before the warp meets. */
PAGE_FN void init_barriers(uint64_t *full, int n)
{
    for (int i = 0; i < n; i++)
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(full + i)), "r"(PAGE_ARRIVALS)
                     : "memory");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

#endif
