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

enum { BATCHES = 9, READ_BATCHES = 3, READ_PART = 8192 };
static const double batch_seconds = 0.015;
static const size_t least_bytes = (size_t)512 << 20, most_bytes = (size_t)4 << 30;

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

static double peak_of(struct peak_job *job, int threads)
{
    double best = 0;
    for (int i = 0; i < BATCHES; i++) {
        double rate = threads * (double)job->rounds * job->peak->ops / seconds_of(job, threads);
        best = rate > best ? rate : best;
    }
    return best;
}

static void measure_peak(const struct atom_peak *peak, bool one, struct atom_ceiling *out)
{
    struct peak_job job = {peak, 1000};
    *out = (struct atom_ceiling){.how = ""};
    if (!peak->how)
        return;
    snprintf(out->how, sizeof out->how, "%s", peak->how);
    while (seconds_of(&job, 1) < batch_seconds)
        job.rounds *= 2;
    out->one = one || atom_pool_size() == 1 ? peak_of(&job, 1) : 0;
    out->all = atom_pool_size() == 1 ? out->one : peak_of(&job, atom_pool_size());
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct read_job {
    const uint8_t *data;
    size_t n_bytes; /* of a part */
    atom_read_fn *read;
    size_t ahead;
    int streams;
    volatile uint64_t *sums; /* [parts], so that nothing is left out */
};

static void read_part(void *ctx, int i, int worker)
{
    const struct read_job *job = ctx;
    (void)worker;
    job->sums[i] = job->read(job->data + (size_t)i * job->n_bytes, job->n_bytes, job->ahead, job->streams);
}

static double read_rate(struct read_job *job, size_t n_bytes, int threads)
{
    double best = 0;
    job->n_bytes = n_bytes / (size_t)threads / READ_PART * READ_PART;
    for (int i = 0; i < READ_BATCHES; i++) {
        double began = atom_seconds();
        atom_parallel(threads, read_part, job);
        double rate = (double)job->n_bytes * threads / (atom_seconds() - began);
        best = rate > best ? rate : best;
    }
    return best;
}

static void try_way(struct read_job *job, const char *how, size_t n_bytes, bool one, struct atom_ceiling *out)
{
    int threads = atom_pool_size();
    double all = read_rate(job, n_bytes, threads), single = one && threads > 1 ? read_rate(job, n_bytes, 1) : 0;
    out->one = single > out->one ? single : out->one;
    if (all <= out->all)
        return;
    out->all = all;
    if (job->ahead)
        snprintf(out->how, sizeof out->how, "%s, %d stream%s, prefetched %zu bytes ahead", how, job->streams,
                 job->streams > 1 ? "s" : "", job->ahead);
    else
        snprintf(out->how, sizeof out->how, "%s, %d stream%s, not prefetched", how, job->streams,
                 job->streams > 1 ? "s" : "");
}

static size_t buffer_bytes(void)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t n = cache > 0 ? 8 * (size_t)cache : 0;
    n = n > least_bytes ? n : least_bytes;
    return n < most_bytes ? n : most_bytes;
}

static enum atom_status measure_read(const struct atom_peaks *peaks, bool one, struct atom_ceiling *out,
                                     struct atom_error *err)
{
    static const size_t aheads[] = {0, 512, 2048, 8192};
    static const int streams[] = {1, 4};
    size_t n_bytes = buffer_bytes(), n_aheads = sizeof aheads / sizeof aheads[0];
    volatile uint64_t *sums = malloc((size_t)atom_pool_size() * sizeof *sums);
    uint8_t *data = aligned_alloc((size_t)2 << 20, n_bytes);
    *out = (struct atom_ceiling){.how = ""};
    if (!data || !sums) {
        free(data);
        free((void *)sums);
        return atom_fail_nomem(err, n_bytes);
    }
    madvise(data, n_bytes, MADV_HUGEPAGE);
    memset(data, 1, n_bytes);
    for (int r = 0; r < peaks->n_readers; r++)
        for (size_t i = 0; i < n_aheads * sizeof streams / sizeof streams[0]; i++) {
            struct read_job job = {.data = data,
                                   .read = peaks->readers[r].read,
                                   .ahead = aheads[i % n_aheads],
                                   .streams = streams[i / n_aheads],
                                   .sums = sums};
            try_way(&job, peaks->readers[r].how, n_bytes, one, out);
        }
    if (atom_pool_size() == 1)
        out->one = out->all;
    free(data);
    free((void *)sums);
    return ATOM_OK;
}

enum atom_status atom_ceilings_measure(bool one, struct atom_ceilings *out, struct atom_error *err)
{
    struct atom_peaks peaks;
    struct atom_ceilings c;
    find_peaks(&peaks);
    measure_peak(&peaks.int8, one, &c.at[ATOM_CEIL_INT8]);
    measure_peak(&peaks.f32, one, &c.at[ATOM_CEIL_F32]);
    measure_peak(&peaks.bf16, one, &c.at[ATOM_CEIL_BF16]);
    enum atom_status st = measure_read(&peaks, one, &c.at[ATOM_CEIL_READ], err);
    if (!st)
        *out = c;
    return st;
}
