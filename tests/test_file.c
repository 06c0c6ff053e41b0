/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "base/file.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- failing system calls: these stand in front of the C library's ------------------------------------------------
 */

static int short_writes, write_errno, write_failures, fsync_errno, rename_errno, exchange_errno;

ssize_t write(int fd, const void *data, size_t n)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (write_failures > 0) {
        write_failures--;
        errno = write_errno;
        return -1;
    }
    return real(fd, data, short_writes && n > 3 ? 3 : n);
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    errno = fsync_errno;
    return fsync_errno ? -1 : real(fd);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    errno = rename_errno;
    return rename_errno ? -1 : real(from, to);
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    int (*real)(int, const char *, int, const char *, unsigned) =
        (int (*)(int, const char *, int, const char *, unsigned))dlsym(RTLD_NEXT, "renameat2");
    errno = exchange_errno;
    return exchange_errno ? -1 : real(a, from, b, to, flags);
}

/* ---- helpers ------------------------------------------------------------------------------------------------------
 */

static struct atom_error err;

static int fresh(void **state)
{
    memset(&err, 0, sizeof err);
    short_writes = write_failures = fsync_errno = rename_errno = exchange_errno = 0;
    *state = make_dir();
    return 0;
}

static int done(void **state)
{
    remove_dir(*state);
    return 0;
}

