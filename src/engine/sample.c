/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling one token from logits. */
#include "atom/atom.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int32_t id;
};

size_t atom_sample_scratch_bytes(int n) { return (size_t)n * sizeof(struct candidate); }

/* A number in [0, 1) that depends on seed and counter alone (SplitMix64: Steele, Lea, Flood 2014). */
static double uniform(uint64_t seed, uint64_t counter)
{
    uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t greedy(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Larger logit first, ties by id, so that the order is one. */
static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

int32_t atom_sample(const struct atom_sampling *sp, uint64_t counter, const float *logits, int n, void *scratch)
{
    struct candidate *c = scratch;
    int32_t best = greedy(logits, n);
    if (!(sp->temperature > 0))
        return best;
    bool nucleus = sp->top_p > 0 && sp->top_p < 1, sorted = nucleus || (sp->top_k > 0 && sp->top_k < n);
    for (int i = 0; i < n; i++)
        c[i] = (struct candidate){logits[i], i};
    if (sorted)
        qsort(c, (size_t)n, sizeof *c, by_logit);
    int kept = sp->top_k > 0 && sp->top_k < n ? sp->top_k : n;
    double total = 0, top = logits[best];
    for (int i = 0; i < kept; i++)
        total += exp((c[i].logit - top) / sp->temperature);
    if (nucleus) {
        double mass = 0, enough = total * sp->top_p;
        int i = 0;
        while (i < kept && mass < enough)
            mass += exp((c[i++].logit - top) / sp->temperature);
        kept = i > 0 ? i : 1;
        total = mass;
    }
    double left = uniform(sp->seed, counter) * total;
    for (int i = 0; i < kept; i++) {
        left -= exp((c[i].logit - top) / sp->temperature);
        if (left < 0)
            return c[i].id;
    }
    return c[kept - 1].id;
}
