/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_cache.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Position p of sequence s takes row (s * positions + p) % ROWS of what the cache is filled from. */
enum { ROWS = 2048, SEED_ROWS = 31 };

static int positions_of(const struct atom_gpu_batch *b) { return b->context + b->n_tok; }
static int pages_of(const struct atom_gpu_batch *b) { return (positions_of(b) + ATOM_CUDA_PAGE - 1) / ATOM_CUDA_PAGE; }

struct atom_cuda_kv atom_gpu_cache_layer(const struct atom_gpu_cache *c, int copy)
{
    struct atom_cuda_kv kv = c->kv;
    kv.pages = (uint8_t *)c->pages + (size_t)copy * c->layer_bytes;
    return kv;
}

double atom_gpu_cache_position_bytes(const struct atom_gpu_cache *c)
{
    return atom_position_bytes(c->kv.kv_heads, c->kv.head_dim, c->kv.bits);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void drop_step(struct atom_cuda_step *s)
{
    atom_cuda_free((void *)(uintptr_t)s->seqs);
    atom_cuda_free((void *)(uintptr_t)s->seq_of);
    atom_cuda_free((void *)(uintptr_t)s->tables);
    memset(s, 0, sizeof *s);
}

static enum atom_status upload(const void *from, size_t n_bytes, const void **out, struct atom_error *err)
{
    void *p = (void *)(uintptr_t)*out;
    enum atom_status st = p ? ATOM_OK : atom_cuda_alloc(n_bytes, &p, err);
    *out = p;
    return st ? st : atom_cuda_upload(p, from, n_bytes, err);
}

/* Pages of a sequence lie apart, as they do in a server that has run for a while. */
static enum atom_status make_tables(struct atom_gpu_cache *c, struct atom_cuda_step *s, struct atom_error *err)
{
    size_t n = (size_t)c->kv.n_pages, stride = 7919; /* a prime, and more than most caches have factors */
    int32_t *tables = malloc(n * sizeof *tables);
    if (!tables)
        return atom_fail_nomem(err, n * sizeof *tables);
    if (n % stride == 0)
        stride = 7907;
    for (size_t i = 0; i < n; i++)
        tables[i] = (int32_t)(i * stride % n);
    enum atom_status st = upload(tables, n * sizeof *tables, (const void **)&s->tables, err);
    free(tables);
    return st;
}

/* Rows [n_rows] are positions from `first` on, counted through all sequences, n of them for each. */
struct span {
    size_t first;
    int n_rows, per_seq, pos0; /* row r: sequence (first + r) / per_seq, position pos0 + the rest */
};

static enum atom_status set_step(const struct atom_gpu_cache *c, const struct span *span, struct atom_cuda_step *s,
                                 struct atom_error *err)
{
    size_t n_seqs = (size_t)c->batch.n_seqs;
    struct atom_cuda_seq *seqs = calloc(n_seqs, sizeof *seqs);
    int32_t *seq_of = malloc((size_t)span->n_rows * sizeof *seq_of);
    enum atom_status st = seqs && seq_of ? ATOM_OK : atom_fail_nomem(err, n_seqs * sizeof *seqs);
    for (int r = 0; r < span->n_rows && !st; r++) {
        size_t at = span->first + (size_t)r, seq = at / (size_t)span->per_seq;
        if (seqs[seq].n_tok++ == 0) {
            seqs[seq].first_tok = r;
            seqs[seq].pos0 = span->pos0 + (int32_t)(at % (size_t)span->per_seq);
        }
        seq_of[r] = (int32_t)seq;
    }
    st = st ? st : upload(seqs, n_seqs * sizeof *seqs, (const void **)&s->seqs, err);
    st = st ? st : upload(seq_of, (size_t)span->n_rows * sizeof *seq_of, (const void **)&s->seq_of, err);
    free(seqs);
    free(seq_of);
    s->max_seqs = c->batch.n_seqs;
    s->max_tok = span->n_rows;
    s->max_pages = pages_of(&c->batch);
    return st;
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

static enum atom_status fill_layer(const struct atom_gpu_cache *c, const struct atom_cuda_step *step, int copy,
                                   struct atom_error *err)
{
    const struct atom_cuda_kv kv = atom_gpu_cache_layer(c, copy);
    const struct atom_cuda_store job = {.kv = &kv,
                                        .step = step,
                                        .type = ATOM_CUDA_F16,
                                        .qkv = c->rows,
                                        .qkv_stride = (size_t)c->width,
                                        .bad = c->bad,
                                        .where = 1};
    return atom_cuda_store_run(&job, NULL, err);
}

static enum atom_status fill(struct atom_gpu_cache *c, struct atom_error *err)
{
    struct atom_cuda_step step = {0};
    size_t all = (size_t)c->batch.n_seqs * (size_t)positions_of(&c->batch);
    enum atom_status st = make_tables(c, &step, err);
    /* the arrays of the first, largest step serve the others */
    for (size_t first = 0; first < all && !st; first += ROWS) {
        const struct span span = {first, all - first < ROWS ? (int)(all - first) : ROWS, positions_of(&c->batch), 0};
        st = set_step(c, &span, &step, err);
        for (int i = 0; i < c->copies && !st; i++)
            st = fill_layer(c, &step, i, err);
        st = st ? st : atom_cuda_stream_wait(NULL, err);
    }
    drop_step(&step);
    return st;
}

static enum atom_status make_turns(struct atom_gpu_cache *c, struct atom_error *err)
{
    int half = c->kv.head_dim / 2;
    const void *there = NULL;
    for (int i = 0; i < half; i++)
        c->freq[i] = pow(c->model->rope_theta, -(double)i / half);
    enum atom_status st =
        atom_cuda_alloc((size_t)c->kv.max_position * (size_t)half * 2 * sizeof(float), &c->turns, err);
    st = st ? st : upload(c->freq, (size_t)half * sizeof c->freq[0], &there, err);
    st = st ? st : atom_cuda_turns(c->turns, c->kv.max_position, half, there, NULL, err);
    st = st ? st : atom_cuda_stream_wait(NULL, err);
    atom_cuda_free((void *)(uintptr_t)there);
    c->kv.turns = c->turns;
    return st;
}

/* Without Hadamard rotations. */
static enum atom_status describe(struct atom_gpu_cache *c, const struct atom_gpu_case *want, struct atom_error *err)
{
    const struct atom_shape *m = want->model;
    c->model = m;
    c->width = (m->heads + 2 * m->kv_heads) * m->head_dim;
    c->kv = (struct atom_cuda_kv){.heads = m->heads,
                                  .kv_heads = m->kv_heads,
                                  .head_dim = m->head_dim,
                                  .bits = want->kvbits,
                                  .clip = 1,
                                  .rope = want->post ? ATOM_KV_POST : ATOM_KV_PRE,
                                  .n_pages = c->batch.n_seqs * pages_of(&c->batch),
                                  .max_position = positions_of(&c->batch)};
    enum atom_status st = atom_cuda_kv_init(&c->kv, err);
    if (st)
        return st;
    c->layer_bytes = (size_t)c->kv.n_pages * c->kv.page_bytes;
    c->copies = c->batch.beside_bytes < 0 ? 1 : atom_gpu_copies((double)c->layer_bytes + c->batch.beside_bytes);
    if ((double)c->layer_bytes * c->copies > (double)atom_cuda_opened()->memory_bytes / 3)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "its cache of %.1f GiB takes more than a third of the memory",
                         (double)c->layer_bytes / (1 << 30));
    return ATOM_OK;
}

enum atom_status atom_gpu_cache_open(const struct atom_gpu_case *want, const struct atom_gpu_batch *batch,
                                     struct atom_gpu_cache *out, struct atom_error *err)
{
    struct atom_gpu_cache *c = out;
    memset(c, 0, sizeof *c);
    c->batch = *batch;
    enum atom_status st = describe(c, want, err);
    size_t pages = c->layer_bytes * (size_t)c->copies;
    st = st ? st : atom_cuda_alloc(pages, &c->pages, err);
    st = st ? st : atom_cuda_fill(c->pages, 0, pages, err);
    st = st ? st : make_turns(c, err);
    st =
        st ? st : atom_gpu_alloc_random((size_t)ROWS * (size_t)c->width * 2, ATOM_GPU_HALVES, SEED_ROWS, &c->rows, err);
    st = st ? st : atom_cuda_alloc(ROWS * sizeof(int32_t), &c->bad, err);
    st = st ? st : atom_cuda_fill(c->bad, 0, ROWS * sizeof(int32_t), err);
    st = st ? st : fill(c, err);
    const struct span span = {0, batch->n_seqs * batch->n_tok, batch->n_tok, batch->context};
    st = st ? st : make_tables(c, &c->step, err);
    st = st ? st : set_step(c, &span, &c->step, err);
    if (st)
        atom_gpu_cache_close(c);
    return st;
}

void atom_gpu_cache_close(struct atom_gpu_cache *c)
{
    void *const device[] = {c->pages, c->turns, c->rows, c->bad};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        atom_cuda_free(device[i]);
    drop_step(&c->step);
    memset(c, 0, sizeof *c);
}

/* ---- reading back ------------------------------------------------------------------------------------------------ */

static void read_row(const struct atom_gpu_cache *c, int seq, int position, int head, double *out)
{
    size_t hd = (size_t)c->kv.head_dim;
    size_t row = ((size_t)seq * (size_t)positions_of(&c->batch) + (size_t)position) % ROWS;
    for (size_t i = 0; i < hd; i++)
        out[i] = (double)atom_gpu_half_at(ATOM_GPU_HALVES, SEED_ROWS, row * (size_t)c->width + (size_t)head * hd + i);
}

/* Section 3 of docs/design.md. */
static void quantize(int bits, int n, double *x)
{
    double lo = 0, hi = 0, top = (1 << bits) - 1;
    if (bits == 16)
        return;
    for (int i = 0; i < n; i++) {
        lo = fmin(lo, x[i]);
        hi = fmax(hi, x[i]);
    }
    float exact = (float)(hi - lo) / (float)top;
    double s = (double)atom_f16_float(atom_float_f16(exact)), z = rint(-lo / s);
    for (int i = 0; i < n; i++)
        x[i] = s * (fmin(fmax(rint(x[i] / s) + z, 0), top) - z);
}

void atom_gpu_cache_turn(const struct atom_gpu_cache *c, int position, double *x)
{
    int half = c->kv.head_dim / 2;
    for (int i = 0; i < half; i++) {
        double angle = position * c->freq[i], a = x[i], b = x[i + half];
        x[i] = a * cos(angle) - b * sin(angle);
        x[i + half] = b * cos(angle) + a * sin(angle);
    }
}

void atom_gpu_cache_key(const struct atom_gpu_cache *c, int seq, int position, int kv_head, double *out)
{
    bool post = c->kv.rope == ATOM_KV_POST;
    read_row(c, seq, position, c->kv.heads + kv_head, out);
    if (post)
        atom_gpu_cache_turn(c, position, out);
    quantize(c->kv.bits, c->kv.head_dim, out);
    if (!post)
        atom_gpu_cache_turn(c, position, out);
}

void atom_gpu_cache_value(const struct atom_gpu_cache *c, int seq, int position, int kv_head, double *out)
{
    read_row(c, seq, position, c->kv.heads + c->kv.kv_heads + kv_head, out);
    quantize(c->kv.bits, c->kv.head_dim, out);
}
