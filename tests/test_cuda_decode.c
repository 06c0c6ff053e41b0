/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention on the device against the formula in double precision over what the pages hold, within a bound that
 * follows from the sums of magnitudes. */
#include "kv_pages.h"

#include "kernels/hadamard.h"

struct problem {
    struct atom_cuda_kv kv;
    struct step step;
    enum atom_cuda_float type;
    size_t q_stride, out_stride;
    float *turns, scale;
    uint8_t *q, *pages;
    size_t pages_bytes;
};

static uint16_t random_scale(int style)
{
    float x = style == 0 ? 0.1f + 0.1f * fabsf(unit()) : ldexpf(1.0f + fabsf(unit()), between(-20, 4));
    return atom_float_f16(x);
}

/* Everything is finite, positions that no sequence has reached too. */
static void fill_pages(struct problem *p, int style)
{
    struct atom_cuda_kv *kv = &p->kv;
    int top = (1 << kv->bits) - 1;
    for (size_t i = 0; i < p->pages_bytes; i++)
        p->pages[i] = (uint8_t)draw();
    for (size_t i = 0; i < p->pages_bytes && kv->bits == 16; i += 2) {
        uint16_t h = atom_float_f16(style == 0 ? unit() : unit() * ldexpf(1.0f, between(-9, 2)));
        memcpy(p->pages + i, &h, sizeof h);
    }
    for (int i = 0; i < kv->n_pages * kv->kv_heads * 2 && kv->bits < 16; i++)
        for (int slot = 0; slot < 16; slot++) {
            uint8_t *half = p->pages + (size_t)i * kv->half_bytes, *tail = tail_of(kv, half, slot);
            uint16_t s = random_scale(style);
            memcpy(tail, &s, sizeof s);
            tail[2] = (uint8_t)(style == 0 ? top / 2 : between(0, top)), tail[3] = 0;
            for (int d = 0; d < kv->head_dim && kv->bits == 3; d++) {
                put_number(kv, half, true, d, slot, draw() % 8);
            }
        }
}

static void make_problem(struct problem *p, struct atom_cuda_kv kv, struct step step, int style)
{
    *p = (struct problem){.kv = kv, .step = step, .type = (enum atom_cuda_float)between(0, 2)};
    size_t row = (size_t)(kv.heads * kv.head_dim), max_tok = (size_t)step.on_device.max_tok;
    p->kv.n_pages = step.n_pages;
    p->kv.max_position = 16 * step.on_device.max_pages + 16;
    cuda_ok(atom_cuda_kv_init(&p->kv, &cuda_err));
    p->kv.turns = make_turns(p->kv.max_position, kv.head_dim / 2, &p->turns);
    p->scale = 1.0f / sqrtf((float)kv.head_dim);
    p->q_stride = row + 2 * (size_t)between(0, 9);
    p->out_stride = row + 2 * (size_t)between(0, 9);
    p->pages_bytes = p->kv.page_bytes * (size_t)step.n_pages;
    p->q = malloc(max_tok * p->q_stride * type_bytes(p->type));
    p->pages = malloc(p->pages_bytes);
    assert_non_null(p->q);
    assert_non_null(p->pages);
    for (size_t i = 0; i < max_tok * p->q_stride; i++)
        write_row(p->type, p->q, i, style == 0 ? 3.0f * unit() : ldexpf(unit(), between(-6, 3)));
    fill_pages(p, style);
    p->kv.pages = on_device(p->pages, p->pages_bytes);
}

static void drop_problem(struct problem *p)
{
    atom_cuda_free(p->kv.pages);
    atom_cuda_free((void *)(uintptr_t)p->kv.turns);
    free(p->turns);
    free(p->q);
    free(p->pages);
}

/* ---- what should be ---- */

static uint8_t *half_at(const struct problem *p, int seq, int pos, int head, bool keys)
{
    int page = p->step.tables[seq * p->step.on_device.max_pages + pos / 16];
    return head_half(&p->kv, p->pages, page, head / (p->kv.heads / p->kv.kv_heads), keys);
}

