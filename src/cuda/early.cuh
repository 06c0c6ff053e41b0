/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that start while the one before them on the stream still runs (programmatic dependent launch, sm_90): they
 * bring what no kernel writes, then wait. Elsewhere they start when it has ended, like any other.
 *
 * Every thread of such a kernel calls early_wait before it reads what kernels write and before it writes anything. */
#ifndef ATOM_CUDA_EARLY_CUH
#define ATOM_CUDA_EARLY_CUH

#include "cuda/check.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void early_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
static __device__ __forceinline__ void early_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
#else
static __device__ __forceinline__ void early_wait() {}
static __device__ __forceinline__ void early_next() {}
#endif

/* Whether this program has code of sm_90 for the open device, so that early_wait waits: not so where PTX of an older
 * generation was compiled for it. */
template <class K> static bool can_start_early(K kernel)
{
    cudaFuncAttributes is;
    return cudaFuncGetAttributes(&is, kernel) == cudaSuccess && is.binaryVersion >= 90 && is.ptxVersion >= 90;
}

struct early_grid {
    int blocks, threads;
    size_t shared_bytes;
    bool early;
};

template <class A>
static void launch_early(void (*kernel)(A), const struct early_grid &g, const A &args, cudaStream_t s)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t c = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = dim3((unsigned)g.blocks);
    c.blockDim = dim3((unsigned)g.threads);
    c.dynamicSmemBytes = g.shared_bytes;
    c.stream = s;
    c.attrs = &early;
    c.numAttrs = g.early;
    cudaLaunchKernelEx(&c, kernel, args);
}

#endif
