/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized linears as the tensors of a checkpoint (docs/design.md, section 4).
 *
 *     P.qweight          U8  [n, ceil((k - o) / 2)]   under 8 bits: q + 8, even column in the low nibble, padding 8
 *                        I8  [n, k - o]               8 bits
 *     P.scales           F16 [ceil(n / C), groups]
 *     P.outlier_qweight  I8  [n, o]                   these two only when o > 0
 *     P.outlier_scales   F16 [n]
 *
 * Beside float formats nibbles are E2M1 codes and outliers U8 E4M3 codes; scales of NVFP4 and MXFP4 are U8 codes, and
 * NVFP4 has P.tensor_scale F32 [1]. Outliers of 16 bits are P.outlier_weight F16 [n, o], instead of the last two. */
#ifndef ATOM_QUANT_PACK_H
#define ATOM_QUANT_PACK_H

#include "model/safetensors.h"
#include "quant/weights.h"

/* Tensors for atom_safetensors_write, with the names and data made for them. Valid when {0}. */
struct atom_pack {
    struct atom_tensor *at;
    int n;
    void **owned;
    int n_owned;
};
void atom_pack_fini(struct atom_pack *p);

/* Each appends and copies what it is given, unless it says otherwise; on failure the list may have grown, but holds
 * whole tensors only. `linear` is the P above, without a dot at its end. */
enum atom_status atom_pack_linear(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                  struct atom_error *err);
/* An INT8 head: scales are [n]. q is of 8 bits, with one group, one row a scale and no outliers. */
enum atom_status atom_pack_head(struct atom_pack *p, const char *linear, const struct atom_qlinear *q,
                                struct atom_error *err);
/* SITE.order I32 [k]; site is "model.layers.0.attn_in". */
enum atom_status atom_pack_order(struct atom_pack *p, const char *site, const int32_t *order, int k,
                                 struct atom_error *err);
/* A tensor as it is, under its own name, or under `name` if not NULL. The data is not copied and must stay. */
enum atom_status atom_pack_tensor(struct atom_pack *p, const struct atom_tensor *t, const char *name,
                                  struct atom_error *err);
/* The same with its data copied. */
enum atom_status atom_pack_copy(struct atom_pack *p, const struct atom_tensor *t, struct atom_error *err);

#endif
