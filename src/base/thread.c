/* SPDX-License-Identifier: Apache-2.0 */
/* The pool. A job is one counter of items still to be taken: whoever lowers it owns what it took off, and the job
 * cannot end before that owner is done, so that a worker which comes late finds nothing and touches nothing. Nobody
 * waits for workers that sleep. */
#include "base/thread.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_THREADS = 1024, SPIN_NS = 40000, SPINS_PER_LOOK = 32, SHARES = 4 };

static struct {
    pthread_t *threads; /* size - 1 of them */
    atomic_int size;    /* 0: not started, which works like 1 */

    /* The job; written while no item is left and none is running. */
    atom_task_fn *fn;
    void *ctx;
    int n;
    atomic_int left;    /* items nobody has taken */
    atomic_int pending; /* items not done */

    atomic_int sleepers;
    atomic_bool caller_sleeps;
    atomic_bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_mutex_t caller; /* held by the one that is served */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER,
          .caller = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool inside_task;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool work_waits(void) { return atomic_load(&pool.left) > 0 || atomic_load(&pool.stopping); }
static bool job_is_done(void) { return atomic_load(&pool.pending) == 0; }

/* True as soon as ready() is; false when it stayed false for SPIN_NS. */
static bool spin_until(bool (*ready)(void))
{
    int64_t end = 0;
    for (unsigned i = 1;; i++) {
        if (ready())
            return true;
        relax();
        if (i % SPINS_PER_LOOK)
            continue;
        int64_t now = now_ns();
        if (!end)
            end = now + SPIN_NS;
        else if (now > end)
            return false;
    }
}

static void wake_caller(void)
{
    if (!atomic_load(&pool.caller_sleeps))
        return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.done);
    pthread_mutex_unlock(&pool.lock);
}

/* Takes some of the items that are left, a share that shrinks towards the end: neighbours stay together, and the last
 * to finish is not late by much. Returns how many are left with these, 0: none; *n is how many these are. */
static int take_some(int *n)
{
    int left = atomic_load(&pool.left), share = SHARES * atomic_load(&pool.size);
    do {
        if (left <= 0)
            return 0;
        *n = left > share ? left / share : 1;
    } while (!atomic_compare_exchange_weak(&pool.left, &left, left - *n));
    return left;
}

static void take_items(int worker)
{
    int left, n;
    inside_task = true;
    while ((left = take_some(&n)) > 0) {
        for (int i = 0; i < n; i++)
            pool.fn(pool.ctx, pool.n - left + i, worker);
        if (atomic_fetch_sub(&pool.pending, n) == n)
            wake_caller();
    }
    inside_task = false;
}

/* A sleeper says so before it looks, and a caller looks for sleepers after it has put out work: one sees the other. */
static void sleep_until_work(void)
{
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (!work_waits())
        pthread_cond_wait(&pool.work, &pool.lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void wake_workers(void)
{
    if (!atomic_load(&pool.sleepers))
        return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static void *run_worker(void *number)
{
    int worker = (int)(intptr_t)number;
    while (!atomic_load(&pool.stopping)) {
        take_items(worker);
        if (!spin_until(work_waits))
            sleep_until_work();
    }
    return NULL;
}

static void wait_for_job(void)
{
    if (spin_until(job_is_done))
        return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.caller_sleeps, true);
    while (!job_is_done())
        pthread_cond_wait(&pool.done, &pool.lock);
    atomic_store(&pool.caller_sleeps, false);
    pthread_mutex_unlock(&pool.lock);
}

void atom_parallel(int n, atom_task_fn *fn, void *ctx)
{
    assert(!inside_task);
    pthread_mutex_lock(&pool.caller);
    if (n <= 1 || atomic_load(&pool.size) <= 1) {
        inside_task = true;
        for (int i = 0; i < n; i++)
            fn(ctx, i, 0);
        inside_task = false;
    } else {
        pool.fn = fn;
        pool.ctx = ctx;
        pool.n = n;
        atomic_store(&pool.pending, n);
        atomic_store(&pool.left, n);
        wake_workers();
        take_items(0);
        wait_for_job();
    }
    pthread_mutex_unlock(&pool.caller);
}

/* ---- start and stop ---------------------------------------------------------------------------------------------- */

static void join_workers(int n)
{
    atomic_store(&pool.stopping, true);
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < n; i++)
        pthread_join(pool.threads[i], NULL);
    free(pool.threads);
    pool.threads = NULL;
    atomic_store(&pool.size, 0);
    atomic_store(&pool.stopping, false);
}

static enum atom_status start_workers(int n, struct atom_error *err)
{
    int failed = 0, started = 0;
    size_t n_bytes = (size_t)(n - 1) * sizeof *pool.threads;
    if (n == 1) {
        atomic_store(&pool.size, 1);
        return ATOM_OK;
    }
    pool.threads = malloc(n_bytes);
    if (!pool.threads)
        return atom_fail_nomem(err, n_bytes);
    atomic_store(&pool.left, 0);
    while (started < n - 1 && !failed) {
        failed = pthread_create(&pool.threads[started], NULL, run_worker, (void *)(intptr_t)(started + 1));
        started += !failed;
    }
    if (failed) {
        join_workers(started);
        return atom_fail_errno(err, failed, "cannot start thread %d of %d", started + 2, n);
    }
    atomic_store(&pool.size, n);
    return ATOM_OK;
}

enum atom_status atom_pool_start(int n, struct atom_error *err)
{
    sigset_t all, before;
    if (n < 0 || n > MAX_THREADS)
        return atom_fail(err, ATOM_ERR_INVALID, "the number of threads must be 0 to %d, not %d", MAX_THREADS, n);
    if (n == 0)
        n = atom_processors();
    atom_pool_stop();
    /* Signals from outside go to the program's own threads; workers inherit this mask. Faults stay open. */
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pthread_mutex_lock(&pool.caller);
    enum atom_status status = start_workers(n < MAX_THREADS ? n : MAX_THREADS, err);
    pthread_mutex_unlock(&pool.caller);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

void atom_pool_stop(void)
{
    pthread_mutex_lock(&pool.caller);
    join_workers(atom_pool_size() - 1);
    pthread_mutex_unlock(&pool.caller);
}

int atom_pool_size(void)
{
    int size = atomic_load(&pool.size);
    return size > 1 ? size : 1;
}
