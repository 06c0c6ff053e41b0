/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple choice: what is an item, how its rows are cut, and scores recomputed one row at a time. */
#include "helpers.h"

#include "eval/task_rows.h"
#include "eval/task_scores.h"

#include <math.h>

static void assert_near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within))
        fail_msg("%.12g; expected %.12g within %g", got, want, within);
}

enum { MAX_ITEMS = 64, MAX_ROWS = 4 };

static struct atom_task_file file_of(const char *text)
{
    return (struct atom_task_file){{NULL, text, strlen(text)}, {0}, NULL};
}

static enum atom_status parse(const char *text, struct atom_task_items *items, struct atom_error *err)
{
    const struct atom_task_file file = file_of(text);
    return atom_task_items_parse(&file, atom_task_format(0), items, err);
}

/* ---- items ------------------------------------------------------------------------------------------------------- */

#define GOOD "{\"context\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 1}\n"

static void items_of_each_kind(void **state)
{
    struct atom_error err = {0};
    struct atom_task_items items;
    const char *text = GOOD "{\"gold\": 0, \"choices\": [\"x\", \"y\", \"z\"], \"context\": \"\", \"more\": [1]}\r\n";
    (void)state;
    assert_ok(parse(text, &items, &err), &err);
    assert_int_equal(items.kind, ATOM_TASK_CHOICES);
    assert_int_equal(items.n, 2);
    assert_int_equal(items.at[0].n, 2);
    assert_int_equal(items.at[0].gold, 1);
    assert_null(items.at[0].subtask);
    assert_string_equal(atom_task_context(&items.at[0], 1), "a");
    assert_string_equal(atom_task_continuation(&items.at[0], 1), " c");
    assert_int_equal(items.at[1].line, 2);
    assert_string_equal(atom_task_continuation(&items.at[1], 2), "z");
    atom_task_items_fini(&items);

    /* The last line may do without its end. */
    text = "{\"task\": \"t\", \"contexts\": [\"a\", \"b\"], \"continuation\": \" c\", \"gold\": 0}";
    assert_ok(parse(text, &items, &err), &err);
    assert_int_equal(items.kind, ATOM_TASK_CONTEXTS);
    assert_string_equal(atom_task_context(&items.at[0], 1), "b");
    assert_string_equal(atom_task_continuation(&items.at[0], 1), " c");
    assert_string_equal(items.at[0].subtask, "t");
    atom_task_items_fini(&items);

    text = "{\"context\": \"a\", \"continuation\": \" b\"}\n";
    assert_ok(parse(text, &items, &err), &err);
    assert_int_equal(items.kind, ATOM_TASK_CONTINUATION);
    assert_int_equal(items.at[0].n, 1);
    assert_int_equal(items.at[0].gold, -1);
    atom_task_items_fini(&items);
}

