/* SPDX-License-Identifier: Apache-2.0 */
/* An operation between linears as the bench sees it: made for a case, put on a stream, compared with the formula. A new
 * one is a row in the table of its file, or a file with a table and a row in gpu_operations.c. */
#ifndef ATOM_BENCH_GPU_OPERATION_H
#define ATOM_BENCH_GPU_OPERATION_H

#include "bench/gpu/gpu_linear.h"
#include "bench/shape.h"

struct atom_gpu_case {
    const struct atom_shape *model;
    int tokens;
    int context; /* attention: positions in the cache before them */
    int kvbits;
    bool post; /* keys are rotated when they are stored */
};

/* An operation that is open. */
struct atom_gpu_operation {
    void *state;
    int copies;                          /* of its inputs; 1 to ATOM_GPU_MAX_COPIES */
    double ops, bytes;                   /* of a launch, at the least */
    enum atom_gpu_ceiling bound, memory; /* of ops; of bytes: READ or COPY */
    bool cold;                           /* whether a rotation through the copies is */
};

struct atom_gpu_operation_kind {
    const char *name, *on; /* "norm", "4 bits" */
    int which;             /* what its functions know it by; of attention: the bits of the cache, 100 more: POST */
    /* ATOM_ERR_UNSUPPORTED: left out, err says why. */
    enum atom_status (*open)(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                             struct atom_error *err);
    void (*close)(void *state); /* takes NULL */
    enum atom_status (*put)(void *state, int copy, atom_cuda_stream s, struct atom_error *err);
    /* What copy 0 left when it was put last: ATOM_ERR_NUMERIC with what differs, or how many results were compared. */
    enum atom_status (*compare)(void *state, int *checked, struct atom_error *err);
};

extern const struct atom_gpu_operation_kind atom_gpu_rows_kinds[], atom_gpu_sample_kinds[]; /* end with name NULL */

#endif
