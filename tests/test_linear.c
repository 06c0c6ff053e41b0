/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend's linears, from the tensors of a checkpoint, against the specification's sums: exactly. And what
 * feeds them. */
#include "backend.h"

#include "base/half.h"

enum { MAX_PARTS = 3 };

/* A part's tensors as a checkpoint has them, and every weight's value (float) or integer and scale. */
struct tensors {
    void *weight, *qweight, *scales, *outlier_q, *outlier_scales;
    float *bias;
    int32_t *row_order;
};

struct problem {
    struct atom_site site;
    int n_tok, n, n_parts;
    enum atom_weight_kind kind;
    struct atom_linear_part parts[MAX_PARTS];
    struct tensors tensors[MAX_PARTS];
    struct atom_work *work;
    struct atom_linear *lin;
    float *x, *norm;
};

/* F16 scales at an odd address, as in a mapped file. */
static void *odd_scales(size_t n, void **own)
{
    uint8_t *p = room(2 * n + 1);
    for (size_t i = 0; i < n; i++) {
        uint16_t h = atom_float_f16(fabsf(unit()) + 0x1p-10f);
        memcpy(p + 1 + 2 * i, &h, 2);
    }
    *own = p;
    return p + 1;
}

static void make_float_part(struct problem *p, struct atom_linear_part *part, struct tensors *t)
{
    size_t n = (size_t)part->n * (size_t)p->site.lay.k, size = p->kind == ATOM_W_F32 ? 4 : 2;
    uint8_t *w = t->weight = room(n * size + 1);
    for (size_t i = 0; i < n; i++) {
        float x = unit();
        uint16_t h = p->kind == ATOM_W_F16 ? atom_float_f16(x) : atom_float_bf16(x);
        memcpy(w + 1 + i * size, size == 4 ? (const void *)&x : &h, size);
    }
    part->weight = w + 1;
    if (between(0, 1))
        part->row_order = t->row_order = permutation(part->n);
}

static void make_int_part(struct problem *p, struct atom_linear_part *part, struct tensors *t)
{
    const struct atom_layout *lay = &p->site.lay;
    size_t normal = (size_t)(lay->k - lay->outliers), n = (size_t)part->n, outliers = (size_t)lay->outliers;
    size_t row = p->kind == ATOM_W_BYTE ? normal : (normal + 1) / 2;
    part->rows_per_scale = between(1, 3);
    part->row_scales = between(0, 3) == 0;
    uint8_t *q = t->qweight = room(n * row), *o = t->outlier_q = room(n * outliers);
    for (size_t i = 0; i < n * row; i++)
        q[i] = (uint8_t)draw();
    for (size_t i = 0; i < n * outliers; i++)
        o[i] = (uint8_t)draw();
    part->qweight = q;
    part->outlier_qweight = outliers ? (int8_t *)o : NULL;
    size_t sets = (n + (size_t)part->rows_per_scale - 1) / (size_t)part->rows_per_scale;
    part->scales = odd_scales(sets * (size_t)(part->row_scales ? 1 : lay->n_groups), &t->scales);
    part->outlier_scales = outliers ? odd_scales(n, &t->outlier_scales) : NULL;
}

static void make_site(struct atom_site *site)
{
    static const int groups[] = {0, 7, 32, 100, 128}, bits[] = {16, 8, 4, 3};
    int k = between(1, 420), outliers = between(0, 2) ? between(0, k) : between(0, 1) * k;
    memset(site, 0, sizeof *site);
    assert_ok(atom_layout_init(&site->lay, k, groups[between(0, 4)], outliers, &err), &err);
    site->order = between(0, 2) ? permutation(k) : NULL;
    site->gathers = true;
    site->bits = bits[between(0, 3)];
    site->clip = 0.9f;
}

