/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/ceilings.h"

#include "backend/backend.h"
#include "base/clock.h"
#include "base/thread.h"
#include "bench/peaks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A machine is seldom ours alone: batches go on until this many in a row found nothing better. */
enum { BATCHES_IN_VAIN = 16, MOST_BATCHES = 100, READ_PART = 8192 };
/* Seconds of a batch, and what counts as better. */
static const double batch_seconds = 0.004, better = 1.003;
static const size_t least_bytes = (size_t)512 << 20, most_bytes = (size_t)4 << 30, brief_bytes = (size_t)8 << 20;

const char *const atom_ceiling_names[ATOM_N_CEILINGS] = {"int8", "f32", "bf16", "read"};

static void find_peaks(struct atom_peaks *p)
{
    const char *tier = atom_cpu_name();
    atom_peaks_scalar(p);
    if (strcmp(tier, "scalar") != 0)
        atom_peaks_avx2(p);
    if (strcmp(tier, "avx512") == 0)
        atom_peaks_avx512(p);
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

struct peak_job {
    const struct atom_peak *peak;
    long rounds;
};

static void run_peak(void *ctx, int i, int worker)
{
    const struct peak_job *job = ctx;
    (void)i;
    (void)worker;
    job->peak->run(job->rounds);
}

static double seconds_of(const struct peak_job *job, int threads)
{
    double began = atom_seconds();
    atom_parallel(threads, run_peak, (void *)job);
    return atom_seconds() - began;
}

/* The best rate (amount a second) of many batches. */
static double best_of(double (*batch)(void *job, int threads), void *job, int threads, bool brief)
{
    double best = 0;
    for (int i = 0, in_vain = 0; i < (brief ? 2 : MOST_BATCHES) && in_vain < BATCHES_IN_VAIN; i++) {
        double rate = batch(job, threads);
        in_vain = rate > best * better ? 0 : in_vain + 1;
        best = rate > best ? rate : best;
    }
    return best;
}

static double peak_rate(void *job, int threads)
{
    const struct peak_job *p = job;
    return threads * (double)p->rounds * p->peak->ops / seconds_of(p, threads);
}

static void measure_peak(const struct atom_peak *peak, const struct atom_ceilings_options *opt,
                         struct atom_ceiling *out)
{
    struct peak_job job = {peak, 1000};
    *out = (struct atom_ceiling){.how = ""};
    if (!peak->how)
        return;
    snprintf(out->how, sizeof out->how, "%s", peak->how);
    while (seconds_of(&job, 1) < batch_seconds)
        job.rounds *= 2;
    int threads = atom_pool_size();
    out->one = opt->one || threads == 1 ? best_of(peak_rate, &job, 1, opt->brief) : 0;
    out->all = threads == 1 ? out->one : best_of(peak_rate, &job, threads, opt->brief);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct read_job {
    const uint8_t *data;
    size_t n_bytes, part; /* in all, and of a thread */
    const char *how;
    atom_read_fn *read;
    size_t ahead;
    int streams;
    volatile uint64_t *sums; /* [threads], so that nothing is left out */
};

static void read_part(void *ctx, int i, int worker)
{
    const struct read_job *job = ctx;
    (void)worker;
    job->sums[i] = job->read(job->data + (size_t)i * job->part, job->part, job->ahead, job->streams);
}

static double read_rate(void *ctx, int threads)
{
    struct read_job *job = ctx;
    job->part = job->n_bytes / (size_t)threads / READ_PART * READ_PART;
    double began = atom_seconds();
    atom_parallel(threads, read_part, job);
    return (double)job->part * threads / (atom_seconds() - began);
}

/* Every way is tried twice, the best of them at length. */
static double best_way(const struct atom_peaks *peaks, struct read_job *job, int threads, bool brief)
{
    static const size_t aheads[] = {0, 512, 2048, 8192};
    static const int streams[] = {1, 4};
    enum { N_AHEADS = 4, N_STREAMS = 2, TRIES = 2 };
    struct read_job best = *job;
    double most = 0;
    for (int i = 0; i < (brief ? 1 : peaks->n_readers * N_AHEADS * N_STREAMS * TRIES); i++) {
        int reader = i / TRIES / N_AHEADS / N_STREAMS;
        job->how = peaks->readers[reader].how;
        job->read = peaks->readers[reader].read;
        job->ahead = aheads[i / TRIES % N_AHEADS];
        job->streams = streams[i / TRIES / N_AHEADS % N_STREAMS];
        double rate = read_rate(job, threads);
        if (rate > most) {
            most = rate;
            best = *job;
        }
    }
    *job = best;
    double again = best_of(read_rate, job, threads, brief);
    return again > most ? again : most;
}

static size_t buffer_bytes(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t n = cache > 0 ? 8 * (size_t)cache : 0;
    n = n > least_bytes ? n : least_bytes;
    return n < most_bytes ? n : most_bytes;
}

static enum atom_status measure_read(const struct atom_peaks *peaks, const struct atom_ceilings_options *opt,
                                     struct atom_ceiling *out, struct atom_error *err)
{
    size_t n_bytes = opt->brief ? brief_bytes : buffer_bytes();
    int threads = atom_pool_size();
    uint64_t *sums = calloc((size_t)atom_pool_size(), sizeof *sums);
    uint8_t *data = aligned_alloc((size_t)2 << 20, n_bytes);
    *out = (struct atom_ceiling){.how = ""};
    if (!data || !sums) {
        free(data);
        free(sums);
        return atom_fail_nomem(err, n_bytes);
    }
    madvise(data, n_bytes, MADV_HUGEPAGE);
    memset(data, 1, n_bytes);
    struct read_job job = {.data = data, .n_bytes = n_bytes, .sums = sums};
    out->one = opt->one && threads > 1 ? best_way(peaks, &job, 1, opt->brief) : 0;
    out->all = best_way(peaks, &job, threads, opt->brief);
    out->one = threads > 1 ? out->one : out->all;
    snprintf(out->how, sizeof out->how, "%s, %d stream%s a thread, ", job.how, job.streams, job.streams > 1 ? "s" : "");
    size_t n = strlen(out->how);
    if (job.ahead)
        snprintf(out->how + n, sizeof out->how - n, "prefetched %zu bytes ahead", job.ahead);
    else
        snprintf(out->how + n, sizeof out->how - n, "not prefetched");
    free(data);
    free(sums);
    return ATOM_OK;
}

enum atom_status atom_ceilings_measure(const struct atom_ceilings_options *opt, struct atom_ceilings *out,
                                       struct atom_error *err)
{
    struct atom_peaks peaks;
    struct atom_ceilings c;
    find_peaks(&peaks);
    measure_peak(&peaks.int8, opt, &c.at[ATOM_CEIL_INT8]);
    measure_peak(&peaks.f32, opt, &c.at[ATOM_CEIL_F32]);
    measure_peak(&peaks.bf16, opt, &c.at[ATOM_CEIL_BF16]);
    enum atom_status st = measure_read(&peaks, opt, &c.at[ATOM_CEIL_READ], err);
    if (!st)
        *out = c;
    return st;
}
