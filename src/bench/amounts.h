/* SPDX-License-Identifier: Apache-2.0 */
/* What the operations of a layer compute and move at the least. */
#ifndef ATOM_BENCH_AMOUNTS_H
#define ATOM_BENCH_AMOUNTS_H

#include "bench/ceilings.h"
#include "bench/bench.h"
#include "model/config.h"

enum atom_op {
    ATOM_OP_NORM, /* with order and quantize */
    ATOM_OP_QKV,
    ATOM_OP_STORE,
    ATOM_OP_ATTEND,
    ATOM_OP_GATHER,
    ATOM_OP_O,
    ATOM_OP_GATE_UP,
    ATOM_OP_SILU,
    ATOM_OP_DOWN,
    ATOM_N_OPS
};

struct atom_op_name {
    const char *op, *on; /* "linear", "gate_up"; on may be NULL */
};
extern const struct atom_op_name atom_op_names[ATOM_N_OPS];

struct atom_op_case {
    const struct atom_config *cfg;
    int abits, kvbits;
    int n_tok, n_seqs, depth; /* n_tok tokens of n_seqs sequences, `depth` positions before each */
};

/* A linear reads its weights, attention its cache; the others read and write their rows. `arithmetic` is INT8, F32,
 * BF16, or NONE where only bytes count. */
struct atom_amount {
    double ops, bytes;
    enum atom_bench_bound arithmetic;
};

enum atom_status atom_op_amount(enum atom_op op, const struct atom_op_case *c, struct atom_amount *out,
                                struct atom_error *err);

/* Sets ops, bytes and bound of a line: the ceiling that by itself would take longer. */
void atom_line_amount(struct atom_bench_line *line, const struct atom_amount *amount,
                      const struct atom_ceilings *ceilings);

#endif
