/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: the same bits for any tier, threads, chunks, company and pages; refusals that change nothing; numbers that
 * are not finite end one sequence and name the place. */
#include "llama.h"

#include "model/model.h"

enum { N_SEQS = 3, LONG = 265, MAX_TOK = 512, EVERY = 6 }; /* logits are compared after every sixth token */
static const int lengths[N_SEQS] = {LONG, 37, 16};

static struct atom_error err;
static char *home; /* the group's directory */
static struct atom_model *models[3];
static const char *const model_names[3] = {"float", "default", "paper"};

static uint64_t seed;
static int between(int lo, int hi)
{
    llama_unit(&seed);
    return lo + (int)((seed >> 33) % (uint64_t)(hi - lo + 1));
}

static void *room(size_t n_bytes)
{
    void *p = calloc(n_bytes + 1, 1);
    assert_non_null(p);
    return p;
}

static void use(const char *tier, int threads)
{
    const struct atom_runtime_options opt = {.threads = threads, .cpu = tier};
    assert_ok(atom_runtime_init(&opt, &err), &err);
}

static int fresh(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    seed = 31;
    use(NULL, 2);
    return 0;
}

/* What a scheme is here: a directory HOME/NAME. */
static struct atom_model *quantized(const char *model, const char *recipe, int head_bits, const char *name)
{
    char out[1024], calib[1024];
    struct atom_model *m;
    snprintf(out, sizeof out, "%s/%s", home, name);
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    struct atom_quantize_options o = quick_options(model, out, calib);
    assert_ok(atom_scheme_named(recipe, &o.scheme, &err), &err);
    o.scheme.outliers = -1;
    o.scheme.lm_head_bits = head_bits;
    assert_ok(atom_quantize(&o, &err), &err);
    assert_ok(atom_model_open(out, &m, &err), &err);
    return m;
}

static int open_models(void **state)
{
    (void)state;
    home = make_dir();
    use(NULL, 2);
    put_calibration(home);
    assert_ok(atom_model_open("models/tiny", &models[0], &err), &err);
    for (int i = 1; i < 3; i++)
        models[i] = quantized("models/tiny", model_names[i], i == 1 ? 16 : 8, model_names[i]);
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        atom_model_close(models[i]);
    remove_dir(home);
    atom_runtime_fini();
    return 0;
}

static int32_t token_at(int s, int i) { return (s * 1009 + i * 37 + i * i % 11) % 4000 + 3; }

static struct atom_session *session(struct atom_model *m, int sequences, int positions, int step_tokens)
{
    struct atom_session *s;
    const struct atom_session_options opt = {sequences, positions, step_tokens};
    assert_ok(atom_session_create(m, &opt, &s, &err), &err);
    return s;
}

static int add(struct atom_session *s)
{
    int sequence = -1;
    assert_ok(atom_session_add(s, &sequence, &err), &err);
    return sequence;
}

/* ---- the same bits --------------------------------------------------------------------------------------------------
 */

/* Logits [lengths[s] / EVERY up, vocab] of the test's sequences. */
struct logits {
    float *of[N_SEQS];
};

static void make_logits(struct logits *l, const struct atom_model *m)
{
    for (int s = 0; s < N_SEQS; s++)
        l->of[s] = room((size_t)(lengths[s] / EVERY + 1) * (size_t)atom_model_info(m)->vocab * sizeof(float));
}

static void drop_logits(struct logits *l)
{
    for (int s = 0; s < N_SEQS; s++)
        free(l->of[s]);
}

