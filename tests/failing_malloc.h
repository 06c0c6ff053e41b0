/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations that fail, one after the other: these stand in front of the C library's. For one file of a program. */
#ifndef ATOM_TESTS_FAILING_MALLOC_H
#define ATOM_TESTS_FAILING_MALLOC_H

#include "helpers.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static long until_failure = -1; /* allocations that still succeed; below zero: all */
static long live;               /* blocks */
static size_t mapped;           /* bytes, in whole pages */
static bool counting;

#ifndef SANITIZED
#pragma GCC visibility push(default) /* the JSON library's allocations too */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static bool refuses(void)
{
    if (!counting || until_failure < 0 || until_failure-- > 0)
        return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *p)
{
    live += counting && p;
    return p;
}

void *malloc(size_t n) { return refuses() ? NULL : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return refuses() ? NULL : counted(__libc_calloc(n, size)); }

void *realloc(void *p, size_t n)
{
    if (refuses())
        return NULL;
    void *moved = __libc_realloc(p, n);
    live += counting && !p && moved;
    return moved;
}

void free(void *p)
{
    live -= counting && p;
    __libc_free(p);
}

static size_t in_pages(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page - 1) / page * page;
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    if (refuses())
        return MAP_FAILED;
    long p = syscall(SYS_mmap, at, n, protection, flags, fd, offset);
    mapped += counting && p != -1 ? in_pages(n) : 0;
    return p == -1 ? MAP_FAILED : (void *)p;
}

int munmap(void *p, size_t n)
{
    mapped -= counting ? in_pages(n) : 0;
    return (int)syscall(SYS_munmap, p, n);
}
#pragma GCC visibility pop
#endif

typedef enum atom_status call_fn(const char *dir, struct atom_error *err);

/* `parses`: the JSON library may tell a failure as a syntax error, and overlooks it where a token outgrows a buffer;
 * then only leaks count. */
static void fail_each(const char *dir, call_fn *call, bool parses)
{
    struct atom_error err = {0};
    for (long k = 0;; k++) {
        memset(&err, 0, sizeof err);
        until_failure = k;
        live = 0;
        mapped = 0;
        counting = true;
        enum atom_status status = call(dir, &err);
        counting = false;
        if (live)
            fail_msg("allocation %ld: %ld blocks leaked (%s)", k, live, err.message);
        if (mapped)
            fail_msg("allocation %ld: %zu mapped bytes leaked (%s)", k, mapped, err.message);
        if (!status && until_failure >= 0)
            return; /* there were no more than k */
        bool told = status == ATOM_ERR_NOMEM && err.code == status && err.message[0];
        if (!told && !parses)
            fail_msg("allocation %ld: %s: %s", k, atom_status_name(status), err.message);
    }
}

#endif
