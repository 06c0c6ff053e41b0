/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints as directories: writing a random one, and how long one takes to be open. */
#include "bench/bench.h"

#include "base/clock.h"
#include "base/file.h"
#include "bench/machine.h"
#include "bench/save.h"
#include "bench/timing.h"
#include "bench/whole_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 1, PROMPT = 16, BLOCK = 1 << 20 };

static enum atom_status tell_file(void *user, int done, int total, struct atom_error *err)
{
    return atom_bench_tell(user, "write", done, total, err);
}

enum atom_status atom_bench_write(const struct atom_bench_options *opt, const char *dir, struct atom_error *err)
{
    const struct atom_shape *shape;
    struct atom_scheme scheme;
    struct atom_config cfg;
    struct atom_random *random;
    if (opt->n_shapes != 1)
        return atom_fail(err, ATOM_ERR_INVALID, "a directory takes one shape, not %d", opt->n_shapes);
    enum atom_status st = atom_shape_find(opt->shapes[0], &shape, err);
    st = st ? st : atom_bench_scheme(opt, &scheme, err);
    if (st)
        return st;
    atom_shape_config(shape, &scheme, &cfg);
    st = atom_random_create(&cfg, SEED, &random, err);
    if (st)
        return st;
    const struct atom_random_dir to = {dir, random, &cfg, tell_file, (void *)opt};
    st = atom_random_save(&to, err);
    atom_random_free(random);
    return st;
}

/* ---- load -------------------------------------------------------------------------------------------------------- */

static enum atom_status read_through(const char *path, uint8_t *block, struct atom_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 || (n < 0 && fd >= 0 && errno == EINTR))
        n = read(fd, block, BLOCK);
    enum atom_status st = n < 0 && errno != EISDIR ? atom_fail_errno(err, errno, "cannot read %s", path) : ATOM_OK;
    if (fd >= 0)
        close(fd);
    return st;
}

/* Reads every file once, so that the page cache has them. */
static enum atom_status warm(const char *dir, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    const struct dirent *entry;
    DIR *stream = opendir(dir);
    uint8_t *block = malloc(BLOCK);
    if (!stream)
        st = atom_fail_errno(err, errno, "cannot open the directory %s", dir);
    else if (!block)
        st = atom_fail_nomem(err, BLOCK);
    while (!st && (entry = readdir(stream))) {
        char *path = entry->d_name[0] == '.' ? NULL : atom_path_join(dir, entry->d_name);
        if (path)
            st = read_through(path, block, err);
        free(path);
    }
    if (stream)
        closedir(stream);
    free(block);
    return st;
}

static enum atom_status first_token(struct atom_model *model, struct atom_error *err)
{
    int vocab = atom_model_info(model)->vocab, last = PROMPT - 1;
    const struct atom_session_options opt = {.max_positions = PROMPT, .step_tokens = PROMPT};
    int32_t tokens[PROMPT];
    struct atom_step_seq step = {.tokens = tokens, .n_tokens = PROMPT};
    struct atom_session *session = NULL;
    float *logits = malloc((size_t)vocab * sizeof *logits);
    enum atom_status st =
        logits ? atom_session_create(model, &opt, &session, err) : atom_fail_nomem(err, (size_t)vocab * sizeof *logits);
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = i * 7 % vocab;
    st = st ? st : atom_session_add(session, &step.sequence, err);
    st = st ? st : atom_session_step(session, &step, 1, err);
    st = st ? st : atom_session_logits(session, &last, 1, logits, err);
    atom_session_free(session);
    free(logits);
    return st;
}

enum atom_status atom_bench_load(const struct atom_bench_options *opt, const char *dir, struct atom_error *err)
{
    struct atom_bench_line line = {
        .what = ATOM_BENCH_LOAD, .shape = dir, .tokens = PROMPT, .threads = atom_runtime_threads()};
    struct atom_model *model;
    enum atom_status st = atom_bench_tell(opt, "load", 0, 1, err);
    st = st ? st : warm(dir, err);
    if (st)
        return st;
    atom_machine_forget_peak();
    double began = atom_seconds();
    st = atom_model_open(dir, &model, err);
    if (st)
        return st;
    line.open_s = atom_seconds() - began;
    st = first_token(model, err);
    line.first_s = atom_seconds() - began - line.open_s;
    line.memory.peak = atom_machine_peak_bytes();
    atom_model_close(model);
    if (!st)
        opt->on_line(opt->user, &line);
    return st;
}