/* One step that brings n[s] more tokens of each, and their logits into their places. */
static void advance(struct atom_session *s, const struct atom_model *m, const int ids[N_SEQS], const int n[N_SEQS],
                    struct logits *out)
{
    struct atom_step_seq seqs[N_SEQS];
    int32_t tokens[N_SEQS][MAX_TOK];
    int rows[MAX_TOK], count = 0, row = 0, vocab = atom_model_info(m)->vocab;
    for (int i = 0; i < N_SEQS; i++) {
        if (!n[i])
            continue;
        int from = atom_session_length(s, ids[i]);
        for (int t = 0; t < n[i]; t++)
            tokens[i][t] = token_at(i, from + t);
        seqs[count++] = (struct atom_step_seq){.sequence = ids[i], .tokens = tokens[i], .n_tokens = n[i]};
    }
    assert_ok(atom_session_step(s, seqs, count, &err), &err);
    for (int i = 0; i < N_SEQS; i++) {
        if (!n[i])
            continue;
        int first = atom_session_length(s, ids[i]) - n[i], wanted = 0;
        for (int t = 0; t < n[i]; t++)
            if ((first + t) % EVERY == 0)
                rows[wanted++] = row + t;
        row += n[i];
        size_t at = (size_t)((first + EVERY - 1) / EVERY) * (size_t)vocab;
        if (wanted)
            assert_ok(atom_session_logits(s, rows, wanted, out->of[i] + at, &err), &err);
    }
}

static void same_logits(const struct atom_model *m, const struct logits *a, const struct logits *b, int most,
                        const char *what)
{
    int vocab = atom_model_info(m)->vocab;
    for (int s = 0; s < N_SEQS; s++)
        for (int i = 0; i * EVERY < lengths[s] && i * EVERY < most; i++)
            if (memcmp(a->of[s] + (size_t)i * (size_t)vocab, b->of[s] + (size_t)i * (size_t)vocab,
                       (size_t)vocab * sizeof(float)))
                fail_msg("%s: logits of sequence %d, token %d differ", what, s, i * EVERY);
}

/* Each sequence alone, its first `most` tokens in one step. */
static void alone(struct atom_model *m, int most, struct logits *out)
{
    struct atom_session *s = session(m, 1, 320, MAX_TOK);
    for (int i = 0; i < N_SEQS; i++) {
        int ids[N_SEQS], n[N_SEQS] = {0};
        ids[i] = add(s);
        n[i] = lengths[i] < most ? lengths[i] : most;
        advance(s, m, ids, n, out);
        atom_session_remove(s, ids[i]);
    }
    atom_session_free(s);
}

enum { FEW = 8 }; /* tokens: the scalar tier is slow, under sanitizers above all */

static void tiers_and_threads(void **state)
{
    static const char *const names[] = {"scalar", "avx2", "avxvnni", "avx512"};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct logits want, got;
        make_logits(&want, models[i]);
        make_logits(&got, models[i]);
        use(NULL, 2);
        alone(models[i], FEW, &want);
        for (int tier = 0; tier < 4; tier++) {
            const struct atom_runtime_options opt = {.threads = 1 + tier, .cpu = names[tier]};
            struct atom_error why = {0};
            enum atom_status st = atom_runtime_init(&opt, &why);
            if (st == ATOM_ERR_UNSUPPORTED)
                continue;
            assert_ok(st, &why);
            assert_string_equal(atom_runtime_cpu(), names[tier]);
            assert_int_equal(atom_runtime_threads(), 1 + tier);
            alone(models[i], FEW, &got);
            same_logits(models[i], &want, &got, FEW, names[tier]);
        }
        drop_logits(&want);
        drop_logits(&got);
    }
}

/* The tier of bfloat16 products: other bits, the same model. Inputs lose 16 of their 24 bits, so logits may move by
 * some 2^-8 of their size, and more where layers add up. */
static void bf16_products_are_close(void **state)
{
    const struct atom_runtime_options opt = {.threads = 2, .cpu = "avx512bf16"};
    struct logits want, got;
    int vocab = atom_model_info(models[0])->vocab;
    double off = 0, size = 0;
    (void)state;
    if (atom_runtime_init(&opt, &err) == ATOM_ERR_UNSUPPORTED)
        skip_because("this processor has no AVX-512 BF16");
    assert_string_equal(atom_runtime_cpu(), "avx512bf16");
    make_logits(&want, models[0]);
    make_logits(&got, models[0]);
    alone(models[0], FEW, &got);
    use(NULL, 2);
    alone(models[0], FEW, &want);
    for (int s = 0; s < N_SEQS; s++)
        for (int i = 0; i < vocab; i++) {
            off = fmax(off, fabs((double)(got.of[s][i] - want.of[s][i])));
            size = fmax(size, fabs((double)want.of[s][i]));
        }
    assert_true(off > 0);
    assert_true(off < 0x1p-5 * size);
    drop_logits(&want);
    drop_logits(&got);
}

