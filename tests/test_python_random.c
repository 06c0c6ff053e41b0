/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that CPython 3.11 draws, written down from it. */
#include "helpers.h"

#include "base/python_random.h"

static void check(uint32_t seed, int most, const int *want, int n)
{
    struct atom_python_random r;
    atom_python_random_seed(&r, seed);
    for (int i = 0; i < n; i++)
        assert_int_equal(atom_python_randint(&r, most), want[i]);
}

static void test_published_draws(void **state)
{
    (void)state;
    check(0u, 44867, (const int[]){25247, 27562, 2653, 16968, 33506, 31845}, 6);
    check(0u, 0, (const int[]){0, 0, 0, 0, 0, 0}, 6);
    check(1u, 6, (const int[]){1, 4, 6, 6, 6, 0}, 6);
    check(4294967295u, 2147483646, (const int[]){1364419716, 1330512506, 436368544, 462446548, 1304309850, 1121840874},
          6);
}

/* Past one filling of the state, whose words are made anew. */
static void test_long_draws(void **state)
{
    struct atom_python_random r;
    uint64_t sum = 0;
    (void)state;
    atom_python_random_seed(&r, 0);
    for (int i = 0; i < 2000; i++)
        sum += (uint64_t)(i + 1) * (uint64_t)atom_python_randint(&r, 44867);
    assert_true(sum == 44435431779ULL);
}

/* random.Random(seed).sample(range(n), k), some times over. */
static void test_samples(void **state)
{
    static const struct {
        uint32_t seed;
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
        {7u, 1, 1, {{0}, {0}, {0}}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct atom_python_random r;
        atom_python_random_seed(&r, cases[i].seed);
        for (int again = 0; again < 3; again++) {
            int got[8];
            atom_python_sample(&r, cases[i].n, cases[i].k, got);
            assert_memory_equal(got, cases[i].want[again], (size_t)cases[i].k * sizeof *got);
        }
    }
}

/* A sum over many samples, so that words are made anew: sum of (place + 1) * value of 200 samples of 100. */
static void test_many_samples(void **state)
{
    struct atom_python_random r;
    int got[100];
    int64_t sum = 0;
    (void)state;
    atom_python_random_seed(&r, 1234);
    for (int again = 0; again < 200; again++) {
        atom_python_sample(&r, 1000 + again, 100, got);
        for (int i = 0; i < 100; i++)
            sum += (int64_t)(i + 1) * got[i];
    }
    assert_int_equal(sum, 553297152);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_draws),
        cmocka_unit_test(test_long_draws),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_many_samples),
    };
    return cmocka_run_group_tests_name("python_random", tests, NULL, NULL);
}
