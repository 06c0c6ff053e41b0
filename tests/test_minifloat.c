/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of eight bits and less: every code, and the nearest one to every float that decides between two. */
#include "helpers.h"

#include "base/minifloat.h"

/* What a code means, from the formats' definitions: sign, exponent bits with a bias, mantissa bits. */
static double meaning(unsigned code, int exponent_bits, int mantissa_bits, int bias)
{
    unsigned mantissa = code & ((1u << mantissa_bits) - 1), exponent = code >> mantissa_bits;
    bool negative = exponent >> exponent_bits & 1;
    exponent &= (1u << exponent_bits) - 1;
    double fraction = ldexp((double)mantissa, -mantissa_bits);
    double x = exponent ? ldexp(1 + fraction, (int)exponent - bias) : ldexp(fraction, 1 - bias);
    return negative ? -x : x;
}

static void codes_mean_what_they_should(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 16; code++) {
        float x = atom_e2m1_float(code);
        assert_true((double)x == meaning(code, 2, 1, 1) && !signbit(x) == (code < 8));
        assert_true(atom_e2m1_round(x) == x);
        assert_int_equal(atom_e2m1_of_halves((int)(2 * x)), code == 8 ? 0 : code);
    }
    for (unsigned code = 0; code < 256; code++) {
        float x = atom_e4m3_float((uint8_t)code);
        bool number = (code & 0x7f) != 0x7f;
        assert_true(atom_e4m3_is_number((uint8_t)code) == number);
        assert_true(number ? (double)x == meaning(code, 4, 3, 7) && !signbit(x) == (code < 128) : isnan(x));
        assert_int_equal(atom_float_e4m3(x) & (number ? 0xff : 0x7f), number ? code : 0x7f);
        float power = atom_e8m0_float((uint8_t)code);
        assert_true(code == 255 ? isnan(power) : (double)power == ldexp(1, (int)code - 127));
        if (code < 255)
            assert_int_equal(atom_e8m0_below(power), code);
    }
    assert_true(atom_e4m3_float(0x7e) == 448 && atom_e4m3_float(1) == 0x1p-9f);
}

typedef float round_fn(float x);
static float by_e4m3(float x) { return atom_e4m3_float(atom_float_e4m3(x)); }

/* Between two neighbours, the even one (by its code) at the middle; a float to either side, the nearer. */
static void check_neighbours(round_fn *round, float low, float high, bool low_is_even)
{
    float middle = (low + high) / 2; /* exact */
    for (int sign = -1; sign <= 1; sign += 2) {
        float s = (float)sign;
        assert_true(round(s * middle) == s * (low_is_even ? low : high));
        assert_true(round(s * nextafterf(middle, low)) == s * low);
        assert_true(round(s * nextafterf(middle, high)) == s * high);
        assert_true(round(s * nextafterf(low, high)) == s * low && round(s * nextafterf(high, low)) == s * high);
    }
}

static void ties_go_to_even(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 7; code++)
        check_neighbours(atom_e2m1_round, atom_e2m1_float(code), atom_e2m1_float(code + 1), code % 2 == 0);
    for (unsigned code = 0; code < 0x7e; code++)
        check_neighbours(by_e4m3, atom_e4m3_float((uint8_t)code), atom_e4m3_float((uint8_t)(code + 1)), code % 2 == 0);
}

static void ends_saturate(void **state)
{
    const float large[] = {6.0f, 6.0001f, 7, 8, 448, 449, 464, 465, 480, 1e30f, INFINITY};
    (void)state;
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_true(atom_e2m1_round(large[i]) == 6 && atom_e2m1_round(-large[i]) == -6);
        if (large[i] >= 448) {
            assert_int_equal(atom_float_e4m3(large[i]), 0x7e);
            assert_int_equal(atom_float_e4m3(-large[i]), 0xfe);
        }
    }
    const float small[] = {0.0f, 0x1p-149f, 0x1p-127f, 0x1p-10f};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        assert_true(atom_e2m1_round(small[i]) == 0 && signbit(atom_e2m1_round(-small[i])));
        assert_int_equal(atom_float_e4m3(small[i]), 0);
        assert_int_equal(atom_float_e4m3(-small[i]), 0x80);
    }
    assert_true(isnan(atom_e2m1_round(NAN)) && isnan(by_e4m3(NAN)));
}

/* All floats whose first 20 bits differ: rounding keeps order, so that neighbours above are enough for the rest. */
static void rounding_keeps_order(void **state)
{
    float e2m1 = 0, e4m3 = 0;
    (void)state;
    for (uint32_t bits = 0; bits < 0x7f800000; bits += 0x7ff) {
        float x = atom_bits_float(bits), a = atom_e2m1_round(x), b = by_e4m3(x);
        assert_true(a >= e2m1 && b >= e4m3);
        e2m1 = a;
        e4m3 = b;
    }
    assert_true(e2m1 == 6 && e4m3 == 448);
}

static void powers_are_the_ones_below(void **state)
{
    (void)state;
    for (int e = -127; e <= 127; e++) {
        float power = ldexpf(1, e), above = nextafterf(power, INFINITY);
        assert_int_equal(atom_e8m0_below(power), e + 127);
        assert_int_equal(atom_e8m0_below(above), e + 127);
        if (e > -126)
            assert_int_equal(atom_e8m0_below(nextafterf(power, 0)), e + 126);
        assert_int_equal(atom_e8m0_below(1.999f * power), e + 127);
    }
    assert_int_equal(atom_e8m0_below(0), 0);
    assert_int_equal(atom_e8m0_below(0x1p-149f), 0);
    assert_int_equal(atom_e8m0_below(3e38f), 254);
    assert_int_equal(atom_e8m0_below(INFINITY), 254);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_mean_what_they_should),
        cmocka_unit_test(ties_go_to_even),
        cmocka_unit_test(ends_saturate),
        cmocka_unit_test(rounding_keeps_order),
        cmocka_unit_test(powers_are_the_ones_below),
    };
    return cmocka_run_group_tests_name("minifloat", tests, NULL, NULL);
}
