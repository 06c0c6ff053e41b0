/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels that only multiply share: inputs and a clock. */
#ifndef ATOM_BENCH_GPU_PEAK_CUH
#define ATOM_BENCH_GPU_PEAK_CUH

#include "bench/gpu/gpu_ceilings.h"
#include "bench/gpu/gpu_random.h"

/* Random bits, for zeros take less power and reach clocks that no work does: as halves or as bytes. */
template <bool HALVES> static __device__ uint32_t atom_gpu_peak_input(uint32_t i)
{
    return atom_gpu_word(HALVES ? ATOM_GPU_HALVES : ATOM_GPU_E4M3, 1, i);
}

struct peak_clock {
    long long cycles;
    unsigned long long ns;
};

static __device__ __forceinline__ unsigned long long device_ns()
{
    unsigned long long t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory");
    return t;
}

static __device__ __forceinline__ struct peak_clock clock_start()
{
    struct peak_clock c;
    c.cycles = clock64();
    c.ns = device_ns();
    return c;
}

/* The highest clock of all launches. */
static __device__ __forceinline__ void clock_stop(const struct peak_clock &c, unsigned long long *hz)
{
    unsigned long long cycles = (unsigned long long)(clock64() - c.cycles), ns = device_ns() - c.ns;
    if (blockIdx.x == 0 && threadIdx.x == 0 && ns)
        atomicMax(hz, cycles * 1000000000ull / ns);
}

#endif
