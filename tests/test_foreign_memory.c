/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation fails once while a foreign layer is read: the call must say so, and leak nothing. */
#include "failing_malloc.h"
#include "foreign.h"

static struct foreign f = {
    .gptq = true, .bits = 4, .group = 8, .asymmetric = true, .v2 = true, .ordered = true, .scales = ATOM_F16};
static struct atom_config cfg = {.hidden = 16, .intermediate = 24, .heads = 2, .kv_heads = 1, .head_dim = 8};

static int dealt(const struct foreign *of, int proj, int k, int i)
{
    (void)proj;
    return i % (k / of->group);
}

static enum atom_status read_layer(const char *dir, struct atom_error *err)
{
    struct atom_foreign_layer layer;
    (void)dir;
    enum atom_status st = atom_foreign_layer_open(&cfg, f.tensors, 0, &layer, err);
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        struct atom_linear_part part = {.n = atom_proj_rows(&cfg, p)};
        void *memory;
        if (atom_projs[p].linear == ATOM_LIN_GATE_UP)
            part.row_order = layer.orders[ATOM_DOWN_IN];
        st = atom_foreign_part(&layer, p, &part, &memory, err);
        free(memory);
    }
    atom_foreign_layer_fini(&layer);
    return st;
}

static void test_all(void **state)
{
#ifdef SANITIZED
    skip_because("a sanitizer has its own malloc");
#endif
    (void)state;
    struct atom_error err = {0};
    char *dir = make_dir();
    assert_ok(atom_runtime_init(NULL, &err), &err);
    f.group_of = dealt;
    foreign_layer(&f, &cfg);
    fail_each(dir, read_layer, false);
    foreign_free(&f);
    atom_runtime_fini();
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