static void assert_holds(const char *dir, const char *name, const char *text)
{
    char *data = NULL;
    size_t n;
    assert_ok(atom_file_read(in_dir(dir, name), 1000, &data, &n, &err), &err);
    assert_int_equal(n, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

static bool there(const char *dir, const char *name) { return access(in_dir(dir, name), F_OK) == 0; }

/* ---- reading and writing ------------------------------------------------------------------------------------------
 */

static void test_read(void **state)
{
    char *data = NULL;
    size_t n = 99;
    put_text(*state, "a", "hello");
    put_text(*state, "empty", "");
    assert_holds(*state, "a", "hello");
    assert_holds(*state, "empty", "");
    assert_ok(atom_file_read(in_dir(*state, "a"), 5, &data, &n, &err), &err);
    free(data);
    data = NULL;
    assert_fails(atom_file_read(in_dir(*state, "a"), 4, &data, &n, &err), &err, ATOM_ERR_FORMAT, "5 bytes");
    memset(&err, 0, sizeof err);
    assert_fails(atom_file_read(in_dir(*state, "b"), 4, &data, &n, &err), &err, ATOM_ERR_IO, "No such file");
    memset(&err, 0, sizeof err);
    assert_fails(atom_file_read(*state, 4, &data, &n, &err), &err, ATOM_ERR_IO, "is a directory");
    memset(&err, 0, sizeof err);
    assert_fails(atom_file_read("/dev/zero", 100000, &data, &n, &err), &err, ATOM_ERR_FORMAT, "more than 100000");
    assert_int_equal(atom_file_read(in_dir(*state, "b"), 4, &data, &n, NULL), ATOM_ERR_IO);
    assert_null(data);
}

static void test_write(void **state)
{
    short_writes = 1;
    write_failures = 2;
    write_errno = EINTR;
    assert_ok(atom_file_write(in_dir(*state, "a"), "first text", 10, &err), &err);
    assert_holds(*state, "a", "first text");
    assert_ok(atom_file_write(in_dir(*state, "a"), "next", 4, &err), &err);
    assert_holds(*state, "a", "next");
    assert_ok(atom_file_copy(in_dir(*state, "a"), in_dir(*state, "b"), &err), &err);
    assert_holds(*state, "b", "next");
    assert_false(there(*state, "a.tmp"));
}

/* The old text stays, and nothing else. */
static void test_write_fails(void **state)
{
    assert_ok(atom_file_write(in_dir(*state, "a"), "old", 3, &err), &err);
    write_failures = 1;
    write_errno = ENOSPC;
    assert_fails(atom_file_write(in_dir(*state, "a"), "new", 3, &err), &err, ATOM_ERR_NOSPACE, "/a.tmp");
    memset(&err, 0, sizeof err);
    fsync_errno = EIO;
    assert_fails(atom_file_write(in_dir(*state, "a"), "new", 3, &err), &err, ATOM_ERR_IO, "cannot sync");
    fsync_errno = 0;
    memset(&err, 0, sizeof err);
    rename_errno = EACCES;
    assert_fails(atom_file_write(in_dir(*state, "a"), "new", 3, &err), &err, ATOM_ERR_IO, "cannot rename");
    memset(&err, 0, sizeof err);
    write_failures = 1;
    assert_fails(atom_file_copy(in_dir(*state, "a"), in_dir(*state, "b"), &err), &err, ATOM_ERR_NOSPACE, "/b");
    memset(&err, 0, sizeof err);
    assert_fails(atom_file_write("/dev/full", "new", 3, &err), &err, ATOM_ERR_NOSPACE, "/dev/full");
    memset(&err, 0, sizeof err);
    assert_holds(*state, "a", "old");
    assert_false(there(*state, "a.tmp"));
    assert_false(there(*state, "b"));
    assert_int_equal(access("/dev/full", F_OK), 0);
}

/* ---- directories --------------------------------------------------------------------------------------------------
 */

static void put_dir(const char *dir, const char *name, const char *text)
{
    assert_int_equal(mkdir(in_dir(dir, name), 0777), 0);
    put_text(in_dir(dir, name), "text", text);
}

static void test_replace(void **state)
{
    char *from = strdup(in_dir(*state, "out.partial")), *to = strdup(in_dir(*state, "out"));
    put_dir(*state, "out.partial", "one");
    assert_ok(atom_dir_replace(from, to, &err), &err);
    assert_holds(*state, "out/text", "one");
    put_dir(*state, "out.partial", "two");
    assert_ok(atom_dir_replace(from, to, &err), &err);
    assert_holds(*state, "out/text", "two");
    assert_false(there(*state, "out.partial"));
    exchange_errno = EINVAL;
    put_dir(*state, "out.partial", "three");
    assert_ok(atom_dir_replace(from, to, &err), &err);
    assert_holds(*state, "out/text", "three");
    assert_false(there(*state, "out.partial"));
    assert_false(there(*state, "out.old"));
    free(from);
    free(to);
}

static void test_replace_refuses(void **state)
{
    char *from = strdup(in_dir(*state, "new")), *to = strdup(in_dir(*state, "out"));
    assert_fails(atom_dir_replace(from, to, &err), &err, ATOM_ERR_IO, "is not there");
    memset(&err, 0, sizeof err);
    put_dir(*state, "new", "new");
    put_dir(*state, "out", "old");
    assert_int_equal(mkdir(in_dir(to, "deep"), 0777), 0);
    assert_fails(atom_dir_replace(from, to, &err), &err, ATOM_ERR_IO, "holds a directory, deep");
    memset(&err, 0, sizeof err);
    assert_fails(atom_dir_delete(to, &err), &err, ATOM_ERR_IO, "deep");
    memset(&err, 0, sizeof err);
    assert_int_equal(rmdir(in_dir(to, "deep")), 0);
    exchange_errno = EACCES;
    assert_fails(atom_dir_replace(from, to, &err), &err, ATOM_ERR_IO, "cannot exchange");
    memset(&err, 0, sizeof err);
    exchange_errno = EINVAL;
    rename_errno = EACCES;
    assert_fails(atom_dir_replace(from, to, &err), &err, ATOM_ERR_IO, "cannot rename");
    memset(&err, 0, sizeof err);
    assert_holds(*state, "out/text", "old");
    assert_holds(*state, "new/text", "new");
    assert_fails(atom_dir_replace(from, in_dir(*state, "new/text"), &err), &err, ATOM_ERR_IO, "is not a directory");
    memset(&err, 0, sizeof err);
    assert_int_equal(symlink(to, in_dir(*state, "link")), 0);
    assert_fails(atom_dir_replace(from, in_dir(*state, "link"), &err), &err, ATOM_ERR_IO, "symbolic link");
    memset(&err, 0, sizeof err);
    assert_ok(atom_dir_delete(to, &err), &err);
    assert_ok(atom_dir_delete(to, &err), &err);
    assert_false(there(*state, "out"));
    free(from);
    free(to);
}

/* ---- maps ---------------------------------------------------------------------------------------------------------
 */

static void test_map(void **state)
{
    struct atom_map map, none;
    put_text(*state, "a", "hello");
    put_text(*state, "empty", "");
    assert_ok(atom_map_open(in_dir(*state, "a"), &map, &err), &err);
    assert_int_equal(map.n_bytes, 5);
    assert_memory_equal(map.data, "hello", 5);
    assert_true(atom_map_is_whole(&map));
    assert_ok(atom_map_open(in_dir(*state, "empty"), &none, &err), &err);
    assert_true(!none.data && !none.n_bytes && atom_map_is_whole(&none));
    atom_map_close(&none);
    /* Cut inside its only page: no fault tells of it. */
    assert_int_equal(truncate(in_dir(*state, "a"), 3), 0);
    assert_false(atom_map_is_whole(&map));
    atom_map_close(&map);
    atom_map_close(&map);
    atom_map_close(NULL);
    assert_fails(atom_map_open(*state, &map, &err), &err, ATOM_ERR_IO, "not a regular file");
    memset(&err, 0, sizeof err);
    assert_int_equal(mkfifo(in_dir(*state, "fifo"), 0666), 0);
    assert_fails(atom_map_open(in_dir(*state, "fifo"), &map, &err), &err, ATOM_ERR_IO, "not a regular file");
    memset(&err, 0, sizeof err);
    assert_fails(atom_map_open(in_dir(*state, "b"), &map, &err), &err, ATOM_ERR_IO, "No such file");
}

static void test_map_release(void **state)
{
    enum { N_BYTES = 16000001 };
    struct atom_map map, none = {0};
    uint8_t *bytes = malloc(N_BYTES);
    assert_non_null(bytes);
    memset(bytes, 7, N_BYTES);
    put_bytes(*state, "a", bytes, N_BYTES);
    assert_ok(atom_map_open(in_dir(*state, "a"), &map, &err), &err);
    for (int round = 0; round < 2; round++) {
        size_t before = resident_bytes();
        assert_memory_equal(map.data, bytes, N_BYTES);
        assert_true(resident_bytes() > before + N_BYTES - 1000000);
        atom_map_release(&map);
        assert_true(resident_bytes() < before + 1000000);
    }
    assert_true(atom_map_is_whole(&map));
    atom_map_close(&map);
    atom_map_release(&map);
    atom_map_release(&none);
    free(bytes);
}

static void test_map_cut_short(void **state)
{
    enum { N_BYTES = 1000000, LEFT = 100000 };
    struct atom_map map, other;
    char *bytes = malloc(N_BYTES);
    assert_non_null(bytes);
    memset(bytes, 7, N_BYTES);
    put_bytes(*state, "a", bytes, N_BYTES);
    put_bytes(*state, "b", bytes, N_BYTES);
    assert_ok(atom_map_open(in_dir(*state, "a"), &map, &err), &err);
    assert_ok(atom_map_open(in_dir(*state, "b"), &other, &err), &err);
    assert_int_equal(truncate(in_dir(*state, "a"), LEFT), 0);
    size_t sum = 0;
    for (size_t i = 0; i < N_BYTES; i++)
        sum += map.data[i];
    assert_int_equal(sum, 7 * LEFT);
    assert_false(atom_map_is_whole(&map));
    assert_true(atom_map_is_whole(&other));
    atom_map_release(&map); /* a hole stays one */
    assert_int_equal(map.data[0], 7);
    assert_int_equal(map.data[N_BYTES - 1], 0);
    assert_false(atom_map_is_whole(&map));
    /* The slot's next file starts whole. */
    atom_map_close(&map);
    assert_ok(atom_map_open(in_dir(*state, "b"), &map, &err), &err);
    assert_true(atom_map_is_whole(&map));
    atom_map_close(&map);
    atom_map_close(&other);
    free(bytes);
}

static void test_map_slots(void **state)
{
    struct atom_map maps[1024], one_more;
    put_text(*state, "a", "hello");
    int n = 0;
    while (n < 1024 && !atom_map_open(in_dir(*state, "a"), &maps[n], &err))
        n++;
    assert_true(n > 500); /* files open at once may be fewer than slots */
    assert_int_not_equal(atom_map_open(in_dir(*state, "a"), &one_more, &err), ATOM_OK);
    for (int i = 0; i < n; i++)
        atom_map_close(&maps[i]);
    memset(&err, 0, sizeof err);
    assert_ok(atom_map_open(in_dir(*state, "a"), &one_more, &err), &err);
    atom_map_close(&one_more);
}

/* A fault in somebody else's mapping, or a signal that was sent, still goes where it went. */
static void die_of_sigbus(const char *dir, bool sent, void (*handler)(int))
{
    struct atom_map map;
    FILE *file = fopen(in_dir(dir, "foreign"), "w+");
    volatile char *p = file ? mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0) : NULL;
    alarm(20);
    signal(SIGBUS, handler);
    if (!p || atom_map_open(in_dir(dir, "a"), &map, NULL))
        _exit(2);
    if (sent)
        raise(SIGBUS);
    else
        (void)*p;
    _exit(3);
}

static void leave(int number)
{
    (void)number;
    _exit(42);
}

static void test_other_faults(void **state)
{
    put_text(*state, "a", "hello");
    for (int i = 0; i < 5; i++) {
        int how;
        void (*const handlers[])(int) = {SIG_DFL, leave, SIG_IGN};
        pid_t child = fork();
        if (child == 0)
            die_of_sigbus(*state, i & 1, handlers[i / 2]);
        assert_int_equal(waitpid(child, &how, 0), child);
        if (i / 2 == 1)
            assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 42);
        else
            assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGBUS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, fresh, done),
        cmocka_unit_test_setup_teardown(test_write, fresh, done),
        cmocka_unit_test_setup_teardown(test_write_fails, fresh, done),
        cmocka_unit_test_setup_teardown(test_replace, fresh, done),
        cmocka_unit_test_setup_teardown(test_replace_refuses, fresh, done),
        cmocka_unit_test_setup_teardown(test_map, fresh, done),
        cmocka_unit_test_setup_teardown(test_map_release, fresh, done),
        cmocka_unit_test_setup_teardown(test_map_cut_short, fresh, done),
        cmocka_unit_test_setup_teardown(test_map_slots, fresh, done),
        cmocka_unit_test_setup_teardown(test_other_faults, fresh, done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