static void chunks_and_company(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct logits want, got;
        make_logits(&want, models[i]);
        make_logits(&got, models[i]);
        alone(models[i], LONG, &want);
        struct atom_session *s = session(models[i], N_SEQS, 400, MAX_TOK);
        int ids[N_SEQS];
        for (int j = 0; j < N_SEQS; j++)
            ids[j] = add(s);
        while (atom_session_length(s, ids[0]) < LONG) {
            int n[N_SEQS];
            for (int j = 0; j < N_SEQS; j++) {
                int left = lengths[j] - atom_session_length(s, ids[j]), want_n = between(0, 2) ? between(0, 60) : 1;
                n[j] = left < want_n ? left : want_n;
            }
            if (n[0] + n[1] + n[2])
                advance(s, models[i], ids, n, &got);
        }
        same_logits(models[i], &want, &got, LONG, model_names[i]);
        atom_session_free(s);
        drop_logits(&want);
        drop_logits(&got);
    }
}

/* Pages that other sequences left, in any order, and of any place in the pool. */
static void pages_are_used_again(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct logits want, got;
        make_logits(&want, models[i]);
        make_logits(&got, models[i]);
        alone(models[i], 40, &want);
        struct atom_session *s = session(models[i], 4, 192, MAX_TOK);
        int other[2] = {add(s), add(s)};
        for (int round = 0; round < 4; round++) {
            int32_t junk[50];
            for (int t = 0; t < 50; t++)
                junk[t] = between(3, 4000);
            struct atom_step_seq step[2] = {{.sequence = other[0], .tokens = junk, .n_tokens = between(1, 50)},
                                            {.sequence = other[1], .tokens = junk, .n_tokens = between(1, 50)}};
            assert_ok(atom_session_step(s, step, 2, &err), &err);
            int k = round % 2;
            atom_session_remove(s, other[k]);
            int ids[N_SEQS] = {0}, n[N_SEQS] = {0};
            ids[1] = add(s);
            n[1] = lengths[1];
            advance(s, models[i], ids, n, &got);
            assert_memory_equal(want.of[1], got.of[1], (lengths[1] / EVERY + 1) * 4096 * sizeof(float));
            atom_session_remove(s, ids[1]);
            other[k] = add(s);
        }
        atom_session_free(s);
        drop_logits(&want);
        drop_logits(&got);
    }
}

/* ---- refusals
 * -------------------------------------------------------------------------------------------------------- */

static void refused(struct atom_session *s, struct atom_step_seq *seqs, int n, enum atom_status code, const char *words)
{
    struct atom_error why = {0};
    assert_fails(atom_session_step(s, seqs, n, &why), &why, code, words);
}

