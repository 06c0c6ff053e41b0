/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sweep.h"

#include "backend/cpu.h"
#include "base/clock.h"
#include "base/thread.h"
#include "bench/ceilings.h"

#include <stdlib.h>

enum { PART = 1 << 17, AHEAD = 2048, STREAMS = 1 };

struct part {
    const uint8_t *from;
    size_t n_bytes; /* a multiple of 8192 */
};

struct atom_sweep {
    atom_read_fn *read;
    struct part *parts;
    int n;
    double n_bytes;
    uint64_t *sums; /* [threads], so that nothing is left out */
};

/* Whole units of what a reader takes; parts NULL: counts. */
static void add_linear(struct atom_sweep *s, const struct atom_linear *lin)
{
    size_t left = lin->p.panel_bytes * (size_t)lin->p.n_panels / ATOM_READ_UNIT * ATOM_READ_UNIT;
    for (const uint8_t *at = lin->p.data; left;) {
        size_t n = left < PART ? left : PART;
        if (s->parts)
            s->parts[s->n] = (struct part){at, n};
        s->n_bytes += (double)n;
        s->n++;
        at += n;
        left -= n;
    }
}

static void add_all(struct atom_sweep *s, const struct atom_model *m)
{
    s->n = 0;
    s->n_bytes = 0;
    for (int i = 0; i < m->cfg.layers; i++)
        for (int j = 0; j < ATOM_N_LINEARS; j++)
            add_linear(s, m->layers[i].linears[j]);
    add_linear(s, m->head.linear);
}

enum atom_status atom_sweep_create(const struct atom_model *m, struct atom_sweep **out, struct atom_error *err)
{
    struct atom_sweep *s = calloc(1, sizeof *s);
    if (!s)
        return atom_fail_nomem(err, sizeof *s);
    s->read = atom_ceiling_reader();
    add_all(s, m);
    s->parts = calloc((size_t)s->n + 1, sizeof *s->parts);
    s->sums = calloc((size_t)atom_pool_size(), sizeof *s->sums);
    if (!s->parts || !s->sums) {
        size_t n_bytes = (size_t)s->n * sizeof *s->parts;
        atom_sweep_free(s);
        return atom_fail_nomem(err, n_bytes);
    }
    add_all(s, m);
    *out = s;
    return ATOM_OK;
}

void atom_sweep_free(struct atom_sweep *s)
{
    if (!s)
        return;
    free(s->parts);
    free(s->sums);
    free(s);
}

static void read_one(void *ctx, int i, int worker)
{
    struct atom_sweep *s = ctx;
    s->sums[worker] += s->read(s->parts[i].from, s->parts[i].n_bytes, AHEAD, STREAMS);
}

double atom_sweep_rate(struct atom_sweep *s, int times)
{
    double best = 0;
    for (int i = 0; i < times; i++) {
        double began = atom_seconds();
        atom_parallel(s->n, read_one, s);
        double rate = s->n_bytes / (atom_seconds() - began);
        best = rate > best ? rate : best;
    }
    return best;
}
