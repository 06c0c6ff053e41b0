/* SPDX-License-Identifier: Apache-2.0 */
/* What two models say of one position, compared. */
#ifndef ATOM_EVAL_DIVERGENCE_H
#define ATOM_EVAL_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

struct atom_divergence {
    double kl;           /* KL(A || B), nats */
    double nll_a, nll_b; /* of the token that follows */
    bool same_top;
};

/* Logits a [vocab] and b [vocab], all finite; target is the token that follows. In double throughout. */
struct atom_divergence atom_divergence_of(const float *a, const float *b, int vocab, int32_t target);

#endif