static void refusals_change_nothing(void **state)
{
    struct atom_model *m = models[1];
    struct logits want, got;
    int32_t tokens[80];
    (void)state;
    make_logits(&want, m);
    make_logits(&got, m);
    alone(m, 40, &want);
    struct atom_session *s = session(m, 2, 64, 70);
    int a = add(s), b = add(s), none;
    struct atom_error why = {0};
    assert_fails(atom_session_add(s, &none, &why), &why, ATOM_ERR_CAPACITY, "all 2 sequences");
    for (int t = 0; t < 80; t++)
        tokens[t] = 5 + t;
    const int ids[N_SEQS] = {0, a, 0}, first[N_SEQS] = {0, 20, 0}, rest[N_SEQS] = {0, 17, 0};
    advance(s, m, ids, first, &got);
    struct atom_step_seq one = {.sequence = a, .tokens = tokens, .n_tokens = 1}, twice[2] = {one, one}, q;
    refused(s, twice, 2, ATOM_ERR_INVALID, "stands twice");
    refused(s, &one, 0, ATOM_ERR_INVALID, "1 to 2 sequences");
    refused(s, twice, 3, ATOM_ERR_INVALID, "not 3");
    q = one, q.sequence = 7;
    refused(s, &q, 1, ATOM_ERR_INVALID, "sequence 7 is not open");
    q = one, q.sequence = -1;
    refused(s, &q, 1, ATOM_ERR_INVALID, "sequence -1 is not open");
    q = one, q.n_tokens = 0;
    refused(s, &q, 1, ATOM_ERR_INVALID, "1 to 70 tokens");
    q = one, q.n_tokens = 71;
    refused(s, &q, 1, ATOM_ERR_INVALID, "1 to 70 tokens");
    q = one, q.n_tokens = 45;
    refused(s, &q, 1, ATOM_ERR_CAPACITY, "of length 20 cannot take 45");
    struct atom_step_seq full[2] = {{.sequence = a, .tokens = tokens, .n_tokens = 20},
                                    {.sequence = b, .tokens = tokens, .n_tokens = 50}};
    refused(s, full, 2, ATOM_ERR_CAPACITY, "pages of the KV cache");
    for (int i = 0; i < 2; i++) {
        int32_t bad[3] = {5, i ? 4096 : -1, 5};
        struct atom_step_seq mixed[2] = {{.sequence = b, .tokens = tokens, .n_tokens = 3},
                                         {.sequence = a, .tokens = bad, .n_tokens = 3}};
        refused(s, mixed, 2, ATOM_ERR_INVALID, i ? "token 4096" : "token -1");
    }
    assert_int_equal(atom_session_length(s, a), 20);
    assert_int_equal(atom_session_length(s, b), 0);
    static float logits[4096];
    const int rows[] = {20, -1};
    for (int i = 0; i < 2; i++) {
        memset(&why, 0, sizeof why);
        assert_fails(atom_session_logits(s, &rows[i], 1, logits, &why), &why, ATOM_ERR_INVALID, "is not among the 20");
    }
    memset(&why, 0, sizeof why);
    assert_fails(atom_session_logits(s, rows, 0, logits, &why), &why, ATOM_ERR_INVALID, "logits of 0 rows");
    advance(s, m, ids, rest, &got);
    assert_memory_equal(want.of[1], got.of[1], (37 / EVERY + 1) * 4096 * sizeof(float));
    atom_session_remove(s, b); /* and every page can still be had */
    b = add(s);
    struct atom_step_seq fill[2] = {{.sequence = a, .tokens = tokens, .n_tokens = 11},
                                    {.sequence = b, .tokens = tokens, .n_tokens = 32}};
    assert_ok(atom_session_step(s, fill, 2, &err), &err);
    one.sequence = b;
    refused(s, &one, 1, ATOM_ERR_CAPACITY, "0 are free");
    atom_session_free(s);
    drop_logits(&want);
    drop_logits(&got);
}

static void options_out_of_range(void **state)
{
    static const struct atom_session_options bad[] = {{-1, 0, 0},      {0, -1, 0},      {0, 0, -1},
                                                      {0, 1 << 30, 0}, {1 << 21, 0, 0}, {0, 0, 1 << 21}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct atom_session *s = NULL;
        memset(&err, 0, sizeof err);
        assert_fails(atom_session_create(models[0], &bad[i], &s, &err), &err, ATOM_ERR_INVALID, "out of range");
        assert_null(s);
    }
    memset(&err, 0, sizeof err);
    const struct atom_runtime_options wrong[] = {{.cpu = "sse9"}, {.threads = -1}};
    assert_fails(atom_runtime_init(&wrong[0], &err), &err, ATOM_ERR_INVALID, "unknown tier 'sse9'");
    memset(&err, 0, sizeof err);
    assert_fails(atom_runtime_init(&wrong[1], &err), &err, ATOM_ERR_INVALID, "threads is -1");
}

