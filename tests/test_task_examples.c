/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in front of items: which examples, in which order, and their wording. */
#include "helpers.h"

#include "base/python_random.h"
#include "eval/task_examples.h"

enum { PIQA = 9, MMLU = 7, LAMBADA = 6, WINOGRANDE = 10, BLIMP = 2 };

static void parse(const char *text, int format, struct atom_task_items *items)
{
    const struct atom_task_file file = {{NULL, text, strlen(text)}, {0}, NULL};
    struct atom_error err = {0};
    assert_ok(atom_task_items_parse(&file, atom_task_format(format), items, &err), &err);
}

static void put(struct atom_task_items *items, const struct atom_task_items *from, int format, int n)
{
    const struct atom_task_examples examples = {atom_task_format(format), from, n, 1234};
    struct atom_error err = {0};
    assert_ok(atom_task_put_fronts(items, items->n, &examples, &err), &err);
}

#define P(goal)    "{\"goal\": \"" goal "\", \"sol1\": \"" goal "1\", \"sol2\": \"" goal "2\", \"label\": 1}\n"
#define SAID(goal) "Question: " goal "\nAnswer: " goal "2\n\n"

/* Six are drawn where five are wanted, so the second item's draw begins a word later than without. */
static void one_more_is_drawn(void **state)
{
    static const char *const said[] = {SAID("a"), SAID("b"), SAID("c"), SAID("d"), SAID("e"), SAID("f"), SAID("g")};
    struct atom_task_items items, from;
    struct atom_python_random random;
    (void)state;
    parse(P("x") P("y") P("z"), PIQA, &items);
    parse(P("a") P("b") P("c") P("d") P("e") P("f") P("g"), PIQA, &from);
    put(&items, &from, PIQA, 5);
    atom_python_random_seed(&random, 1234);
    for (int i = 0; i < items.n; i++) {
        char want[1024] = "";
        int drawn[6];
        atom_python_sample(&random, 7, 6, drawn);
        for (int d = 0; d < 5; d++)
            strcat(want, said[drawn[d]]);
        assert_string_equal(items.at[i].front, want);
    }
    atom_task_items_fini(&items);
    atom_task_items_fini(&from);
}

/* An item among its own examples is never one of them; all others are, when so many are wanted. */
static void the_others_of_a_file(void **state)
{
    static const char *const said[] = {SAID("a"), SAID("b"), SAID("c"), SAID("d")};
    struct atom_task_items items;
    (void)state;
    parse(P("a") P("b") P("c") P("d"), PIQA, &items);
    put(&items, &items, PIQA, 3);
    for (int i = 0; i < items.n; i++)
        for (int j = 0; j < items.n; j++)
            assert_int_equal(strstr(items.at[i].front, said[j]) != NULL, i != j);
    atom_task_items_fini(&items);
}

#define M(subject, question)                                                                                           \
    "{\"subject\": \"" subject "\", \"question\": \"" question                                                         \
    "\", \"choices\": [\"1\", \"2\", \"3\", \"4\"], \"answer\": 2}\n"
#define M_SAID(question) question "\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n"
#define ABOUT(subject)   "The following are multiple choice questions (with answers) about " subject ".\n\n"

static void first_ones_of_a_subject(void **state)
{
    struct atom_task_items items, from;
    (void)state;
    parse(M("us_law", "x") M("art", "y"), MMLU, &items);
    parse(M("art", "a") M("us_law", "b") M("us_law", "x") M("us_law", "c") M("art", "d") M("us_law", "e"), MMLU, &from);
    put(&items, &from, MMLU, 2);
    assert_string_equal(items.at[0].front, ABOUT("us law") M_SAID("b") M_SAID("c")); /* x is the item itself */
    assert_string_equal(items.at[1].front, ABOUT("art") M_SAID("a") M_SAID("d"));
    atom_task_items_fini(&items);
    parse(M("us_law", "x"), MMLU, &items);
    put(&items, &from, MMLU, 0);
    assert_string_equal(items.at[0].front, ABOUT("us law"));
    atom_task_items_fini(&items);
    atom_task_items_fini(&from);
}

static void examples_of_the_other_kinds(void **state)
{
    struct atom_task_items items;
    (void)state;
    parse("{\"text\": \"the king\"}\n{\"text\": \"a queen\"}\n", LAMBADA, &items);
    put(&items, &items, LAMBADA, 1);
    assert_string_equal(items.at[0].front, "a  queen\n\n");
    assert_string_equal(items.at[1].front, "the  king\n\n");
    atom_task_items_fini(&items);
    parse("{\"sentence\": \"So _ won.\", \"option1\": \"Ann\", \"option2\": \"Eve\", \"answer\": \"2\"}\n"
          "{\"sentence\": \"Then _ sat.\", \"option1\": \"Tom\", \"option2\": \"Sam\", \"answer\": \"1\"}\n",
          WINOGRANDE, &items);
    put(&items, &items, WINOGRANDE, 1);
    assert_string_equal(items.at[0].front, "Then Tom sat.\n\n");
    assert_string_equal(items.at[1].front, "So Eve won.\n\n");
    atom_task_items_fini(&items);
    parse(P("a"), PIQA, &items);
    put(&items, &items, PIQA, 0);
    assert_null(items.at[0].front);
    atom_task_items_fini(&items);
}

static void too_few(void **state)
{
    struct atom_task_items items, from;
    struct atom_error err = {0};
    (void)state;
    parse(P("a") P("b") P("a"), PIQA, &items);
    struct atom_task_examples examples = {atom_task_format(PIQA), &items, 3, 1234};
    assert_fails(atom_task_put_fronts(&items, 3, &examples, &err), &err, ATOM_ERR_INVALID, "line 1: 4 examples");
    examples.n = 2; /* three of three are drawn, and two of them are the item */
    err = (struct atom_error){0};
    assert_fails(atom_task_put_fronts(&items, 3, &examples, &err), &err, ATOM_ERR_INVALID, "there are 1");
    atom_task_items_fini(&items);

    parse(M("art", "x") M("law", "y"), MMLU, &items);
    parse(M("art", "a"), MMLU, &from);
    examples = (struct atom_task_examples){atom_task_format(MMLU), &from, 1, 0};
    err = (struct atom_error){0};
    assert_fails(atom_task_put_fronts(&items, 2, &examples, &err), &err, ATOM_ERR_INVALID,
                 "line 2: 1 examples are wanted of task 'law'; there are 0");
    atom_task_items_fini(&items);
    atom_task_items_fini(&from);

    parse("{\"sentence_good\": \"a\", \"sentence_bad\": \"b\"}\n", BLIMP, &items);
    examples = (struct atom_task_examples){atom_task_format(BLIMP), &items, 1, 0};
    err = (struct atom_error){0};
    assert_fails(atom_task_put_fronts(&items, 1, &examples, &err), &err, ATOM_ERR_INVALID, "'blimp' takes no examples");
    atom_task_items_fini(&items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_more_is_drawn),
        cmocka_unit_test(the_others_of_a_file),
        cmocka_unit_test(first_ones_of_a_subject),
        cmocka_unit_test(examples_of_the_other_kinds),
        cmocka_unit_test(too_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
