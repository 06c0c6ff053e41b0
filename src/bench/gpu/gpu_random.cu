/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_random.h"

#include "cuda/check.cuh"

static __global__ void fill(uint32_t *to, size_t words, enum atom_gpu_random kind, uint32_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < words; i += (size_t)gridDim.x * blockDim.x)
        to[i] = atom_gpu_word(kind, seed, (uint32_t)i);
}

extern "C" enum atom_status atom_gpu_fill(void *device, size_t n_bytes, enum atom_gpu_random kind, uint32_t seed,
                                          atom_cuda_stream s, struct atom_error *err)
{
    if (n_bytes < 4)
        return ATOM_OK;
    fill<<<1024, 256, 0, s>>>((uint32_t *)device, n_bytes / 4, kind, seed);
    return atom_cuda_launched("filling memory", err);
}

extern "C" enum atom_status atom_gpu_alloc_random(size_t n_bytes, enum atom_gpu_random kind, uint32_t seed, void **out,
                                                  struct atom_error *err)
{
    enum atom_status st = atom_cuda_alloc((n_bytes + 3) / 4 * 4, out, err);
    st = st ? st : atom_gpu_fill(*out, n_bytes + 3, kind, seed, NULL, err);
    return st ? st : atom_cuda_stream_wait(NULL, err);
}