/* ---- numbers that are not finite
 * -------------------------------------------------------------------------------------- */

static const struct llama small = {.hidden = 32,
                                   .intermediate = 40,
                                   .layers = 3,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 16,
                                   .dtype = ATOM_F32,
                                   .marker = true};
static int case_now;

/* Where one layer overflows for the marker's tokens alone. Channel 0 reaches a linear by its first column; what follows
 * a nonlinearity is reached through a row that reads channel 0 alone. */
static const struct {
    const char *weight, *row_of, *where;
} cases[] = {
    {"model.layers.1.self_attn.k_proj.weight", NULL, "layer 1, the KV cache"},
    {"model.layers.2.self_attn.v_proj.weight", NULL, "layer 2, the KV cache"},
    {"model.layers.1.self_attn.q_proj.weight", NULL, "layer 1, o_in"},
    {"model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.v_proj.weight", "layer 0, mlp_in"},
    {"model.layers.1.mlp.up_proj.weight", NULL, "layer 1, down_in"},
    {"model.layers.1.mlp.gate_proj.weight", NULL, "layer 1, down_in"},
    {"model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.up_proj.weight", "layer 2, attn_in"},
    {"model.layers.2.mlp.down_proj.weight", "model.layers.2.mlp.up_proj.weight", "layer 2, its output"},
    {"model.embed_tokens.weight", NULL, "layer 0, attn_in"},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static void overflow(const char *name, float *w, int rows, int cols)
{
    const char *row_of = cases[case_now].row_of;
    bool embedding = strstr(name, "embed") != NULL;
    if (row_of && strcmp(name, row_of) == 0)
        for (int c = 0; c < cols; c++)
            w[c] = c == 0 ? 100.0f : 0.0f; /* row 0 */
    if (strcmp(name, cases[case_now].weight))
        return;
    for (int r = row_of ? 1 : 0; r < rows; r++)
        if (!embedding || r == LLAMA_MARKER)
            w[(size_t)r * (size_t)cols] = 3e38f;
}

static struct atom_model *small_model(const struct llama *like, const char *name)
{
    struct atom_model *m;
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/%s", home, name);
    assert_int_equal(mkdir(dir, 0777), 0);
    put_llama(dir, like);
    assert_ok(atom_model_open(dir, &m, &err), &err);
    return m;
}

/* Three sequences, the middle one with the marker in it: it alone ends, whether by prompt or by single token. */
static void one_of_three_ends(struct atom_model *m, const char *where)
{
    static float want[2][LLAMA_VOCAB], got[LLAMA_VOCAB];
    struct atom_session *s = session(m, 3, 300, 64);
    const int32_t tokens[8] = {1, 500, 77 + 1, 9, 10, 11, 12, 13},
                  marked[8] = {1, 500, 9, LLAMA_MARKER, 10, 11, 12, 13};
    for (int round = 0; round < 3; round++) { /* 0: without the marker */
        int ids[3] = {add(s), add(s), add(s)};
        const int32_t *middle = round ? marked : tokens;
        int n = round == 2 ? 4 : 8;
        struct atom_step_seq prompts[3] = {{.sequence = ids[0], .tokens = tokens, .n_tokens = 7},
                                           {.sequence = ids[1], .tokens = middle, .n_tokens = n - (round == 2)},
                                           {.sequence = ids[2], .tokens = tokens + 1, .n_tokens = 3}};
        struct atom_step_seq singles[3] = {{.sequence = ids[0], .tokens = tokens + 7, .n_tokens = 1},
                                           {.sequence = ids[1], .tokens = middle + 3, .n_tokens = 1},
                                           {.sequence = ids[2], .tokens = tokens + 4, .n_tokens = 1}};
        struct atom_error why = {0};
        for (int part = 0; part < 2; part++) {
            struct atom_step_seq *seqs = part ? singles : prompts;
            bool bad = round == 1 + part, over = round == 1 && part == 1;
            if (over)
                seqs[1] = seqs[2]; /* it has ended */
            enum atom_status st = atom_session_step(s, seqs, over ? 2 : 3, &why);
            if (!bad) {
                assert_ok(st, &why);
            } else {
                assert_fails(st, &why, ATOM_ERR_NUMERIC, where);
                assert_non_null(strstr(why.message, "sequence 1 "));
                assert_int_equal(seqs[1].status, ATOM_ERR_NUMERIC);
                memset(&why, 0, sizeof why);
                struct atom_error ended = {0};
                struct atom_step_seq again = {.sequence = ids[1], .tokens = tokens, .n_tokens = 1};
                assert_fails(atom_session_step(s, &again, 1, &ended), &ended, ATOM_ERR_INVALID, "has ended");
                assert_int_equal(atom_session_length(s, ids[1]), round == 2 ? 3 : 0);
            }
            assert_int_equal(seqs[0].status, ATOM_OK);
            if (!over)
                assert_int_equal(seqs[2].status, ATOM_OK);
            assert_int_equal(atom_session_length(s, ids[0]), part ? 8 : 7);
            assert_int_equal(atom_session_length(s, ids[2]), part ? 4 : 3);
        }
        int row = 0;
        assert_ok(atom_session_logits(s, &row, 1, round ? got : want[0], &err), &err);
        if (round)
            assert_memory_equal(want[0], got, sizeof got);
        for (int i = 0; i < 3; i++)
            atom_session_remove(s, ids[i]);
    }
    atom_session_free(s);
}

static void overflows_end_one_sequence(void **state)
{
    (void)state;
    for (case_now = 0; case_now < N_CASES; case_now++) {
        char name[32];
        struct llama like = small;
        like.edit = overflow;
        snprintf(name, sizeof name, "overflow-%d", case_now);
        struct atom_model *m = small_model(&like, name);
        one_of_three_ends(m, cases[case_now].where);
        atom_model_close(m);
    }
}

/* An embedding that only fits float32 in a model of integers. */
static void overflows_of_integers(void **state)
{
    (void)state;
    char dir[1024];
    case_now = N_CASES - 1;
    struct llama like = small;
    like.edit = overflow;
    atom_model_close(small_model(&like, "wide"));
    snprintf(dir, sizeof dir, "%s/wide", home);
    struct atom_model *m = quantized(dir, "paper", 16, "wide-paper");
    one_of_three_ends(m, "layer 0, attn_in");
    atom_model_close(m);
}

static void head_row_overflows(const char *name, float *w, int rows, int cols)
{
    (void)rows;
    if (strcmp(name, "lm_head.weight") == 0)
        w[5 * cols] = 3e38f;
}

static void last_norm_overflows(const char *name, float *w, int rows, int cols)
{
    (void)rows, (void)cols;
    if (strcmp(name, "model.norm.weight") == 0)
        w[0] = 3e38f;
}

/* Of the marker's token alone, which then has no logits. */
static void expect_no_logits(struct atom_model *m)
{
    static float logits[2 * LLAMA_VOCAB];
    struct atom_session *s = session(m, 1, 16, 16);
    const int32_t tokens[2] = {3, LLAMA_MARKER};
    const int rows[2] = {0, 1};
    struct atom_step_seq step = {.sequence = add(s), .tokens = tokens, .n_tokens = 2};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, rows, 1, logits, &err), &err);
    assert_fails(atom_session_logits(s, rows, 2, logits, &err), &err, ATOM_ERR_NUMERIC, "logits of row 1");
    memset(&err, 0, sizeof err);
    assert_ok(atom_session_logits(s, rows, 1, logits, &err), &err);
    atom_session_free(s);
    atom_model_close(m);
}

