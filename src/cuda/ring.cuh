/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of stages in shared memory, each with a barrier that it is full and one that it is empty. */
#ifndef ATOM_CUDA_RING_CUH
#define ATOM_CUDA_RING_CUH

#include <stdint.h>

struct ring {
    uint8_t *stages;
    uint64_t *full, *empty;
    int stage;
    uint32_t phase;
};

/* S::STAGES is how many there are; R has a stage and a phase. */
template <class S, class R> static __device__ __forceinline__ void next(R &r)
{
    if (++r.stage == S::STAGES) {
        r.stage = 0;
        r.phase ^= 1;
    }
}

#endif
