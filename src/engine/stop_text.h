/* SPDX-License-Identifier: Apache-2.0 */
/* Stop strings over a stream of text: what could be the start of one waits until it is decided. */
#ifndef ATOM_ENGINE_STOP_TEXT_H
#define ATOM_ENGINE_STOP_TEXT_H

#include "base/error.h"

struct atom_stop_text {
    const char *const *stop;
    int n_stop;
    char *text; /* [n_bytes], all of the text so far; what lies before n_certain can no longer be part of a stop */
    size_t n_bytes, n_certain, room;
    bool found; /* text then ends before the stop string */
};

/* The strings are borrowed. One that is empty or not UTF-8 is refused. */
enum atom_status atom_stop_text_init(struct atom_stop_text *s, const char *const *stop, int n_stop,
                                     struct atom_error *err);
void atom_stop_text_fini(struct atom_stop_text *s);

/* Adds whole characters and moves n_certain. Nothing may be added once a stop string was found. */
enum atom_status atom_stop_text_add(struct atom_stop_text *s, const char *text, size_t n_bytes, struct atom_error *err);
/* The text is over: all of it is certain. */
void atom_stop_text_finish(struct atom_stop_text *s);

#endif
