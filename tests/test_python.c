/* SPDX-License-Identifier: Apache-2.0 */
/* Draws and strings as Python has them. What is expected was printed by Python 3.11; tests/cli_tasks.py asks the Python
 * that is there. */
#include "helpers.h"

#include "eval/python_random.h"
#include "eval/python_text.h"

/* random.Random(seed).sample(range(n), k), some times over. */
static void samples(void **state)
{
    static const struct {
        uint64_t seed;
        int n, k, want[3][8];
    } cases[] = {
        {1234u, 10, 5, {{7, 1, 0, 9, 4}, {0, 1, 8, 6, 2}, {3, 0, 8, 6, 7}}},
        {1234u, 21, 5, {{14, 3, 0, 2, 1}, {2, 3, 11, 7, 0}, {0, 20, 11, 15, 14}}},
        {1234u, 22, 5, {{14, 3, 0, 2, 18}, {1, 21, 2, 3, 11}, {7, 0, 11, 20, 19}}},
        {1234u, 85, 6, {{56, 14, 0, 11, 74, 4}, {10, 12, 45, 30, 2, 3}, {2, 44, 82, 79, 61, 78}}},
        {1234u, 86, 6, {{56, 14, 0, 11, 74, 4}, {85, 10, 12, 45, 30, 2}, {3, 2, 44, 82, 79, 61}}},
        {1234u, 5, 5, {{3, 0, 4, 2, 1}, {0, 4, 1, 3, 2}, {0, 4, 1, 2, 3}}},
        {0u,
         1000,
         8,
         {{864, 394, 776, 911, 430, 41, 265, 988},
          {523, 497, 414, 940, 802, 849, 310, 991},
          {488, 366, 597, 913, 929, 223, 516, 142}}},
        {4294967296u,
         1000,
         8,
         {{115, 359, 427, 957, 17, 23, 626, 897},
          {824, 780, 339, 857, 558, 462, 14, 141},
          {77, 838, 962, 979, 443, 513, 321, 350}}},
        {9223372036854788153u, 9, 8, {{4, 6, 1, 7, 2, 5, 8, 0}, {5, 6, 2, 0, 8, 1, 7, 4}, {3, 2, 6, 8, 7, 1, 5, 4}}},
        {7u, 1, 1, {{0}, {0}, {0}}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct atom_python_random r;
        atom_python_seed(&r, cases[i].seed);
        for (int again = 0; again < 3; again++) {
            int got[8];
            atom_python_sample(&r, cases[i].n, cases[i].k, got);
            assert_memory_equal(got, cases[i].want[again], (size_t)cases[i].k * sizeof *got);
        }
    }
}

/* A sum over many samples, so that words are made anew: sum of (place + 1) * value of 200 samples of 100. */
static void many_samples(void **state)
{
    struct atom_python_random r;
    int got[100];
    int64_t sum = 0;
    (void)state;
    atom_python_seed(&r, 1234);
    for (int again = 0; again < 200; again++) {
        atom_python_sample(&r, 1000 + again, 100, got);
        for (int i = 0; i < 100; i++)
            sum += (int64_t)(i + 1) * got[i];
    }
    assert_int_equal(sum, 553297152);
}

static void strings(void **state)
{
    static const struct {
        char *(*f)(const char *);
        const char *in, *out;
    } cases[] = {
        {atom_python_strip, " \t\xc2\xa0 a b\xe2\x80\x83\n", "a b"},
        {atom_python_strip, " \n", ""},
        {atom_python_strip, "", ""},
        {atom_python_capitalize, "the KING", "The king"},
        {atom_python_capitalize, "\xc3\xa9T\xc3\x89", "\xc3\x89t\xc3\xa9"},
        {atom_python_capitalize, "1 A", "1 a"},
        {atom_python_capitalize, "", ""},
        {atom_python_lower_first, "The KING", "the KING"},
        {atom_python_lower_first, "\xc3\x89T", "\xc3\xa9T"},
        {atom_python_lower_first, "", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = cases[i].f(cases[i].in);
        assert_non_null(got);
        assert_string_equal(got, cases[i].out);
        free(got);
    }
    assert_int_equal(atom_python_rstrip("a \xe3\x80\x80", 5), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples),
        cmocka_unit_test(many_samples),
        cmocka_unit_test(strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