static void make_problem(struct problem *p, enum atom_weight_kind kind)
{
    memset(p, 0, sizeof *p);
    make_site(&p->site);
    p->kind = kind;
    p->n_tok = between(0, 3) ? between(1, 20) : between(90, 230); /* beyond one chunk */
    p->n_parts = between(1, MAX_PARTS);
    for (int i = 0; i < p->n_parts; i++) {
        struct atom_linear_part *part = &p->parts[i];
        *part = (struct atom_linear_part){.name = "part", .n = between(1, 70), .kind = kind};
        if (kind <= ATOM_W_BF16)
            make_float_part(p, part, &p->tensors[i]);
        else
            make_int_part(p, part, &p->tensors[i]);
        if (between(0, 1)) {
            part->bias = p->tensors[i].bias = room((size_t)part->n * sizeof(float));
            fill(p->tensors[i].bias, (size_t)part->n, 1);
        }
        p->n += part->n;
    }
    int k = p->site.lay.k;
    const struct atom_work_shape shape = {.max_tok = p->n_tok,
                                          .hidden = k,
                                          .qkv_rows = p->n,
                                          .att_width = k,
                                          .gate_up_rows = 2 * k,
                                          .max_row_bytes = p->site.lay.row_bytes,
                                          .max_scales = p->site.lay.n_scales,
                                          .max_runs = p->site.lay.n_runs,
                                          .head_dim = 2};
    assert_ok(cpu->work_create(&shape, &p->work, &err), &err);
    assert_ok(cpu->linear_create(&p->site, p->parts, p->n_parts, &p->lin, &err), &err);
    p->x = room((size_t)(p->n_tok * k) * sizeof(float));
    p->norm = room((size_t)k * sizeof(float));
    fill(p->x, (size_t)(p->n_tok * k), 4);
    fill(p->norm, (size_t)k, 2);
}

static void drop_problem(struct problem *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        struct tensors *t = &p->tensors[i];
        void *all[] = {t->weight, t->qweight, t->scales, t->outlier_q, t->outlier_scales, t->bias, t->row_order};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            free(all[j]);
    }
    cpu->linear_free(p->lin);
    cpu->work_free(p->work);
    atom_layout_fini(&p->site.lay);
    free(p->site.order);
    free(p->x);
    free(p->norm);
}

static float f16_at(const void *scales, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)scales + 2 * i, 2);
    return atom_f16_float(h);
}

/* Integer (and, through s, the scale) of row r, stored column c of a quantized part. */
static int int_weight(const struct problem *p, const struct atom_linear_part *part, int r, int c, float *s)
{
    const struct atom_layout *lay = &p->site.lay;
    int normal = lay->k - lay->outliers, group = lay->group ? lay->group : normal;
    if (c >= normal) {
        *s = f16_at(part->outlier_scales, (size_t)r);
        return part->outlier_qweight[r * lay->outliers + c - normal];
    }
    int set = r / part->rows_per_scale;
    *s = f16_at(part->scales, (size_t)(part->row_scales ? set : set * lay->n_groups + c / group));
    if (p->kind == ATOM_W_BYTE)
        return (int8_t)part->qweight[r * normal + c];
    uint8_t both = part->qweight[r * ((normal + 1) / 2) + c / 2];
    return (c % 2 ? both >> 4 : both & 15) - 8;
}

static float float_weight(const struct problem *p, const struct atom_linear_part *part, int r, int c)
{
    if (p->kind > ATOM_W_BF16) {
        float s;
        int q = int_weight(p, part, r, c, &s);
        return (float)q * s;
    }
    size_t at =
        (size_t)((part->row_order ? part->row_order[r] : r) * p->site.lay.k + (p->site.order ? p->site.order[c] : c));
    float x;
    if (p->kind == ATOM_W_F32) {
        memcpy(&x, (const uint8_t *)part->weight + 4 * at, 4);
        return x;
    }
    uint16_t h;
    memcpy(&h, (const uint8_t *)part->weight + 2 * at, 2);
    return p->kind == ATOM_W_F16 ? atom_f16_float(h) : atom_bf16_float(h);
}

