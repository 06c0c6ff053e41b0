/* SPDX-License-Identifier: Apache-2.0 */
/* Float models against reference.json: token ids exact, log-probabilities within 2e-3, greedy text the same.
 *
 * What made the references had cast the whole model to bfloat16 before it went back to float32 arithmetic, RoPE's
 * inverse frequencies included. That alone moves log-probabilities by up to 8e-3, so the first comparison rounds the
 * frequencies likewise; the second, with the exact ones that everybody else gets, has a wider bound. */
#include "helpers.h"

#include "model/model.h"

#include <jansson.h>
#include <math.h>

enum { MAX_IDS = 512 };
static const double tolerance = 2e-3, tolerance_exact = 2e-2;

struct world {
    struct atom_model *model;
    struct atom_session *session;
    const struct atom_model_info *info;
    float *logits;
    double tolerance;
};

static double logprob(const struct world *w, const float *row, int id)
{
    double max = row[0], sum = 0;
    for (int i = 1; i < w->info->vocab; i++)
        max = row[i] > max ? row[i] : max;
    for (int i = 0; i < w->info->vocab; i++)
        sum += exp(row[i] - max);
    return row[id] - max - log(sum);
}

static int read_ids(const json_t *a, int32_t *ids)
{
    int n = (int)json_array_size(a);
    assert_in_range(n, 1, MAX_IDS);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    return n;
}

static void check_tokenizer(const struct world *w, const json_t *c, const int32_t *ids, int n)
{
    struct atom_error err = {0};
    struct atom_ids got;
    const char *text = json_string_value(json_object_get(c, "prompt"));
    const struct atom_tokenizer *tok = atom_model_tokenizer(w->model);
    assert_int_equal(atom_tokenizer_encode(tok, text, strlen(text), ATOM_ENCODE_POST, &got, &err), ATOM_OK);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.ids, ids, (size_t)n * sizeof *ids);
    atom_ids_free(&got);
}

static void check_case(struct world *w, const json_t *c)
{
    int32_t ids[MAX_IDS], greedy[MAX_IDS];
    int rows[MAX_IDS], seq, n = read_ids(json_object_get(c, "ids"), ids);
    int n_greedy = read_ids(json_object_get(c, "greedy32"), greedy);
    struct atom_error err = {0};
    check_tokenizer(w, c, ids, n);
    assert_int_equal(atom_session_add(w->session, &seq, &err), ATOM_OK);
    struct atom_step_seq step = {.sequence = seq, .tokens = ids, .n_tokens = n};
    assert_int_equal(atom_session_step(w->session, &step, 1, &err), ATOM_OK);
    for (int i = 0; i < n; i++)
        rows[i] = i;
    assert_int_equal(atom_session_logits(w->session, rows, n, w->logits, &err), ATOM_OK);
    const json_t *want = json_object_get(c, "token_logprobs");
    for (int i = 0; i + 1 < n; i++) {
        double got = logprob(w, w->logits + (size_t)i * (size_t)w->info->vocab, ids[i + 1]);
        double expected = json_real_value(json_array_get(want, (size_t)i));
        if (!(fabs(got - expected) <= w->tolerance))
            fail_msg("token %d: log-probability %f, reference %f", i, got, expected);
    }
    const float *last = w->logits + (size_t)(n - 1) * (size_t)w->info->vocab;
    const struct atom_sampling greedily = {0};
    for (int i = 0; i < n_greedy; i++) {
        int32_t next = atom_sample(&greedily, (uint64_t)i, last, w->info->vocab, NULL);
        assert_int_equal(next, greedy[i]);
        step = (struct atom_step_seq){.sequence = seq, .tokens = &next, .n_tokens = 1};
        assert_int_equal(atom_session_step(w->session, &step, 1, &err), ATOM_OK);
        assert_int_equal(atom_session_logits(w->session, rows, 1, w->logits, &err), ATOM_OK);
        last = w->logits;
    }
    atom_session_remove(w->session, seq);
}

/* Sessions take their tables of angles from the model when they are created. */
static void check_cases(struct world *w, const json_t *cases, bool rounded)
{
    struct atom_error err = {0};
    size_t i;
    json_t *c;
    w->model->cfg.rope.bf16_frequencies = rounded;
    w->tolerance = rounded ? tolerance : tolerance_exact;
    assert_ok(atom_session_create(w->model, NULL, &w->session, &err), &err);
    json_array_foreach(cases, i, c) check_case(w, c);
    atom_session_free(w->session);
}

static void check_model(const char *dir)
{
    struct world w = {0};
    struct atom_error err = {0};
    assert_ok(atom_model_open(dir, &w.model, &err), &err);
    w.info = atom_model_info(w.model);
    w.logits = malloc((size_t)MAX_IDS * (size_t)w.info->vocab * sizeof *w.logits);
    assert_non_null(w.logits);
    json_t *ref = json_load_file(in_dir(dir, "reference.json"), 0, NULL), *cases = json_object_get(ref, "cases");
    assert_true(json_array_size(cases) > 0);
    check_cases(&w, cases, true);
    check_cases(&w, cases, false);
    json_decref(ref);
    free(w.logits);
    atom_model_close(w.model);
}

static void tiny_matches_reference(void **state)
{
    (void)state;
    check_model("models/tiny");
}

static void mid_matches_reference(void **state)
{
    char dir[4096];
    (void)state;
    if (!shared_model("mid-28m", dir, sizeof dir))
        skip_because("models/mid-28m.tar.xz is not in the shared data");
    check_model(dir);
}

int main(void)
{
    struct atom_error err = {0};
    if (atom_runtime_init(NULL, &err))
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiny_matches_reference), cmocka_unit_test(mid_matches_reference)};
    int rc = cmocka_run_group_tests_name("reference", tests, NULL, NULL);
    atom_runtime_fini();
    return rc;
}
