/* SPDX-License-Identifier: Apache-2.0 */
/* The records of data sets, as their authors and the Hugging Face hub have them, and the prompts that they become. */
#include "helpers.h"

#include "eval/task_items.h"

enum { MAX_ROWS = 4 };

struct wanted {
    int line, gold;
    const char *subtask, *description;
    const char *contexts[MAX_ROWS];      /* one: all rows share it */
    const char *continuations[MAX_ROWS]; /* one: likewise */
};

static int number_of(const char *name)
{
    for (int i = 0; atom_task_format(i); i++)
        if (strcmp(atom_task_format(i)->name, name) == 0)
            return i;
    fail_msg("there is no format %s", name);
    return -1;
}

static enum atom_status parse(const char *format, const char *text, struct atom_task_items *items,
                              struct atom_error *err)
{
    const struct atom_task_file file = {{NULL, text, strlen(text)}, {0}, NULL};
    *err = (struct atom_error){0};
    return atom_task_items_parse(&file, atom_task_format(number_of(format)), items, err);
}

static void assert_same(const char *got, const char *want)
{
    if (want)
        assert_string_equal(got, want);
    else
        assert_null(got);
}

static void assert_items(const char *format, const char *text, const struct wanted *want, int n)
{
    struct atom_error err;
    struct atom_task_items items;
    assert_ok(parse(format, text, &items, &err), &err);
    assert_int_equal(items.n, n);
    for (int i = 0; i < n; i++) {
        const struct atom_task_source *item = &items.at[i];
        assert_int_equal(item->line, want[i].line);
        assert_int_equal(item->gold, want[i].gold);
        assert_same(item->subtask, want[i].subtask);
        assert_same(item->description, want[i].description);
        for (int r = 0; r < item->n; r++) {
            assert_string_equal(atom_task_context(item, r), want[i].contexts[want[i].contexts[1] ? r : 0]);
            assert_string_equal(atom_task_continuation(item, r),
                                want[i].continuations[want[i].continuations[1] ? r : 0]);
        }
    }
    atom_task_items_fini(&items);
}

#define ASSERT_ITEMS(format, text, ...)                                                                                \
    do {                                                                                                               \
        const struct wanted want_[] = {__VA_ARGS__};                                                                   \
        assert_items(format, text, want_, (int)(sizeof want_ / sizeof *want_));                                        \
    } while (0)

static void names_and_numbers(void **state)
{
    const char *words = ATOM_TASK_FORMATS;
    (void)state;
    for (int i = 0;; i++) {
        size_t n = strcspn(words, "|");
        assert_non_null(atom_task_format(i));
        assert_int_equal(strlen(atom_task_format(i)->name), n);
        assert_memory_equal(atom_task_format(i)->name, words, n);
        if (!words[n]) {
            assert_null(atom_task_format(i + 1));
            break;
        }
        words += n + 1;
    }
    assert_null(atom_task_format(-1));
}

/* ---- one data set after the other -------------------------------------------------------------------------------- */

static void arc(void **state)
{
    (void)state;
    ASSERT_ITEMS(
        "arc",
        "{\"id\": \"a\", \"question\": {\"stem\": \"What falls?\", \"choices\": [{\"text\": \"a stone\", \"label\": "
        "\"A\"}, {\"text\": \"a cloud\", \"label\": \"B\"}, {\"text\": \"the sky\", \"label\": \"C\"}]}, "
        "\"answerKey\": \"A\"}\n"
        "{\"id\": \"b\", \"question\": \"What burns?\", \"choices\": {\"text\": [\"ice\", \"wood\"], \"label\": "
        "[\"1\", \"2\"]}, \"answerKey\": \"2\"}\n",
        {1, 0, NULL, NULL, {"Question: What falls?\nAnswer:"}, {" a stone", " a cloud", " the sky"}},
        {2, 1, NULL, NULL, {"Question: What burns?\nAnswer:"}, {" ice", " wood"}});
}

static void openbookqa(void **state)
{
    (void)state;
    ASSERT_ITEMS(
        "openbookqa",
        "{\"question\": {\"stem\": \"Stones are\", \"choices\": [{\"text\": \"hard\", \"label\": \"A\"}, {\"text\": "
        "\"soft\", \"label\": \"B\"}]}, \"answerKey\": \"A\"}\n"
        "{\"question_stem\": \"Ice is\", \"choices\": {\"text\": [\"hot\", \"cold\"], \"label\": [\"A\", \"B\"]}, "
        "\"answerKey\": \" B\"}\n",
        {1, 0, NULL, NULL, {"Stones are"}, {" hard", " soft"}}, {2, 1, NULL, NULL, {"Ice is"}, {" hot", " cold"}});
}

