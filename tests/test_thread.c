/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "base/thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* Stands in front of the C library's: after this many threads there are no more; below zero there always are. */
static int threads_left = -1;

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *ctx)
{
    typedef int create_fn(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create_fn *real = (create_fn *)dlsym(RTLD_NEXT, "pthread_create");
    if (threads_left == 0)
        return EAGAIN;
    threads_left -= threads_left > 0;
    return real(thread, attr, run, ctx);
}

enum { MAX_ITEMS = 1000, MAX_WORKERS = 64 };

struct job {
    int counts[MAX_ITEMS];
    atomic_int running[MAX_WORKERS];
    atomic_int clashes, workers_seen;
    int sum[MAX_WORKERS];
};

static void count_item(void *ctx, int i, int worker)
{
    struct job *job = ctx;
    if (worker < 0 || worker >= atom_pool_size() || atomic_fetch_add(&job->running[worker], 1))
        atomic_fetch_add(&job->clashes, 1);
    job->counts[i]++;
    job->sum[worker]++; /* not atomic: TSan would see two at once */
    atomic_fetch_sub(&job->running[worker], 1);
}

static void check_job(int n)
{
    struct job *job = calloc(1, sizeof *job);
    int sum = 0;
    assert_non_null(job);
    atom_parallel(n, count_item, job);
    for (int i = 0; i < MAX_ITEMS; i++)
        assert_int_equal(job->counts[i], i < n);
    for (int i = 0; i < MAX_WORKERS; i++)
        sum += job->sum[i];
    assert_int_equal(sum, n > 0 ? n : 0);
    assert_int_equal(atomic_load(&job->clashes), 0);
    free(job);
}

static void test_each_once(void **state)
{
    (void)state;
    struct atom_error err = {0};
    check_job(10); /* before any start */
    for (int threads = 1; threads <= 9; threads += 2) {
        assert_ok(atom_pool_start(threads, &err), &err);
        assert_int_equal(atom_pool_size(), threads);
        for (int n = -1; n < 20; n++)
            check_job(n);
        for (int i = 0; i < 20; i++)
            check_job(MAX_ITEMS);
    }
    atom_pool_stop();
    assert_int_equal(atom_pool_size(), 1);
    check_job(10);
    atom_pool_stop();
}

/* Workers fall asleep between jobs and are woken; the caller falls asleep over a slow item. */
static void sleep_some(void *ctx, int i, int worker)
{
    (void)worker;
    struct timespec t = {.tv_nsec = i % 3 == 1 ? 2000000 : 1000};
    nanosleep(&t, NULL);
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static void test_sleepers(void **state)
{
    (void)state;
    struct atom_error err = {0};
    atomic_int done = 0;
    assert_ok(atom_pool_start(4, &err), &err);
    for (int i = 0; i < 50; i++) {
        struct timespec t = {.tv_nsec = 37000 * (i % 5)};
        atom_parallel(4, sleep_some, &done);
        nanosleep(&t, NULL);
    }
    assert_int_equal(done, 200);
    atom_pool_stop();
}

static void *call_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < 200; i++)
        check_job(7);
    return NULL;
}

static void test_many_callers(void **state)
{
    (void)state;
    struct atom_error err = {0};
    pthread_t callers[3];
    assert_ok(atom_pool_start(3, &err), &err);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, call_often, NULL), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(callers[i], NULL);
    atom_pool_stop();
}

static void test_start(void **state)
{
    (void)state;
    struct atom_error err = {0};
    assert_fails(atom_pool_start(-1, &err), &err, ATOM_ERR_INVALID, "not -1");
    memset(&err, 0, sizeof err);
    assert_fails(atom_pool_start(100000, &err), &err, ATOM_ERR_INVALID, "100000");
    memset(&err, 0, sizeof err);
    for (threads_left = 0; threads_left < 3;) {
        int had = threads_left;
        assert_fails(atom_pool_start(5, &err), &err, ATOM_ERR_IO, "cannot start thread");
        memset(&err, 0, sizeof err);
        assert_int_equal(atom_pool_size(), 1);
        check_job(20);
        threads_left = had + 1;
    }
    threads_left = -1;
    assert_ok(atom_pool_start(0, &err), &err);
    assert_int_equal(atom_pool_size(), atom_processors());
    atom_pool_stop();
}

static void test_affinity(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_in_range(atom_processors(), 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++) {
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(atom_processors(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_once), cmocka_unit_test(test_sleepers), cmocka_unit_test(test_many_callers),
        cmocka_unit_test(test_start),     cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
