/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/checksums.h"

#include "base/file.h"
#include "model/json_read.h"
#include "quant/fingerprint.h"
#include "quant/partial_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* -1: not there, or no file. */
static long long file_bytes(const char *path)
{
    struct stat st;
    return !lstat(path, &st) && S_ISREG(st.st_mode) ? (long long)st.st_size : -1;
}

static enum atom_status hash_file(const char *path, char text[24], struct atom_error *err)
{
    uint64_t hash;
    enum atom_status st = atom_fingerprint_file(path, &hash, err);
    if (!st)
        snprintf(text, 24, "%016" PRIx64, hash);
    return st;
}

enum atom_status atom_checksum_of(const char *dir, const char *file, json_t **out, struct atom_error *err)
{
    char hash[24], *path = atom_path_join(dir, file);
    long long bytes = path ? file_bytes(path) : -1;
    enum atom_status st = !path ? atom_fail_nomem(err, strlen(dir)) : bytes < 0 ? ATOM_OK : hash_file(path, hash, err);
    free(path);
    if (st)
        return st;
    json_t *entry =
        bytes < 0 ? NULL : json_pack("{s:s, s:I, s:s}", "file", file, "bytes", (json_int_t)bytes, "hash", hash);
    if (bytes >= 0 && !entry)
        return atom_fail_nomem(err, 256);
    *out = entry;
    return ATOM_OK;
}

enum atom_status atom_checksum_check(const char *dir, const json_t *entry, char why[200], struct atom_error *err)
{
    const char *file = json_string_value(json_object_get(entry, "file"));
    const char *want = json_string_value(json_object_get(entry, "hash"));
    long long bytes = json_integer_value(json_object_get(entry, "bytes"));
    struct atom_error unread = {0};
    char have[24] = "";
    char *path = file ? atom_path_join(dir, file) : NULL;
    if (file && !path)
        return atom_fail_nomem(err, strlen(dir));
    long long now = path ? file_bytes(path) : -1;
    enum atom_status st = want && now == bytes ? hash_file(path, have, &unread) : ATOM_OK;
    free(path);
    *why = 0;
    if (st == ATOM_ERR_NOMEM)
        return atom_fail(err, st, "%s", unread.message);
    if (now < 0)
        snprintf(why, 200, "%.64s is not there", file ? file : "a file without a name");
    else if (now != bytes)
        snprintf(why, 200, "%.64s has %lld bytes, %lld were written", file, now, bytes);
    else if (st)
        snprintf(why, 200, "%.190s", unread.message);
    else if (want && strcmp(have, want))
        snprintf(why, 200, "%.64s has the checksum %s, %.16s was written", file, have, want);
    return ATOM_OK;
}

enum atom_status atom_checksums_check(const char *dir, char why[500], struct atom_error *err)
{
    json_t *report = NULL;
    enum atom_status st = atom_json_load(dir, ATOM_REPORT_FILE, ATOM_REPORT_LIMIT, true, &report, err);
    const json_t *files = json_object_get(report, "files");
    char what[200] = "";
    if (!st && json_array_size(files) == 0)
        snprintf(what, sizeof what, "its %s has no checksums", ATOM_REPORT_FILE);
    for (size_t i = 0; i < json_array_size(files) && !st && !*what; i++)
        st = atom_checksum_check(dir, json_array_get(files, i), what, err);
    json_decref(report);
    if (!st)
        snprintf(why, 500, "%.280s%s%s", *what ? dir : "", *what ? ": " : "", what);
    return st;
}
