/* SPDX-License-Identifier: Apache-2.0 */
/* Prefill attention on the device against double precision on what the pages hold, by both kernels. */
#include "kv_pages.h"

#include "cuda/attention_prefill.h"
#include "kernels/hadamard.h"
#include "kernels/kernels.h"

typedef enum atom_status run_fn(const struct atom_cuda_attend *job, atom_cuda_stream s, struct atom_error *err);

struct problem {
    struct atom_cuda_kv kv;
    struct step step;
    enum atom_cuda_float type;
    size_t q_stride, out_stride;
    float *turns;
    uint8_t *pages, *q;
    void *workspace;
    float scale;
};

/* Every position of every page holds numbers of this size, whether a sequence has it or not. */
static void fill_pages(struct problem *p, float size)
{
    const struct atom_cuda_kv *kv = &p->kv;
    int top = kv->bits == 3 ? 7 : (1 << kv->bits % 16) - 1;
    for (int half = 0; half < kv->n_pages * kv->kv_heads * 2; half++)
        for (int pos = 0; pos < 16; pos++) {
            uint8_t *to = p->pages + (size_t)half * kv->half_bytes;
            for (int d = 0; d < kv->head_dim; d++)
                put_number(kv, to, half % 2 == 0, d, pos,
                           kv->bits == 16 ? atom_float_f16(size * unit()) : (unsigned)between(0, top));
            if (kv->bits == 16)
                continue;
            uint16_t s = atom_float_f16(size * (0.5f + fabsf(unit())) / (float)top);
            uint8_t *tail = tail_of(kv, to, pos);
            tail[0] = (uint8_t)s, tail[1] = (uint8_t)(s >> 8), tail[2] = (uint8_t)between(0, top), tail[3] = 0;
        }
}

static void make_problem(struct problem *p, struct atom_cuda_kv kv, int n_seqs, const int *pos0, const int *n_tok,
                         float size)
{
    *p = (struct problem){.kv = kv, .type = (enum atom_cuda_float)between(0, 2)};
    p->step = make_step(n_seqs, pos0, n_tok);
    p->kv.n_pages = p->step.n_pages;
    p->kv.max_position = p->step.on_device.max_pages * 16;
    cuda_ok(atom_cuda_kv_init(&p->kv, &cuda_err));
    p->kv.turns = make_turns(p->kv.max_position, kv.head_dim / 2, &p->turns);
    size_t row = (size_t)(kv.heads * kv.head_dim), max_tok = (size_t)p->step.on_device.max_tok;
    size_t n_bytes = p->kv.page_bytes * (size_t)p->kv.n_pages;
    p->q_stride = (row + 7) / 8 * 8 + 8 * (size_t)between(0, 2);
    p->out_stride = (row + 7) / 8 * 8 + 8 * (size_t)between(0, 2);
    p->scale = 1.0f / sqrtf((float)kv.head_dim);
    p->q = malloc(max_tok * p->q_stride * type_bytes(p->type));
    p->pages = calloc(n_bytes, 1);
    assert_non_null(p->q);
    assert_non_null(p->pages);
    for (size_t i = 0; i < max_tok * p->q_stride; i++)
        write_row(p->type, p->q, i, size * unit());
    fill_pages(p, size);
    p->kv.pages = on_device(p->pages, n_bytes);
    p->workspace = on_device(NULL, atom_cuda_prefill_workspace(&p->kv, &p->step.on_device));
}

static void drop_problem(struct problem *p)
{
    drop_step(&p->step);
    atom_cuda_free(p->kv.pages);
    atom_cuda_free((void *)(uintptr_t)p->kv.turns);
    atom_cuda_free(p->workspace);
    free(p->turns);
    free(p->q);
    free(p->pages);
}

