/* SPDX-License-Identifier: Apache-2.0 */
/* One decoder layer: its parameters in a backend's form, and its step. */
#ifndef ATOM_MODEL_LAYER_H
#define ATOM_MODEL_LAYER_H

#include "backend/backend.h"
#include "model/config.h"
#include "model/safetensors.h"

enum atom_linear_id { ATOM_LIN_QKV, ATOM_LIN_O, ATOM_LIN_GATE_UP, ATOM_LIN_DOWN, ATOM_N_LINEARS };

struct atom_layer {
    struct atom_site sites[ATOM_N_SITES];
    float *norms[2]; /* before attention and before the MLP, in stored order */
    struct atom_linear *linears[ATOM_N_LINEARS];
    const struct atom_backend *backend;
};

/* The names of a layer's seven linears ("self_attn.q_proj", ...), in the order q k v o gate up down. */
enum { ATOM_N_PROJ = 7 };
struct atom_proj {
    const char *name;
    enum atom_site_id site;
    enum atom_linear_id linear;
};
extern const struct atom_proj atom_projs[ATOM_N_PROJ];
extern const char *const atom_site_names[ATOM_N_SITES];

/* How a backend calls an F32, F16 or BF16 tensor's elements. */
enum atom_weight_kind atom_float_kind(enum atom_dtype t);

/* Input channels of a site and output rows of a projection. */
int atom_site_channels(const struct atom_config *cfg, enum atom_site_id site);
int atom_narrowest_site(const struct atom_config *cfg); /* the fewest channels that a site has */
int atom_proj_rows(const struct atom_config *cfg, int proj);
/* The layout that a scheme cuts k channels into. */
enum atom_status atom_scheme_layout(const struct atom_scheme *scheme, int k, struct atom_layout *out,
                                    struct atom_error *err);

/* A NaN or an infinity in an F32, F16 or BF16 tensor is ATOM_ERR_NUMERIC naming it: it would poison what it meets. */
enum atom_status atom_tensor_finite(const struct atom_tensor *t, struct atom_error *err);

struct atom_foreign_layer;
struct atom_layer_source {
    const struct atom_config *cfg;
    const struct atom_tensors *tensors;
    struct atom_scheme scheme;    /* how it is stored (wbits) and run (abits) */
    bool float_weights;           /* P.weight whatever the scheme's wbits, in the scheme's layouts and orders */
    const int32_t *const *orders; /* [ATOM_N_SITES]; NULL: the checkpoint's, identity where it has none */
    const struct atom_foreign_layer *foreign; /* this layer's linears, where another program quantized them; or NULL */
};

/* Reads and packs layer `index`. Shapes, dtypes, orders and finiteness are checked. */
enum atom_status atom_layer_load(const struct atom_backend *b, const struct atom_layer_source *src, int index,
                                 struct atom_layer *out, struct atom_error *err);
void atom_layer_fini(struct atom_layer *layer);

/* Called after the acts of each site are in the work's ACTS. False ends the step there. */
typedef bool atom_site_fn(void *user, enum atom_site_id site, struct atom_work *w);

struct atom_step {
    struct atom_work *work;
    struct atom_kv *kv;
    const struct atom_batch *batch;
    float rms_eps;
    atom_site_fn *at_site; /* may be NULL */
    void *user;
};

/* X -> X through one layer; kv_layer is its place in the cache, index the number that messages give. */
void atom_layer_step(const struct atom_layer *layer, int index, int kv_layer, const struct atom_step *step);

/* Marks the tokens whose X after layer `index`, the last, is not finite; between layers the next one's norm does. */
void atom_layer_check(const struct atom_layer *layer, int index, struct atom_work *w);

/* "layer 3, down_in" for a code that a backend's bad() gave, of several the least; buf is returned. */
char *atom_where_text(int where, char *buf, size_t n_bytes);

#endif