/* The specification's y of token t and row r: integers per run of at most 128 channels, or one chain of fma. */
static float formula(const struct problem *p, const struct atom_linear_part *part, int t, int r, const float *acts)
{
    const struct atom_layout *lay = &p->site.lay;
    const struct atom_acts *a = &p->work->acts;
    float y = 0.0f;
    if (p->site.bits == 16 || p->kind <= ATOM_W_BF16) {
        for (int c = 0; c < lay->k; c++)
            y = fmaf(acts[t * lay->k + c], float_weight(p, part, r, c), y);
        return y;
    }
    for (int i = 0; i < lay->n_runs; i++) {
        const struct atom_run *run = &lay->runs[i];
        int32_t acc = 0;
        float s = 0;
        for (int c = 0; c < run->len; c++)
            acc += a->q[t * lay->row_bytes + run->offset + c] * int_weight(p, part, r, run->first + c, &s);
        y = fmaf((float)acc, a->scales[t * lay->n_scales + run->scale] * s, y);
    }
    return y;
}

static void check_problem(struct problem *p)
{
    int k = p->site.lay.k;
    float *acts = room((size_t)(p->n_tok * k) * sizeof *acts);
    cpu->set_x(p->work, p->x, p->n_tok);
    cpu->norm(p->work, p->norm, 1e-5f, &p->site, 1);
    cpu->get_acts(p->work, acts);
    float *y = p->work->buf[ATOM_BUF_QKV];
    for (int add = 0; add < 2; add++) {
        fill(y, (size_t)(p->n_tok * p->n), 1);
        float *before = room((size_t)(p->n_tok * p->n) * sizeof *before);
        memcpy(before, y, (size_t)(p->n_tok * p->n) * sizeof *y);
        cpu->linear(p->work, p->lin, ATOM_BUF_QKV, add);
        for (int t = 0; t < p->n_tok; t += 1 + add)
            for (int i = 0, row = 0; i < p->n_parts; row += p->parts[i++].n)
                for (int r = 0; r < p->parts[i].n; r += 1 + t % 3) {
                    float want = formula(p, &p->parts[i], t, r, acts);
                    int at = t * p->n + row + r;
                    bool biased = p->lin->p.bias != NULL;
                    want = biased ? want + (p->parts[i].bias ? p->parts[i].bias[r] : 0.0f) : want;
                    want = add ? before[at] + want : want;
                    if (want != y[at])
                        fail_msg("kind %d, %d bits, token %d, row %d: %.9g, not %.9g", (int)p->kind, p->site.bits, t,
                                 row + r, (double)y[at], (double)want);
                }
        free(before);
    }
    free(acts);
}

/* Integer panels, byte by byte as kernels.h draws them. */
static void check_panels(const struct problem *p)
{
    const struct atom_packed *w = &p->lin->p;
    const struct atom_layout *lay = w->lay;
    for (int row = 0; row < w->n_panels * ATOM_PANEL; row++) {
        int i = 0, r = row;
        while (i < p->n_parts && r >= p->parts[i].n)
            r -= p->parts[i++].n;
        const uint8_t *to = w->data + (size_t)(row / ATOM_PANEL) * w->panel_bytes + row % ATOM_PANEL * 4;
        for (const struct atom_run *run = lay->runs; run < lay->runs + lay->n_runs; run++) {
            bool nibbles = p->kind == ATOM_W_NIBBLE && run->scale < lay->n_groups;
            for (int c = 0; c < run->padded; c++) {
                float s = 0;
                bool there = i < p->n_parts && c < run->len;
                int want = there ? int_weight(p, &p->parts[i], r, run->first + c, &s) : 0;
                int got =
                    nibbles ? (to[c / 8 * 128 + c % 4] >> (c % 8 / 4 * 4) & 15) - 8 : to[c / 4 * 128 + c % 4] - 128;
                if (got != want)
                    fail_msg("row %d, channel %d: %d, not %d", row, run->first + c, got, want);
                size_t at = (size_t)(row / ATOM_PANEL * lay->n_scales + run->scale) * ATOM_PANEL;
                if (there && atom_f16_float(w->scales[at + (size_t)(row % ATOM_PANEL)]) != s)
                    fail_msg("row %d, channel %d: its scale is not %g", row, run->first + c, (double)s);
            }
            to += run->padded * (nibbles ? 16 : 32);
        }
    }
}