static void piqa(void **state)
{
    (void)state;
    ASSERT_ITEMS("piqa",
                 "{\"goal\": \"boil an egg\", \"sol1\": \"use water\", \"sol2\": \"use sand\", \"label\": 0}\n"
                 "{\"goal\": \" keep warm \", \"sol1\": \"sit in snow \", \"sol2\": \"wear a coat\", \"label\": 1}",
                 {1, 0, NULL, NULL, {"Question: boil an egg\nAnswer:"}, {" use water", " use sand"}},
                 {2, 1, NULL, NULL, {"Question:  keep warm \nAnswer:"}, {" sit in snow ", " wear a coat"}});
}

static void boolq(void **state)
{
    (void)state;
    ASSERT_ITEMS("boolq",
                 "{\"question\": \"is ice cold\", \"passage\": \"Ice is cold.\", \"idx\": 0, \"label\": 1}\n"
                 "{\"question\": \"is ice hot\", \"passage\": \"Ice -- it is cold.\", \"label\": false}\n"
                 "{\"question\": \"is it\", \"title\": \"It\", \"answer\": true, \"passage\": \"P\"}\n",
                 {1, 1, NULL, NULL, {"Ice is cold.\nQuestion: is ice cold?\nAnswer:"}, {" no", " yes"}},
                 {2, 0, NULL, NULL, {"Ice -- it is cold.\nQuestion: is ice hot?\nAnswer:"}, {" no", " yes"}},
                 {3, 1, NULL, NULL, {"P\nQuestion: is it?\nAnswer:"}, {" no", " yes"}});
}

static void hellaswag(void **state)
{
    (void)state;
    ASSERT_ITEMS(
        "hellaswag",
        "{\"ind\": 4, \"activity_label\": \"Baking\", \"ctx_a\": \"A cook bakes.\", \"ctx_b\": \"the COOK\", \"ctx\": "
        "\"\", "
        "\"endings\": [\"eats it.\", \"drops  it.\", \"sings.\", \"sleeps.\"], \"label\": \"3\"}\n"
        "{\"ind\": 5, \"activity_label\": \"Home\", \"ctx_a\": \"[header] How to rest [title] Sit down. [step] Find a "
        "chair.\", \"ctx_b\": \"\", \"endings\": [\"[substeps] Sit.\", \"Stand. [title] Go on.\", \"a [b\\nc] d\", \"x "
        "[y] "
        "z\"], \"label\": 0}\n",
        {1, 3, NULL, NULL, {"Baking: A cook bakes. The cook"}, {" eats it.", " drops it.", " sings.", " sleeps."}},
        {2,
         0,
         NULL,
         NULL,
         {"Home: How to rest. Sit down. Find a chair."},
         {"  Sit.", " Stand.. Go on.", " a [b\nc] d", " x z"}});
}

static void winogrande(void **state)
{
    (void)state;
    ASSERT_ITEMS(
        "winogrande",
        "{\"sentence\": \"Ann met Eve and _ was glad.\", \"option1\": \"Ann\", \"option2\": \"Eve\", \"answer\": "
        "\"2\"}\n"
        "{\"qID\": \"q\", \"sentence\": \"The cup fell off the table as the _ shook\", \"option1\": \"cup\", "
        "\"option2\": \"table\", \"answer\": \"1\"}\n",
        {1, 1, NULL, NULL, {"Ann met Eve and Ann", "Ann met Eve and Eve"}, {" was glad."}},
        {2,
         0,
         NULL,
         NULL,
         {"The cup fell off the table as the cup", "The cup fell off the table as the table"},
         {" shook"}});
}

static void lambada(void **state)
{
    (void)state;
    ASSERT_ITEMS("lambada",
                 "{\"text\": \"He asked the king, and the king\"}\n{\"text\": \"\\\"Yes,\\\" said\\nAnn\"}\n",
                 {1, -1, NULL, NULL, {"He asked the king, and the"}, {" king"}},
                 {2, -1, NULL, NULL, {"\"Yes,\""}, {" said\nAnn"}});
}

