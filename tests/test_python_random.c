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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_draws),
        cmocka_unit_test(test_long_draws),
    };
    return cmocka_run_group_tests_name("python_random", tests, NULL, NULL);
}
