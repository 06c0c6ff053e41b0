/* SPDX-License-Identifier: Apache-2.0 */
/* Models by the name of their shape, and what a step of one has to do at the least. */
#ifndef ATOM_BENCH_SHAPE_H
#define ATOM_BENCH_SHAPE_H

#include "kernels/layout.h"
#include "model/config.h"

struct atom_shape {
    const char *name, *about;
    int hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_position;
    double rope_theta;
    int prefill; /* tokens of a prefill, when nobody says */
};

extern const struct atom_shape atom_shapes[]; /* ends with name NULL */

/* ATOM_ERR_INVALID naming the shapes there are. */
enum atom_status atom_shape_find(const char *name, const struct atom_shape **out, struct atom_error *err);

/* Outliers are cut to a quarter of the narrowest site. */
void atom_shape_config(const struct atom_shape *shape, const struct atom_scheme *scheme, struct atom_config *out);

/* Weights as they are packed, scales included; the KV cache as section 4 of docs/design.md counts a position. */
struct atom_cost {
    double weights;      /* of the layers' linears, a number */
    double layers_bytes; /* of the same, packed */
    double head_bytes, embedding_bytes;
    double kv_bytes; /* of one position, all layers */
};

enum atom_status atom_cost_of(const struct atom_config *cfg, struct atom_cost *out, struct atom_error *err);

/* A linear of n rows over a layout, packed at wbits. */
double atom_packed_bytes(const struct atom_layout *lay, int n, int wbits);
/* Keys and values of one position in one layer. */
double atom_position_bytes(int kv_heads, int head_dim, int kvbits);

#endif
