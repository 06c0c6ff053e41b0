/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_BENCH_SAME_BITS_H
#define ATOM_BENCH_SAME_BITS_H

#include "bench/stage.h"

/* Numbers of tokens that operations are compared at: no multiple of a tile. Ends with 0. */
extern const int atom_checked_tokens[4];

/* Runs a layer on the tier in use and on the scalar one, and compares, to the last bit, whatever an operation's result
 * can be seen by: the quantized inputs of every linear, attention and silu as floats, X after each sum. The activations
 * have abits, the cache kvbits; afterwards the stage has that cache. ATOM_ERR_NUMERIC names what differs. */
enum atom_status atom_same_bits(struct atom_stage *s, int abits, int kvbits, struct atom_error *err);

/* A linear of n rows over a site of floats, as a head: logits of 1 and 3 tokens, likewise. */
enum atom_status atom_same_logits(struct atom_stage *s, const struct atom_site *site, const struct atom_linear *head,
                                  int n, struct atom_error *err);

#endif
