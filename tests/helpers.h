/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: directories that go away, files, sentences that must be said. */
#ifndef ATOM_TESTS_HELPERS_H
#define ATOM_TESTS_HELPERS_H

#include "atom/atom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

/* What the kernel counts as this process's memory now. */
static inline size_t resident_bytes(void)
{
    size_t size, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", &size, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* A new directory under TMPDIR or /tmp; the caller frees the name after remove_dir. */
static inline char *make_dir(void)
{
    const char *base = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%s/atom-test-XXXXXX", base && *base ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return strdup(path);
}

static inline void remove_dir(char *dir)
{
    char command[1100];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(dir);
}

/* DIR/NAME; one of four buffers that take turns. */
static inline const char *in_dir(const char *dir, const char *name)
{
    static char paths[4][2048];
    static int turn;
    char path[sizeof paths[0]]; /* dir may be one of the four */
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return strcpy(paths[turn++ % 4], path);
}

static inline void put_bytes(const char *dir, const char *name, const void *data, size_t n_bytes)
{
    FILE *file = fopen(in_dir(dir, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
    put_bytes(dir, name, text, strlen(text));
}

/* Failed with this code and a sentence that holds `words`. */
static inline void assert_fails(enum atom_status status, const struct atom_error *err, enum atom_status code,
                                const char *words)
{
    if (status != code || err->code != code || !strstr(err->message, words))
        fail_msg("wanted %s with '%s', got %s: %s", atom_status_name(code), words, atom_status_name(status),
                 err->message);
}

static inline void assert_ok(enum atom_status status, const struct atom_error *err)
{
    if (status)
        fail_msg("%s: %s", atom_status_name(status), err->message);
}

/* Says why, where tools/run-tests.sh looks for it, and skips the test. */
#define skip_because(why)                                                                                              \
    do {                                                                                                               \
        print_message("skip: %s\n", why);                                                                              \
        skip();                                                                                                        \
    } while (0)

/* The directory of $ATOM_SHARED/models/NAME.tar.xz, unpacked once under TMPDIR or /tmp; false: it is not there. */
static inline bool shared_model(const char *name, char *dir, size_t n)
{
    const char *shared = getenv("ATOM_SHARED"), *base = getenv("TMPDIR");
    char archive[1024], cache[1024], command[16384];
    struct stat st;
    shared = shared && *shared ? shared : "../shared";
    snprintf(archive, sizeof archive, "%s/models/%s.tar.xz", shared, name);
    snprintf(cache, sizeof cache, "%s/atom-test-shared-%u", base && *base ? base : "/tmp", (unsigned)getuid());
    snprintf(dir, n, "%s/%s", cache, name);
    if (stat(archive, &st))
        return false;
    /* Unpacked beside and renamed: two tests may want it at once, and one may be killed. */
    snprintf(command, sizeof command,
             "[ -e '%s' ] || { mkdir -p '%s' && t=$(mktemp -d '%s/XXXXXX') && tar -xJf '%s' -C \"$t\" && "
             "{ mv -T \"$t/%s\" '%s' || [ -e '%s' ]; }; r=$?; rm -rf \"$t\"; exit $r; }",
             dir, cache, cache, archive, name, dir, dir);
    return system(command) == 0;
}

#endif