/* A score, and how far off it may be: halves of a query (2^-11), keys turned in halves (three roundings more of sums of
 * two), and sums of products of 2^-18, over integers that still have their zero point. */
static double score_of(const struct problem *p, const float *q, int seq, int pos, int head, double *off)
{
    const struct atom_cuda_kv *kv = &p->kv;
    uint8_t *half = half_at(p, seq, pos, head, true);
    int n = kv->head_dim / 2;
    bool pre = kv->rope == ATOM_KV_PRE;
    double sum = 0, terms = 0, raw = 0;
    for (int i = 0; i < n; i++) {
        const float *t = p->turns + ((size_t)pos * (size_t)n + (size_t)i) * 2;
        double a = get_number(kv, half, true, i, pos % 16), b = get_number(kv, half, true, i + n, pos % 16);
        double x = pre ? a * t[0] - b * t[1] : a, y = pre ? b * t[0] + a * t[1] : b;
        sum += q[i] * x + q[i + n] * y;
        terms += pre ? (fabs(q[i]) + fabs(q[i + n])) * (fabs(a) + fabs(b)) : fabs(q[i] * a) + fabs(q[i + n] * b);
        raw += fabs(q[i]) + fabs(q[i + n]);
    }
    const uint8_t *tail = tail_of(kv, half, pos % 16);
    raw *= kv->bits == 16 ? 0 : atom_f16_float((uint16_t)(tail[0] | tail[1] << 8)) * (float)(1 << kv->bits);
    *off = p->scale * (terms * (pre ? 5 : 1.01) * 0x1p-11 + (raw + terms) * 0x1p-18) + fabs(sum * p->scale) * 0x1p-21;
    return sum * p->scale;
}

struct wanted {
    double *out, *off;
};

/* Row t of the step, one head. */
static void attend(const struct problem *p, int t, int head, const struct wanted *w)
{
    const struct atom_cuda_kv *kv = &p->kv;
    int seq = p->step.seq_of[t], hd = kv->head_dim;
    int n = p->step.seqs[seq].pos0 + t - p->step.seqs[seq].first_tok + 1;
    float q[ATOM_CUDA_MAX_HEAD];
    double *s = malloc((size_t)n * sizeof(double)), top = -INFINITY, most_off = 0, total = 0, heaviest = 0;
    assert_non_null(s);
    for (int d = 0; d < hd; d++)
        q[d] = read_row(p->type, p->q, (size_t)t * p->q_stride + (size_t)(head * hd + d));
    for (int i = 0; i < n; i++) {
        double off;
        s[i] = score_of(p, q, seq, i, head, &off);
        top = s[i] > top ? s[i] : top;
        most_off = off > most_off ? off : most_off;
    }
    memset(w->out, 0, (size_t)hd * sizeof(double));
    memset(w->off, 0, (size_t)hd * sizeof(double));
    for (int i = 0; i < n; i++) {
        s[i] = exp(s[i] - top);
        total += s[i];
    }
    double each = 2 * expm1(2 * most_off + 0x1p-11 + 0x1p-18);
    for (int i = 0; i < n; i++) {
        uint8_t *half = half_at(p, seq, i, head, false), *tail = tail_of(kv, half, i % 16);
        double by = kv->bits == 16 ? 1 : atom_f16_float((uint16_t)(tail[0] | tail[1] << 8));
        heaviest = s[i] * by > heaviest ? s[i] * by : heaviest;
    }
    for (int i = 0; i < n; i++) { /* a weight is a half, below 2^-14 of the heaviest no nearer than 2^-25 of it */
        uint8_t *half = half_at(p, seq, i, head, false), *tail = tail_of(kv, half, i % 16);
        double by = kv->bits == 16 ? 1 : atom_f16_float((uint16_t)(tail[0] | tail[1] << 8));
        for (int d = 0; d < hd; d++) {
            double v = get_number(kv, half, false, d, i % 16), raw = kv->bits == 16 ? 0 : by * (1 << kv->bits);
            w->out[d] += s[i] * v / total;
            w->off[d] += (s[i] * (fabs(v) * each + raw * 0x1p-18) + fabs(v) / by * heaviest * 0x1p-24) / total;
        }
    }
    free(s);
}