static void linears_are_the_formula(void **state)
{
    (void)state;
    for (int i = 0; i < 45; i++) {
        struct problem p;
        make_problem(&p, (enum atom_weight_kind)(i % 5));
        if (p.kind > ATOM_W_BF16)
            check_panels(&p);
        check_problem(&p);
        drop_problem(&p);
    }
}

static void a_bias_moves(void **state)
{
    struct problem p;
    struct atom_linear *other;
    (void)state;
    make_problem(&p, ATOM_W_NIBBLE);
    float *bias = p.tensors[0].bias;
    if (!bias)
        p.parts[0].bias = p.tensors[0].bias = bias = room((size_t)p.parts[0].n * sizeof *bias);
    cpu->linear_free(p.lin);
    assert_ok(cpu->linear_create(&p.site, p.parts, p.n_parts, &p.lin, &err), &err);
    for (int i = 0; i < p.n_parts; i++)
        p.parts[i].bias = NULL;
    assert_ok(cpu->linear_create(&p.site, p.parts, p.n_parts, &other, &err), &err);
    cpu->linear_take_bias(other, p.lin);
    cpu->linear_free(p.lin);
    p.lin = other;
    for (int i = 0; i < p.n_parts; i++)
        p.parts[i].bias = p.tensors[i].bias;
    check_problem(&p);
    drop_problem(&p);
}

/* norm, gather and silu put the right channel in the right place: floats against doubles, integers within half a step.
 */
static void sites_are_fed(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        struct problem p;
        make_problem(&p, ATOM_W_F32);
        int k = p.site.lay.k;
        float *acts = room((size_t)(p.n_tok * k) * sizeof *acts);
        const float *x = p.x, *att = p.work->buf[ATOM_BUF_ATT], *gate = p.work->buf[ATOM_BUF_GATE_UP];
        fill(p.work->buf[ATOM_BUF_ATT], (size_t)(p.n_tok * k), 1);
        fill(p.work->buf[ATOM_BUF_GATE_UP], (size_t)(p.n_tok * 2 * k), 3);
        cpu->set_x(p.work, x, p.n_tok);
        for (int op = 0; op < 3; op++) {
            p.site.clip = 1.0f;
            op == 0   ? cpu->norm(p.work, p.norm, 1e-5f, &p.site, 1)
            : op == 1 ? cpu->gather(p.work, &p.site, 2)
                      : cpu->silu(p.work, &p.site, 3);
            cpu->get_acts(p.work, acts);
            for (int t = 0; t < p.n_tok; t++) {
                double squares = 0, largest = 0;
                for (int c = 0; c < k; c++)
                    squares += (double)x[t * k + c] * (double)x[t * k + c];
                for (int pass = 0; pass < 2; pass++)
                    for (int c = 0; c < k; c++) {
                        int from = t * k + (p.site.order && op < 2 ? p.site.order[c] : c);
                        double g = (double)gate[t * 2 * k + c],
                               want = g / (1 + exp(-g)) * (double)gate[t * 2 * k + k + c];
                        if (op == 0)
                            want = (double)x[from] / sqrt(squares / k + 1e-5) * (double)p.norm[c];
                        if (op == 1)
                            want = (double)att[from];
                        largest = fmax(largest, fabs(want));
                        double step = p.site.bits == 16 ? 0 : largest / ((1 << (p.site.bits - 1)) - 1);
                        if (pass && !(fabs((double)acts[t * k + c] - want) <=
                                      0.5001 * step + (double)(k / 16 + 20) * FLT_EPSILON * fabs(want)))
                            fail_msg("operation %d, token %d, channel %d: %g, not %g", op, t, c,
                                     (double)acts[t * k + c], want);
                    }
                assert_int_equal(cpu->bad(p.work, t), 0);
            }
        }
        free(acts);
        drop_problem(&p);
    }
}