/* All rows, as the device has them; the caller frees. */
static uint8_t *run_problem(const struct problem *p, run_fn *run)
{
    size_t n_bytes = (size_t)p->step.on_device.max_tok * p->out_stride * type_bytes(p->type);
    void *q = on_device(p->q, (size_t)p->step.on_device.max_tok * p->q_stride * type_bytes(p->type));
    void *out = on_device(NULL, n_bytes);
    const struct atom_cuda_attend job = {.kv = &p->kv,
                                         .step = &p->step.on_device,
                                         .type = p->type,
                                         .q = q,
                                         .out = out,
                                         .q_stride = p->q_stride,
                                         .out_stride = p->out_stride,
                                         .scale = p->scale,
                                         .workspace = p->workspace};
    uint8_t *back = malloc(n_bytes);
    assert_non_null(back);
    cuda_ok(run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    cuda_ok(atom_cuda_download(back, out, n_bytes, &cuda_err));
    atom_cuda_free(q);
    atom_cuda_free(out);
    return back;
}

/* ---- what should be ---- */

/* Keys and values of a head of a sequence in double precision. */
struct memory {
    int n;
    double *k, *v; /* [n, head_dim] */
    double *off;   /* of k: how far from it F16 may lead */
};

static struct memory read_memory(const struct problem *p, int seq, int head)
{
    const struct atom_cuda_kv *kv = &p->kv;
    int hd = kv->head_dim, half = hd / 2, n = p->step.seqs[seq].pos0 + p->step.seqs[seq].n_tok;
    struct memory m = {n, malloc((size_t)(n * hd) * sizeof(double)), malloc((size_t)(n * hd) * sizeof(double)),
                       malloc((size_t)(n * hd) * sizeof(double))};
    assert_non_null(m.off);
    assert_non_null(m.k);
    assert_non_null(m.v);
    for (int pos = 0; pos < n; pos++) {
        int page = p->step.tables[seq * p->step.on_device.max_pages + pos / 16];
        double *k = m.k + pos * hd, *v = m.v + pos * hd;
        for (int d = 0; d < hd; d++) {
            k[d] = (double)get_number(kv, head_half(kv, p->pages, page, head, true), true, d, pos % 16);
            v[d] = (double)get_number(kv, head_half(kv, p->pages, page, head, false), false, d, pos % 16);
        }
        for (int d = 0; d < hd; d++)
            m.off[pos * hd + d] = fabs(k[d]) * 0x1p-11 + 0x1p-25;
        for (int i = 0; i < half && kv->rope == ATOM_KV_PRE; i++) {
            const float *t = p->turns + ((size_t)pos * (size_t)half + (size_t)i) * 2;
            double a = k[i], b = k[i + half];
            /* cos, sin, two products and a scale, each rounded to F16; of F16 pages the result alone */
            double off = (fabs(a) + fabs(b)) * (kv->bits == 16 ? 0x1p-11 + 0x1p-20 : 0x1p-9) + 0x1p-23;
            m.off[pos * hd + i] = m.off[pos * hd + i + half] = off;
            k[i] = a * (double)t[0] - b * (double)t[1];
            k[i + half] = b * (double)t[0] + a * (double)t[1];
        }
    }
    return m;
}

static double step_of(enum atom_cuda_float t)
{
    return t == ATOM_CUDA_F32 ? 0x1p-23 : t == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
}

/* The rotation of values undone: errors, after one more rounding, add up over all channels. */
static void rotate_back(const struct problem *p, double *out, double *off)
{
    int hd = p->kv.head_dim;
    float x[ATOM_CUDA_MAX_HEAD];
    double all = 0, step = step_of(p->type), size = 0;
    for (int d = 0; d < hd; d++) {
        x[d] = (float)out[d];
        all += off[d] + step * (fabs(out[d]) + off[d]) + 0x1p-25;
        size += fabs(out[d]);
    }
    atom_hadamard_undo(x, hd);
    for (int d = 0; d < hd; d++) {
        out[d] = (double)x[d];
        off[d] = (all + size * 0x1p-20) / sqrt(hd);
    }
}

/* One row of one head: the result, and how far from it f16 may lead. Queries, weights and values are rounded by
 * 2^-11 each (what is below F16's normal numbers by 2^-25), float sums by 2^-20 of their terms in all. */
static void formula(const struct problem *p, const struct memory *m, const double *q, int n, double *out, double *off)
{
    int hd = p->kv.head_dim;
    double *s = malloc((size_t)n * sizeof(double)), *wrong = malloc((size_t)n * sizeof(double)), top = -INFINITY;
    double sum = 0;
    assert_non_null(s);
    assert_non_null(wrong);
    for (int i = 0; i < n; i++) {
        double dot = 0, terms = 0, tiny = 0, wide = 0;
        for (int d = 0; d < hd; d++) {
            double k = m->k[i * hd + d];
            dot += q[d] * k;
            wide += fabs(q[d]) * m->off[i * hd + d] * (1 + 0x1p-10);
            terms += fabs(q[d] * k);
            tiny += fabs(k);
        }
        s[i] = (double)p->scale * dot;
        wrong[i] = exp((double)p->scale * (terms * (0x1p-11 + 0x1p-20) + wide + tiny * 0x1p-25) + 0x1p-20 +
                       0x1p-22 * fabs(s[i])) -
                   1 + 0x1p-11;
        top = s[i] > top ? s[i] : top;
    }
    for (int i = 0; i < n; i++)
        sum += s[i] = exp(s[i] - top);
    for (int d = 0; d < hd; d++) {
        double o = 0;
        for (int i = 0; i < n; i++)
            o += s[i] / sum * m->v[i * hd + d];
        double e = 0;
        for (int i = 0; i < n; i++) {
            double v = fabs(m->v[i * hd + d]);
            e += s[i] / sum * (wrong[i] * (v + fabs(o)) + v * (0x1p-11 + 0x1p-20) + 0x1p-25) + 0x1p-25 * v / sum;
        }
        out[d] = o;
        off[d] = e;
    }
    free(s);
    free(wrong);
}

static void check_row(const struct problem *p, const struct memory *m, int seq, int row, int head, const uint8_t *got)
{
    int hd = p->kv.head_dim, pos = p->step.seqs[seq].pos0 + row - p->step.seqs[seq].first_tok;
    double q[ATOM_CUDA_MAX_HEAD], out[ATOM_CUDA_MAX_HEAD], off[ATOM_CUDA_MAX_HEAD];
    bool fine = true;
    for (int d = 0; d < hd; d++) {
        q[d] = (double)read_row(p->type, p->q, (size_t)row * p->q_stride + (size_t)(head * hd + d));
        fine &= isfinite(q[d]) != 0;
    }
    if (fine)
        formula(p, m, q, pos + 1, out, off);
    if (fine && p->kv.rotate & ATOM_ROTATE_V)
        rotate_back(p, out, off);
    double step = step_of(p->type);
    for (int d = 0; d < hd; d++) {
        double x = (double)read_row(p->type, got, (size_t)row * p->out_stride + (size_t)(head * hd + d));
        if (fine ? !(fabs(x - out[d]) <= off[d] + step * (fabs(out[d]) + off[d]) + 0x1p-25) : !isnan(x))
            fail_msg("%d bits, %d heads over %d of %d, type %d: sequence %d (%d on %d), row %d, head %d, channel %d is "
                     "%g, not %g "
                     "within %g",
                     p->kv.bits, p->kv.heads, p->kv.kv_heads, hd, (int)p->type, seq, p->step.seqs[seq].n_tok,
                     p->step.seqs[seq].pos0, pos, head, d, x, fine ? out[d] : (double)NAN, fine ? off[d] : 0);
    }
}

static bool is_prefill(const struct problem *p, int seq) { return p->step.seqs[seq].n_tok > ATOM_CUDA_DECODE_TOK; }

/* Rows of other sequences and what lies between rows are as they were. */
static void check_guards(const struct problem *p, const uint8_t *got)
{
    size_t size = type_bytes(p->type), row = (size_t)(p->kv.heads * p->kv.head_dim);
    for (int t = 0; t < p->step.on_device.max_tok; t++) {
        bool ours = p->step.seq_of[t] >= 0 && is_prefill(p, p->step.seq_of[t]);
        const uint8_t *from = got + (size_t)t * p->out_stride * size;
        for (size_t i = ours ? row * size : 0; i < p->out_stride * size; i++)
            assert_int_equal(from[i], 0xFF);
    }
}

static int next_row(int i, int n, int every)
{
    int next = i + between(1, 2 * every - 1);
    return next >= n && i < n - 1 ? n - 1 : next;
}

/* every: one row of so many is looked at, besides the first and the last. */
static void check_problem(const struct problem *p, run_fn *run, int every)
{
    int group = p->kv.heads / p->kv.kv_heads;
    uint8_t *got = run_problem(p, run);
    for (int seq = 0; seq < p->step.on_device.max_seqs; seq++) {
        struct atom_cuda_seq s = p->step.seqs[seq];
        for (int head = 0; head < p->kv.kv_heads && is_prefill(p, seq); head++) {
            struct memory m = read_memory(p, seq, head);
            for (int i = 0; i < s.n_tok; i = next_row(i, s.n_tok, every))
                check_row(p, &m, seq, s.first_tok + i, head * group + between(0, group - 1), got);
            free(m.k);
            free(m.v);
            free(m.off);
        }
    }
    check_guards(p, got);
    free(got);
}

static run_fn *const runs[] = {atom_cuda_prefill_run, atom_cuda_prefill_plain};

static struct atom_cuda_kv random_cache(void)
{
    static const int sizes[] = {2, 30, 48, 64, 64, 80, 96, 96, 120, 128, 128, 128, 192, 256}, bits[] = {16, 8, 4, 4, 3};
    int kv_heads = between(1, 3);
    struct atom_cuda_kv kv = {.heads = kv_heads * between(1, 5),
                              .kv_heads = kv_heads,
                              .head_dim = sizes[between(0, 13)],
                              .bits = bits[between(0, 4)],
                              .clip = 1.0f,
                              .rope = between(0, 1) ? ATOM_KV_PRE : ATOM_KV_POST};
    if (atom_hadamard_has(kv.head_dim) && between(0, 3) == 0)
        kv.rotate = ATOM_ROTATE_V;
    return kv;
}

static void random_steps(int *n, int *pos0, int *n_tok)
{
    *n = between(1, 5);
    for (int i = 0; i < *n; i++) {
        pos0[i] = between(0, 2) ? between(0, 400) : 0;
        n_tok[i] = between(0, 3) ? between(9, 200) : between(0, 12);
    }
}

static void rows_are_the_formula(void **state)
{
    (void)state;
    need_device();
    seed = 61;
    for (int round = 0; round < 60; round++) {
        struct problem p;
        int n, pos0[5], n_tok[5];
        random_steps(&n, pos0, n_tok);
        make_problem(&p, random_cache(), n, pos0, n_tok, round % 4 ? 2.0f : round % 8 ? 8.0f : 0.0f);
        for (int i = 0; i < 2; i++)
            check_problem(&p, runs[i], 9);
        drop_problem(&p);
    }
}

/* As a model has them: more work than blocks, rings that turn many times; twice, for what a run leaves behind. */
static void long_sequences(void **state)
{
    (void)state;
    need_device();
    seed = 62;
    static const int pos0[] = {0, 3000, 0, 700, 1234, 0}, n_tok[] = {1500, 130, 129, 1, 513, 1024};
    for (int round = 0; round < 4; round++) {
        struct problem p;
        struct atom_cuda_kv kv = random_cache();
        kv.head_dim = round ? 128 : 64;
        kv.heads = 8, kv.kv_heads = round == 2 ? 8 : 2;
        kv.bits = round == 3 ? 8 : 4;
        make_problem(&p, kv, 6, pos0, n_tok, 2.0f);
        for (int i = 0; i < 3; i++)
            check_problem(&p, runs[i / 2], 200);
        drop_problem(&p);
    }
}

/* So many tiles of keys and values that each place in memory is taken several times over: short sequences, whose many
 * query rows keep the ring small. Hopper's kernel begins its workspace with how many groups, tiles, units and places
 * there are. */
static void tiles_take_the_places_of_others(void **state)
{
    enum { SEQS = 28 };
    (void)state;
    need_device();
    for (int round = 0; round < 4; round++) {
        struct problem p;
        int pos0[SEQS], n_tok[SEQS];
        seed = 70 + (uint64_t)round;
        for (int i = 0; i < SEQS; i++) {
            pos0[i] = between(0, 1) ? between(0, 80) : 0;
            n_tok[i] = between(257, 300);
        }
        struct atom_cuda_kv kv = random_cache();
        kv.heads = 32, kv.kv_heads = round % 2 ? 2 : 1;
        kv.head_dim = round < 2 ? 64 : 128;
        kv.bits = round % 2 ? 4 : 8;
        make_problem(&p, kv, SEQS, pos0, n_tok, 2.0f);
        for (int i = 0; i < 2; i++)
            check_problem(&p, atom_cuda_prefill_run, 100);
        int32_t plan[4];
        if (atom_cuda_prefill_workspace(&p.kv, &p.step.on_device)) {
            cuda_ok(atom_cuda_download(plan, p.workspace, sizeof plan, &cuda_err));
            if (plan[1] < 3 * plan[3])
                fail_msg("%d tiles have %d places: too many for this test", plan[1], plan[3]);
        }
        drop_problem(&p);
    }
}

/* Every element of one query row, one at a time: that row of that head alone is not a number. */
static void queries_that_are_not_finite(void **state)
{
    (void)state;
    need_device();
    seed = 63;
    static const int pos0[] = {0, 77}, n_tok[] = {140, 33};
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int round = 0; round < 12; round++) {
        struct problem p;
        make_problem(&p, random_cache(), 2, pos0, n_tok, 2.0f);
        for (int i = 0; i < 6; i++) {
            int row = p.step.seqs[i % 2].first_tok + between(0, n_tok[i % 2] - 1);
            size_t at = (size_t)row * p.q_stride + (size_t)between(0, p.kv.heads * p.kv.head_dim - 1);
            write_row(p.type, p.q, at, odd[i % 3]);
        }
        for (int i = 0; i < 2; i++)
            check_problem(&p, runs[i], 1);
        drop_problem(&p);
    }
}