static void lines_that_are_no_items(void **state)
{
    static const struct {
        const char *text, *line, *words;
    } cases[] = {
        {"", "line 1:", "there is none"},
        {"\n", "line 1:", "not valid JSON"},
        {GOOD "\n" GOOD, "line 2:", "not valid JSON"},
        {GOOD "{\"context\": \"a\"", "line 2:", "not valid JSON"},
        {GOOD "[]\n", "line 2:", "not a JSON object"},
        {"{\"context\": \"\xff\", \"continuation\": \"b\"}", "line 1:", "unable to decode byte 0xff"},
        {"{\"choices\": [\"b\", \"c\"], \"gold\": 1}", "line 1:", "neither 'context' nor 'contexts'"},
        {"{\"context\": \"a\", \"gold\": 1}", "line 1:", "neither 'choices' nor 'continuation'"},
        {"{\"context\": \"a\", \"contexts\": [\"a\", \"b\"], \"continuation\": \"b\"}", "line 1:", "both 'context'"},
        {"{\"context\": \"a\", \"choices\": [\"a\", \"b\"], \"continuation\": \"b\"}", "line 1:", "both 'choices'"},
        {"{\"contexts\": [\"a\", \"b\"], \"choices\": [\"a\", \"b\"], \"gold\": 0}", "line 1:", "without a 'contin"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"]}", "line 1:", "'gold' is missing"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 2}", "line 1:", "'gold' is 2"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": -1}", "line 1:", "'gold' is -1"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1.0}", "line 1:", "whole number from 0 to 1"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": true}", "line 1:", "'gold' is true"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 99999999999}", "line 1:", "'gold' is 9999"},
        {"{\"context\": \"a\", \"continuation\": \"b\", \"gold\": 0}", "line 1:", "'gold' without"},
        {"{\"context\": \"a\", \"choices\": [\"b\"], \"gold\": 0}", "line 1:", "too short"},
        {"{\"context\": \"a\", \"choices\": \"b\", \"gold\": 0}", "line 1:", "expected a list"},
        {"{\"context\": \"a\", \"choices\": [\"b\", 7], \"gold\": 0}", "line 1:", "'choices' entry 1 is 7"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"\"], \"gold\": 0}", "line 1:", "'choices' entry 1 is empty"},
        {"{\"context\": \"a\", \"choices\": [\" \", \"b\"], \"gold\": 0}", "line 1:", "'choices' entry 0 is empty"},
        {"{\"context\": \"a\", \"continuation\": \"\"}", "line 1:", "'continuation' is empty"},
        {"{\"context\": 5, \"continuation\": \"b\"}", "line 1:", "'context' is 5"},
        {"{\"context\": \"a\", \"continuation\": \"b\", \"task\": 5}", "line 1:", "'task' is not a string"},
        {GOOD "{\"context\": \"a\", \"continuation\": \"b\"}\n", "line 2:", "those before have choices"},
        {GOOD "{\"task\": \"t\", " /* then as GOOD */ "\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}",
         "line 2:", "unlike line 1"},
        {"{\"context\": \"a\", \"context\": \"b\", \"continuation\": \"b\"}", "line 1:", "duplicate"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct atom_error err = {0};
        struct atom_task_items items;
        enum atom_status st = parse(cases[i].text, &items, &err);
        assert_fails(st, &err, ATOM_ERR_FORMAT, cases[i].words);
        assert_memory_equal(err.message, cases[i].line, strlen(cases[i].line));
    }
}

