/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/hadamard.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

/* 1, 12 or 20: what is left of n once its powers of two are out; 0: no such matrix here. */
static int odd_order(int n)
{
    if (n <= 0 || n > ATOM_HADAMARD_MAX)
        return 0;
    int rest = n;
    while (rest % 2 == 0)
        rest /= 2;
    if (rest == 1)
        return 1;
    int order = rest == 3 ? 12 : rest == 5 ? 20 : 0;
    return order && n % order == 0 ? order : 0;
}

bool atom_hadamard_has(int n) { return odd_order(n) != 0; }

/* Entry (i, j) of Paley's first construction for the prime q = order - 1 = 3 mod 4: I + S, S skew, with Jacobsthal's
 * matrix inside. */
static int paley(int i, int j, int order)
{
    int q = order - 1;
    if (i == j)
        return 1;
    if (i == 0)
        return 1;
    if (j == 0)
        return -1;
    int d = ((i - j) % q + q) % q;
    for (int r = 1; r < q; r++)
        if (r * r % q == d)
            return 1;
    return -1;
}

static void butterflies(float *x, int n, int span)
{
    for (int h = span; h < n; h *= 2)
        for (int i = 0; i < n; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
}

static void small_matrix(float *x, int order, bool transpose)
{
    float y[20];
    for (int i = 0; i < order; i++) {
        float sum = 0.0f;
        for (int j = 0; j < order; j++)
            sum += (float)(transpose ? paley(j, i, order) : paley(i, j, order)) * x[j];
        y[i] = sum;
    }
    for (int i = 0; i < order; i++)
        x[i] = y[i];
}

static void transform(float *x, int n, bool undo)
{
    int order = odd_order(n);
    assert(order > 0);
    if (order > 1)
        for (int i = 0; i < n; i += order)
            small_matrix(x + i, order, undo);
    butterflies(x, n, order);
    float by = 1.0f / sqrtf((float)n);
    for (int i = 0; i < n; i++)
        x[i] *= by;
}

void atom_hadamard(float *x, int n) { transform(x, n, false); }
void atom_hadamard_undo(float *x, int n) { transform(x, n, true); }
