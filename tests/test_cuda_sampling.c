/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling on the device against atom_sample: the same token, but where the number drawn or top_p lies within what
 * float32 weights may round of a boundary between two tokens. */
#include "cuda.h"

#include "cuda/sampling.h"

enum style { BELL, PEAKED, FLAT, STEPS, HUGE_RANGE, N_KINDS };

struct batch {
    int n, vocab;
    size_t stride;
    float *logits;
    struct atom_cuda_sampling *how;
    struct atom_cuda_sample job;
    int32_t *tokens;
};

struct pair {
    double logit;
    int32_t id;
};

static void *array(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static float logit(enum style kind)
{
    float bell = 2 * (unit() + unit() + unit() + unit());
    switch (kind) {
    case BELL:
        return bell + 10;
    case PEAKED:
        return between(0, 400) ? bell - 5 : 12 + 3 * bell;
    case FLAT:
        return 1.25f;
    case STEPS:
        return (float)between(-3, 3) * 0.5f;
    default:
        return unit() * (between(0, 3) ? 1000 : FLT_MAX);
    }
}

static struct atom_cuda_sampling any_sampling(int vocab)
{
    static const float temperatures[] = {0, 1e-6f, 0.3f, 0.7f, 1, 1, 1.5f, 10, 1e6f},
                       tops[] = {0, 0, 0.1f, 0.5f, 0.9f, 0.95f, 1, 0.999f, 1e-9f};
    static const int ks[] = {0, 0, 0, 1, 5, 50, 1000, 5000, 100000};
    struct atom_cuda_sampling s = {.temperature = temperatures[between(0, 8)],
                                   .top_p = tops[between(0, 8)],
                                   .top_k = between(0, 20) ? ks[between(0, 8)] : vocab - 1};
    s.seed = (uint64_t)draw() << 32 | draw();
    s.counter = (uint64_t)draw() << (draw() % 33);
    return s;
}

static void make_batch(struct batch *b, int n, int vocab)
{
    memset(b, 0, sizeof *b);
    b->n = n;
    b->vocab = vocab;
    b->stride = (size_t)vocab + (size_t)(between(0, 1) ? between(0, 9) : (4 - vocab % 4) % 4);
    b->logits = array((size_t)n * b->stride, sizeof(float));
    b->how = array((size_t)n, sizeof *b->how);
    b->tokens = array((size_t)n, sizeof *b->tokens);
    for (int r = 0; r < n; r++) {
        enum style kind = (enum style)between(0, N_KINDS - 1);
        float *row = b->logits + (size_t)r * b->stride;
        for (size_t i = 0; i < b->stride; i++)
            row[i] = i < (size_t)vocab ? logit(kind) : NAN;
        if (between(0, 3) == 0) /* a tie at the top */
            row[between(0, vocab - 1)] = row[between(0, vocab - 1)] = kind == HUGE_RANGE ? FLT_MAX : 30;
        b->how[r] = any_sampling(vocab);
    }
    size_t ws_bytes = atom_cuda_sample_workspace(n);
    b->job = (struct atom_cuda_sample){on_device(b->logits, (size_t)n * b->stride * sizeof(float)),
                                       b->stride,
                                       n,
                                       vocab,
                                       on_device(b->how, (size_t)n * sizeof *b->how),
                                       on_device(NULL, (size_t)n * sizeof *b->tokens),
                                       on_device(NULL, ws_bytes)};
    cuda_ok(atom_cuda_fill(b->job.workspace, 0, ws_bytes, &cuda_err));
}

static void drop_batch(struct batch *b)
{
    atom_cuda_free((void *)(uintptr_t)b->job.logits);
    atom_cuda_free((void *)(uintptr_t)b->job.how);
    atom_cuda_free(b->job.tokens);
    atom_cuda_free(b->job.workspace);
    free(b->logits);
    free(b->how);
    free(b->tokens);
}

static void run(struct batch *b)
{
    cuda_ok(atom_cuda_sample_run(&b->job, NULL, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    cuda_ok(atom_cuda_download(b->tokens, b->job.tokens, (size_t)b->job.n * sizeof *b->tokens, &cuda_err));
}

static int by_logit(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : (x->id > y->id) - (x->id < y->id);
}

/* The number that sample.c draws; see there. */
static double uniform(uint64_t from, uint64_t counter)
{
    uint64_t z = from * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* Whether a device's rounding may choose `token`. Its weights are exp(-d): d and its way to base 2 are five
 * roundings, the instruction is 2^-22 off, and 2^-42 is cut away. */
static bool may_choose(const struct batch *b, int r, int32_t token)
{
    const struct atom_cuda_sampling *how = &b->how[r];
    const float *row = b->logits + (size_t)r * b->stride;
    bool nucleus = how->top_p > 0 && how->top_p<1, cut = how->top_k> 0 && how->top_k < b->vocab, fits = false;
    struct pair *c = array((size_t)b->vocab, sizeof *c);
    double *sums = array((size_t)b->vocab + 1, sizeof *sums), top = -INFINITY, most = 0;
    int kept = cut ? how->top_k : b->vocab, at = -1;
    for (int i = 0; i < b->vocab; i++) {
        c[i] = (struct pair){(double)row[i], i};
        top = top > c[i].logit ? top : c[i].logit;
    }
    if (nucleus || cut)
        qsort(c, (size_t)b->vocab, sizeof *c, by_logit);
    for (int i = 0; i < b->vocab; i++) {
        double depth = (top - c[i].logit) / (double)how->temperature, w = exp(-depth);
        sums[i + 1] = sums[i] + w;
        most += (depth < 700 ? w * (5.1 * depth * 0x1p-24 + 0x1p-22) : 0) + 0x1p-42 + w * 0x1p-50;
        at = c[i].id == token ? i : at;
    }
    double enough = sums[kept] * (double)how->top_p, u = uniform(how->seed, how->counter);
    for (int end = nucleus ? 1 : kept; end <= kept && !fits && at >= 0; end++) {
        if (nucleus && (sums[end] < enough - 2 * most || sums[end - 1] > enough + 2 * most) && end != kept)
            continue;
        double x = u * sums[end];
        fits = at < end && sums[at] <= x + 2 * most && sums[at + 1] >= x - 2 * most;
    }
    free(c);
    free(sums);
    return fits;
}

static int n_rows, n_other;

static void check_batch(const struct batch *b)
{
    void *scratch = array(1, atom_sample_scratch_bytes(b->vocab));
    for (int r = 0; r < b->n; r++) {
        const struct atom_cuda_sampling *how = &b->how[r];
        const struct atom_sampling sp = {how->temperature, how->top_p, how->top_k, how->seed};
        int32_t want = atom_sample(&sp, how->counter, b->logits + (size_t)r * b->stride, b->vocab, scratch);
        n_rows++;
        if (b->tokens[r] == want)
            continue;
        n_other++;
        if (!(how->temperature > 0) || !may_choose(b, r, b->tokens[r]))
            fail_msg("row %d of %d, vocab %d, temperature %g, top_p %g, top_k %d: %d, not %d", r, b->n, b->vocab,
                     (double)how->temperature, (double)how->top_p, how->top_k, b->tokens[r], want);
    }
    free(scratch);
}

static void choices_are_those_of_atom_sample(void **state)
{
    (void)state;
    need_device();
    seed = 61;
    static const int vocabs[] = {1, 2, 3, 31, 100, 1000, 4097, 32000, 50257};
    n_rows = n_other = 0;
    for (int round = 0; round < 45; round++) {
        struct batch b;
        make_batch(&b, round % 9 < 6 ? between(1, 60) : 12, vocabs[round % 9]);
        for (int twice = 0; twice < 2; twice++) { /* the workspace is left as it was */
            run(&b);
            check_batch(&b);
        }
        drop_batch(&b);
    }
    print_message("%d rows, %d chosen otherwise within rounding\n", n_rows, n_other);
    assert_true(n_other * 100 < n_rows);
}

static void large_vocabularies(void **state)
{
    (void)state;
    need_device();
    seed = 62;
    for (int round = 0; round < 4; round++) {
        struct batch b;
        make_batch(&b, round ? 8 : 1, round < 2 ? 128256 : 256000);
        run(&b);
        check_batch(&b);
        drop_batch(&b);
    }
}

/* Each row alone gets the token that it gets among the others. */
static void batches_change_nothing(void **state)
{
    (void)state;
    need_device();
    seed = 63;
    struct batch b;
    make_batch(&b, 200, 5000);
    run(&b);
    int32_t *all = array((size_t)b.n, sizeof *all);
    memcpy(all, b.tokens, (size_t)b.n * sizeof *all);
    struct atom_cuda_sample whole = b.job;
    for (int r = 0; r < b.n; r += 7) {
        b.job = whole;
        b.job.n = 1;
        b.job.logits += (size_t)r * b.stride;
        b.job.how += r;
        run(&b);
        assert_int_equal(b.tokens[0], all[r]);
    }
    b.job = whole;
    free(all);
    drop_batch(&b);
}

static void greedy_takes_the_first_of_the_best(void **state)
{
    (void)state;
    need_device();
    seed = 64;
    for (int round = 0; round < 20; round++) {
        struct batch b;
        make_batch(&b, between(1, 300), between(1, 9000));
        const struct atom_cuda_sampling *how = b.job.how;
        b.job.how = NULL;
        run(&b);
        for (int r = 0; r < b.n; r++) {
            const float *row = b.logits + (size_t)r * b.stride;
            int best = 0;
            for (int i = 1; i < b.vocab; i++)
                best = row[i] > row[best] ? i : best;
            assert_int_equal(b.tokens[r], best);
        }
        b.job.how = how;
        drop_batch(&b);
    }
}

static void numbers_that_are_not_finite_give_none(void **state)
{
    (void)state;
    need_device();
    seed = 65;
    static const float odd[] = {NAN, INFINITY, -INFINITY, -NAN};
    for (int round = 0; round < 12; round++) {
        struct batch b;
        make_batch(&b, 4, round < 6 ? 17 : 20000);
        float *row = b.logits + b.stride;
        row[round % 3 == 0 ? 0 : round % 3 == 1 ? b.vocab - 1 : between(0, b.vocab - 1)] = odd[round % 4];
        cuda_ok(atom_cuda_upload((void *)(uintptr_t)b.job.logits, b.logits, 4 * b.stride * sizeof(float), &cuda_err));
        run(&b);
        assert_int_equal(b.tokens[1], -1);
        for (int r = 0; r < 4; r += 2)
            assert_in_range(b.tokens[r], 0, b.vocab - 1);
        drop_batch(&b);
    }
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    seed = 66;
    struct batch b;
    struct atom_error why = {0};
    make_batch(&b, 2, 100);
    struct atom_cuda_sample bad = b.job;
    bad.stride = 99;
    assert_fails(atom_cuda_sample_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "99 apart");
    bad = b.job, why = (struct atom_error){0};
    bad.vocab = ATOM_CUDA_MAX_VOCAB + 1, bad.stride = (size_t)bad.vocab;
    assert_fails(atom_cuda_sample_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "1048577");
    bad = b.job, why = (struct atom_error){0};
    bad.workspace = NULL;
    assert_fails(atom_cuda_sample_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "no workspace");
    drop_batch(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(choices_are_those_of_atom_sample),
                                       cmocka_unit_test(large_vocabularies),
                                       cmocka_unit_test(batches_change_nothing),
                                       cmocka_unit_test(greedy_takes_the_first_of_the_best),
                                       cmocka_unit_test(numbers_that_are_not_finite_give_none),
                                       cmocka_unit_test(bad_jobs_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda sampling", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