static void bad_numbers_are_found(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct problem p;
        make_problem(&p, ATOM_W_F32);
        int k = p.site.lay.k, t = between(0, p.n_tok - 1), at = t * k + between(0, k - 1);
        const float bads[] = {NAN, INFINITY, -INFINITY, 1e25f}; /* the last: its square is not finite */
        p.x[at] = bads[round % 4];
        cpu->set_x(p.work, p.x, p.n_tok);
        if (round % 2)
            cpu->check(p.work, 7);
        else
            cpu->norm(p.work, p.norm, 1e-5f, &p.site, 7);
        for (int i = 0; i < p.n_tok; i++)
            assert_int_equal(cpu->bad(p.work, i), i == t ? 7 : 0);
        cpu->norm(p.work, p.norm, 1e-5f, &p.site, 8); /* the first place stands */
        assert_int_equal(cpu->bad(p.work, t), 7);
        p.x[at] = 0;
        cpu->set_x(p.work, p.x, p.n_tok);
        assert_int_equal(cpu->bad(p.work, t), 0);
        p.work->buf[ATOM_BUF_ATT][at] = round % 4 == 3 ? INFINITY : bads[round % 4];
        cpu->gather(p.work, &p.site, 9);
        assert_int_equal(cpu->bad(p.work, t), 9);
        drop_problem(&p);
    }
}

static void embedding_rows(void **state)
{
    (void)state;
    enum { VOCAB = 9, HIDDEN = 37 };
    const struct atom_work_shape shape = {.max_tok = 4,
                                          .hidden = HIDDEN,
                                          .qkv_rows = 1,
                                          .att_width = 1,
                                          .gate_up_rows = 2,
                                          .max_row_bytes = 64,
                                          .max_scales = 1,
                                          .max_runs = 1,
                                          .head_dim = 2};
    struct atom_work *w;
    assert_ok(cpu->work_create(&shape, &w, &err), &err);
    const int32_t tokens[4] = {8, 0, 3, 8};
    for (enum atom_weight_kind kind = ATOM_W_F32; kind <= ATOM_W_BF16; kind++) {
        uint8_t table[VOCAB * HIDDEN * 4 + 1];
        float want[VOCAB * HIDDEN], got[4 * HIDDEN];
        for (int i = 0; i < VOCAB * HIDDEN; i++) {
            float x = unit();
            uint16_t h = kind == ATOM_W_F16 ? atom_float_f16(x) : atom_float_bf16(x);
            want[i] = kind == ATOM_W_F32 ? x : kind == ATOM_W_F16 ? atom_f16_float(h) : atom_bf16_float(h);
            memcpy(table + 1 + i * (kind == ATOM_W_F32 ? 4 : 2), kind == ATOM_W_F32 ? (void *)&x : &h,
                   kind == ATOM_W_F32 ? 4 : 2);
        }
        cpu->embed(w, kind, table + 1, tokens, 4);
        cpu->get_x(w, got);
        for (int t = 0; t < 4; t++)
            assert_memory_equal(got + t * HIDDEN, want + tokens[t] * HIDDEN, HIDDEN * sizeof(float));
    }
    cpu->work_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(linears_are_the_formula, start), cmocka_unit_test_setup(a_bias_moves, start),
        cmocka_unit_test_setup(sites_are_fed, start),           cmocka_unit_test_setup(bad_numbers_are_found, start),
        cmocka_unit_test_setup(embedding_rows, start),
    };
    int rc = cmocka_run_group_tests_name("linear", tests, NULL, NULL);
    atom_pool_stop();
    return rc;
}
