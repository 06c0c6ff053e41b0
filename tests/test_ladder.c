/* SPDX-License-Identifier: Apache-2.0 */
/* The ablation's rungs: what they are called, what they change, where they end. */
#include "helpers.h"

#include "eval/ladder.h"
#include "model/config.h"

static void same_scheme(const struct atom_scheme *a, const struct atom_scheme *b)
{
    assert_int_equal(a->wbits, b->wbits);
    assert_int_equal(a->abits, b->abits);
    assert_int_equal(a->kvbits, b->kvbits);
    assert_int_equal(a->group, b->group);
    assert_int_equal(a->outliers, b->outliers);
    assert_int_equal(a->outlier_bits == 16, b->outlier_bits == 16);
    assert_int_equal(a->rows_per_scale, b->rows_per_scale);
    assert_true(a->act_clip == b->act_clip && a->weight_clip == b->weight_clip && a->kv_clip == b->kv_clip);
    assert_int_equal(a->clip_search, b->clip_search);
    assert_int_equal(a->kv_rope, b->kv_rope);
    assert_int_equal(a->rotate, b->rotate);
    assert_int_equal(a->lm_head_bits, b->lm_head_bits);
    assert_int_equal(a->gptq, b->gptq);
    assert_true(a->smooth == b->smooth && a->asymmetric == b->asymmetric);
}

/* How many of the things that a rung may add are different. */
static int changes(const struct atom_scheme *a, const struct atom_scheme *b)
{
    return (a->wbits != b->wbits || a->abits != b->abits) + (a->kvbits != b->kvbits) +
           (a->group != b->group || a->rows_per_scale != b->rows_per_scale) +
           (a->outliers != b->outliers || a->outlier_bits != b->outlier_bits) +
           (a->act_clip != b->act_clip || a->weight_clip != b->weight_clip || a->clip_search != b->clip_search) +
           (a->kv_rope != b->kv_rope || a->rotate != b->rotate) + (a->gptq != b->gptq) + (a->smooth != b->smooth) +
           (a->asymmetric != b->asymmetric);
}

static void recipes_are_rungs(void **state)
{
    (void)state;
    int n, found = 0;
    const struct atom_rung *rungs = atom_rungs(&n);
    for (int i = 0; i < n; i++) {
        struct atom_scheme want, got;
        if (!rungs[i].recipe)
            continue;
        assert_int_equal(atom_scheme_named(rungs[i].recipe, &want, NULL), ATOM_OK);
        if (want.outliers < 0) /* 128, or a quarter of a narrow model */
            want.outliers = 128;
        atom_rung_scheme(i, 4, 128, &got);
        same_scheme(&got, &want);
        found++;
    }
    assert_int_equal(found, 2);
    assert_string_equal(rungs[n - 1].recipe, "default");
}

static void each_rung_changes_one_thing(void **state)
{
    (void)state;
    int n;
    const struct atom_rung *rungs = atom_rungs(&n);
    for (int bits = 3; bits <= 4; bits++)
        for (int i = 1; i < n; i++) {
            struct atom_scheme before, after;
            struct atom_error err = {0};
            atom_rung_scheme(i - 1, bits, 64, &before);
            atom_rung_scheme(i, bits, 64, &after);
            assert_int_equal(changes(&before, &after), 1);
            assert_ok(atom_scheme_check(&after, 128, &err), &err);
            for (int j = 0; j < i; j++)
                assert_string_not_equal(rungs[i].name, rungs[j].name);
        }
}

static void bits_and_outliers_are_those_given(void **state)
{
    (void)state;
    int n;
    struct atom_scheme s;
    atom_rungs(&n);
    atom_rung_scheme(n - 1, 3, 17, &s);
    assert_true(s.wbits == 3 && s.abits == 3 && s.kvbits == 3 && s.outliers == 17);
    atom_rung_scheme(0, 3, 17, &s);
    assert_true(s.wbits == 16 && s.abits == 16 && s.kvbits == 16 && s.outliers == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipes_are_rungs),
        cmocka_unit_test(each_rung_changes_one_thing),
        cmocka_unit_test(bits_and_outliers_are_those_given),
    };
    return cmocka_run_group_tests_name("ladder", tests, NULL, NULL);
}
