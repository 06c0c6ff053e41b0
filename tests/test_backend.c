/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend: linears from the tensors of a checkpoint against the specification's sums, exactly; attention over
 * pages against doubles, and the same bits for any chunks, batch and number of threads. */
#include "helpers.h"

#include "backend/cpu.h"
#include "base/half.h"
#include "base/thread.h"
#include "kernels/hadamard.h"

#include <float.h>
#include <math.h>

static const struct atom_backend *const cpu = &atom_backend_cpu;
static struct atom_error err;
static uint64_t seed;

static uint32_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static int between(int lo, int hi) { return lo + (int)(draw() % (uint32_t)(hi - lo + 1)); }
static float unit(void) { return (float)(int32_t)(draw() - 0x40000000u) * 0x1p-30f; }

static void *room(size_t n_bytes)
{
    void *p = calloc(n_bytes + 1, 1);
    assert_non_null(p);
    return p;
}

static void fill(float *x, size_t n, float by)
{
    for (size_t i = 0; i < n; i++)
        x[i] = by * unit();
}

static int start(void **state)
{
    (void)state;
    seed = 99;
    memset(&err, 0, sizeof err);
    atom_cpu_use(~0u);
    return atom_pool_start(2, &err) != ATOM_OK;
}

/* ---- linears ------------------------------------------------------------------------------------------------------- */

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

static int32_t *permutation(int n)
{
    int32_t *order = room((size_t)n * sizeof *order);
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = between(0, i), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    return order;
}

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
    uint8_t *q = t->qweight = room(n * row), *o = t->outlier_q = room(n * outliers);
    for (size_t i = 0; i < n * row; i++)
        q[i] = (uint8_t)draw();
    for (size_t i = 0; i < n * outliers; i++)
        o[i] = (uint8_t)draw();
    part->qweight = q;
    part->outlier_qweight = outliers ? (int8_t *)o : NULL;
    size_t sets = (n + (size_t)part->rows_per_scale - 1) / (size_t)part->rows_per_scale;
    part->scales = odd_scales(sets * (size_t)lay->n_groups, &t->scales);
    part->outlier_scales = outliers ? odd_scales(n, &t->outlier_scales) : NULL;
}