static void characters(void **state)
{
    (void)state;
    assert_int_equal(atom_task_characters(" abc"), 3);
    assert_int_equal(atom_task_characters("abc"), 3);
    assert_int_equal(atom_task_characters("  abc "), 5);
    assert_int_equal(atom_task_characters(" na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80"), 9);
    assert_int_equal(atom_task_characters(" "), 0);
    assert_int_equal(atom_task_characters(""), 0);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static struct atom_model *tiny(void)
{
    struct atom_error err = {0};
    struct atom_model *m;
    assert_ok(atom_model_open("models/tiny", &m, &err), &err);
    return m;
}

/* The one row of an item of the third kind, with something in front. */
static struct atom_task_row encode_after(const struct atom_model *m, const char *front, const char *context,
                                         const char *continuation)
{
    struct atom_error err = {0};
    struct atom_task_row row;
    json_t *root = json_pack("{s:s, s:s}", "context", context, "continuation", continuation);
    const struct atom_task_source item = {.n = 1, .root = root, .front = (char *)front};
    assert_ok(atom_task_rows_encode(atom_model_tokenizer(m), 1, &item, &row, &err), &err);
    json_decref(root);
    return row;
}

static struct atom_task_row encode(const struct atom_model *m, const char *context, const char *continuation)
{
    return encode_after(m, NULL, context, continuation);
}

static void rows_of_context_and_continuation(void **state)
{
    struct atom_model *m = tiny();
    struct atom_task_row plain = encode(m, "In the morning", " the king"), empty = encode(m, "", "The king");
    /* White space at the end of a context moves over, of any kind. */
    struct atom_task_row moved = encode(m, "In the morning ", "the king");
    struct atom_task_row wide = encode(m, "In the morning\xE2\x80\x83\n", "the king");
    struct atom_task_row blank = encode(m, " ", "x");
    struct atom_task_row after = encode_after(m, "In the ", "morning", " the king");
    (void)state;
    assert_int_equal(plain.ids.ids[0], 1);
    assert_int_equal(moved.ids.n, plain.ids.n);
    assert_int_equal(moved.start, plain.start);
    assert_memory_equal(moved.ids.ids, plain.ids.ids, plain.ids.n * sizeof *plain.ids.ids);
    assert_int_equal(wide.start, plain.start);
    assert_int_equal(empty.start, 1);
    assert_int_equal(empty.ids.ids[0], 1);
    assert_int_equal(blank.start, 1);
    assert_int_equal(after.start, plain.start);
    assert_int_equal(after.ids.n, plain.ids.n);
    assert_memory_equal(after.ids.ids, plain.ids.ids, plain.ids.n * sizeof *plain.ids.ids);
    struct atom_task_row *all[] = {&plain, &empty, &moved, &wide, &blank, &after};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        atom_ids_free(&all[i]->ids);
    atom_model_close(m);
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

struct heard {
    int n;
    struct {
        int line, n, gold, best, best_norm;
        bool right, right_norm;
        double ll[MAX_ROWS];
        int tokens[MAX_ROWS];
    } at[MAX_ITEMS];
};

static void hear(void *user, const struct atom_task_item *item)
{
    struct heard *h = user;
    assert_true(h->n < MAX_ITEMS && item->n <= MAX_ROWS);
    h->at[h->n].line = item->line;
    h->at[h->n].n = item->n;
    h->at[h->n].gold = item->gold;
    h->at[h->n].best = item->best;
    h->at[h->n].best_norm = item->best_norm;
    h->at[h->n].right = item->right;
    h->at[h->n].right_norm = item->right_norm;
    memcpy(h->at[h->n].ll, item->loglikelihoods, (size_t)item->n * sizeof(double));
    memcpy(h->at[h->n].tokens, item->n_tokens, (size_t)item->n * sizeof(int));
    h->n++;
}

/* One row in a session of its own, its softmax in double. */
static double loglikelihood(struct atom_model *m, const char *context, const char *continuation, bool *greedy)
{
    struct atom_error err = {0};
    struct atom_ids before, all;
    struct atom_session *s;
    char text[4096];
    int seq, vocab = atom_model_info(m)->vocab;
    const struct atom_tokenizer *tok = atom_model_tokenizer(m);
    snprintf(text, sizeof text, "%s%s", context, continuation);
    assert_ok(atom_tokenizer_encode(tok, context, strlen(context), ATOM_ENCODE_POST, &before, &err), &err);
    assert_ok(atom_tokenizer_encode(tok, text, strlen(text), ATOM_ENCODE_POST, &all, &err), &err);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    assert_non_null(logits);
    assert_ok(atom_session_create(m, NULL, &s, &err), &err);
    assert_ok(atom_session_add(s, &seq, &err), &err);
    struct atom_step_seq step = {.sequence = seq, .tokens = all.ids, .n_tokens = (int)all.n};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    double sum = 0;
    *greedy = true;
    for (int p = (int)before.n; p < (int)all.n; p++) {
        int row = p - 1, best = 0;
        double max, total = 0;
        assert_ok(atom_session_logits(s, &row, 1, logits, &err), &err);
        for (int v = 0; v < vocab; v++)
            best = logits[v] > logits[best] ? v : best;
        max = logits[best];
        for (int v = 0; v < vocab; v++)
            total += exp(logits[v] - max);
        sum += logits[all.ids[p]] - max - log(total);
        *greedy = *greedy && best == all.ids[p];
    }
    atom_session_free(s);
    free(logits);
    atom_ids_free(&before);
    atom_ids_free(&all);
    return sum;
}

static void evaluate(struct atom_model *m, const char *text, int limit, struct heard *h, struct atom_task_result *r)
{
    struct atom_error err = {0};
    struct atom_task_options opt = {.limit = limit, .on_item = hear, .item_user = h};
    const struct atom_task_file file = file_of(text);
    h->n = 0;
    assert_ok(atom_eval_task(m, &file, &opt, r, &err), &err);
}

/* Choices that share tokens with one another, and lengths that differ, so that rolling back is seen. */
static const char *const contexts[] = {"In the morning the king came out of", "", "She said",
                                       "There was once a man who had three sons, and the eldest of them was"};
static const char *const choices[][3] = {{" his house.", " his house and went away.", " the"},
                                         {"The king went home.", "The king went", "The queen."},
                                         {" that", " that she would not", " that she would go home at once"},
                                         {" called John.", " a fool.", " called John the Strong."}};

static void choices_match_one_row_at_a_time(void **state)
{
    static struct heard h;
    struct atom_model *m = tiny();
    struct atom_task_result r;
    char text[8192] = "";
    int n = (int)(sizeof contexts / sizeof contexts[0]), right = 0, right_norm = 0;
    bool greedy;
    (void)state;
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"task\": \"%s\", \"context\": \"%s\", \"choices\": [\"%s\", \"%s\", \"%s\"], \"gold\": %d}\n",
                 i % 2 ? "odd" : "even", contexts[i], choices[i][0], choices[i][1], choices[i][2], i % 3);
    evaluate(m, text, 0, &h, &r);
    assert_int_equal(h.n, n);
    for (int i = 0; i < n; i++) {
        double ll[3], norm[3];
        int best = 0, best_norm = 0;
        for (int c = 0; c < 3; c++) {
            ll[c] = loglikelihood(m, contexts[i], choices[i][c], &greedy);
            norm[c] = ll[c] / (double)(strlen(choices[i][c]) - (choices[i][c][0] == ' '));
            best = ll[c] > ll[best] ? c : best;
            best_norm = norm[c] > norm[best_norm] ? c : best_norm;
            /* logsumexp is float32: a few ulps of a sum near 16 for each token. */
            assert_near(h.at[i].ll[c], ll[c], 1e-5 * h.at[i].tokens[c]);
        }
        assert_int_equal(h.at[i].line, i + 1);
        assert_int_equal(h.at[i].best, best);
        assert_int_equal(h.at[i].best_norm, best_norm);
        assert_int_equal(h.at[i].right, best == i % 3);
        assert_int_equal(h.at[i].right_norm, best_norm == i % 3);
        right += best == i % 3;
        right_norm += best_norm == i % 3;
    }
    assert_int_equal(r.all.n, n);
    assert_near(r.all.acc, right / (double)n, 1e-12);
    assert_near(r.all.acc_norm, right_norm / (double)n, 1e-12);
    assert_true(isnan(r.all.ppl));
    assert_int_equal(r.n_subtasks, 2);
    assert_string_equal(r.subtasks[0].subtask, "even");
    assert_near(r.subtasks[0].acc, (h.at[0].right + h.at[2].right) / 2.0, 1e-12);
    assert_int_equal(r.subtasks[1].n, 2);
    atom_task_result_free(&r);
    atom_model_close(m);
}

static void contexts_match_one_row_at_a_time(void **state)
{
    static const char *const names[] = {"The king saw the old queen, and so the king", "The king saw her, and she"};
    static struct heard h;
    struct atom_model *m = tiny();
    struct atom_task_result r;
    char text[1024];
    bool greedy;
    (void)state;
    snprintf(text, sizeof text, "{\"contexts\": [\"%s\", \"%s\"], \"continuation\": \" went home.\", \"gold\": 1}\n",
             names[0], names[1]);
    evaluate(m, text, 0, &h, &r);
    for (int c = 0; c < 2; c++)
        assert_near(h.at[0].ll[c], loglikelihood(m, names[c], " went home.", &greedy), 1e-4);
    assert_int_equal(h.at[0].best, h.at[0].ll[1] > h.at[0].ll[0]);
    assert_int_equal(h.at[0].best_norm, -1);
    assert_true(isnan(r.all.acc_norm) && isnan(r.all.acc_stderr) && isnan(r.all.ppl));
    assert_int_equal(r.n_subtasks, 0);
    atom_task_result_free(&r);
    atom_model_close(m);
}

static void continuations_match_one_row_at_a_time(void **state)
{
    static const char *const ends[] = {" the house", " the", " of", " Zanzibar"};
    static struct heard h;
    struct atom_model *m = tiny();
    struct atom_task_result r;
    char text[2048] = "";
    double sum = 0;
    int right = 0;
    (void)state;
    for (int i = 0; i < 4; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"context\": \"In the morning the king came out\", \"continuation\": \"%s\"}\n", ends[i]);
    evaluate(m, text, 0, &h, &r);
    for (int i = 0; i < 4; i++) {
        bool greedy;
        double ll = loglikelihood(m, "In the morning the king came out", ends[i], &greedy);
        assert_near(h.at[i].ll[0], ll, 1e-4);
        assert_int_equal(h.at[i].right, greedy);
        right += greedy;
        sum += ll;
    }
    assert_int_equal(right, 1); /* " of" is what this model says */
    assert_near(r.all.acc, 0.25, 1e-12);
    assert_near(r.all.acc_stderr, 0.25, 1e-12); /* sqrt(0.25 * 0.75 / 3) */
    assert_true(isnan(r.all.acc_norm));
    assert_near(log(r.all.ppl), -sum / 4, 1e-4);
    atom_task_result_free(&r);
    evaluate(m, text, 2, &h, &r);
    assert_int_equal(h.n, 2);
    assert_int_equal(r.all.n, 2);
    atom_task_result_free(&r);
    atom_model_close(m);
}

/* More items than a step takes: each comes out as it does alone. */
static void batches_do_not_show(void **state)
{
    enum { ITEMS = 60 };
    static struct heard together, alone;
    static char text[ITEMS * 1024];
    struct atom_model *m = tiny();
    struct atom_task_result r;
    size_t starts[ITEMS + 1] = {0};
    (void)state;
    for (int i = 0; i < ITEMS; i++) {
        char context[600] = "";
        for (int w = 0; w < 5 + 7 * i % 60; w++)
            strcat(context, w % 3 ? " house" : " the old");
        starts[i + 1] = starts[i] + (size_t)sprintf(text + starts[i],
                                                    "{\"context\": \"%s\", \"choices\": [\" was\", \" was%s old\"%s], "
                                                    "\"gold\": 0}\n",
                                                    context, i % 2 ? " very" : "", i % 3 ? "" : ", \" is\"");
    }
    evaluate(m, text, 0, &together, &r);
    atom_task_result_free(&r);
    for (int i = 0; i < ITEMS; i += 7) {
        char saved = text[starts[i + 1]];
        text[starts[i + 1]] = 0;
        evaluate(m, text + starts[i], 0, &alone, &r);
        text[starts[i + 1]] = saved;
        assert_memory_equal(alone.at[0].ll, together.at[i].ll, (size_t)alone.at[0].n * sizeof(double));
        atom_task_result_free(&r);
    }
    atom_model_close(m);
}

static void ties_go_to_the_first(void **state)
{
    const char *text = "{\"context\": \"a\", \"choices\": [\" bb\", \" b\", \" bb\"], \"gold\": 0}\n";
    const double lls[] = {-2, -2, -2}, longer[] = {-4, -2, -4}, nan_free[] = {-3, -2, -1};
    const double *const all[] = {lls, longer, nan_free};
    const int best[] = {0, 1, 2}, best_norm[] = {0, 0, 2};
    struct atom_error err = {0};
    struct atom_task_items items;
    (void)state;
    assert_ok(parse(text, &items, &err), &err);
    for (int i = 0; i < 3; i++) {
        struct atom_task_item item = {.n = 3, .gold = 0, .loglikelihoods = all[i]};
        atom_task_judge(items.kind, &items.at[0], false, &item);
        assert_int_equal(item.best, best[i]);
        assert_int_equal(item.best_norm, best_norm[i]);
        assert_int_equal(item.right, best[i] == 0);
    }
    atom_task_items_fini(&items);
}

static void means_and_their_errors(void **state)
{
    const char *line = "{\"context\": \"a\", \"continuation\": \" b\"}\n";
    const struct atom_task_verdict v[] = {{true, false, false, -1}, {false, false, true, -2}, {true, false, false, -6}};
    struct atom_error err = {0};
    struct atom_task_items items;
    struct atom_task_result r;
    char text[256] = "";
    (void)state;
    for (int i = 0; i < 3; i++)
        strcat(text, line);
    assert_ok(parse(text, &items, &err), &err);
    assert_ok(atom_task_sum_up(&items, v, 3, &r, &err), &err);
    assert_near(r.all.acc, 2.0 / 3, 1e-12);
    assert_near(r.all.acc_stderr, 1.0 / 3, 1e-12);
    assert_int_equal(r.all.cut, 1);
    assert_near(r.all.ppl, exp(3), 1e-9);
    assert_near(r.all.ppl_stderr, exp(3) * sqrt(7.0 / 3), 1e-9); /* variance 14/2, over 3 items */
    atom_task_result_free(&r);
    atom_task_items_fini(&items);
}

/* What an earlier run told of some items, in any order. */
static bool recall(void *user, int line, int n, double *loglikelihoods, bool *right)
{
    const struct heard *h = user;
    if (line % 3 == 0)
        return false;
    assert_int_equal(h->at[line - 1].line, line);
    assert_int_equal(h->at[line - 1].n, n);
    memcpy(loglikelihoods, h->at[line - 1].ll, (size_t)n * sizeof *loglikelihoods);
    *right = h->at[line - 1].right;
    return true;
}

static void known_items_are_not_scored_again(void **state)
{
    static struct heard all, rest;
    const struct {
        const char *line;
        int n;
    } kinds[] = {{"{\"context\": \"The %.*s\", \"choices\": [\" king\", \" house was\", \" of\"], \"gold\": 1}\n", 3},
                 {"{\"context\": \"In the morning the king came out%.*s\", \"continuation\": \" of\"}\n", 1}};
    struct atom_model *m = tiny();
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct atom_error err = {0};
        struct atom_task_result whole, again;
        char text[4096] = "";
        for (int i = 0; i < 20; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), kinds[k].line, i % 7, " and so");
        const struct atom_task_file file = file_of(text);
        struct atom_task_options opt = {.on_item = hear, .item_user = &rest, .recall = recall, .recall_user = &all};
        evaluate(m, text, 0, &all, &whole);
        rest.n = 0;
        assert_ok(atom_eval_task(m, &file, &opt, &again, &err), &err);
        assert_memory_equal(&again.all, &whole.all, sizeof whole.all);
        assert_int_equal(rest.n, 6);
        for (int i = 0; i < rest.n; i++)
            assert_memory_equal(&rest.at[i], &all.at[3 * i + 2], sizeof rest.at[i]);
        atom_task_result_free(&whole);
        atom_task_result_free(&again);
    }
    atom_model_close(m);
}

