/* SPDX-License-Identifier: Apache-2.0 */
/* Safetensors: a checked, mapped view of one or many files, and a writer. */
#ifndef ATOM_MODEL_SAFETENSORS_H
#define ATOM_MODEL_SAFETENSORS_H

#include "base/error.h"

enum atom_dtype { ATOM_F32, ATOM_F16, ATOM_BF16, ATOM_I8, ATOM_U8, ATOM_I32, ATOM_OTHER };
enum { ATOM_MAX_DIMS = 8 };
/* The dtypes of weights that are not quantized, as a mask for atom_tensors_need. */
enum { ATOM_FLOATS = 1 << ATOM_F32 | 1 << ATOM_F16 | 1 << ATOM_BF16 };

size_t atom_dtype_bytes(enum atom_dtype t); /* 0 for ATOM_OTHER */
const char *atom_dtype_name(enum atom_dtype t);

struct atom_tensor {
    const char *name;
    enum atom_dtype dtype;
    char dtype_text[8]; /* as the file spells it, cut to fit */
    int n_dims;
    int64_t dims[ATOM_MAX_DIMS];
    const void *data; /* mapped, possibly unaligned */
    size_t n_bytes;
    const char *file; /* base name, for messages */
};

struct atom_tensors;

/* DIR/model.safetensors, or, when there is none, the shards of DIR/model.safetensors.index.json. All offsets, shapes,
 * dtypes and sizes are checked (bounds, overlap, product against length, gaps) before any tensor can be had; an index
 * must agree with its shards. */
enum atom_status atom_tensors_open(const char *dir, struct atom_tensors **out, struct atom_error *err);
void atom_tensors_close(struct atom_tensors *t);
/* A view of tensors in memory, whose data must stay; the list is copied and may be in any order. */
enum atom_status atom_tensors_wrap(const struct atom_tensor *list, size_t n, struct atom_tensors **out,
                                   struct atom_error *err);
size_t atom_tensors_count(const struct atom_tensors *t);
const struct atom_tensor *atom_tensors_at(const struct atom_tensors *t, size_t i);           /* sorted by name */
const struct atom_tensor *atom_tensors_find(const struct atom_tensors *t, const char *name); /* NULL: not there */

/* A tensor that must be there with one of the dtypes (a mask of 1 << dtype) and the shape [d0] (d1 < 0) or [d0, d1]. */
enum atom_status atom_tensors_need(const struct atom_tensors *t, const char *name, unsigned dtypes, int64_t d0,
                                   int64_t d1, const struct atom_tensor **out, struct atom_error *err);

/* ATOM_ERR_IO naming the file if one was cut short since it was mapped: call after reading tensor data. */
enum atom_status atom_tensors_check(const struct atom_tensors *t, struct atom_error *err);

/* Once data has been copied to where it is used: the pages that were read are given back, and tensors stay readable.
 * What atom_tensors_wrap views is left alone. */
void atom_tensors_release(const struct atom_tensors *t);

/* Elements [first, first+n) of an F32, F16 or BF16 tensor, as float32. */
void atom_tensor_floats(const struct atom_tensor *t, size_t first, size_t n, float *out);

/* One safetensors file with its tensors in the order given: name, dtype (ATOM_OTHER: dtype_text), dims, data and
 * n_bytes must be set and agree. Synced to disk on success; on failure no file is left. */
enum atom_status atom_safetensors_write(const char *path, const struct atom_tensor *tensors, int n,
                                        struct atom_error *err);

#endif