static void undo_rotation(const struct problem *p, const struct wanted *w)
{
    float x[ATOM_CUDA_MAX_HEAD];
    int hd = p->kv.head_dim;
    double off = 0, most = 0;
    if (!(p->kv.rotate & ATOM_ROTATE_V))
        return;
    for (int d = 0; d < hd; d++) {
        x[d] = (float)w->out[d];
        off += w->off[d];
        most += fabs(w->out[d]);
    }
    atom_hadamard_undo(x, hd);
    for (int d = 0; d < hd; d++) {
        w->out[d] = x[d];
        w->off[d] = off / sqrt(hd) + most * 0x1p-20;
    }
}

static void check_row(const struct problem *p, const uint8_t *got, int t)
{
    double out[ATOM_CUDA_MAX_HEAD], off[ATOM_CUDA_MAX_HEAD];
    int seq = p->step.seq_of[t], hd = p->kv.head_dim;
    bool ours = seq >= 0 && p->step.seqs[seq].n_tok <= ATOM_CUDA_DECODE_TOK;
    double round = p->type == ATOM_CUDA_F32 ? 0x1p-22 : p->type == ATOM_CUDA_F16 ? 0x1p-11 : 0x1p-8;
    for (int h = 0; h < p->kv.heads && ours; h++) {
        const struct wanted w = {out, off};
        attend(p, t, h, &w);
        undo_rotation(p, &w);
        for (int d = 0; d < hd; d++) {
            double x = read_row(p->type, got, (size_t)t * p->out_stride + (size_t)(h * hd + d));
            double may = off[d] + fabs(out[d]) * round + 0x1p-24;
            if (!(fabs(x - out[d]) <= may))
                fail_msg("%d bits, heads %d/%d of %d, %s: row %d (%d before), head %d, channel %d: %.7g, not %.7g "
                         "within %.3g",
                         p->kv.bits, p->kv.heads, p->kv.kv_heads, hd, p->kv.rope == ATOM_KV_PRE ? "pre" : "post", t,
                         p->step.seqs[seq].pos0, h, d, x, out[d], may);
        }
    }
    for (size_t i = ours ? (size_t)(p->kv.heads * hd) : 0; i < p->out_stride; i++)
        for (size_t b = 0; b < type_bytes(p->type); b++)
            assert_int_equal(got[((size_t)t * p->out_stride + i) * type_bytes(p->type) + b], 0xFF);
}

