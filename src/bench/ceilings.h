/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at best, in the tier that is in use: measured, not looked up. */
#ifndef ATOM_BENCH_CEILINGS_H
#define ATOM_BENCH_CEILINGS_H

#include "bench/peaks.h"

#include "base/error.h"

enum atom_ceiling_id { ATOM_CEIL_INT8, ATOM_CEIL_F32, ATOM_CEIL_BF16, ATOM_CEIL_READ, ATOM_N_CEILINGS };

extern const char *const atom_ceiling_names[ATOM_N_CEILINGS]; /* "int8", "f32", "bf16", "read" */

struct atom_ceiling {
    char how[80];    /* instructions, or loads; empty: this tier or processor has none */
    double one, all; /* a second, on one thread and on all of the pool: operations, or bytes read. 0: not known */
};

struct atom_ceilings {
    struct atom_ceiling at[ATOM_N_CEILINGS];
};

struct atom_ceilings_options {
    bool one;   /* on one thread too */
    bool brief; /* a few batches, a small buffer: numbers of no worth, for tests */
};

/* The widest loads of the tier in use. */
atom_read_fn *atom_ceiling_reader(void);

/* The best of many batches of each. Takes a buffer of at least 512 MiB, or eight times the last cache, for a while. */
enum atom_status atom_ceilings_measure(const struct atom_ceilings_options *opt, struct atom_ceilings *out,
                                       struct atom_error *err);

#endif