static bool stop(void *user, const struct atom_progress *p)
{
    (void)user;
    (void)p;
    return false;
}

/* Each of n items, told together, as it is told alone. starts [n + 1] are offsets of lines; twins: rows 0 and 2 are the
 * same. */
static void assert_same_alone(char *text, const size_t *starts, int n, bool twins)
{
    static struct heard together, alone;
    struct atom_model *m = tiny();
    struct atom_task_result r;
    evaluate(m, text, 0, &together, &r);
    atom_task_result_free(&r);
    assert_int_equal(together.n, n);
    for (int i = 0; i < n; i++) {
        char saved = text[starts[i + 1]];
        text[starts[i + 1]] = 0;
        evaluate(m, text + starts[i], 0, &alone, &r);
        text[starts[i + 1]] = saved;
        assert_memory_equal(alone.at[0].ll, together.at[i].ll, (size_t)alone.at[0].n * sizeof(double));
        assert_int_equal(alone.at[0].right, together.at[i].right);
        if (twins)
            assert_memory_equal(&alone.at[0].ll[0], &alone.at[0].ll[2], sizeof(double));
        atom_task_result_free(&r);
    }
    atom_model_close(m);
}

/* Fronts that items share, rows that differ in their last token alone or in more, and batches that take over sequences.
 */
