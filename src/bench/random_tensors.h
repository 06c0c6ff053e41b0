/* SPDX-License-Identifier: Apache-2.0 */
/* A quantized checkpoint of random numbers, in memory. Weights and scales are sized so that activations stay of
 * magnitude 1 from layer to layer. One layer's tensors are made, and every layer has them: a backend repacks each into
 * memory of its own. The same seed gives the same numbers, for any number of threads. */
#ifndef ATOM_BENCH_RANDOM_TENSORS_H
#define ATOM_BENCH_RANDOM_TENSORS_H

#include "model/config.h"
#include "model/safetensors.h"

struct atom_random;

/* For a config with weights of 2 to 4 bits, no biases and a head of its own. */
enum atom_status atom_random_create(const struct atom_config *cfg, uint64_t seed, struct atom_random **out,
                                    struct atom_error *err);
void atom_random_free(struct atom_random *r);

/* All tensors, a layer's side by side in the order of layers, what is no layer's last; they stay r's. */
const struct atom_tensor *atom_random_list(const struct atom_random *r, int *n);
/* Tensors of one layer. */
int atom_random_per_layer(const struct atom_random *r);
/* Frees what a model that was built from the list holds in its own form: all but the embedding. */
void atom_random_drop_packed(struct atom_random *r);

#endif
