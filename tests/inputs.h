/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of kernels: random numbers of every kind, layouts, and outputs at odd addresses between guard bytes. */
#ifndef ATOM_TESTS_INPUTS_H
#define ATOM_TESTS_INPUTS_H

#include "helpers.h"

#include "kernels/layout.h"

#include <float.h>
#include <math.h>

static uint64_t seed;

static inline uint32_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static inline int between(int lo, int hi) { return lo + (int)(draw() % (uint32_t)(hi - lo + 1)); }
static inline float unit(void) { return (float)(int32_t)(draw() - 0x40000000u) * 0x1p-30f; }

/* Numbers of one of several kinds: ordinary, wide in range, tiny, huge, zeros of both signs, denormals, ties. */
enum { ORDINARY, WIDE, TINY, HUGE_ONES, ZEROS, DENORMALS, TIES, MIXED, N_STYLES };

static inline float number(int style)
{
    float x = unit();
    switch (style) {
    case ORDINARY:
        return 3.0f * x;
    case WIDE:
        return ldexpf(x, between(-40, 40));
    case TINY:
        return x * ldexpf(1.0f, -between(90, 110)); /* about where a scale becomes 1 */
    case HUGE_ONES:
        return x * FLT_MAX;
    case ZEROS:
        return x < 0 ? -0.0f : 0.0f;
    case DENORMALS:
        return x * 0x1p-130f;
    case TIES:
        return (float)between(-9, 9) * 0.5f;
    default:
        return number(between(0, MIXED - 1));
    }
}

/* Outputs lie at odd places between guard bytes. */
enum { GUARD = 64, MAX_BLOCKS = 64 };

struct block {
    uint8_t *base;
    size_t n_bytes, skew;
};
static struct block blocks[MAX_BLOCKS];
static int n_blocks;

/* n_bytes, `size` bytes past an address that is a multiple of 64. */
static inline void *take(size_t n_bytes, size_t size)
{
    struct block *b = &blocks[n_blocks++];
    assert_true(n_blocks <= MAX_BLOCKS);
    b->n_bytes = n_bytes;
    b->skew = size * (size_t)between(0, 5);
    b->base = aligned_alloc(64, (n_bytes + b->skew + 2 * GUARD + 63) / 64 * 64);
    assert_non_null(b->base);
    memset(b->base, 0xA5, n_bytes + b->skew + 2 * GUARD);
    return b->base + GUARD + b->skew;
}

static inline void drop_all(void)
{
    for (int i = 0; i < n_blocks; i++) {
        struct block *b = &blocks[i];
        for (size_t at = 0; at < GUARD + b->skew; at++)
            assert_int_equal(b->base[at], 0xA5);
        for (size_t at = 0; at < GUARD; at++)
            assert_int_equal(b->base[GUARD + b->skew + b->n_bytes + at], 0xA5);
        free(b->base);
    }
    n_blocks = 0;
}

static inline float *floats(int n) { return take((size_t)n * sizeof(float), sizeof(float)); }

static inline float *random_floats(int n, int style)
{
    float *x = floats(n);
    for (int i = 0; i < n; i++)
        x[i] = number(style);
    return x;
}

static inline struct atom_layout random_layout(int max_k)
{
    static const int groups[] = {0, 1, 7, 8, 16, 32, 100, 128, 129, 300};
    struct atom_layout lay;
    struct atom_error err = {0};
    int n = between(1, max_k), outliers = 0;
    switch (between(0, 3)) {
    case 1:
        outliers = n;
        break;
    case 2:
        outliers = between(0, n);
        break;
    case 3:
        outliers = n / 4;
        break;
    }
    assert_ok(atom_layout_init(&lay, n, groups[between(0, 9)], outliers, &err), &err);
    return lay;
}

#endif
