/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: the deepest failure writes the sentence, later ones leave it. */
#ifndef ATOM_BASE_ERROR_H
#define ATOM_BASE_ERROR_H

#include "atom/atom.h"

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Writes code and sentence unless err is NULL or already holds one; returns code, so that `return atom_fail(...)`. */
enum atom_status atom_fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As atom_fail with ": <text of errnum>" after the sentence; ENOSPC and EDQUOT become ATOM_ERR_NOSPACE, ENOMEM
 * ATOM_ERR_NOMEM. */
enum atom_status atom_fail_errno(struct atom_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ATOM_ERR_NOMEM with the size that was refused. */
enum atom_status atom_fail_nomem(struct atom_error *err, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
