/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit hashes by which a resumed run knows that its inputs are the same. They guard against mistakes, not malice. */
#ifndef ATOM_QUANT_FINGERPRINT_H
#define ATOM_QUANT_FINGERPRINT_H

#include "base/error.h"

/* Goes on from `hash` (begin with 0) over n bytes, at the speed of memory. */
uint64_t atom_fingerprint(uint64_t hash, const void *data, size_t n_bytes);

/* Of a file's content. */
enum atom_status atom_fingerprint_file(const char *path, uint64_t *out, struct atom_error *err);
/* Of what decides a run in a model's directory: config.json, tokenizer.json, the index and all *.safetensors, by name.
 */
enum atom_status atom_fingerprint_model(const char *dir, uint64_t *out, struct atom_error *err);

/* Every option that changes the result, as a line of text. text holds 512 bytes. */
void atom_fingerprint_options(const struct atom_scheme *scheme, int samples, int window, char text[512]);

#endif