static void copa(void **state)
{
    (void)state;
    ASSERT_ITEMS(
        "copa",
        "{\"premise\": \"The lamp went out.\", \"choice1\": \"The oil was gone.\", \"choice2\": \"It sang.\", "
        "\"question\": \"cause\", \"label\": 0, \"idx\": 0}\n"
        "{\"premise\": \" \\u00c9mile fell. \", \"choice1\": \"\\u00c9mile cried.\", \"choice2\": \"He flew.\", "
        "\"question\": \"effect\", \"label\": 1}\n",
        {1, 0, NULL, NULL, {"The lamp went out because"}, {"  the oil was gone.", "  it sang."}},
        {2, 1, NULL, NULL, {"\xc3\x89mile fell therefore"}, {"  \xc3\xa9mile cried.", "  he flew."}});
}

static void blimp(void **state)
{
    (void)state;
    ASSERT_ITEMS("blimp",
                 "{\"sentence_good\": \"He sees.\", \"sentence_bad\": \"He see.\", \"UID\": \"agreement\"}\n"
                 "{\"sentence_good\": \"They see.\", \"sentence_bad\": \"They sees.\", \"UID\": \"agreement\"}\n",
                 {1, 0, "agreement", NULL, {""}, {" He sees.", " He see."}},
                 {2, 0, "agreement", NULL, {""}, {" They see.", " They sees."}});
}

#define ABOUT "The following are multiple choice questions (with answers) about "

