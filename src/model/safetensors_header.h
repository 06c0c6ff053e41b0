/* SPDX-License-Identifier: Apache-2.0 */
/* The header of one safetensors file, checked in full against the bytes that follow it. */
#ifndef ATOM_MODEL_SAFETENSORS_HEADER_H
#define ATOM_MODEL_SAFETENSORS_HEADER_H

#include "model/safetensors.h"

struct atom_tensor_list {
    struct atom_tensor *at; /* names malloc'd */
    size_t n, capacity;
};

/* Appends the tensors of the file whose n_bytes bytes begin at data; they point into data and to `file`. On failure the
 * list stays good to free, with whatever was appended. */
enum atom_status atom_safetensors_parse(const uint8_t *data, size_t n_bytes, const char *file,
                                        struct atom_tensor_list *list, struct atom_error *err);
void atom_tensor_list_fini(struct atom_tensor_list *list);

#endif