static void fronts_do_not_show(void **state)
{
    enum { ITEMS = 24 };
    static char text[ITEMS * 2048], front[1500];
    size_t starts[ITEMS + 1] = {0};
    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(front, i % 2 ? "and the old queen saw it. " : "The king went home ");
    for (int i = 0; i < ITEMS; i++)
        starts[i + 1] =
            starts[i] + (size_t)sprintf(text + starts[i],
                                        "{\"context\": \"%.*s Then%s he\", \"choices\": [\" was\", \" is\", "
                                        "\" was old\", \" had %s\"], \"gold\": 0}\n",
                                        700 + i % 5, i % 4 == 3 ? front + 100 : front, i % 3 ? " so" : "",
                                        i % 2 ? "old" : "there in the morning");
    assert_same_alone(text, starts, ITEMS, false);
}

/* The same where the rows of an item differ in their contexts, each other's and the next item's in turn. */
static void contexts_do_not_show(void **state)
{
    enum { ITEMS = 24 };
    static const char *const names[] = {"king", "queen", "old man", "house"};
    static char text[ITEMS * 4096], front[1500];
    size_t starts[ITEMS + 1] = {0};
    (void)state;
    for (int i = 0; i < 30; i++)
        strcat(front, i % 2 ? "and saw it. " : "There she went home ");
    for (int i = 0; i < ITEMS; i++)
        starts[i + 1] =
            starts[i] + (size_t)sprintf(text + starts[i],
                                        "{\"contexts\": [\"The %s %s the\", \"The %s %s the\", \"The %s %s "
                                        "the\"], \"continuation\": \" end of it\", \"gold\": 1}\n",
                                        names[i % 4], front, names[(i + 1) % 4], front, names[i % 4], front);
    assert_same_alone(text, starts, ITEMS, true);
}

