/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the loading layer fails once: the call must say so, change nothing and leak nothing. */
#include "helpers.h"

#include "base/file.h"
#include "model/config.h"
#include "model/safetensors.h"

#include <errno.h>
#include <sys/stat.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

static long until_failure = -1; /* allocations that still succeed; below zero: all */
static long live;
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
        counting = true;
        enum atom_status status = call(dir, &err);
        counting = false;
        if (live)
            fail_msg("allocation %ld: %ld blocks leaked (%s)", k, live, err.message);
        if (!status && until_failure >= 0)
            return; /* there were no more than k */
        bool told = status == ATOM_ERR_NOMEM && err.code == status && err.message[0];
        if (!told && !parses)
            fail_msg("allocation %ld: %s: %s", k, atom_status_name(status), err.message);
    }
}

static enum atom_status load_config(const char *dir, struct atom_error *err)
{
    struct atom_config c;
    (void)dir;
    return atom_config_load("models/tiny", &c, err);
}

static enum atom_status quantize_config(const char *dir, struct atom_error *err)
{
    struct atom_scheme s;
    char *text = NULL;
    (void)dir;
    atom_scheme_recipe("default", &s, NULL);
    enum atom_status status = atom_config_quantized_text("models/tiny", &s, &text, err);
    free(text);
    return status;
}

static enum atom_status open_tensors(const char *dir, struct atom_error *err)
{
    struct atom_tensors *t = NULL;
    enum atom_status status = atom_tensors_open(dir, &t, err);
    atom_tensors_close(t);
    return status;
}

static enum atom_status write_tensors(const char *dir, struct atom_error *err)
{
    static const float zeros[4];
    const struct atom_tensor in[] = {
        {.name = "a", .dtype = ATOM_F32, .n_dims = 2, .dims = {2, 2}, .data = zeros, .n_bytes = 16},
        {.name = "b", .dtype = ATOM_U8, .n_dims = 1, .dims = {3}, .data = zeros, .n_bytes = 3},
    };
    return atom_safetensors_write(in_dir(dir, "one"), in, 2, err);
}

static enum atom_status write_file(const char *dir, struct atom_error *err)
{
    return atom_file_write(in_dir(dir, "text"), "text", 4, err);
}

static enum atom_status copy_file(const char *dir, struct atom_error *err)
{
    return atom_file_copy("models/tiny/config.json", in_dir(dir, "copy"), err);
}

static enum atom_status replace_dir(const char *dir, struct atom_error *err)
{
    char from[1100], to[1100];
    snprintf(from, sizeof from, "%s/new", dir);
    snprintf(to, sizeof to, "%s/out", dir);
    mkdir(from, 0777);
    mkdir(to, 0777);
    return atom_dir_replace(from, to, err);
}

static void test_all(void **state)
{
#ifdef SANITIZED
    skip();
#endif
    (void)state;
    char *dir = make_dir();
    fail_each(dir, load_config, true);
    fail_each(dir, quantize_config, true);
    fail_each(dir, write_tensors, false);
    put_text(dir, "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"one\",\"b\":\"one\"}}");
    fail_each(dir, open_tensors, true);
    fail_each("models/tiny", open_tensors, true);
    fail_each(dir, write_file, false);
    fail_each(dir, copy_file, false);
    fail_each(dir, replace_dir, false);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
