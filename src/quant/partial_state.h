/* SPDX-License-Identifier: Apache-2.0 */
/* atom_state.json of OUT.partial, and the index and report made from it. */
#ifndef ATOM_QUANT_PARTIAL_STATE_H
#define ATOM_QUANT_PARTIAL_STATE_H

#include "quant/partial.h"

#include <jansson.h>

#define ATOM_STATE_FILE  "atom_state.json"
#define ATOM_REPORT_FILE "atom_report.json"
enum { ATOM_REPORT_LIMIT = 100000000 }; /* bytes */

/* {"version": 1, "model": hash, "calibration": hash, "options": text, "layers": n, "done": [shard ...]}; a shard is
 * {"file": name, "bytes" and "hash": of the file, "tensor_bytes": n, "tensors": [name ...], "report": [{...} ...]}. */
json_t *atom_state_new(const char *model_hash, const char *calib_hash, const char *options, int layers);

/* DIR/atom_state.json, checked in shape. Not there: *out NULL. */
enum atom_status atom_state_load(const char *dir, json_t **out, struct atom_error *err);
enum atom_status atom_state_save(const char *dir, const json_t *state, struct atom_error *err);
/* What differs between the inputs of two states, or of a state and a report, in words; empty: nothing does. */
void atom_state_differences(const json_t *then, const json_t *now, char text[1200]);
/* ATOM_ERR_INVALID, saying which inputs differ, unless `now` has the hashes, options and layers of `then`. */
enum atom_status atom_state_compare(const char *dir, const json_t *then, const json_t *now, struct atom_error *err);
/* Forgets shards from the first on whose file is not as it was written. Reads them all. */
enum atom_status atom_state_drop_damaged(const char *dir, json_t *state, struct atom_error *err);

/* A new shard's entry, the file's size and hash included. */
enum atom_status atom_state_shard(const char *dir, const char *file, const struct atom_tensor *tensors, int n,
                                  const struct atom_report_line *report, int n_report, json_t **out,
                                  struct atom_error *err);

/* model.safetensors.index.json and atom_report.json for an array of shards; the report has the state's inputs and
 * checksums (checksums.h) too, so that it comes last. */
enum atom_status atom_state_write_index(const char *dir, const json_t *shards, struct atom_error *err);
enum atom_status atom_state_write_report(const char *dir, const json_t *state, const json_t *shards,
                                         struct atom_error *err);

#endif
