/* SPDX-License-Identifier: Apache-2.0 */
/* What a finished checkpoint's files were when they were written: "files" of atom_report.json,
 *
 *     [{"file": name, "bytes": size, "hash": 16 hex digits of atom_fingerprint} ...]
 *
 * for all that decides what the checkpoint computes. Safetensors has no checksums of its own. */
#ifndef ATOM_QUANT_CHECKSUMS_H
#define ATOM_QUANT_CHECKSUMS_H

#include "base/error.h"

#include <jansson.h>

/* A new entry for DIR/FILE as it is now, or NULL where there is none. Reads all of it. */
enum atom_status atom_checksum_of(const char *dir, const char *file, json_t **out, struct atom_error *err);
/* Whether DIR/FILE is as an entry says, which may lack a hash: why is "", or says in words what is wrong. */
enum atom_status atom_checksum_check(const char *dir, const json_t *entry, char why[200], struct atom_error *err);

/* The same of all files of a finished checkpoint, by its report, which must have checksums. Reads all of them.
 * ATOM_ERR_FORMAT for a report that is none. */
enum atom_status atom_checksums_check(const char *dir, char why[500], struct atom_error *err);

#endif