static void logits_that_overflow(void **state)
{
    (void)state;
    struct llama like = small;
    like.edit = head_row_overflows;
    expect_no_logits(small_model(&like, "head"));
}

/* Zeros would be the integers of such a norm. */
static void inputs_of_heads_that_overflow(void **state)
{
    (void)state;
    char dir[1024];
    struct llama like = small;
    like.edit = last_norm_overflows;
    expect_no_logits(small_model(&like, "norm"));
    snprintf(dir, sizeof dir, "%s/norm", home);
    expect_no_logits(quantized(dir, "default", 16, "norm-16"));
    expect_no_logits(quantized(dir, "default", 8, "norm-8"));
}

static void load_is_refused(const char *from, const char *tensor, size_t element, float value)
{
    struct atom_model *m = NULL;
    struct atom_error why = {0};
    char *dir = make_dir();
    put_patched(from, dir, tensor, element, value);
    assert_fails(atom_model_open(dir, &m, &why), &why, ATOM_ERR_NUMERIC, tensor);
    assert_null(m);
    char at[64];
    snprintf(at, sizeof at, "element %zu", element);
    assert_non_null(strstr(why.message, at));
    remove_dir(dir);
}

static void bad_weights_are_refused_by_name(void **state)
{
    static const char *const of_floats[] = {"model.embed_tokens.weight",
                                            "model.norm.weight",
                                            "lm_head.weight",
                                            "model.layers.0.input_layernorm.weight",
                                            "model.layers.2.post_attention_layernorm.weight",
                                            "model.layers.0.self_attn.q_proj.weight",
                                            "model.layers.1.self_attn.v_proj.weight",
                                            "model.layers.2.self_attn.o_proj.weight",
                                            "model.layers.0.mlp.gate_proj.weight",
                                            "model.layers.2.mlp.down_proj.weight",
                                            "model.layers.1.self_attn.k_proj.bias",
                                            "model.layers.1.mlp.up_proj.bias"};
    static const char *const of_integers[] = {"lm_head.scales", "model.layers.1.mlp.up_proj.scales",
                                              "model.layers.0.self_attn.o_proj.outlier_scales", "model.norm.weight"};
    static const float values[] = {NAN, INFINITY, -INFINITY};
    static const enum atom_dtype dtypes[] = {ATOM_F32, ATOM_F16, ATOM_BF16};
    char dir[1024], calib[1024], out[1024];
    (void)state;
    for (int i = 0; i < 3; i++) {
        char name[32];
        struct llama like = small;
        like.attention_bias = like.mlp_bias = true;
        like.dtype = dtypes[i];
        snprintf(name, sizeof name, "fine-%d", i);
        atom_model_close(small_model(&like, name));
        snprintf(dir, sizeof dir, "%s/%s", home, name);
        for (size_t j = (size_t)i; j < sizeof of_floats / sizeof of_floats[0]; j += i ? 3 : 1)
            load_is_refused(dir, of_floats[j], j * 2 % 13, values[j % 3]);
        load_is_refused(dir, "model.embed_tokens.weight", LLAMA_VOCAB * 32 - 1, values[i]);
    }
    snprintf(calib, sizeof calib, "%s/calib.txt", home);
    snprintf(out, sizeof out, "%s/fine-q", home);
    struct atom_quantize_options o = quick_options(dir, out, calib);
    o.scheme.lm_head_bits = 8;
    assert_ok(atom_quantize(&o, &err), &err);
    for (size_t j = 0; j < sizeof of_integers / sizeof of_integers[0]; j++)
        load_is_refused(out, of_integers[j], 3, values[j % 3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(tiers_and_threads, fresh),
        cmocka_unit_test_setup(bf16_products_are_close, fresh),
        cmocka_unit_test_setup(chunks_and_company, fresh),
        cmocka_unit_test_setup(pages_are_used_again, fresh),
        cmocka_unit_test_setup(refusals_change_nothing, fresh),
        cmocka_unit_test_setup(options_out_of_range, fresh),
        cmocka_unit_test_setup(overflows_end_one_sequence, fresh),
        cmocka_unit_test_setup(overflows_of_integers, fresh),
        cmocka_unit_test_setup(logits_that_overflow, fresh),
        cmocka_unit_test_setup(inputs_of_heads_that_overflow, fresh),
        cmocka_unit_test_setup(bad_weights_are_refused_by_name, fresh),
    };
    return cmocka_run_group_tests_name("session", tests, open_models, close_models);
}
