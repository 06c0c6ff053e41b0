/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that start while the one before them on the stream still runs (programmatic dependent launch, sm_90): they
 * bring what no kernel of a step writes, then wait. Elsewhere they start when it has ended, like any other.
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

/* Asks for a sector in the L2 cache, where it may be what a kernel in front is still to write: no more than a hint, and
 * so allowed before early_wait. */
static __device__ __forceinline__ void ask_for(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

static __global__ void early_probe() {}

/* Whether this program has code of sm_90 for the device, so that early_wait waits: not so where PTX of an older
 * generation was compiled for it. */
static bool can_start_early()
{
    static int can = -1;
    cudaFuncAttributes is;
    if (can < 0)
        can = cudaFuncGetAttributes(&is, early_probe) == cudaSuccess && is.binaryVersion >= 90 && is.ptxVersion >= 90;
    return can;
}

struct early_grid {
    dim3 blocks;
    int threads;
    size_t shared_bytes;
    unsigned cluster = 0; /* blocks; 0: none */
};

template <class... A>
static void launch_early(void (*kernel)(A...), const struct early_grid &g, cudaStream_t s, A... args)
{
    cudaLaunchAttribute attrs[2] = {};
    cudaLaunchConfig_t c = {};
    c.gridDim = g.blocks;
    c.blockDim = dim3((unsigned)g.threads);
    c.dynamicSmemBytes = g.shared_bytes;
    c.stream = s;
    c.attrs = attrs;
    if (can_start_early()) {
        attrs[c.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attrs[c.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (g.cluster) {
        attrs[c.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attrs[c.numAttrs++].val.clusterDim = {g.cluster, 1, 1};
    }
    cudaLaunchKernelEx(&c, kernel, args...);
}

#endif
