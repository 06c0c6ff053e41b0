/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *atom_version(void) { return ATOM_VERSION; }

const char *atom_status_name(enum atom_status status)
{
    static const char *const names[] = {"ok",          "invalid", "io",      "no-space", "format",
                                        "unsupported", "memory",  "numeric", "capacity", "cancelled"};
    size_t i = (size_t)status;
    return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}

static bool already_told(const struct atom_error *err) { return err->code != ATOM_OK; }

enum atom_status atom_fail(struct atom_error *err, enum atom_status code, const char *fmt, ...)
{
    if (err && !already_told(err)) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        err->code = code;
    }
    return code;
}

enum atom_status atom_fail_errno(struct atom_error *err, int errnum, const char *fmt, ...)
{
    enum atom_status code = ATOM_ERR_IO;
    if (errnum == ENOSPC || errnum == EDQUOT)
        code = ATOM_ERR_NOSPACE;
    else if (errnum == ENOMEM)
        code = ATOM_ERR_NOMEM;
    if (err && !already_told(err)) {
        char text[160];
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof err->message)
            snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", strerror_r(errnum, text, sizeof text));
        err->code = code;
    }
    return code;
}

enum atom_status atom_fail_nomem(struct atom_error *err, size_t n_bytes)
{
    return atom_fail(err, ATOM_ERR_NOMEM, "out of memory: %zu bytes were asked for", n_bytes);
}