static void mmlu(void **state)
{
    const char *csv = "What is 1 + 1?,1,2,3,4,B\r\n\"A \"\"b\"\", or\nc?\",\"d, e\",,g,h,D\n";
    const struct atom_task_file file = {{NULL, csv, strlen(csv)}, {0}, "high_school_physics"};
    struct atom_error err = {0};
    struct atom_task_items items;
    (void)state;
    ASSERT_ITEMS(
        "mmlu",
        "{\"question\": \" What is 1 + 1?\\n\", \"subject\": \"abstract_algebra\", \"choices\": [\"1\", \"2\", "
        "\"3\", \"4\"], \"answer\": 1}\n"
        "{\"question\": \"Who?\", \"subject\": \"world_religions\", \"choices\": [\"I\", \"you\", \"he\", \"she\"], "
        "\"answer\": \"D\"}\n",
        {1,
         1,
         "abstract_algebra",
         ABOUT "abstract algebra.\n\n",
         {"What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"},
         {" A", " B", " C", " D"}},
        {2,
         3,
         "world_religions",
         ABOUT "world religions.\n\n",
         {"Who?\nA. I\nB. you\nC. he\nD. she\nAnswer:"},
         {" A", " B", " C", " D"}});
    assert_ok(atom_task_items_parse(&file, atom_task_format(number_of("mmlu")), &items, &err), &err);
    assert_int_equal(items.n, 2);
    assert_string_equal(atom_task_context(&items.at[0], 0), "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
    assert_int_equal(items.at[0].gold, 1);
    assert_string_equal(items.at[1].description, ABOUT "high school physics.\n\n");
    assert_string_equal(atom_task_context(&items.at[1], 0), "A \"b\", or\nc?\nA. d, e\nB. \nC. g\nD. h\nAnswer:");
    assert_int_equal(items.at[1].gold, 3);
    assert_int_equal(items.at[1].line, 2);
    atom_task_items_fini(&items);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

#define PIQA_GOOD "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 0}\n"
#define ENDINGS   "\"activity_label\": \"a\", \"ctx_a\": \"b\", \"ctx_b\": \"c\", \"endings\": "
#define COPA      "{\"premise\": \"a.\", \"choice1\": \"b\", \"choice2\": \"c\", "

static void records_that_are_no_items(void **state)
{
    static const struct {
        const char *format, *text, *words;
    } cases[] = {
        {"piqa", PIQA_GOOD "{\"goal\": \"a\", \"sol1\": \"b\"}\n", "line 2: 'sol2' is missing"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"\", \"sol2\": \"c\", \"label\": 0}", "line 1: 'sol1' is empty"},
        {"piqa", "{\"goal\": 5, \"sol1\": \"b\", \"sol2\": \"c\", \"label\": 0}",
         "line 1: 'goal' is 5; expected a string"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": -1}",
         "'label' is -1; expected a whole"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": \"2\"}",
         "'label' is \"2\"; expected a wh"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": \"0x\"}", "number from 0 to 1"},
        {"piqa", "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"label\": \"\"}", "'label' is \"\""},
        {"piqa", PIQA_GOOD "{", "line 2: not valid JSON"},
        {"piqa", PIQA_GOOD "\n", "line 2: not valid JSON"},
        {"piqa", PIQA_GOOD "[]\n", "line 2: not a JSON object"},
        {"arc", "{\"question\": \"a\", \"choices\": {\"text\": [\"b\"], \"label\": [\"A\"]}, \"answerKey\": \"A\"}",
         "line 1: 'choices.text' is too short"},
        {"arc",
         "{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"c\"], \"label\": [\"A\", \"B\"]}, \"answerKey\": "
         "\"C\"}",
         "line 1: 'answerKey' is \"C\", which labels no choice"},
        {"arc",
         "{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"c\"], \"label\": [\"A\"]}, \"answerKey\": \"B\"}",
         "line 1: 'choices.label.1' is missing"},
        {"arc",
         "{\"question\": {\"stem\": \"a\", \"choices\": [{\"text\": \"b\", \"label\": \"A\"}, {\"text\": \"\", "
         "\"label\": \"B\"}]}, \"answerKey\": \"A\"}",
         "line 1: 'question.choices.1.text' is empty"},
        {"arc", "{\"question\": {\"choices\": [1, 2]}, \"answerKey\": \"A\"}", "line 1: 'question.stem' is missing"},
        {"openbookqa", "{\"question_stem\": \"a\", \"choices\": \"b\"}", "line 1: 'choices.text' is missing"},
        {"boolq", "{\"passage\": \"a\", \"question\": \"b\"}", "line 1: 'label' is missing"},
        {"boolq", "{\"passage\": \"a\", \"question\": \"b\", \"answer\": \"yes\"}", "line 1: 'answer' is \"yes\""},
        {"hellaswag", "{" ENDINGS "[\"a\", \"b\", \"c\"], \"label\": 0}", "line 1: 'endings.3' is missing"},
        {"hellaswag", "{" ENDINGS "[\"a\", \"b\", \"c\", \"[d]\"], \"label\": 0}",
         "line 1: 'choices' entry 3 is empty"},
        {"hellaswag", "{" ENDINGS "[\"a\", \"b\", \"c\", \"d\"], \"label\": \"\"}", "line 1: 'label' is \"\""},
        {"winogrande", "{\"sentence\": \"a b\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"1\"}",
         "has no '_'"},
        {"winogrande", "{\"sentence\": \"a _ \", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"1\"}",
         "ends with"},
        {"winogrande", "{\"sentence\": \"a _ b\", \"option1\": \"c\", \"option2\": \"d\", \"answer\": \"0\"}",
         "'answer' is \"0\"; expected a whole number from 1 to 2"},
        {"lambada", "{\"text\": \"\"}", "line 1: 'text' is empty"},
        {"lambada", "{\"text\": \"a b \"}", "line 1: 'text' ends with a space"},
        {"copa", COPA "\"question\": \"why\", \"label\": 0}", "line 1: 'question' is \"why\"; expected \"cause\""},
        {"copa", COPA "\"question\": \"cause\", \"label\": 2}", "line 1: 'label' is 2"},
        {"blimp", "{\"sentence_good\": \"a\"}", "line 1: 'sentence_bad' is missing"},
        {"mmlu", "{\"question\": \"a\", \"choices\": [\"b\", \"c\", \"d\", \"e\"], \"answer\": 0}",
         "line 1: no 'subject'"},
        {"mmlu", "{\"question\": \"a\", \"subject\": \"s\", \"choices\": [\"b\", \"c\", \"d\"], \"answer\": 0}",
         "line 1: 'choices.3' is missing"},
        {"mmlu", "a,b,c,d,e,A\na,b,c,d,A\n", "line 1: no 'subject'"},
        {"mmlu", "a,b,c,d,A\n", "line 1: CSV: 5 fields"},
        {"mmlu", "a,b,c,d,e,f,A\n", "line 1: CSV: more than six fields"},
        {"mmlu", "\"a,b,c,d,e,A\n", "line 1: CSV: a quote that nothing closes"},
        {"mmlu", "\"a\"b,c,d,e,f,A\n", "line 1: CSV: text after a quote"},
        {"mmlu", "a\xff,b,c,d,e,A\n", "line 1: CSV: it is not UTF-8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct atom_error err;
        struct atom_task_items items;
        enum atom_status st = parse(cases[i].format, cases[i].text, &items, &err);
        assert_fails(st, &err, ATOM_ERR_FORMAT, cases[i].words);
        assert_memory_equal(err.message, "line ", 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers),
        cmocka_unit_test(arc),
        cmocka_unit_test(openbookqa),
        cmocka_unit_test(piqa),
        cmocka_unit_test(boolq),
        cmocka_unit_test(hellaswag),
        cmocka_unit_test(winogrande),
        cmocka_unit_test(lambada),
        cmocka_unit_test(copa),
        cmocka_unit_test(blimp),
        cmocka_unit_test(mmlu),
        cmocka_unit_test(records_that_are_no_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
