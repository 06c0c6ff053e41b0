/* SPDX-License-Identifier: Apache-2.0 */
/* A KV cache of random keys and values, as the store itself writes them, and what they are read back as. */
#ifndef ATOM_BENCH_GPU_CACHE_H
#define ATOM_BENCH_GPU_CACHE_H

#include "bench/gpu/gpu_operation.h"
#include "cuda/kv_cache.h"

/* New tokens of a step: each of n_seqs sequences brings n_tok to the `context` positions that it has. */
struct atom_gpu_batch {
    int n_seqs, n_tok, context;
    double beside_bytes; /* what a launch takes beside a copy of the pages; negative: one copy is enough */
};

struct atom_gpu_cache {
    const struct atom_shape *model;
    struct atom_gpu_batch batch;
    struct atom_cuda_kv kv;     /* its pages: NULL */
    struct atom_cuda_step step; /* of the batch */
    int copies;
    size_t layer_bytes; /* of the pages of one copy */
    void *pages, *turns, *rows, *bad;
    int width;                           /* of a row of q, k and v */
    double freq[ATOM_CUDA_MAX_HEAD / 2]; /* RoPE's angles at position 1 */
};

/* Every copy of the pages holds the context and the new tokens. ATOM_ERR_UNSUPPORTED: it takes more than a third of the
 * device's memory. */
enum atom_status atom_gpu_cache_open(const struct atom_gpu_case *c, const struct atom_gpu_batch *batch,
                                     struct atom_gpu_cache *out, struct atom_error *err);
void atom_gpu_cache_close(struct atom_gpu_cache *c);
struct atom_cuda_kv atom_gpu_cache_layer(const struct atom_gpu_cache *c, int copy);

/* Bytes that reading one position of all KV heads takes, at the least. */
double atom_gpu_cache_position_bytes(const struct atom_gpu_cache *c);

/* Key (rotated) or value of a head at a position, as attention is to read it: out [head_dim]. */
void atom_gpu_cache_key(const struct atom_gpu_cache *c, int seq, int position, int kv_head, double *out);
void atom_gpu_cache_value(const struct atom_gpu_cache *c, int seq, int position, int kv_head, double *out);

/* (x[i], x[i+half]) by the angles of a position. */
void atom_gpu_cache_turn(const struct atom_gpu_cache *c, int position, double *x);

extern const struct atom_gpu_operation_kind atom_gpu_store_kinds[], atom_gpu_decode_kinds[], atom_gpu_prefill_kinds[];

#endif
