/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_ceilings.h"

#include "base/error.h"
#include "bench/gpu/gpu_random.h"

#include <stdio.h>
#include <string.h>

enum { REPEAT = 25, LEAST_BYTES = 64 << 20, MIB = 1 << 20 };

static void keep_best(struct atom_gpu_ceilings *c, enum atom_gpu_ceiling what, const char *how, double amount,
                      const struct atom_gpu_time *time)
{
    if (!(amount / time->fastest_s > c->at[what].rate))
        return;
    c->at[what].rate = amount / time->fastest_s;
    c->at[what].time = *time;
    snprintf(c->at[what].how, sizeof c->at[what].how, "%s", how);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static enum atom_status put_stream(void *self, int copy, atom_cuda_stream s, struct atom_error *err)
{
    (void)copy;
    return atom_gpu_stream_put(self, s, err);
}

static enum atom_status time_streams(struct atom_gpu_timer *t, struct atom_gpu_stream_job *job, bool write,
                                     struct atom_gpu_ceilings *out, struct atom_error *err)
{
    static const int blocks[] = {2, 8, 0}, ahead[] = {1, 4, 8};
    enum atom_status st = ATOM_OK;
    void *to = job->to;
    job->to = write ? to : NULL;
    for (int b = 0; b < 3; b++)
        for (int a = 0; a < 3 && !st; a++) {
            char how[ATOM_GPU_WHOSE];
            struct atom_gpu_time time;
            const struct atom_gpu_work work = {put_stream, job, 1};
            job->blocks_per_sm = blocks[b];
            job->ahead = ahead[a];
            st = atom_gpu_timer_run(t, &work, false, REPEAT, &time, err);
            snprintf(how, sizeof how, "%zu MiB, %d x 16 bytes a thread at once%s", job->n_bytes / MIB, ahead[a],
                     blocks[b] ? ", several times" : "");
            if (!st)
                keep_best(out, write ? ATOM_GPU_COPY : ATOM_GPU_READ, how, (double)job->n_bytes * (write ? 2 : 1),
                          &time);
        }
    job->to = to;
    return st;
}

static enum atom_status measure_bytes(struct atom_gpu_timer *t, struct atom_gpu_ceilings *out, struct atom_error *err)
{
    size_t most = atom_cuda_opened()->memory_bytes / 8 / MIB * MIB;
    struct atom_gpu_stream_job job = {.n_bytes = most < (1u << 30) ? most : 1u << 30};
    void *from = NULL, *to = NULL, *sink = NULL;
    if (job.n_bytes < LEAST_BYTES)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "a device of %zu MiB is too small to measure",
                         atom_cuda_opened()->memory_bytes / MIB);
    enum atom_status st = atom_gpu_alloc_random(job.n_bytes, ATOM_GPU_BYTES, 1, &from, err);
    st = st ? st : atom_cuda_alloc(job.n_bytes, &to, err);
    st = st ? st : atom_cuda_alloc(4, &sink, err);
    job.from = from;
    job.to = to;
    job.sink = sink;
    st = st ? st : time_streams(t, &job, false, out, err);
    st = st ? st : time_streams(t, &job, true, out, err);
    atom_cuda_free(from);
    atom_cuda_free(to);
    atom_cuda_free(sink);
    return st;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

struct looping {
    const struct atom_gpu_peak *peak;
    int blocks_per_sm, loops;
    unsigned long long *clock; /* on the device */
    double ops;
};

static enum atom_status put_peak(void *self, int copy, atom_cuda_stream s, struct atom_error *err)
{
    struct looping *l = self;
    (void)copy;
    return atom_gpu_peak_put(l->peak, l->blocks_per_sm, l->loops, l->clock, &l->ops, s, err);
}

/* As many loops as take about a millisecond: long beside a launch, short beside what makes a device throttle. */
static enum atom_status settle_loops(struct atom_gpu_timer *t, struct looping *l, struct atom_error *err)
{
    const struct atom_gpu_work work = {put_peak, l, 1};
    struct atom_gpu_time time = {0};
    enum atom_status st = ATOM_OK;
    for (l->loops = 32; !st && l->loops < 1 << 20; l->loops *= 2) {
        st = atom_gpu_timer_run(t, &work, false, 1, &time, err);
        if (time.fastest_s > 0.7e-3)
            break;
    }
    return st;
}

static enum atom_status time_peak(struct atom_gpu_timer *t, struct looping *l, struct atom_gpu_ceilings *out,
                                  struct atom_error *err)
{
    const struct atom_gpu_work work = {put_peak, l, 1};
    enum atom_status st = ATOM_OK;
    l->blocks_per_sm = 1;
    st = settle_loops(t, l, err);
    for (; l->blocks_per_sm <= 4 && !st; l->blocks_per_sm *= 2) {
        struct atom_gpu_time time;
        unsigned long long clock = 0;
        double before = out->at[l->peak->what].rate;
        st = atom_cuda_fill(l->clock, 0, sizeof clock, err);
        st = st ? st : atom_gpu_timer_run(t, &work, false, REPEAT, &time, err);
        st = st ? st : atom_cuda_download(&clock, l->clock, sizeof clock, err);
        if (st)
            break;
        keep_best(out, l->peak->what, l->peak->how, l->ops, &time);
        if (out->at[l->peak->what].rate > before)
            out->at[l->peak->what].clock_hz = (double)clock;
    }
    return st;
}

static bool has(const struct atom_gpu_peak *p)
{
    const struct atom_cuda_device *d = atom_cuda_opened();
    return d->major * 10 + d->minor >= p->major * 10 + p->minor && (!p->newest_major || d->major <= p->newest_major);
}

static enum atom_status measure_products(struct atom_gpu_timer *t, struct atom_gpu_ceilings *out,
                                         struct atom_error *err)
{
    static const struct atom_gpu_peak *const tables[] = {atom_gpu_peaks_mma, atom_gpu_peaks_sm90};
    struct looping l = {0};
    void *clock = NULL;
    enum atom_status st = atom_cuda_alloc(sizeof *l.clock, &clock, err);
    l.clock = clock;
    for (int i = 0; i < 2; i++)
        for (l.peak = tables[i]; l.peak->put && !st; l.peak++)
            if (has(l.peak))
                st = time_peak(t, &l, out, err);
    atom_cuda_free(clock);
    return st;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static enum atom_status put_nothing(void *self, int copy, atom_cuda_stream s, struct atom_error *err)
{
    (void)self;
    (void)copy;
    return atom_gpu_nothing_put(s, err);
}

static enum atom_status measure_launches(struct atom_gpu_timer *t, struct atom_gpu_ceilings *out,
                                         struct atom_error *err)
{
    const struct atom_gpu_work work = {put_nothing, NULL, 1};
    struct atom_gpu_time time = {0};
    enum atom_status st = atom_gpu_timer_run(t, &work, false, REPEAT, &time, err);
    if (!st)
        keep_best(out, ATOM_GPU_LAUNCH, "kernels that do nothing, one after the other in a graph", 1, &time);
    return st;
}

enum atom_status atom_gpu_ceilings_measure(struct atom_gpu_timer *t, struct atom_gpu_ceilings *out,
                                           struct atom_error *err)
{
    memset(out, 0, sizeof *out);
    enum atom_status st = measure_launches(t, out, err);
    st = st ? st : measure_products(t, out, err);
    return st ? st : measure_bytes(t, out, err);
}
