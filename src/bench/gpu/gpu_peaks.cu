/* SPDX-License-Identifier: Apache-2.0 */
/* Ceilings that every generation has: streams of bytes, mma.sync, fused multiply-adds. */
#include "bench/gpu/gpu_peak.cuh"

#include "cuda/check.cuh"

#include <stdio.h>

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The compiler may not merge nor drop these loads; nothing reads a line twice. */
static __device__ __forceinline__ uint4 load_once(const uint4 *p)
{
    uint4 x;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "l"(p));
    return x;
}

template <int AHEAD, bool WRITE>
static __global__ void __launch_bounds__(256) stream(const uint4 *from, uint4 *to, unsigned *sink, size_t n)
{
    unsigned all = 0;
    size_t step = (size_t)gridDim.x * 256 * AHEAD;
    for (size_t at = (size_t)blockIdx.x * 256 * AHEAD + threadIdx.x; at < n; at += step) {
        uint4 x[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (at + i * 256 < n)
                x[i] = load_once(from + at + i * 256);
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (at + i * 256 < n) {
                if (WRITE)
                    to[at + i * 256] = x[i];
                else
                    all |= x[i].x & x[i].y & x[i].z & x[i].w;
            }
    }
    if (!WRITE && all == 0x12345679) /* a sum that hardly comes about, but the compiler does not know */
        *sink = all;
}

template <int AHEAD> static void launch(const struct atom_gpu_stream_job *j, atom_cuda_stream s)
{
    size_t n = j->n_bytes / 16, turns = (n + 256 * AHEAD - 1) / (256 * AHEAD);
    unsigned blocks = j->blocks_per_sm ? (unsigned)(atom_cuda_opened()->n_sm * j->blocks_per_sm) : (unsigned)turns;
    const uint4 *from = (const uint4 *)j->from;
    if (j->to)
        stream<AHEAD, true><<<blocks, 256, 0, s>>>(from, (uint4 *)j->to, NULL, n);
    else
        stream<AHEAD, false><<<blocks, 256, 0, s>>>(from, NULL, (unsigned *)j->sink, n);
}

extern "C" enum atom_status atom_gpu_stream_put(const struct atom_gpu_stream_job *j, atom_cuda_stream s,
                                                struct atom_error *err)
{
    if (j->ahead == 8)
        launch<8>(j, s);
    else if (j->ahead == 4)
        launch<4>(j, s);
    else
        launch<1>(j, s);
    return atom_cuda_launched("reading memory", err);
}

static __global__ void nothing() {}

extern "C" enum atom_status atom_gpu_nothing_put(atom_cuda_stream s, struct atom_error *err)
{
    nothing<<<1, 32, 0, s>>>();
    return atom_cuda_launched("launching nothing", err);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

struct mma_s4 {
    static const int K = 64;
    typedef int sum;
    static __device__ __forceinline__ void run(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
    {
        asm volatile("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

struct mma_s8 {
    static const int K = 32;
    typedef int sum;
    static __device__ __forceinline__ void run(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
    {
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

struct mma_f16 {
    static const int K = 16;
    typedef float sum;
    static __device__ __forceinline__ void run(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
    {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

/* mma.sync has FP8 from 8.9 on; the kernel is not called on older devices. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
static __device__ __forceinline__ void multiply_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
static __device__ __forceinline__ void multiply_e4m3(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]) {}
#endif

struct mma_e4m3 {
    static const int K = 32;
    typedef float sum;
    static __device__ __forceinline__ void run(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
    {
        multiply_e4m3(d, a, b);
    }
};

/* Two operands of A times four of B: eight sums that do not wait for each other. */
template <class Op> static __global__ void __launch_bounds__(256) products(int loops, unsigned long long *clock)
{
    typename Op::sum d[8][4] = {};
    uint32_t a[2][4], b[4][2];
    for (int i = 0; i < 8; i++)
        a[i / 4][i % 4] = atom_gpu_peak_input<Op::K == 16>(threadIdx.x * 16u + i);
    for (int i = 0; i < 8; i++)
        b[i / 2][i % 2] = atom_gpu_peak_input<Op::K == 16>(threadIdx.x * 16u + 8u + i);
    struct peak_clock c = clock_start();
    for (int l = 0; l < loops; l++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            Op::run(d[i], a[i / 4], b[i % 4]);
    clock_stop(c, clock);
    typename Op::sum all = 0;
    for (int i = 0; i < 32; i++)
        all += d[i / 4][i % 4];
    if (loops < 0) /* never, but the compiler does not know */
        clock[0] = (unsigned long long)all;
}

template <class Op> static double put(int blocks_per_sm, int loops, unsigned long long *clock, atom_cuda_stream s)
{
    int blocks = atom_cuda_opened()->n_sm * blocks_per_sm;
    products<Op><<<(unsigned)blocks, 256, 0, s>>>(loops, clock);
    return (double)blocks * 8 /* warps */ * loops * 8 * 2.0 * 16 * 8 * Op::K;
}

/* Thirty-two chains of fused multiply-adds a thread. */
static __global__ void __launch_bounds__(256) fused(int loops, unsigned long long *clock)
{
    float d[32], x = (float)threadIdx.x * 1e-3f;
    for (int i = 0; i < 32; i++)
        d[i] = (float)i;
    struct peak_clock c = clock_start();
    for (int l = 0; l < loops; l++)
#pragma unroll
        for (int i = 0; i < 32; i++)
            d[i] = fmaf(d[i], x, 0.5f);
    clock_stop(c, clock);
    float all = 0;
    for (int i = 0; i < 32; i++)
        all += d[i];
    if (all == -1.0f)
        clock[0] = 1;
}

static double put_fused(int blocks_per_sm, int loops, unsigned long long *clock, atom_cuda_stream s)
{
    int blocks = atom_cuda_opened()->n_sm * blocks_per_sm;
    fused<<<(unsigned)blocks, 256, 0, s>>>(loops, clock);
    return (double)blocks * 256 * loops * 32 * 2.0;
}

extern "C" const struct atom_gpu_peak atom_gpu_peaks_mma[] = {
    {ATOM_GPU_INT4, 8, 0, 8, "mma.sync m16n8k64 s4", put<mma_s4>, 256},
    {ATOM_GPU_INT8, 8, 0, 0, "mma.sync m16n8k32 s8", put<mma_s8>, 256},
    {ATOM_GPU_FP8, 8, 9, 0, "mma.sync m16n8k32 e4m3", put<mma_e4m3>, 256},
    {ATOM_GPU_FP16, 8, 0, 0, "mma.sync m16n8k16 f16, sums f32", put<mma_f16>, 256},
    {ATOM_GPU_F32, 8, 0, 0, "fma.rn.f32", put_fused, 256},
    {ATOM_GPU_NONE, 0, 0, 0, NULL, NULL, 0},
};

extern "C" enum atom_status atom_gpu_peak_put(const struct atom_gpu_peak *p, int blocks_per_sm, int loops,
                                              unsigned long long *clock, double *ops, atom_cuda_stream s,
                                              struct atom_error *err)
{
    *ops = p->put(blocks_per_sm, loops, clock, s);
    return atom_cuda_launched(p->how, err);
}

extern "C" void atom_gpu_toolkit(char cuda[16], char compiler[32])
{
    int version = 0;
    cudaRuntimeGetVersion(&version);
    snprintf(cuda, 16, "%d.%d", version / 1000, version % 1000 / 10);
    snprintf(compiler, 32, "nvcc %d.%d.%d", __CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__, __CUDACC_VER_BUILD__);
}
