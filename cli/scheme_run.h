/* SPDX-License-Identifier: Apache-2.0 */
/* What `atom eval schemes` is at: inputs, the scheme at work, where checkpoints lie. */
#ifndef ATOM_CLI_SCHEME_RUN_H
#define ATOM_CLI_SCHEME_RUN_H

#include "progress.h"
#include "scheme_rows.h"

enum { SCHEME_RUN_MOST = 64 };

struct scheme_file {
    char *text; /* malloc'd */
    size_t n_bytes;
};

struct scheme_run {
    const char *model, *list, *keep;
    char work[1024]; /* the folder of all checkpoints */
    struct atom_quantize_options quantize;
    int max_windows, limit;
    struct cli_texts tasks;
    struct scheme_table table;
    struct cli_progress bar;
    bool quiet;
    const struct atom_named_scheme *schemes[SCHEME_RUN_MOST];
    struct atom_quantize_found found[SCHEME_RUN_MOST]; /* of each in `work`, before anything is measured */
    int n_schemes;
    struct scheme_file texts[CLI_MAX_TEXTS], items[CLI_MAX_TEXTS];
    struct atom_model *exact; /* the float model */
    const char *name;         /* of the scheme at work */
};

/* ATOM_ERR code after the sentence. */
enum atom_status scheme_fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* An atom_progress_fn that says which scheme is at work; user: struct scheme_run. */
bool scheme_progress(void *user, const struct atom_progress *p);
/* One that says nothing. */
bool scheme_go_on(void *user, const struct atom_progress *p);
void scheme_next_phase(struct scheme_run *run);
/* Of schemes[i] with its checkpoint at `dir`, which the caller keeps. */
struct atom_quantize_options scheme_options(struct scheme_run *run, int i, const char *dir);

/* Reads and checks all that the command line names, kept checkpoints too, so that nothing of it fails hours later. */
enum atom_status scheme_check_inputs(struct scheme_run *run, struct atom_error *err);

/* Measures a checkpoint, loaded as `m`, and prints its row. */
enum atom_status scheme_measure(struct scheme_run *run, const char *dir, struct atom_model *m, struct scheme_row *row,
                                struct atom_error *err);

#endif
