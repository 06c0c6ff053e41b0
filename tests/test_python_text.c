/* SPDX-License-Identifier: Apache-2.0 */
/* Strings as Python has them. */
#include "helpers.h"

#include "eval/python_text.h"

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
        cmocka_unit_test(strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
