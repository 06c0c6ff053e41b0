/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the records of a task say, in whatever format: items that are let through have rows, a gold among them and
 * characters. */
#include "fuzz.h"

#include "eval/task_items.h"

static const char seed[] =
    "{\"task\": \"t\", \"context\": \"a\", \"choices\": [\" b\", \" c\"], \"gold\": 1}\n"
    "{\"task\": \"u\", \"context\": \"\", \"choices\": [\"b\", \"c\"], \"gold\": 0}\n"
    "{\"goal\": \"a\", \"sol1\": \"b\", \"sol2\": \"c\", \"sentence\": \"a _ b\", \"option1\": \"c\", \"option2\": "
    "\"d\", "
    "\"answer\": \"1\", \"passage\": \"p\", \"question\": \"cause\", \"premise\": \" p.\", \"choice1\": \"\xc3\x89\", "
    "\"choice2\": \"x\", \"label\": 1, \"text\": \"a b\", \"question_stem\": \"q\", \"answerKey\": \"A\", \"choices\": "
    "{\"text\": "
    "[\"a\", \"b\"], \"label\": [\"A\", \"B\"]}, \"activity_label\": \"a\", \"ctx_a\": \"[h] a  [title]\", \"ctx_b\": "
    "\"he\", "
    "\"endings\": [\"a\", \"b [c]\", \"c\", \"d\"], \"sentence_good\": \"g\", \"sentence_bad\": \"b\", \"UID\": "
    "\"u\"}\n"
    "{\"question\": \"q\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": 2, \"subject\": \"s_t\"}\n"
    "{\"question\": {\"stem\": \"q\", \"choices\": [{\"text\": \"a\", \"label\": \"A\"}, {\"text\": \"b\", \"label\": "
    "\"B\"}]}, "
    "\"answerKey\": \"B\"}\n"
    "\"a, \"\"q\"\"\nb\",1,2,3,4,C\n";
const void *const fuzz_seed = seed;
const size_t fuzz_seed_bytes = sizeof seed - 1;

static void check(const struct atom_task_items *items)
{
    for (int i = 0; i < items->n; i++) {
        const struct atom_task_source *item = &items->at[i];
        if (item->n < 1 || item->gold >= item->n || (item->gold < 0) != (items->kind == ATOM_TASK_CONTINUATION))
            abort();
        for (int r = 0; r < item->n; r++)
            if (!atom_task_context(item, r) || atom_task_characters(atom_task_continuation(item, r)) < 1)
                abort();
    }
}

/* Lines from `at` on in each format: alone, or as they follow one another. */
static void parse(const char *at, size_t n_bytes)
{
    for (int f = 0; atom_task_format(f); f++) {
        struct atom_task_file file = {{"f", at, n_bytes}, {0}, "a_subject"};
        struct atom_task_items items;
        struct atom_error err = {0};
        if (n_bytes % 3 == 0 && atom_task_format(f)->label)
            file.labels = (struct atom_task_text){"l", at + n_bytes / 2, n_bytes - n_bytes / 2};
        if (!atom_task_items_parse(&file, atom_task_format(f), &items, &err)) {
            check(&items);
            atom_task_items_fini(&items);
        } else if (!err.message[0]) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *text = (const char *)data, *end = text + n_bytes;
    parse(text, n_bytes);
    for (const char *at = text, *stop; at < end; at = stop + 1) {
        stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        parse(at, (size_t)(stop - at));
    }
    return 0;
}