/* A sequence has the same bits whoever is beside it. */
static void company_changes_nothing(void **state)
{
    (void)state;
    need_device();
    static const int pos0[] = {40, 0, 500, 9}, n_tok[] = {333, 20, 70, 200};
    for (int round = 0; round < 8; round++) {
        struct problem p, alone;
        seed = 64 + (uint64_t)round;
        make_problem(&p, random_cache(), 4, pos0, n_tok, 2.0f);
        alone = p;
        struct atom_cuda_seq seqs[4] = {{0}};
        seqs[2] = p.step.seqs[2];
        alone.step.on_device.seqs = on_device(seqs, sizeof seqs);
        for (int i = 0; i < 2; i++) {
            uint8_t *a = run_problem(&p, runs[i]), *b = run_problem(&alone, runs[i]);
            size_t row = p.out_stride * type_bytes(p.type), at = (size_t)seqs[2].first_tok * row;
            assert_memory_equal(a + at, b + at, (size_t)n_tok[2] * row);
            free(a);
            free(b);
        }
        atom_cuda_free((void *)(uintptr_t)alone.step.on_device.seqs);
        drop_problem(&p);
    }
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    struct atom_cuda_kv kv = {.heads = 4, .kv_heads = 2, .head_dim = 64, .bits = 4, .clip = 1.0f};
    struct atom_cuda_step step = {.max_seqs = 1, .max_tok = 10, .max_pages = 1};
    struct atom_error why = {0};
    float *some = on_device(NULL, 4096);
    struct atom_cuda_attend good = {&kv, &step, ATOM_CUDA_F32, some, some, 256, 256, 1.0f, some}, bad = good;
    assert_fails(atom_cuda_prefill_run(&good, NULL, &why), &why, ATOM_ERR_INVALID, "without shape");
    cuda_ok(atom_cuda_kv_init(&kv, &cuda_err));
    kv.pages = (uint8_t *)some, kv.turns = some, kv.max_position = 16;
    for (int i = 0; i < 4; i++) {
        static const char *const words[] = {"256 numbers, 248 and 256", "256 and 260", "scaled by 0", "0 tokens"};
        bad = good, why = (struct atom_error){0};
        bad.q_stride = i == 0 ? 248 : 256;
        bad.out_stride = i == 1 ? 260 : 256;
        bad.scale = i == 2 ? 0.0f : 1.0f;
        step.max_tok = i == 3 ? 0 : 10;
        assert_fails(atom_cuda_prefill_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, words[i]);
    }
    atom_cuda_free(some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_are_the_formula),
                                       cmocka_unit_test(long_sequences),
                                       cmocka_unit_test(tiles_take_the_places_of_others),
                                       cmocka_unit_test(queries_that_are_not_finite),
                                       cmocka_unit_test(company_changes_nothing),
                                       cmocka_unit_test(bad_jobs_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda prefill", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
