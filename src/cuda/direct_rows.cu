/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that come in stored order: silu(gate) * up, or as they are, to integers or floats. A block goes through many
 * tokens, the next one's numbers on their way while this one's are worked on. Unless a scale is shared by all of a row,
 * its chunks know nothing of each other, and several blocks may have them. */
#include "cuda/early.cuh"
#include "cuda/row_ops.cuh"

template <class T, bool EVEN, int CHUNKS>
static __device__ __forceinline__ bool load_row(const row_args &a, int t, int chunk0, piece<T, CHUNK> (&x)[CHUNKS],
                                                piece<T, CHUNK> (&up)[CHUNKS])
{
    const T *row = EVEN ? static_cast<const T *>(a.x) + (size_t)t * a.stride : row_of<T>(a, t);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        int chunk = chunk0 + i * blockDim.x, first = 0;
        int n = chunk < a.chunks && row ? chunk_channels<CHUNK>(a, chunk, first) : 0;
        load_piece<EVEN>(row + first, n, x[i]);
        if (a.source == ROW_SILU)
            load_piece<EVEN>(row + a.k + first, n, up[i]);
    }
    return row;
}

/* gate becomes silu(gate) * up. */
static __device__ __forceinline__ void silu_chunk(float (&gate)[CHUNK], const float (&up)[CHUNK])
{
    if (!(abs_max(gate) <= 87.0f)) { /* silu_mul has neither large negative gates nor infinity */
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            gate[j] = silu_mul_exact(gate[j], up[j]);
        return;
    }
#pragma unroll
    for (int j = 0; j < CHUNK; j++)
        gate[j] = silu_mul(gate[j], up[j]);
}

template <class T, bool INTEGERS, bool EVEN, int CHUNKS>
static __global__ void __launch_bounds__(MAX_THREADS) direct(row_args a)
{
    __shared__ row_shared shared;
    piece<T, CHUNK> x[CHUNKS], up[CHUNKS];
    float v[CHUNKS][CHUNK], u[CHUNK];
    int chunk0 = blockIdx.y * CHUNKS * blockDim.x + threadIdx.x;
    early_next();
    early_wait();
    bool there = load_row<T, EVEN>(a, blockIdx.x, chunk0, x, up);
    begin_shared(shared);
    for (int t = blockIdx.x, turn = 0; t < a.n_tok; t += gridDim.x, turn++) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            piece_floats(x[i], v[i]);
            if (a.source == ROW_SILU) {
                piece_floats(up[i], u);
                silu_chunk(v[i], u);
            }
#pragma unroll
            for (int j = 0; j < CHUNK; j++)
                v[i][j] = there ? v[i][j] : NAN;
        }
        if (t + gridDim.x < a.n_tok)
            there = load_row<T, EVEN>(a, t + gridDim.x, chunk0, x, up);
        put_row<INTEGERS>(a, t, turn, chunk0, v, shared);
    }
}

template <class T> static void launch(const row_args &a, atom_cuda_stream s)
{
    const int FEW = 64; /* threads of a block when there are few tokens */
    int n_sm = atom_cuda_opened()->n_sm;
    bool even = a.even && a.q, shares = a.first_shared < a.chunks;
    int each = shares && a.chunks > MAX_THREADS ? 2 : 1, slices = (a.chunks + MAX_THREADS - 1) / MAX_THREADS;
    if (a.n_tok <= n_sm)
        slices = (a.chunks + FEW - 1) / FEW;
    slices = shares ? 1 : slices;
    int threads = ((a.chunks + each * slices - 1) / (each * slices) + 31) / 32 * 32;
    auto kernel = even  ? (each == 1 ? direct<T, true, true, 1> : direct<T, true, true, 2>)
                  : a.q ? (each == 1 ? direct<T, true, false, 1> : direct<T, true, false, 2>)
                        : (each == 1 ? direct<T, false, false, 1> : direct<T, false, false, 2>);
    int blocks = min(a.n_tok, n_sm * max(1, MAX_THREADS / threads / slices));
    if (a.n_tok <= n_sm)
        blocks = a.n_tok;
    launch_early(kernel, {dim3((unsigned)blocks, (unsigned)slices), threads, 0}, s, a);
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
