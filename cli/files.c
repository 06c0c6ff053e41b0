/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum atom_status fail(struct atom_error *err, const char *path, int errnum)
{
    err->code = errnum == ENOMEM ? ATOM_ERR_NOMEM : ATOM_ERR_IO;
    snprintf(err->message, sizeof err->message, "%s: %s", path, strerror(errnum));
    return err->code;
}

enum atom_status cli_read_file(const char *path, char **data, size_t *n_bytes, struct atom_error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t n = 0, room = 1 << 16;
    char *buf = malloc(room);
    int bad = !f ? errno : !buf ? ENOMEM : 0;
    while (!bad) {
        size_t got = fread(buf + n, 1, room - n - 1, f);
        n += got;
        if (n + 1 < room) {
            bad = ferror(f) ? errno : 0;
            break;
        }
        char *more = realloc(buf, room *= 2);
        bad = more ? 0 : ENOMEM;
        buf = more ? more : buf;
    }
    if (f && f != stdin)
        fclose(f);
    if (bad) {
        free(buf);
        return fail(err, path, bad);
    }
    buf[n] = 0;
    *data = buf;
    *n_bytes = n;
    return ATOM_OK;
}
