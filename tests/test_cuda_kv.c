/* SPDX-License-Identifier: Apache-2.0 */
/* Writing into the CUDA cache against the CPU's formulas: every byte of every page, and the queries. */
#include "kv_pages.h"

#include "kernels/hadamard.h"
#include "kernels/kernels.h"

struct problem {
    struct atom_cuda_kv kv;
    struct step step;
    enum atom_cuda_float type;
    size_t stride; /* of rows */
    float *turns;
    uint8_t *rows, *pages; /* before; then what they should be */
    int32_t *bad;
    int style;
};

enum { WHERE = 17 };
static bool many; /* rows in the problems to come */

static void make_problem(struct problem *p, struct atom_cuda_kv kv, int style)
{
    int n = many ? 4 : between(1, 5), pos0[5], n_tok[5];
    for (int i = 0; i < n; i++) {
        pos0[i] = between(0, 2) ? between(0, 90) : 16 * between(0, 3);
        n_tok[i] = many ? 140 : between(0, 3) ? between(0, 40) : 1;
    }
    *p = (struct problem){.kv = kv, .style = style, .type = (enum atom_cuda_float)between(0, 2)};
    p->step = make_step(n, pos0, n_tok);
    p->kv.n_pages = p->step.n_pages;
    p->kv.max_position = 256;
    cuda_ok(atom_cuda_kv_init(&p->kv, &cuda_err));
    p->kv.turns = make_turns(256, kv.head_dim / 2, &p->turns);
    size_t row = (size_t)((kv.heads + 2 * kv.kv_heads) * kv.head_dim), max_tok = (size_t)p->step.on_device.max_tok;
    size_t n_pages_bytes = p->kv.page_bytes * (size_t)p->kv.n_pages;
    p->stride = row + (size_t)between(0, 9);
    p->rows = malloc(max_tok * p->stride * type_bytes(p->type));
    p->pages = malloc(n_pages_bytes);
    p->bad = calloc(max_tok, sizeof *p->bad);
    assert_non_null(p->rows);
    assert_non_null(p->pages);
    assert_non_null(p->bad);
    for (size_t i = 0; i < max_tok * p->stride; i++)
        write_row(p->type, p->rows, i, number(style));
    for (size_t i = 0; i < n_pages_bytes; i++)
        p->pages[i] = (uint8_t)draw();
    p->kv.pages = on_device(p->pages, n_pages_bytes);
}

static void drop_problem(struct problem *p)
{
    drop_step(&p->step);
    atom_cuda_free(p->kv.pages);
    atom_cuda_free((void *)(uintptr_t)p->kv.turns);
    free(p->turns);
    free(p->rows);
    free(p->pages);
    free(p->bad);
}

/* ---- what should be ---- */

static bool store_vector(const struct problem *p, uint8_t *half, bool keys, int slot, const float *x)
{
    struct atom_kernels scalar = {0};
    const struct atom_cuda_kv *kv = &p->kv;
    uint8_t q[ATOM_CUDA_MAX_HEAD], zero = 0;
    uint16_t scale = 0;
    bool fine = true;
    atom_kernels_scalar(&scalar);
    if (kv->bits == 16) {
        for (int d = 0; d < kv->head_dim; d++)
            fine &= isfinite(atom_f16_float(atom_float_f16(x[d]))) != 0;
        for (int d = 0; d < kv->head_dim; d++)
            put_number(kv, half, keys, d, slot, fine ? atom_float_f16(x[d]) : 0);
        return fine;
    }
    fine = scalar.kv_quantize(x, kv->head_dim, kv->bits, kv->clip, q, &scale, &zero);
    for (int d = 0; d < kv->head_dim; d++)
        put_number(kv, half, keys, d, slot, q[d]);
    uint8_t *tail = tail_of(kv, half, slot);
    tail[0] = (uint8_t)scale, tail[1] = (uint8_t)(scale >> 8), tail[2] = zero, tail[3] = 0;
    return fine;
}