/* The last tokens of a row that is too long, as many as there are positions, score as the whole of a text that begins
 * with them. */
static void long_items_are_cut(void **state)
{
    static struct heard h;
    static char text[1 << 16];
    struct atom_model *m = tiny();
    struct atom_error err = {0};
    struct atom_task_result r;
    const struct atom_task_options opt = {.cut = true, .on_item = hear, .item_user = &h};
    const int most = atom_model_info(m)->max_position;
    (void)state;
    strcpy(text, GOOD "{\"context\": \"");
    for (int i = 0; i < 2 * most; i++)
        strcat(text, " king");
    strcat(text, "\", \"choices\": [\" king\", \" king king\"], \"gold\": 0}\n");
    const struct atom_task_file file = file_of(text);
    h.n = 0;
    assert_ok(atom_eval_task(m, &file, &opt, &r, &err), &err);
    assert_int_equal(r.all.cut, 1);
    assert_int_equal(h.n, 2);
    assert_int_equal(h.at[1].tokens[1], 2);
    atom_task_result_free(&r);

    /* Without a BOS in front: by hand. */
    struct atom_session *s;
    int seq, rows[2] = {most - 2, most - 1}, vocab = atom_model_info(m)->vocab;
    int32_t *ids = malloc((size_t)most * sizeof *ids);
    float *logits = malloc(2 * (size_t)vocab * sizeof *logits);
    assert_non_null(ids);
    assert_non_null(logits);
    struct atom_ids king;
    assert_ok(atom_tokenizer_encode(atom_model_tokenizer(m), "king king", 9, 0, &king, &err), &err);
    assert_int_equal(king.n, 2);
    for (int i = 0; i < most; i++)
        ids[i] = king.ids[1];
    const struct atom_session_options so = {1, most, most};
    assert_ok(atom_session_create(m, &so, &s, &err), &err);
    assert_ok(atom_session_add(s, &seq, &err), &err);
    struct atom_step_seq step = {.sequence = seq, .tokens = ids, .n_tokens = most};
    assert_ok(atom_session_step(s, &step, 1, &err), &err);
    assert_ok(atom_session_logits(s, rows, 2, logits, &err), &err);
    double want = 0;
    for (int i = 0; i < 2; i++) {
        double total = 0;
        for (int v = 0; v < vocab; v++)
            total += exp((double)logits[i * vocab + v]);
        want += (double)logits[i * vocab + ids[0]] - log(total);
        if (i == 0)
            continue;
        assert_near(h.at[1].ll[0], (double)logits[vocab + ids[0]] - log(total), 1e-4);
    }
    assert_near(h.at[1].ll[1], want, 1e-4);
    atom_session_free(s);
    atom_ids_free(&king);
    free(ids);
    free(logits);
    atom_model_close(m);
}

