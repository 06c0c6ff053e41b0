/* SPDX-License-Identifier: Apache-2.0 */
/* Where operations are measured: layers of random weights, more of them than the caches hold, with work buffers, a KV
 * cache and a batch. Everything goes through the operations of a backend (backend/backend.h). */
#ifndef ATOM_BENCH_STAGE_H
#define ATOM_BENCH_STAGE_H

#include "bench/random_tensors.h"
#include "bench/shape.h"
#include "model/layer.h"

enum { ATOM_STAGE_TOK = 512, ATOM_STAGE_SEQS = 32, ATOM_STAGE_DEPTH = 1024 };

struct atom_stage {
    const struct atom_backend *backend;
    struct atom_config cfg; /* layers: how many there are here */
    struct atom_random *random;
    struct atom_tensors *tensors;
    struct atom_layer *layers; /* [cfg.layers] */
    struct atom_work *work;
    struct atom_kv *kv;
    float *x;       /* [ATOM_STAGE_TOK, hidden] */
    int32_t *pages; /* [ATOM_STAGE_SEQS, pages_per_seq] */
    int pages_per_seq, n_seqs;
    struct atom_batch_seq seqs[ATOM_STAGE_SEQS];
    struct atom_batch batch;
};

/* For a shape with this scheme; enough layers that one pass over them finds none of their weights in a cache. */
enum atom_status atom_stage_open(const struct atom_shape *shape, const struct atom_scheme *scheme,
                                 struct atom_stage *out, struct atom_error *err);
void atom_stage_close(struct atom_stage *s); /* also one of zeros */

/* A fresh cache of these bits for n_seqs sequences, in place of the one before. */
enum atom_status atom_stage_kv(struct atom_stage *s, int bits, int n_seqs, struct atom_error *err);
void atom_stage_abits(struct atom_stage *s, int bits);

/* X becomes the first n_tok rows of x, and the batch n_tok sequences of one token each at position `depth`, or one
 * sequence of n_tok tokens from there on. */
void atom_stage_batch(struct atom_stage *s, int n_tok, bool apart, int depth);

/* How many pieces of n_bytes are more than the caches hold; at most 8, which a shape for tests does not reach. */
int atom_beyond_caches(double n_bytes);

#endif