static void make_site(struct atom_site *site)
{
    static const int groups[] = {0, 32, 100, 128}, bits[] = {16, 8, 4, 3};
    int k = between(1, 420), outliers = between(0, 2) ? between(0, k) : between(0, 1) * k;
    memset(site, 0, sizeof *site);
    assert_ok(atom_layout_init(&site->lay, k, groups[between(0, 3)], outliers, &err), &err);
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
                                          .max_k_padded = p->site.lay.k_padded,
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
    *s = f16_at(part->scales, (size_t)(r / part->rows_per_scale * lay->n_groups + c / group));
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
    size_t at = (size_t)((part->row_order ? part->row_order[r] : r) * p->site.lay.k + (p->site.order ? p->site.order[c] : c));
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
            acc += a->q[t * lay->k_padded + run->offset + c] * int_weight(p, part, r, run->first + c, &s);
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

static void linears_are_the_formula(void **state)
{
    (void)state;
    for (int i = 0; i < 45; i++) {
        struct problem p;
        make_problem(&p, (enum atom_weight_kind)(i % 5));
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

/* norm, gather and silu put the right channel in the right place: floats against doubles, integers within half a step. */
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
            op == 0 ? cpu->norm(p.work, p.norm, 1e-5f, &p.site, 1) : op == 1 ? cpu->gather(p.work, &p.site, 2) : cpu->silu(p.work, &p.site, 3);
            cpu->get_acts(p.work, acts);
            for (int t = 0; t < p.n_tok; t++) {
                double squares = 0, largest = 0;
                for (int c = 0; c < k; c++)
                    squares += (double)x[t * k + c] * (double)x[t * k + c];
                for (int pass = 0; pass < 2; pass++)
                    for (int c = 0; c < k; c++) {
                        int from = t * k + (p.site.order && op < 2 ? p.site.order[c] : c);
                        double g = (double)gate[t * 2 * k + c], want = g / (1 + exp(-g)) * (double)gate[t * 2 * k + k + c];
                        if (op == 0)
                            want = (double)x[from] / sqrt(squares / k + 1e-5) * (double)p.norm[c];
                        if (op == 1)
                            want = (double)att[from];
                        largest = fmax(largest, fabs(want));
                        double step = p.site.bits == 16 ? 0 : largest / ((1 << (p.site.bits - 1)) - 1);
                        if (pass && !(fabs((double)acts[t * k + c] - want) <= 0.5001 * step + (double)(k / 16 + 20) * FLT_EPSILON * fabs(want)))
                            fail_msg("operation %d, token %d, channel %d: %g, not %g", op, t, c, (double)acts[t * k + c], want);
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
    const struct atom_work_shape shape = {.max_tok = 4, .hidden = HIDDEN, .qkv_rows = 1, .att_width = 1, .gate_up_rows = 2,
                                          .max_k_padded = 40, .max_scales = 1, .max_runs = 1, .head_dim = 2};
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
            memcpy(table + 1 + i * (kind == ATOM_W_F32 ? 4 : 2), kind == ATOM_W_F32 ? (void *)&x : &h, kind == ATOM_W_F32 ? 4 : 2);
        }
        cpu->embed(w, kind, table + 1, tokens, 4);
        cpu->get_x(w, got);
        for (int t = 0; t < 4; t++)
            assert_memory_equal(got + t * HIDDEN, want + tokens[t] * HIDDEN, HIDDEN * sizeof(float));
    }
    cpu->work_free(w);
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

enum { MAX_POS = 640, MAX_SEQS = 3, N_PAGES = MAX_SEQS * MAX_POS / ATOM_PAGE + 5 };

struct setting {
    int heads, kv_heads, head_dim, bits;
    enum atom_kv_rope rope;
    unsigned rotate;
};

static const struct setting settings[] = {
    {4, 4, 32, 32, ATOM_KV_POST, 0},
    {4, 2, 64, 16, ATOM_KV_PRE, 0},
    {6, 2, 64, 8, ATOM_KV_PRE, ATOM_ROTATE_V},
    {4, 1, 128, 4, ATOM_KV_POST, ATOM_ROTATE_QK | ATOM_ROTATE_V},
    {8, 2, 24, 4, ATOM_KV_PRE, 0},
    {3, 3, 80, 3, ATOM_KV_POST, ATOM_ROTATE_QK},
    {2, 1, 2, 4, ATOM_KV_PRE, 0},
    {5, 5, 18, 4, ATOM_KV_POST, 0}, /* half of it odd */
    {2, 2, 256, 8, ATOM_KV_POST, 0},
    {7, 1, 40, 16, ATOM_KV_POST, ATOM_ROTATE_V},
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

struct cache {
    const struct setting *set;
    struct atom_work *work;
    struct atom_kv *kv;
    double inv_freq[128];
    int width, att;
    float *qkv[MAX_SEQS]; /* [MAX_POS, width], what the linear would give */
    float *out[MAX_SEQS]; /* [MAX_POS, att] */
    int32_t pages[MAX_SEQS][MAX_POS / ATOM_PAGE];
    int length[MAX_SEQS];
};

static void open_cache(struct cache *c, const struct setting *set)
{
    memset(c, 0, sizeof *c);
    c->set = set;
    c->att = set->heads * set->head_dim;
    c->width = (set->heads + 2 * set->kv_heads) * set->head_dim;
    for (int i = 0; i < set->head_dim / 2; i++)
        c->inv_freq[i] = pow(10000, -2.0 * i / set->head_dim);
    const struct atom_work_shape shape = {.max_tok = MAX_SEQS * MAX_POS, .hidden = 8, .qkv_rows = c->width, .att_width = c->att,
                                          .gate_up_rows = 2, .max_k_padded = 8, .max_scales = 1, .max_runs = 1,
                                          .head_dim = set->head_dim};
    const struct atom_kv_config kc = {.layers = 2, .heads = set->heads, .kv_heads = set->kv_heads, .head_dim = set->head_dim,
                                      .n_pages = N_PAGES, .max_position = MAX_POS, .bits = set->bits, .clip = 1.0f,
                                      .rope = set->rope, .rotate = set->rotate, .inv_freq = c->inv_freq};
    assert_ok(cpu->work_create(&shape, &c->work, &err), &err);
    assert_ok(cpu->kv_create(&kc, &c->kv, &err), &err);
    int32_t *shuffled = permutation(N_PAGES);
    for (int s = 0; s < MAX_SEQS; s++) {
        c->qkv[s] = room((size_t)(MAX_POS * c->width) * sizeof(float));
        c->out[s] = room((size_t)(MAX_POS * c->att) * sizeof(float));
        fill(c->qkv[s], (size_t)(MAX_POS * c->width), 2);
        for (int i = 0; i < MAX_POS / ATOM_PAGE; i++)
            c->pages[s][i] = shuffled[s * MAX_POS / ATOM_PAGE + i];
    }
    free(shuffled);
}

static void close_cache(struct cache *c)
{
    for (int s = 0; s < MAX_SEQS; s++) {
        free(c->qkv[s]);
        free(c->out[s]);
    }
    cpu->work_free(c->work);
    cpu->kv_free(c->kv);
}

/* n[s] more tokens of each sequence in one step, through layer 1. */
static void step(struct cache *c, const int n[MAX_SEQS])
{
    struct atom_batch_seq seqs[MAX_SEQS];
    struct atom_batch batch = {.seqs = seqs};
    int of[MAX_SEQS];
    for (int s = 0; s < MAX_SEQS; s++) {
        if (!n[s])
            continue;
        of[batch.n_seqs] = s;
        seqs[batch.n_seqs++] = (struct atom_batch_seq){batch.n_tok, n[s], c->length[s], c->pages[s]};
        memcpy(c->work->buf[ATOM_BUF_QKV] + batch.n_tok * c->width, c->qkv[s] + c->length[s] * c->width,
               (size_t)(n[s] * c->width) * sizeof(float));
        batch.n_tok += n[s];
    }
    float *x = room((size_t)batch.n_tok * 8 * sizeof *x);
    cpu->set_x(c->work, x, batch.n_tok);
    free(x);
    cpu->store(c->work, c->kv, 1, &batch, 5);
    cpu->attend(c->work, c->kv, 1, &batch);
    for (int i = 0; i < batch.n_seqs; i++) {
        int s = of[i];
        memcpy(c->out[s] + c->length[s] * c->att, c->work->buf[ATOM_BUF_ATT] + seqs[i].first_tok * c->att,
               (size_t)(n[s] * c->att) * sizeof(float));
        c->length[s] += n[s];
    }
}

/* What the cache holds of position pos of a head, keys as they meet the query. */
static void read_back(const struct cache *c, int s, int head, int pos, float *k, float *v)
{
    const struct atom_kv *kv = c->kv;
    int hd = c->set->head_dim;
    size_t at = (size_t)(pos / 16 * (hd / 2) * 16);
    const uint8_t *page = kv->data + kv->layer_bytes + (size_t)c->pages[s][pos / 16] * kv->page_bytes + (size_t)head * kv->head_bytes;
    const struct atom_rope_page rope = {kv->cos + at, kv->sin + at};
    float keys[256 * 32], values[8 * 512];
    atom_kern.kv_keys(&kv->shape, page, c->set->rope == ATOM_KV_PRE ? &rope : NULL, keys);
    atom_kern.kv_values(&kv->shape, page + kv->shape.half_bytes, 16, 512, values);
    for (int d = 0; d < hd; d++) {
        k[d] = keys[d * 32 + pos % 16];
        v[d] = values[d / 32 * 512 + pos % 16 * 32 + d % 32];
    }
}

/* x rotated to position pos in doubles. */
static void turn(const struct cache *c, const float *x, int pos, double *out)
{
    int half = c->set->head_dim / 2;
    for (int i = 0; i < half; i++) {
        double a = pos * c->inv_freq[i];
        out[i] = (double)x[i] * cos(a) - (double)x[i + half] * sin(a);
        out[i + half] = (double)x[i + half] * cos(a) + (double)x[i] * sin(a);
    }
}

static void rotate(double *x, int n)
{
    float f[256];
    for (int i = 0; i < n; i++)
        f[i] = (float)x[i];
    atom_hadamard(f, n);
    for (int i = 0; i < n; i++)
        x[i] = (double)f[i];
}

/* Keys and values in the cache are those of the linear, rotated, within a step of their scale. */
static void check_stored(const struct cache *c, int s, int pos)
{
    int hd = c->set->head_dim, levels = (1 << (c->set->bits > 8 ? 1 : c->set->bits)) - 1;
    const float *qkv = c->qkv[s] + pos * c->width;
    for (int head = 0; head < c->set->kv_heads; head++) {
        float k[256], v[256];
        double want[2][256], lo[2] = {0}, hi[2] = {0};
        const float *in_k = qkv + c->att + head * hd, *in_v = in_k + c->set->kv_heads * hd;
        read_back(c, s, head, pos, k, v);
        turn(c, in_k, pos, want[0]);
        for (int d = 0; d < hd; d++)
            want[1][d] = (double)in_v[d];
        if (c->set->rotate & ATOM_ROTATE_QK)
            rotate(want[0], hd);
        if (c->set->rotate & ATOM_ROTATE_V)
            rotate(want[1], hd);
        for (int d = 0; d < hd; d++)
            for (int i = 0; i < 2; i++) {
                double raw = i || c->set->rope == ATOM_KV_POST ? want[i][d] : (double)in_k[d];
                lo[i] = fmin(lo[i], raw);
                hi[i] = fmax(hi[i], raw);
            }
        for (int i = 0; i < 2; i++)
            for (int d = 0; d < hd; d++) {
                double got = (double)(i ? v : k)[d], turned = i || c->set->rope == ATOM_KV_POST ? 1 : M_SQRT2;
                double step_size = (hi[i] - lo[i]) * 1.001 / levels;
                double bound = c->set->bits == 32 ? 1e-5 : c->set->bits == 16 ? 4e-3 : 1.01 * step_size * turned;
                if (!(fabs(got - want[i][d]) <= bound))
                    fail_msg("position %d, head %d, %s, channel %d: %g, not %g", pos, head, i ? "value" : "key", d, got, want[i][d]);
            }
    }
}

/* Attention of query head h at pos over what the cache holds, in doubles. Its bound: scores are off by hd additions of
 * their terms, weights by twice that and exp's 2 ulp, the sum by one per position; merges and the rest are a handful. */
static void check_attended(const struct cache *c, int s, int h, int pos)
{
    int hd = c->set->head_dim, head = h / (c->set->heads / c->set->kv_heads);
    static double keys[MAX_POS][256], values[MAX_POS][256], score[MAX_POS];
    double q[256], max = -1e300, total = 0, off = 0, out[256] = {0}, terms[256] = {0}, spread = 0;
    float k[256], v[256];
    turn(c, c->qkv[s] + pos * c->width + h * hd, pos, q);
    if (c->set->rotate & ATOM_ROTATE_QK)
        rotate(q, hd);
    for (int p = 0; p <= pos; p++) {
        double of_terms = 0;
        read_back(c, s, head, p, k, v);
        score[p] = 0;
        for (int d = 0; d < hd; d++) {
            keys[p][d] = (double)k[d];
            values[p][d] = (double)v[d];
            score[p] += q[d] * keys[p][d] / sqrt(hd);
            of_terms += fabs(q[d] * keys[p][d]) / sqrt(hd);
        }
        /* + 8: the rotations of q, and its angle in float32 */
        off = fmax(off, (hd + 8) * (double)FLT_EPSILON * of_terms);
        max = fmax(max, score[p]);
    }
    for (int p = 0; p <= pos; p++)
        total += exp(score[p] - max);
    for (int p = 0; p <= pos; p++)
        for (int d = 0; d < hd; d++) {
            out[d] += exp(score[p] - max) / total * values[p][d];
            terms[d] += exp(score[p] - max) / total * fabs(values[p][d]);
        }
    if (c->set->rotate & ATOM_ROTATE_V) {
        float f[256];
        for (int d = 0; d < hd; d++) {
            f[d] = (float)out[d];
            spread += terms[d] / sqrt(hd);
        }
        atom_hadamard_undo(f, hd);
        for (int d = 0; d < hd; d++) {
            out[d] = (double)f[d];
            terms[d] = spread;
        }
    }
    for (int d = 0; d < hd; d++) {
        double got = (double)c->out[s][pos * c->att + h * hd + d];
        if (!(fabs(got - out[d]) <= (2 * off + (pos + 40) * (double)FLT_EPSILON) * terms[d] + 1e-12))
            fail_msg("bits %d, size %d, position %d, head %d, channel %d: %.9g, not %.9g", c->set->bits, hd, pos, h, d, got, out[d]);
    }
}

static void attention_is_close_to_doubles(void **state)
{
    (void)state;
    static const int at[] = {0, 1, 15, 16, 100, 255, 256, 257, 511, 512, 599};
    for (int i = 0; i < N_SETTINGS; i++) {
        struct cache c;
        open_cache(&c, &settings[i]);
        int n = i < 3 ? 600 : 270; /* across two splits' ends, or one's */
        step(&c, (const int[MAX_SEQS]){n, 0, 0});
        for (size_t j = 0; j < sizeof at / sizeof at[0] && at[j] < n; j++) {
            check_stored(&c, 0, at[j]);
            check_attended(&c, 0, (int)j % c.set->heads, at[j]);
        }
        close_cache(&c);
    }
}

static void copy_out(const struct cache *c, float *all[MAX_SEQS])
{
    for (int s = 0; s < MAX_SEQS; s++) {
        all[s] = room((size_t)(c->length[s] * c->att) * sizeof(float));
        memcpy(all[s], c->out[s], (size_t)(c->length[s] * c->att) * sizeof(float));
    }
}

static void same_out(const struct cache *c, float *const all[MAX_SEQS], const char *what)
{
    for (int s = 0; s < MAX_SEQS; s++)
        for (int i = 0; i < c->length[s] * c->att; i++)
            if (memcmp(&all[s][i], &c->out[s][i], sizeof(float)))
                fail_msg("%s: sequence %d, position %d, channel %d differs", what, s, i / c->att, i % c->att);
}

/* Each sequence alone and whole; then chunks of all of them in mixed steps; other threads, other tiers. */
static void bits_do_not_depend_on_steps(void **state)
{
    static const int lengths[MAX_SEQS] = {270, 40, 1};
    static const unsigned masks[] = {0, ATOM_CPU_AVX2, ~0u};
    (void)state;
    for (int i = 0; i < N_SETTINGS; i++) {
        struct cache c;
        float *all[MAX_SEQS];
        open_cache(&c, &settings[i]);
        for (int s = 0; s < MAX_SEQS; s++) {
            int n[MAX_SEQS] = {0};
            n[s] = lengths[s];
            step(&c, n);
        }
        copy_out(&c, all);
        for (int round = i % 5 ? 1 : 0; round < 3; round++) { /* the scalar tier is slow under sanitizers */
            assert_ok(atom_pool_start(1 + round % 2, &err), &err);
            atom_cpu_use(masks[round]);
            memset(c.length, 0, sizeof c.length);
            while (c.length[0] < lengths[0]) {
                int n[MAX_SEQS];
                for (int s = 0; s < MAX_SEQS; s++) {
                    int left = lengths[s] - c.length[s], want = between(0, 2) ? between(0, 90) : 1;
                    n[s] = left < want ? left : want;
                }
                if (n[0] + n[1] + n[2])
                    step(&c, n);
            }
            same_out(&c, all, "chunks");
        }
        for (int s = 0; s < MAX_SEQS; s++)
            free(all[s]);
        close_cache(&c);
        start(NULL);
    }
}

/* A sequence that meets NaN and infinity is marked; others in its step, and those that get its pages, see nothing. */
static void bad_keys_stay_where_they_are(void **state)
{
    (void)state;
    for (int i = 0; i < N_SETTINGS; i++) {
        struct cache c;
        float *all[MAX_SEQS];
        const int n[MAX_SEQS] = {45, 20, 33};
        open_cache(&c, &settings[i]);
        step(&c, n);
        copy_out(&c, all);
        for (int t = 0; t < 45; t++)
            for (int d = c.att; d < c.width; d++)
                c.qkv[0][t * c.width + d] = d % 2 ? NAN : INFINITY;
        memset(c.length, 0, sizeof c.length);
        step(&c, n);
        for (int t = 0; t < 98; t++)
            assert_int_equal(cpu->bad(c.work, t), t < 45 ? 5 : 0);
        memset(c.length, 0, sizeof c.length);
        memcpy(c.pages[1], c.pages[0], sizeof c.pages[0]);
        step(&c, (const int[MAX_SEQS]){0, 20, 33});
        same_out(&c, all, "after bad keys");
        for (int s = 0; s < MAX_SEQS; s++)
            free(all[s]);
        close_cache(&c);
    }
}

/* Finite queries and keys whose product is not: the output is no number, however many splits are fine. */
static void scores_that_overflow_are_seen(void **state)
{
    (void)state;
    for (int at = 0; at < 600; at += 300) {
        struct cache c;
        open_cache(&c, &settings[0]);
        for (int t = 0; t < 600; t++)
            for (int d = 0; d < c.width; d++)
                if (d < c.att || t == at)
                    c.qkv[0][t * c.width + d] = 1e25f;
        step(&c, (const int[MAX_SEQS]){600, 0, 0});
        for (int d = 0; d < c.att; d++) {
            assert_true(isnan(c.out[0][599 * c.att + d]));
            if (at > 0)
                assert_true(isfinite(c.out[0][(at - 1) * c.att + d]));
        }
        close_cache(&c);
    }
}

static void shapes_beyond_the_kernels_are_refused(void **state)
{
    const double freq[600] = {0};
    struct atom_kv *kv = NULL;
    struct atom_kv_config kc = {.layers = 1, .heads = 2, .kv_heads = 2, .head_dim = 1026, .n_pages = 1, .max_position = 16,
                                .bits = 16, .clip = 1, .inv_freq = freq};
    (void)state;
    assert_fails(cpu->kv_create(&kc, &kv, &err), &err, ATOM_ERR_UNSUPPORTED, "size 1026");
    memset(&err, 0, sizeof err);
    kc.head_dim = 2;
    kc.heads = 130;
    assert_fails(cpu->kv_create(&kc, &kv, &err), &err, ATOM_ERR_UNSUPPORTED, "130 heads");
    assert_null(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(linears_are_the_formula, start),
        cmocka_unit_test_setup(a_bias_moves, start),
        cmocka_unit_test_setup(sites_are_fed, start),
        cmocka_unit_test_setup(bad_numbers_are_found, start),
        cmocka_unit_test_setup(embedding_rows, start),
        cmocka_unit_test_setup(attention_is_close_to_doubles, start),
        cmocka_unit_test_setup(bits_do_not_depend_on_steps, start),
        cmocka_unit_test_setup(bad_keys_stay_where_they_are, start),
        cmocka_unit_test_setup(scores_that_overflow_are_seen, start),
        cmocka_unit_test_setup(shapes_beyond_the_kernels_are_refused, start),
    };
    int rc = cmocka_run_group_tests_name("backend", tests, NULL, NULL);
    atom_pool_stop();
    return rc;
}