/* Runs it, twice; the caller frees the rows. */
static uint8_t *run_problem(const struct problem *p)
{
    size_t max_tok = (size_t)p->step.on_device.max_tok, n_out = max_tok * p->out_stride * type_bytes(p->type);
    void *q = on_device(p->q, max_tok * p->q_stride * type_bytes(p->type)), *out = on_device(NULL, n_out);
    size_t n_space = atom_cuda_decode_workspace(&p->kv, p->step.on_device.max_seqs, 16 * p->step.on_device.max_pages);
    void *space = on_device(NULL, n_space + 64);
    uint8_t *got = malloc(n_out), *again = malloc(n_out), guard[64];
    assert_non_null(got);
    assert_non_null(again);
    const struct atom_cuda_attend job = {&p->kv,      &p->step.on_device, p->type,  q,    out,
                                         p->q_stride, p->out_stride,      p->scale, space};
    cuda_ok(atom_cuda_decode_plan(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_decode_run(&job, NULL, &cuda_err));
    cuda_ok(atom_cuda_download(got, out, n_out, &cuda_err));
    cuda_ok(atom_cuda_fill(out, 0xFF, n_out, &cuda_err));
    cuda_ok(atom_cuda_decode_run(&job, NULL, &cuda_err)); /* the next layer has the same plan */
    cuda_ok(atom_cuda_download(again, out, n_out, &cuda_err));
    assert_memory_equal(got, again, n_out);
    cuda_ok(atom_cuda_download(guard, (uint8_t *)space + n_space, 64, &cuda_err));
    for (int i = 0; i < 64; i++)
        assert_int_equal(guard[i], 0xFF);
    atom_cuda_free(q);
    atom_cuda_free(out);
    atom_cuda_free(space);
    free(again);
    return got;
}

static void check_problem(const struct problem *p)
{
    uint8_t *got = run_problem(p);
    for (int t = 0; t < p->step.on_device.max_tok; t++)
        check_row(p, got, t);
    free(got);
}

static struct atom_cuda_kv random_cache(void)
{
    static const int sizes[] = {2, 16, 30, 64, 80, 96, 96, 128, 128, 192, 256}, bits[] = {16, 8, 4, 3};
    static const int reps[] = {1, 1, 2, 3, 4, 8, 11};
    int kv_heads = between(1, 3);
    struct atom_cuda_kv kv = {.heads = kv_heads * reps[between(0, 6)],
                              .kv_heads = kv_heads,
                              .head_dim = sizes[between(0, 10)],
                              .bits = bits[between(0, 3)],
                              .clip = 1.0f,
                              .rope = between(0, 1) ? ATOM_KV_PRE : ATOM_KV_POST};
    if (atom_hadamard_has(kv.head_dim) && between(0, 1))
        kv.rotate = ATOM_ROTATE_V;
    return kv;
}

static void rows_are_the_formula(void **state)
{
    (void)state;
    need_device();
    seed = 61;
    for (int round = 0; round < 100; round++) {
        struct problem p;
        int n = between(1, 4), pos0[4], n_tok[4];
        for (int i = 0; i < n; i++) {
            pos0[i] = between(0, 2) ? between(0, 150) : between(0, 700);
            n_tok[i] = between(0, 2) ? 1 : between(0, 10);
        }
        struct step step = make_step(n, pos0, n_tok);
        make_problem(&p, random_cache(), step, round % 2);
        check_problem(&p);
        drop_problem(&p);
        drop_step(&step);
    }
}

/* Splits of many pages, more of them than a lane each holds the number of. */
static void long_sequences(void **state)
{
    (void)state;
    need_device();
    seed = 62;
    for (int round = 0; round < 4; round++) {
        struct problem p;
        const int pos0[] = {16500 + 1000 * round, 5}, n_tok[] = {1, 2};
        struct atom_cuda_kv kv = {.heads = 2, .kv_heads = 1, .head_dim = 64, .bits = round % 2 ? 16 : 4, .clip = 1.0f};
        kv.rope = round / 2 ? ATOM_KV_PRE : ATOM_KV_POST;
        struct step step = make_step(2, pos0, n_tok);
        make_problem(&p, kv, step, 0);
        check_problem(&p);
        drop_problem(&p);
        drop_step(&step);
    }
}

/* Items of a page or two, several for every warp of a device. */
static void many_short_sequences(void **state)
{
    enum { MOST = 3000 };
    (void)state;
    need_device();
    seed = 66;
    for (int round = 0; round < 4; round++) {
        static int pos0[MOST], n_tok[MOST];
        struct problem p;
        for (int i = 0; i < MOST; i++) {
            pos0[i] = between(0, round % 2 ? 12 : 40);
            n_tok[i] = 1;
        }
        struct atom_cuda_kv kv = {.heads = 8, .kv_heads = 8, .head_dim = 16, .bits = round % 2 ? 8 : 4, .clip = 1.0f};
        kv.rope = round / 2 ? ATOM_KV_PRE : ATOM_KV_POST;
        struct step step = make_step(MOST, pos0, n_tok);
        make_problem(&p, kv, step, 0);
        check_problem(&p);
        drop_problem(&p);
        drop_step(&step);
    }
}

/* A sequence of a step alone, and in company: of two, or of so many places in a step that splits are added up by a
 * kernel of their own. */
static void company_does_not_show(void **state)
{
    enum { MOST = 3000 };
    (void)state;
    need_device();
    seed = 63;
    for (int round = 0; round < 12; round++) {
        struct problem p;
        int pos0[MOST] = {between(0, 900), between(0, 900), between(0, 900)}, n_tok[MOST] = {1, between(0, 1), 1};
        struct step step = make_step(round % 3 ? 3 : MOST, pos0, n_tok), alone = step;
        make_problem(&p, random_cache(), step, round % 2);
        uint8_t *all = run_problem(&p);
        alone.on_device.seqs += 2;
        alone.on_device.tables += 2 * step.on_device.max_pages;
        alone.on_device.max_seqs = 1;
        p.step = alone;
        uint8_t *one = run_problem(&p);
        size_t at = (size_t)step.seqs[2].first_tok * p.out_stride * type_bytes(p.type);
        assert_memory_equal(all + at, one + at, p.out_stride * type_bytes(p.type));
        free(all);
        free(one);
        drop_problem(&p);
        drop_step(&step);
    }
}

static void queries_that_are_not_finite_spoil_their_rows_alone(void **state)
{
    (void)state;
    need_device();
    seed = 64;
    for (int round = 0; round < 8; round++) {
        struct problem p;
        const int pos0[] = {between(0, 400), 40}, n_tok[] = {1, 2};
        struct step step = make_step(2, pos0, n_tok);
        struct atom_cuda_kv kv = random_cache();
        make_problem(&p, kv, step, 0);
        size_t at = (size_t)step.seqs[0].first_tok * p.q_stride;
        const float odd[] = {NAN, INFINITY, -INFINITY, p.type == ATOM_CUDA_F16 ? NAN : 1e30f};
        write_row(p.type, p.q, at + (size_t)between(0, kv.head_dim - 1), odd[round % 4]);
        uint8_t *got = run_problem(&p);
        for (int d = 0; d < kv.head_dim; d++)
            assert_true(isnan(read_row(p.type, got, (size_t)step.seqs[0].first_tok * p.out_stride + (size_t)d)));
        for (int t = step.seqs[1].first_tok; t < step.on_device.max_tok; t++)
            check_row(&p, got, t);
        free(got);
        drop_problem(&p);
        drop_step(&step);
    }
}

static void bad_jobs_are_refused(void **state)
{
    (void)state;
    need_device();
    struct problem p;
    const int pos0[] = {40}, n_tok[] = {1};
    seed = 65;
    struct step step = make_step(1, pos0, n_tok);
    make_problem(&p, random_cache(), step, 0);
    void *some = on_device(NULL, 4096);
    struct atom_cuda_attend good = {&p.kv, &step.on_device, p.type, some, some, 4096, 4096, p.scale, some}, bad = good;
    struct atom_error why = {0};
    bad.q_stride = 4097;
    assert_fails(atom_cuda_decode_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "4097");
    bad = good, bad.out_stride = 2, why = (struct atom_error){0};
    assert_fails(atom_cuda_decode_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "apart");
    bad = good, bad.workspace = NULL, why = (struct atom_error){0};
    assert_fails(atom_cuda_decode_run(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "workspace");
    why = (struct atom_error){0};
    assert_fails(atom_cuda_decode_plan(&bad, NULL, &why), &why, ATOM_ERR_INVALID, "workspace");
    atom_cuda_free(some);
    drop_problem(&p);
    drop_step(&step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_are_the_formula),
                                       cmocka_unit_test(long_sequences),
                                       cmocka_unit_test(many_short_sequences),
                                       cmocka_unit_test(company_does_not_show),
                                       cmocka_unit_test(queries_that_are_not_finite_spoil_their_rows_alone),
                                       cmocka_unit_test(bad_jobs_are_refused)};
    int rc = cmocka_run_group_tests_name("cuda decode", tests, NULL, NULL);
    atom_cuda_close();
    return rc;
}
