/* SPDX-License-Identifier: Apache-2.0 */
/* A text as windows of tokens: one string with one BOS, cut without overlap, a short last window dropped. */
#ifndef ATOM_MODEL_WINDOWS_H
#define ATOM_MODEL_WINDOWS_H

#include "base/error.h"

struct atom_windows {
    struct atom_ids ids;
    int window;
    int64_t n;       /* whole windows */
    int64_t dropped; /* tokens after the last */
};

enum atom_status atom_windows_of_text(const struct atom_tokenizer *tok, int bos, const char *text, size_t n_bytes,
                                      int window, struct atom_windows *out, struct atom_error *err);
/* Puts the model's BOS in front unless the post-processor did, or the model has none (-1). */
enum atom_status atom_ids_put_bos(struct atom_ids *ids, int bos, struct atom_error *err);
void atom_windows_fini(struct atom_windows *w);

#endif