static void store_row(struct problem *p, int row)
{
    const struct atom_cuda_kv *kv = &p->kv;
    int seq = p->step.seq_of[row], hd = kv->head_dim, heads = kv->heads + 2 * kv->kv_heads;
    int pos = p->step.seqs[seq].pos0 + row - p->step.seqs[seq].first_tok;
    int page = p->step.tables[seq * p->step.on_device.max_pages + pos / 16];
    bool fine = true;
    for (int h = 0; h < heads; h++) {
        float x[ATOM_CUDA_MAX_HEAD];
        bool query = h < kv->heads, value = h >= kv->heads + kv->kv_heads;
        size_t at = (size_t)row * p->stride + (size_t)(h * hd);
        for (int d = 0; d < hd; d++)
            x[d] = read_row(p->type, p->rows, at + (size_t)d);
        if (query || (!value && kv->rope == ATOM_KV_POST))
            turn(x, p->turns, pos, hd / 2);
        if (kv->rotate & (value ? ATOM_ROTATE_V : ATOM_ROTATE_QK))
            atom_hadamard(x, hd);
        for (int d = 0; d < hd && query; d++)
            write_row(p->type, p->rows, at + (size_t)d, x[d]);
        if (!query)
            fine &= store_vector(p, head_half(kv, p->pages, page, (h - kv->heads) % kv->kv_heads, !value), !value,
                                 pos % 16, x);
    }
    if (!fine && !p->bad[row])
        p->bad[row] = WHERE;
}

/* Bits, but for NaN. */
static void same_rows(const struct problem *p, const uint8_t *got, const int32_t *bad)
{
    for (int t = 0; t < p->step.on_device.max_tok; t++) {
        assert_int_equal(bad[t], p->bad[t]);
        for (size_t i = 0; i < p->stride; i++) {
            size_t at = (size_t)t * p->stride + i;
            float a = read_row(p->type, got, at), b = read_row(p->type, p->rows, at);
            if (!(isnan(a) && isnan(b)) && atom_float_bits(a) != atom_float_bits(b))
                fail_msg("row %d, %zu: %.9g instead of %.9g", t, i, (double)a, (double)b);
        }
    }
}

static void check_problem(struct problem *p)
{
    size_t n_rows = (size_t)p->step.on_device.max_tok * p->stride * type_bytes(p->type);
    size_t n_pages = p->kv.page_bytes * (size_t)p->kv.n_pages, n_bad = (size_t)p->step.on_device.max_tok * 4;
    void *rows = on_device(p->rows, n_rows);
    for (int t = 0; t < p->step.on_device.max_tok; t += 3)
        p->bad[t] = 5; /* found before */
    int32_t *bad = on_device(p->bad, n_bad);
    const struct atom_cuda_store job = {&p->kv, &p->step.on_device, p->type, rows, p->stride, bad, WHERE};
    cuda_ok(atom_cuda_store_run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_stream_wait(NULL, &cuda_err));
    uint8_t *got = malloc(n_rows > n_pages ? n_rows : n_pages);
    int32_t *got_bad = malloc(n_bad);
    assert_non_null(got);
    assert_non_null(got_bad);
    for (int t = 0; t < p->step.on_device.max_tok; t++)
        if (p->step.seq_of[t] >= 0)
            store_row(p, t);
    cuda_ok(atom_cuda_download(got, rows, n_rows, &cuda_err));
    cuda_ok(atom_cuda_download(got_bad, bad, n_bad, &cuda_err));
    same_rows(p, got, got_bad);
    cuda_ok(atom_cuda_download(got, p->kv.pages, n_pages, &cuda_err));
    for (size_t i = 0; i < n_pages; i++)
        if (got[i] != p->pages[i])
            fail_msg("%d bits, heads of %d: byte %zu of page %zu is %d instead of %d", p->kv.bits, p->kv.head_dim,
                     i % p->kv.page_bytes, i / p->kv.page_bytes, got[i], p->pages[i]);
    atom_cuda_free(rows);
    atom_cuda_free(bad);
    free(got);
    free(got_bad);
}

static struct atom_cuda_kv random_cache(void)
{
    static const int sizes[] = {2, 16, 30, 64, 80, 96, 96, 128, 128, 192, 256}, bits[] = {16, 8, 4, 3};
    int kv_heads = between(1, 3);
    struct atom_cuda_kv kv = {.heads = kv_heads * between(1, 4),
                              .kv_heads = kv_heads,
                              .head_dim = sizes[between(0, 10)],
                              .bits = bits[between(0, 3)],
                              .clip = between(0, 1) ? 1.0f : 0.9f,
                              .rope = between(0, 1) ? ATOM_KV_PRE : ATOM_KV_POST};
    if (atom_hadamard_has(kv.head_dim) && between(0, 1))
        kv.rotate = kv.rope == ATOM_KV_POST ? (unsigned)between(0, 3) : ATOM_ROTATE_V;
    return kv;
}

