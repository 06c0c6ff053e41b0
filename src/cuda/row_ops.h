/* SPDX-License-Identifier: Apache-2.0 */
/* What happens to rows of floats between linears: RMSNorm, order, silu(gate) * up, each on the way into a site's
 * integers or into floats; and the rows of an embedding.
 *
 * Rules of ops.h hold. A token's result depends on its own row and on the width alone, never on the batch: a sum of
 * squares adds in an order fixed by the width. Integers and scales of the same floats equal the scalar tier's, and so
 * does silu(gate) * up. Of a norm's floats only the sum of squares may round otherwise. */
#ifndef ATOM_CUDA_ROW_OPS_H
#define ATOM_CUDA_ROW_OPS_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of floats [n_tok, width], stride elements apart; any alignment that the type has. Rows at 16-byte addresses
 * are read and written 16 bytes at a time. */
struct atom_cuda_rows {
    enum atom_cuda_float type;
    void *x;
    size_t stride;
    int n_tok, width;
};

/* Where rows go. A token with a number that is not finite is marked, bad[t] becoming `where` if it was 0, and zeros go
 * on in that number's group or around it. Without a mark to leave (bad NULL or where 0) floats go on as they are, and a
 * group of integers as zeros with a scale of NaN. */
struct atom_cuda_quantizer {
    int bits;                     /* of the normal channels, 2 to 8: acts; 16: floats */
    float clip;                   /* of the normal channels' largest magnitude */
    struct atom_cuda_acts acts;   /* its tokens' integers, zeros in the padding, and scales; other tokens' are left */
    struct atom_cuda_rows floats; /* width k, any type */
    const int32_t *order;         /* [k] stored channel -> channel of the row; NULL: identity */
    int32_t *bad;                 /* [n_tok] or NULL */
    int where;
};

struct atom_cuda_row_op {
    struct atom_cuda_rows in;
    const int32_t *rows; /* [n_tok of `to`] which row of `in` a token is; NULL: its own. One that is not there is not
                            read, and counts as not finite */
    const float *weight; /* norm: [k] in stored order */
    float eps;           /* norm */
    struct atom_cuda_quantizer to;
};

/* to[t, i] = (x[order[i]] * r) * weight[i], r = 1 / sqrt(mean of squares + eps), NaN when that mean is not finite. */
enum atom_status atom_cuda_norm(const struct atom_cuda_row_op *job, atom_cuda_stream s, struct atom_error *err);
/* to[t, i] = x[order[i]] */
enum atom_status atom_cuda_gather(const struct atom_cuda_row_op *job, atom_cuda_stream s, struct atom_error *err);
/* `in` is [n_tok, 2k], gate then up, both in stored order: to[t, i] = silu(gate[i]) * up[i]. Takes no order. */
enum atom_status atom_cuda_silu_mul(const struct atom_cuda_row_op *job, atom_cuda_stream s, struct atom_error *err);

/* Marks rows that a norm would find not finite, and does nothing else. */
struct atom_cuda_row_check {
    struct atom_cuda_rows in;
    int32_t *bad; /* [n_tok] */
    int where;
};
enum atom_status atom_cuda_check_rows(const struct atom_cuda_row_check *job, atom_cuda_stream s,
                                      struct atom_error *err);

/* Rows of a table [vocab, width]. An id that is not in it is not read: its row becomes zeros and is marked. This is
 * where a step begins: bad[t] becomes 0 or `where`, whatever it was. */
struct atom_cuda_embed {
    enum atom_cuda_float type;
    const void *table; /* rows one after the other */
    int vocab;
    const int32_t *tokens; /* [n_tok of out] */
    struct atom_cuda_rows out;
    int32_t *bad; /* [n_tok] or NULL */
    int where;
};
enum atom_status atom_cuda_embed(const struct atom_cuda_embed *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
