/* SPDX-License-Identifier: Apache-2.0 */
/* The next token of each row of logits (cuda/sampling.h), compared with the CPU's choice. */
#include "bench/gpu/gpu_operation.h"

#include "base/error.h"
#include "cuda/sampling.h"

#include <stdlib.h>

enum which { GREEDY, NUCLEUS };
enum { SEED_LOGITS = 61, SEED = 7 };

static const struct atom_sampling ways[] = {[GREEDY] = {0}, [NUCLEUS] = {0.8f, 0.9f, 50, SEED}};

struct sample {
    enum which which;
    int n, vocab;
    void *logits, *how, *tokens, *workspace;
};

static void close_sample(void *state)
{
    struct sample *s = state;
    if (!s)
        return;
    atom_cuda_free(s->logits);
    atom_cuda_free(s->how);
    atom_cuda_free(s->tokens);
    atom_cuda_free(s->workspace);
    free(s);
}

/* Row r draws number r. */
static enum atom_status make_how(struct sample *s, struct atom_error *err)
{
    const struct atom_sampling *way = &ways[s->which];
    size_t n_bytes = (size_t)s->n * sizeof(struct atom_cuda_sampling);
    struct atom_cuda_sampling *how = calloc((size_t)s->n, sizeof *how);
    if (!how)
        return atom_fail_nomem(err, n_bytes);
    for (int i = 0; i < s->n; i++)
        how[i] = (struct atom_cuda_sampling){way->temperature, way->top_p, way->top_k, way->seed, (uint64_t)i};
    enum atom_status st = atom_cuda_alloc(n_bytes, &s->how, err);
    st = st ? st : atom_cuda_upload(s->how, how, n_bytes, err);
    free(how);
    return st;
}

static enum atom_status make_arrays(struct sample *s, int copies, struct atom_error *err)
{
    size_t all = (size_t)copies * (size_t)s->n * (size_t)s->vocab, room = atom_cuda_sample_workspace(s->n);
    enum atom_status st = atom_gpu_alloc_random(all * sizeof(float), ATOM_GPU_FLOATS, SEED_LOGITS, &s->logits, err);
    st = st ? st : atom_cuda_alloc((size_t)s->n * sizeof(int32_t), &s->tokens, err);
    st = st ? st : atom_cuda_alloc(room, &s->workspace, err);
    st = st ? st : atom_cuda_fill(s->workspace, 0, room, err);
    return st ? st : make_how(s, err);
}

static enum atom_status open_sample(int which, const struct atom_gpu_case *c, struct atom_gpu_operation *out,
                                    struct atom_error *err)
{
    struct sample *s = calloc(1, sizeof *s);
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    s->which = (enum which)which;
    s->n = c->tokens;
    s->vocab = c->model->vocab;
    out->bytes = 4.0 * s->n * s->vocab;
    out->memory = ATOM_GPU_READ;
    out->copies = atom_gpu_copies(out->bytes);
    out->cold = out->copies * out->bytes >= ATOM_GPU_COLD_BYTES;
    out->state = s;
    enum atom_status st = make_arrays(s, out->copies, err);
    if (st) {
        close_sample(s);
        out->state = NULL;
    }
    return st;
}

static enum atom_status put_sample(void *state, int copy, atom_cuda_stream stream, struct atom_error *err)
{
    const struct sample *s = state;
    size_t vocab = (size_t)s->vocab;
    const struct atom_cuda_sample job = {.logits = (float *)s->logits + (size_t)copy * (size_t)s->n * vocab,
                                         .stride = vocab,
                                         .n = s->n,
                                         .vocab = s->vocab,
                                         .how = s->which == GREEDY ? NULL : s->how,
                                         .tokens = s->tokens,
                                         .workspace = s->workspace};
    return atom_cuda_sample_run(&job, stream, err);
}

static enum atom_status compare_sample(void *state, int *checked, struct atom_error *err)
{
    const struct sample *s = state;
    size_t vocab = (size_t)s->vocab;
    float *logits = malloc(vocab * sizeof *logits);
    void *scratch = malloc(atom_sample_scratch_bytes(s->vocab));
    enum atom_status st = logits && scratch ? ATOM_OK : atom_fail_nomem(err, vocab * sizeof *logits);
    for (int row = 0; row < s->n && !st; row += s->n > 4 ? s->n / 4 : 1) {
        int32_t got = 0;
        for (size_t i = 0; i < vocab; i++)
            logits[i] = atom_gpu_float_at(ATOM_GPU_FLOATS, SEED_LOGITS, (size_t)row * vocab + i);
        int32_t want = atom_sample(&ways[s->which], (uint64_t)row, logits, s->vocab, scratch);
        st = atom_cuda_download(&got, (int32_t *)s->tokens + row, sizeof got, err);
        if (!st && got != want)
            st = atom_fail(err, ATOM_ERR_NUMERIC, "row %d gives token %d; the CPU chooses %d", row, got, want);
        (*checked)++;
    }
    free(logits);
    free(scratch);
    return st;
}

const struct atom_gpu_operation_kind atom_gpu_sample_kinds[] = {
    {"sample", "greedy", GREEDY, open_sample, close_sample, put_sample, compare_sample},
    {"sample", "top_k 50, top_p 0.9", NUCLEUS, open_sample, close_sample, put_sample, compare_sample},
    {NULL, NULL, 0, NULL, NULL, NULL, NULL},
};
