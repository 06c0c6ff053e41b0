/* SPDX-License-Identifier: Apache-2.0 */
/* Rows longer than a block's registers, or its shared memory: every value is found twice, from global memory. */
#include "cuda/early.cuh"
#include "cuda/row_ops.cuh"

template <class T> static __device__ __forceinline__ float value(const row_args &a, const T *row, float r, int i)
{
    if (a.source == ROW_SILU)
        return silu_mul_exact(as_float(row[i]), as_float(row[a.k + i]));
    float x = as_float(row[a.order ? a.order[i] : i]);
    return a.weight ? __fmul_rn(__fmul_rn(x, r), a.weight[i]) : __fmul_rn(x, r);
}

template <class T>
static __device__ __forceinline__ void load_values(const row_args &a, const T *row, float r, int chunk,
                                                   float (&v)[CHUNK])
{
    int first = 0, n = row && chunk < a.chunks ? chunk_channels<CHUNK>(a, chunk, first) : 0;
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
        v[j] = j < n ? value(a, row, r, first + j) : row ? 0.0f : NAN;
}

template <class T> static __device__ float find_r(const row_args &a, const T *row, row_shared &shared)
{
    float sum = 0.0f;
    if (a.source != ROW_NORM)
        return 1.0f;
    for (int i = threadIdx.x; i < a.k && row; i += blockDim.x) {
        float x = as_float(row[i]);
        sum = fmaf(x, x, sum);
    }
    return inverse_rms(a, block_sum(sum, shared, 0));
}

/* The largest of the runs that share a scale goes to shared.largest[0]. */
template <class T>
static __device__ void find_largest(const row_args &a, const T *row, float r, int chunks, row_shared &shared)
{
    float v[CHUNK];
    for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        if (chunk / (ATOM_CUDA_RUN / CHUNK) < a.first_shared)
            continue;
        load_values(a, row, r, chunk, v);
        atomicMax(&shared.largest[0], __float_as_uint(abs_max(v)));
    }
    __syncthreads();
}

template <class T> static __global__ void __launch_bounds__(MAX_THREADS) long_rows(row_args a)
{
    __shared__ row_shared shared;
    float v[CHUNK];
    int t = blockIdx.x, chunks = (a.chunks + MAX_THREADS - 1) / MAX_THREADS * MAX_THREADS;
    early_next();
    early_wait();
    const T *row = row_of<T>(a, t);
    begin_shared(shared);
    float r = find_r(a, row, shared);
    if (a.first_shared < a.chunks)
        find_largest(a, row, r, chunks, shared);
    for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        load_values(a, row, r, chunk, v);
        float m = abs_max(v);
        if (a.q)
            m = run_max<CHUNK>(m);
        if (chunk / (ATOM_CUDA_RUN / CHUNK) >= a.first_shared)
            m = __uint_as_float(shared.largest[0]);
        if (a.q && chunk < a.chunks)
            put_integers(a, t, chunk, v, m);
        else if (chunk < a.chunks)
            put_floats(a, t, chunk, v, m);
    }
}

void atom_cuda_long_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s)
{
    auto kernel = type == ATOM_CUDA_F32   ? long_rows<float>
                  : type == ATOM_CUDA_F16 ? long_rows<__half>
                                          : long_rows<__nv_bfloat16>;
    launch_early(kernel, {dim3((unsigned)a.n_tok), MAX_THREADS, 0}, s, a);
}
