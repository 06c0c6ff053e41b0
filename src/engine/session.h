/* SPDX-License-Identifier: Apache-2.0 */
/* What a session does beyond its public face. */
#ifndef ATOM_ENGINE_SESSION_H
#define ATOM_ENGINE_SESSION_H

#include "atom/atom.h"

/* Forgets what a sequence holds from position `length` on, of its length at most; its pages go back. */
void atom_session_cut(struct atom_session *s, int sequence, int length);

#endif
