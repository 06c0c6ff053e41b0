/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/ceilings.h"

#include "backend/backend.h"
#include "base/clock.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BRIEF_BATCHES = 2, BATCHES_IN_VAIN = 16, WINDOWS = 4 };
/* A machine is seldom ours alone. Batches are shorter than a scheduler's slices, so that some run undisturbed, and go
 * on until a good many in a row found nothing better; seconds. */
static const double batch_seconds = 0.001, least_seconds = 0.3, most_seconds = 1.0, better = 1.003;
static const size_t least_bytes = (size_t)512 << 20, most_bytes = (size_t)4 << 30, brief_bytes = (size_t)8 << 20;

const char *const atom_ceiling_names[ATOM_N_CEILINGS] = {"int8", "f32", "bf16", "read"};

static void find_peaks(struct atom_peaks *p)
{
    const char *tier = atom_cpu_name();
    atom_peaks_scalar(p);
    if (strcmp(tier, "scalar") != 0)
        atom_peaks_avx2(p);
    if (strcmp(tier, "avxvnni") == 0)
        atom_peaks_avxvnni(p);
    if (strncmp(tier, "avx512", 6) == 0)
        atom_peaks_avx512(p);
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

enum { MAX_THREADS = 1024 };

/* A thread's own time, so that other programs cost nothing: only reading is a thing that all have to share. */
struct peak_job {
    const struct atom_peak *peak;
    long rounds;
    double seconds[MAX_THREADS];
};

static double own_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void run_peak(void *ctx, int i, int worker)
{
    struct peak_job *job = ctx;
    double began = own_seconds();
    (void)worker;
    job->peak->run(job->rounds);
    job->seconds[i] = own_seconds() - began;
}

/* The best rate (amount a second) of many batches. */
static double best_of(double (*batch)(void *job, int threads), void *job, int threads, bool brief)
{
    double best = 0, began = atom_seconds(), spent = 0;
    for (int i = 0, in_vain = 0;
         brief ? i < BRIEF_BATCHES : spent < least_seconds || (spent < most_seconds && in_vain < BATCHES_IN_VAIN);
         i++) {
        double rate = batch(job, threads);
        in_vain = rate > best * better ? 0 : in_vain + 1;
        best = rate > best ? rate : best;
        spent = atom_seconds() - began;
    }
    return best;
}

static double peak_rate(void *ctx, int threads)
{
    struct peak_job *job = ctx;
    double rate = 0;
    atom_parallel(threads, run_peak, job);
    for (int i = 0; i < threads; i++)
        rate += (double)job->rounds * job->peak->ops / job->seconds[i];
    return rate;
}

static void measure_peak(const struct atom_peak *peak, const struct atom_ceilings_options *opt,
                         struct atom_ceiling *out)
{
    struct peak_job job = {.peak = peak, .rounds = 1000};
    int threads = atom_pool_size() < MAX_THREADS ? atom_pool_size() : MAX_THREADS;
    *out = (struct atom_ceiling){.how = ""};
    if (!peak->how)
        return;
    snprintf(out->how, sizeof out->how, "%s", peak->how);
    for (run_peak(&job, 0, 0); job.seconds[0] < batch_seconds; run_peak(&job, 0, 0))
        job.rounds *= 2;
    out->one = opt->one || threads == 1 ? best_of(peak_rate, &job, 1, opt->brief) : 0;
    out->all = threads == 1 ? out->one : best_of(peak_rate, &job, threads, opt->brief);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

struct read_job {
    const uint8_t *data;
    size_t window, part; /* bytes of one of WINDOWS, and of a thread's part in it */
    int turn;            /* a batch reads the next window: when it comes round, no cache has it any more */
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
    const uint8_t *from = job->data + (size_t)(job->turn % WINDOWS) * job->window + (size_t)i * job->part;
    job->sums[i] = job->read(from, job->part, job->ahead, job->streams);
}

static double read_rate(void *ctx, int threads)
{
    struct read_job *job = ctx;
    job->part = job->window / (size_t)threads / ATOM_READ_UNIT * ATOM_READ_UNIT;
    job->turn++;
    double began = atom_seconds();
    atom_parallel(threads, read_part, job);
    return (double)job->part * threads / (atom_seconds() - began);
}

/* Every way is tried a few times, the best of them at length. */
static double best_way(const struct atom_peaks *peaks, struct read_job *job, int threads, bool brief)
{
    static const size_t aheads[] = {0, 512, 2048, 8192};
    static const int streams[] = {1, 4};
    enum { N_AHEADS = 4, N_STREAMS = 2, TRIES = 4 };
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
    best.turn = job->turn;
    *job = best;
    double again = best_of(read_rate, job, threads, brief);
    return again > most ? again : most;
}

atom_read_fn *atom_ceiling_reader(void)
{
    struct atom_peaks peaks;
    find_peaks(&peaks);
    return peaks.readers[peaks.n_readers - 1].read;
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
    struct read_job job = {.data = data, .window = n_bytes / WINDOWS, .sums = sums};
    out->one = opt->one && threads > 1 ? best_way(peaks, &job, 1, opt->brief) : 0;
    out->all = best_way(peaks, &job, threads, opt->brief);
    out->one = threads > 1 ? out->one : out->all;
    out->all = out->one > out->all ? out->one : out->all;
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
