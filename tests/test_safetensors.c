/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "base/half.h"
#include "model/config.h"
#include "model/safetensors.h"

static void test_tiny(void **state)
{
    (void)state;
    struct atom_error err = {0};
    struct atom_config c;
    struct atom_tensors *t = NULL;
    const struct atom_tensor *w = NULL;
    assert_ok(atom_config_load("models/tiny", &c, &err), &err);
    assert_ok(atom_tensors_open("models/tiny", &t, &err), &err);
    assert_ok(atom_tensors_need(t, "model.embed_tokens.weight", 1u << ATOM_BF16, c.vocab, c.hidden, &w, &err), &err);
    float x[8];
    atom_tensor_floats(w, 0, 8, x);
    for (int i = 0; i < 8; i++)
        assert_true(x[i] > -10 && x[i] < 10);
    assert_ok(atom_tensors_check(t, &err), &err);
    atom_tensors_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tiny)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