static void what_stops_a_task(void **state)
{
    struct atom_error err = {0};
    struct atom_model *m = tiny();
    struct atom_task_result r;
    static char text[1 << 16];
    struct atom_task_options opt = {.progress = stop};
    struct atom_task_file file = file_of(GOOD);
    (void)state;
    assert_fails(atom_eval_task(m, &file, &opt, &r, &err), &err, ATOM_ERR_CANCELLED, "after 1 items");
    strcpy(text, GOOD "{\"context\": \"");
    for (int i = 0; i < 3000; i++)
        strcat(text, "king of ");
    strcat(text, "\", \"choices\": [\" a\", \" b\"], \"gold\": 0}\n");
    err = (struct atom_error){0};
    file = file_of(text);
    file.records.name = "long.jsonl";
    assert_fails(atom_eval_task(m, &file, NULL, &r, &err), &err, ATOM_ERR_CAPACITY, "long.jsonl: line 2: ");
    /* Not reached, so not refused; but still read. */
    opt = (struct atom_task_options){.limit = 1};
    err = (struct atom_error){0};
    assert_ok(atom_eval_task(m, &file, &opt, &r, &err), &err);
    atom_task_result_free(&r);
    strcat(text, "nonsense\n");
    file = file_of(text);
    assert_fails(atom_eval_task(m, &file, &opt, &r, &err), &err, ATOM_ERR_FORMAT, "line 3: ");
    atom_model_close(m);
}

int main(void)
{
    struct atom_error err = {0};
    if (atom_runtime_init(NULL, &err))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_each_kind),
        cmocka_unit_test(lines_that_are_no_items),
        cmocka_unit_test(characters),
        cmocka_unit_test(rows_of_context_and_continuation),
        cmocka_unit_test(choices_match_one_row_at_a_time),
        cmocka_unit_test(contexts_match_one_row_at_a_time),
        cmocka_unit_test(continuations_match_one_row_at_a_time),
        cmocka_unit_test(batches_do_not_show),
        cmocka_unit_test(ties_go_to_the_first),
        cmocka_unit_test(means_and_their_errors),
        cmocka_unit_test(known_items_are_not_scored_again),
        cmocka_unit_test(fronts_do_not_show),
        cmocka_unit_test(contexts_do_not_show),
        cmocka_unit_test(long_items_are_cut),
        cmocka_unit_test(what_stops_a_task),
    };
    int rc = cmocka_run_group_tests_name("tasks", tests, NULL, NULL);
    atom_runtime_fini();
    return rc;
}
