/* SPDX-License-Identifier: Apache-2.0 */
/* The next token of each row of logits, as atom_sample (src/engine/sample.c) chooses it: the same random number, the
 * same order of ties. Weights exp((logit - top) / temperature) are float32 here and their sums exact integers, so a
 * choice may differ from atom_sample's where the number drawn, or the share top_p, lies within their rounding of a
 * boundary between two tokens. A row's token depends on its own logits and parameters alone. */
#ifndef ATOM_CUDA_SAMPLING_H
#define ATOM_CUDA_SAMPLING_H

#include "cuda/cuda.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ATOM_CUDA_MAX_VOCAB = 1 << 20 };

/* struct atom_sampling of one row, and the number of its draw. */
struct atom_cuda_sampling {
    float temperature; /* 0: greedy */
    float top_p;       /* 0 or 1: off */
    int32_t top_k;     /* 0: off */
    uint64_t seed, counter;
};

/* Pointers are device memory. */
struct atom_cuda_sample {
    const float *logits; /* [n, vocab], stride elements apart */
    size_t stride;
    int n, vocab;
    const struct atom_cuda_sampling *how; /* [n]; NULL: all greedy */
    int32_t *tokens;                      /* [n]; -1 where a logit is not finite */
    void *workspace; /* of at least atom_cuda_sample_workspace(n) bytes, zeroed once when it was made */
};

size_t atom_cuda_sample_workspace(int max_n);
enum atom_status atom_cuda_sample_run(const struct atom_cuda_sample *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
