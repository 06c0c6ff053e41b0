/* SPDX-License-Identifier: Apache-2.0 */
/* A random checkpoint as a directory like any other. */
#ifndef ATOM_BENCH_SAVE_H
#define ATOM_BENCH_SAVE_H

#include "bench/random_tensors.h"

#include <jansson.h>

/* A tokenizer.json of n_ids tokens: bytes, the letters a to z, and merges of them as far as n_ids goes. n_ids is 290 to
 * half a million. NULL: out of memory. */
json_t *atom_letters_tokenizer(int n_ids);

/* config.json's text for this config, malloc'd; NULL: out of memory. */
char *atom_config_text(const struct atom_config *cfg);

/* Makes DIR (as DIR.partial, synced, then renamed), which must not be there. It has every tensor of `random`. */
enum atom_status atom_random_save(const struct atom_random *random, const struct atom_config *cfg, const char *dir,
                                  struct atom_error *err);

#endif
