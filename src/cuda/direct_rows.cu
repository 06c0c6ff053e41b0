/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that come in stored order: silu(gate) * up, or as they are, to integers or floats. One block a token. */
#include "cuda/row_ops.cuh"

template <class T, bool INTEGERS, int CHUNKS> static __global__ void __launch_bounds__(MAX_THREADS) direct(row_args a)
{
    __shared__ row_shared shared;
    piece<T> x[CHUNKS], up[CHUNKS];
    float v[CHUNKS][PIECE], u[PIECE];
    int t = blockIdx.x;
    const T *row = row_of<T>(a, t);
    if (threadIdx.x == 0)
        shared.largest[0] = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int chunk = threadIdx.x + i * blockDim.x, first = 0;
        int n = chunk < a.chunks && row ? chunk_channels(a, chunk, first) : 0;
        bool aligned = a.aligned && first * sizeof(T) % 16 == 0;
        x[i] = load_piece(row + first, n, aligned);
        if (a.source == ROW_SILU)
            up[i] = load_piece(row + a.k + first, n, aligned);
    }
    if (a.first_shared < MAX_THREADS * MAX_CHUNKS)
        __syncthreads(); /* for `largest` */
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        piece_floats(x[i], v[i]);
        if (a.source == ROW_SILU) {
            piece_floats(up[i], u);
#pragma unroll
            for (int j = 0; j < PIECE; j++)
                v[i][j] = silu_mul(v[i][j], u[j]);
        }
#pragma unroll
        for (int j = 0; j < PIECE; j++)
            v[i][j] = row ? v[i][j] : NAN;
    }
    put_row<INTEGERS>(a, t, 0, v, shared);
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    int each = (a.chunks + MAX_THREADS - 1) / MAX_THREADS;
    int threads = ((a.chunks + each - 1) / each + 31) / 32 * 32;
    auto kernel = a.q         ? (each == 1 ? direct<T, true, 1> : direct<T, true, 2>)
                  : each == 1 ? direct<T, false, 1>
                              : direct<T, false, 2>;
    kernel<<<a.n_tok, threads, 0, s>>>(a);
}

void atom_cuda_direct_rows(const row_args &a, enum atom_cuda_float type, atom_cuda_stream s)
{
    if (type == ATOM_CUDA_F32)
        launch<float>(a, s);
    else if (type == ATOM_CUDA_F16)
        launch<__half>(a, s);
    else
        launch<__nv_bfloat16>(a, s);
}
