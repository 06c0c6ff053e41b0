/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks are aligned, zero and as long as asked for; untouched, they cost nothing. */
#include "helpers.h"

#include "base/aligned.h"

enum { MB = 1 << 20 };
typedef void *alloc_fn(size_t n_bytes);
static alloc_fn *const kinds[] = {atom_alloc64, atom_alloc64_huge};

static void blocks_are_zero_and_writable(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, MB - 1, MB, MB + 1, 2 * MB - 1, 2 * MB, 5 * MB + 3};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i / 2];
        for (int again = 0; again < 2; again++) {
            uint8_t *p = kinds[i % 2](n);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % (i % 2 && n >= 2 * MB ? 2 * MB : 64), 0);
            for (size_t j = 0; j < n; j++)
                if (p[j])
                    fail_msg("byte %zu of %zu is %d", j, n, p[j]);
            memset(p, 0xA5, n);
            atom_free64(p);
        }
    }
    atom_free64(NULL);
}

static void there_is_no_such_block(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++)
        assert_null(kinds[i % 2](i / 2 == 0 ? SIZE_MAX : i / 2 == 1 ? SIZE_MAX - 4096 : SIZE_MAX / 2));
}

static void only_what_is_touched_is_resident(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip_because("a sanitizer has memory of its own");
#endif
    size_t before = resident_bytes();
    uint8_t *p = atom_alloc64(256 * MB);
    assert_non_null(p);
    for (size_t i = 0; i < 256; i += 16)
        p[i * MB] = 1;
    assert_true(resident_bytes() < before + MB);
    memset(p, 1, 16 * MB);
    assert_true(resident_bytes() > before + 15 * MB);
    atom_free64(p);
    assert_true(resident_bytes() < before + MB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_zero_and_writable),
        cmocka_unit_test(there_is_no_such_block),
        cmocka_unit_test(only_what_is_touched_is_resident),
    };
    return cmocka_run_group_tests_name("aligned", tests, NULL, NULL);
}