static void pages_are_the_formulas(void **state)
{
    (void)state;
    need_device();
    seed = 51;
    for (int round = 0; round < 160; round++) {
        struct problem p;
        make_problem(&p, random_cache(), round % 2 ? ORDINARY : between(0, N_STYLES - 1));
        check_problem(&p);
        drop_problem(&p);
    }
}

static void angles_are_those_of_double_precision(void **state)
{
    (void)state;
    need_device();
    float *turns, *there = make_turns(5000, 64, &turns);
    for (int p = 0; p < 5000; p++)
        for (int i = 0; i < 64; i++) {
            double angle = (double)p * pow(10000.0, -(double)i / 64);
            const float *t = turns + ((size_t)p * 64 + (size_t)i) * 2;
            assert_true(t[0] == (float)cos(angle) && t[1] == (float)sin(angle));
        }
    atom_cuda_free(there);
    free(turns);
}

static void numbers_that_are_not_finite_are_told(void **state)
{
    (void)state;
    need_device();
    seed = 52;
    for (int round = 0; round < 24; round++) {
        struct problem p;
        make_problem(&p, random_cache(), ORDINARY);
        for (int i = 0; i < 4; i++) {
            int row = between(0, p.step.on_device.max_tok - 1), d = between(0, (int)p.stride - 1);
            static const float odd[] = {NAN, INFINITY, -INFINITY, 65520.0f, 65519.0f};
            write_row(p.type, p.rows, (size_t)row * p.stride + (size_t)d, odd[between(0, 4)]);
        }
        check_problem(&p);
        drop_problem(&p);
    }
}

static void caches_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct atom_cuda_kv good = {.heads = 8, .kv_heads = 2, .head_dim = 128, .bits = 4, .clip = 1.0f}, bad;
    struct atom_error why = {0};
    assert_ok(atom_cuda_kv_init(&good, &why), &why);
    assert_int_equal(good.half_bytes, 1088);
    bad = good, bad.head_dim = 258;
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_UNSUPPORTED, "258");
    bad = good, bad.head_dim = 65, why = (struct atom_error){0};
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_UNSUPPORTED, "65");
    bad = good, bad.kv_heads = 3, why = (struct atom_error){0};
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_INVALID, "8 heads over 3");
    bad = good, bad.bits = 5, why = (struct atom_error){0};
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_UNSUPPORTED, "5 bits");
    bad = good, bad.rotate = ATOM_ROTATE_QK, why = (struct atom_error){0};
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_INVALID, "RoPE");
    bad = good, bad.head_dim = 6, bad.rotate = ATOM_ROTATE_V, why = (struct atom_error){0};
    assert_fails(atom_cuda_kv_init(&bad, &why), &why, ATOM_ERR_UNSUPPORTED, "Hadamard");
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    seed = 53;
    make_problem(&p, random_cache(), ORDINARY);
    int32_t bad_rows[1] = {0}, *there = on_device(bad_rows, sizeof bad_rows);
    struct atom_cuda_step step = p.step.on_device;
    struct atom_cuda_store good = {&p.kv, &step, p.type, there, p.stride, there, WHERE}, bad = good;
    struct atom_error why = {0};
    bad.qkv_stride = 1;
    assert_fails(atom_cuda_store_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "1 apart");
    step.max_tok = 70000, why = (struct atom_error){0};
    assert_fails(atom_cuda_store_run(&good, NULL, &why), &why, ATOM_ERR_INVALID, "70000");
    struct atom_cuda_kv without = p.kv;
    without.pages = NULL, bad = good, bad.kv = &without, why = (struct atom_error){0};
    assert_fails(atom_cuda_store_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "pages");
    atom_cuda_free(there);
    drop_problem(&p);
}

/* As prefill has them: rows enough for warps to take several heads each. */
static void many_rows(void **state)
{
    (void)state;
    need_device();
    seed = 54;
    for (int round = 0; round < 4; round++) {
        struct problem p;
        many = true;
        make_problem(&p, random_cache(), ORDINARY);
        many = false;
        check_problem(&p);
        drop_problem(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_are_the_formulas),
                                       cmocka_unit_test(many_rows),
                                       cmocka_unit_test(bad_jobs_are_refused),
                                       cmocka_unit_test(angles_are_those_of_double_precision),
                                       cmocka_unit_test(numbers_that_are_not_finite_are_told),
                                       cmocka_unit_test(caches_that_cannot_be_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda kv", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
