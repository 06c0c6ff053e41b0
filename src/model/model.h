/* SPDX-License-Identifier: Apache-2.0 */
/* A whole model: layers, embedding, head and tokenizer. */
#ifndef ATOM_MODEL_MODEL_H
#define ATOM_MODEL_MODEL_H

#include "model/layer.h"

/* From the last norm to logits. */
struct atom_head {
    struct atom_site site;
    struct atom_linear *linear;
};

struct atom_model {
    struct atom_config cfg;
    struct atom_model_info info;
    const struct atom_backend *backend;
    struct atom_tensors *tensors;
    struct atom_tokenizer *tokenizer;
    struct atom_layer *layers;           /* [cfg.layers] */
    const struct atom_tensor *embedding; /* [vocab, hidden] */
    enum atom_weight_kind embedding_kind;
    float *final_norm;
    struct atom_head head;
};

/* A model from what a directory holds. It takes tensors and tokenizer (which may be NULL) over, on failure too. */
enum atom_status atom_model_build(const struct atom_config *cfg, struct atom_tensors *tensors,
                                  struct atom_tokenizer *tokenizer, struct atom_model **out, struct atom_error *err);

/* Reads and packs the head. */
enum atom_status atom_head_load(const struct atom_backend *b, const struct atom_config *cfg,
                                const struct atom_tensors *tensors, struct atom_head *out, struct atom_error *err);
void atom_head_fini(const struct atom_backend *b, struct atom_head *h); /* also one of zeros */

/* The work and cache that a model's steps need. */
enum atom_status atom_model_work(const struct atom_config *cfg, const struct atom_backend *b, int max_tok,
                                 struct atom_work **out, struct atom_error *err);
/* layers: how many of the model's the cache is for. bits: the scheme's; 32 for a float model. */
enum atom_status atom_model_kv(const struct atom_config *cfg, const struct atom_scheme *scheme,
                               const struct atom_backend *b, int layers, int n_pages, int max_position,
                               struct atom_kv **out, struct atom_error *err);

/* Runs a batch through embedding and all layers; X then holds the last layer's output. Tokens must lie in the
 * vocabulary. Numbers that are not finite are found with backend->bad afterwards. */
enum atom_status atom_model_step(const struct atom_model *m, struct atom_work *w, struct atom_kv *kv,
                                 const struct atom_batch *batch, struct atom_error *err);

#endif
