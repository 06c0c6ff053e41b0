/* SPDX-License-Identifier: Apache-2.0 */
/* The directory that an ablation works in.
 *
 *     NAME/, NAME.partial/    a checkpoint, finished or not
 *     ablation.json           {"rungs": {NAME: {"made": from what, "quantize_seconds": S,
 *                                               "scored": on what, "eval_seconds": S, "result": {...}}}}
 *
 * "made" is written before a checkpoint and "scored" once the result is there: a run that ends at any moment leaves a
 * directory to go on from. */
#ifndef ATOM_EVAL_ABLATE_DIR_H
#define ATOM_EVAL_ABLATE_DIR_H

#include "base/error.h"

struct atom_ablate_dir;

/* Makes `path` unless it is there; NULL: a temporary one, which close deletes with what is in it. A directory that
 * another run works in is refused. */
enum atom_status atom_ablate_dir_open(const char *path, struct atom_ablate_dir **out, struct atom_error *err);
void atom_ablate_dir_close(struct atom_ablate_dir *d);

/* A rung at given bits: how it is called in the directory, and what decides its checkpoint and its result. */
struct atom_ablate_key {
    char name[64];
    char made[640], scored[128];
};

/* True when the result is there; it and the seconds go to row. */
bool atom_ablate_dir_recall(const struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                            struct atom_ablate_row *row);

/* Where the checkpoint is, or shall be made: *path is malloc'd. ATOM_ERR_INVALID when one is there that was made from
 * something else. */
struct atom_ablate_place {
    char *path;
    bool finished;
    bool begun;     /* an unfinished one may be gone on with */
    double seconds; /* that it took, if finished */
};
enum atom_status atom_ablate_dir_begin(struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                                       struct atom_ablate_place *out, struct atom_error *err);
/* The checkpoint is finished. */
enum atom_status atom_ablate_dir_made(struct atom_ablate_dir *d, const struct atom_ablate_key *key, double seconds,
                                      struct atom_error *err);
enum atom_status atom_ablate_dir_scored(struct atom_ablate_dir *d, const struct atom_ablate_key *key,
                                        const struct atom_ablate_row *row, struct atom_error *err);

#endif
