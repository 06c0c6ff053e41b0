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

struct atom_random_dir {
    const char *dir;
    const struct atom_random *random;
    const struct atom_config *cfg; /* that `random` was made for */
    /* Called before each file of tensors; a failure ends the work. May be NULL. */
    enum atom_status (*tell)(void *user, int done, int total, struct atom_error *err);
    void *user;
};

/* Makes DIR, which must not be there, as DIR.partial, synced and then renamed: a file of tensors for each layer. On
 * failure DIR.partial is deleted. */
enum atom_status atom_random_save(const struct atom_random_dir *d, struct atom_error *err);

#endif
