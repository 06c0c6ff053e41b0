/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend's pages and attention: against doubles, and the same bits for any chunks, company, threads and tier.
 */
#include "backend.h"

#include "kernels/hadamard.h"

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
    const struct atom_work_shape shape = {.max_tok = MAX_SEQS * MAX_POS,
                                          .hidden = 8,
                                          .qkv_rows = c->width,
                                          .att_width = c->att,
                                          .gate_up_rows = 2,
                                          .max_row_bytes = 64,
                                          .max_scales = 1,
                                          .max_runs = 1,
                                          .head_dim = set->head_dim};
    const struct atom_kv_config kc = {.layers = 2,
                                      .heads = set->heads,
                                      .kv_heads = set->kv_heads,
                                      .head_dim = set->head_dim,
                                      .n_pages = N_PAGES,
                                      .max_position = MAX_POS,
                                      .bits = set->bits,
                                      .clip = 1.0f,
                                      .rope = set->rope,
                                      .rotate = set->rotate,
                                      .inv_freq = c->inv_freq};
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
    const uint8_t *page =
        kv->data + kv->layer_bytes + (size_t)c->pages[s][pos / 16] * kv->page_bytes + (size_t)head * kv->head_bytes;
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
                    fail_msg("position %d, head %d, %s, channel %d: %g, not %g", pos, head, i ? "value" : "key", d, got,
                             want[i][d]);
            }
    }
}

/* Attention of query head h at pos over what the cache holds, in doubles. Its bound: scores are off by hd additions of
 * their terms, weights by twice that and exp's 2 ulp, the sum by one per position; merges and the rest are a handful.
 */
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
            fail_msg("bits %d, size %d, position %d, head %d, channel %d: %.9g, not %.9g", c->set->bits, hd, pos, h, d,
                     got, out[d]);
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
    struct atom_kv_config kc = {.layers = 1,
                                .heads = 2,
                                .kv_heads = 2,
                                .head_dim = 1026,
                                .n_pages = 1,
                                .max_position = 16,
                                .bits = 16,
                                .clip = 1,
                                .inv_freq = freq};
    (void)state;
    assert_fails(cpu->kv_create(&kc, &kv, &err), &err, ATOM_ERR_UNSUPPORTED, "size 1026");
    memset(&err, 0, sizeof err);
    kc.head_dim = 2;
    kc.heads = 130;
    assert_fails(cpu->kv_create(&kc, &kv, &err), &err, ATOM_ERR_UNSUPPORTED, "130 heads");
    assert_null(kv);
}

/* Pages and angles that no position has come to. */
static void an_unused_cache_costs_nothing(void **state)
{
    const double freq[64] = {0};
    struct atom_kv *kv;
    const struct atom_kv_config kc = {.layers = 8,
                                      .heads = 4,
                                      .kv_heads = 4,
                                      .head_dim = 128,
                                      .n_pages = 4096,
                                      .max_position = 1 << 20,
                                      .bits = 4,
                                      .clip = 1,
                                      .inv_freq = freq};
    (void)state;
#ifdef SANITIZED
    skip_because("a sanitizer has memory of its own");
#endif
    size_t before = resident_bytes();
    assert_ok(cpu->kv_create(&kc, &kv, &err), &err);
    assert_true(cpu->kv_bytes(kv) > (size_t)1 << 27);
    assert_true(resident_bytes() < before + (1 << 20));
    cpu->kv_free(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(attention_is_close_to_doubles, start),
        cmocka_unit_test_setup(bits_do_not_depend_on_steps, start),
        cmocka_unit_test_setup(bad_keys_stay_where_they_are, start),
        cmocka_unit_test_setup(scores_that_overflow_are_seen, start),
        cmocka_unit_test_setup(shapes_beyond_the_kernels_are_refused, start),
        cmocka_unit_test_setup(an_unused_cache_costs_nothing, start),
    };
    int rc = cmocka_run_group_tests_name("attention", tests, NULL, NULL);
    atom_pool_stop();
    return rc;
}
