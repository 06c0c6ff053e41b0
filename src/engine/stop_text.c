/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/stop_text.h"

#include "model/tokenizer_text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 4096 };

enum atom_status atom_stop_text_init(struct atom_stop_text *s, const char *const *stop, int n_stop,
                                     struct atom_error *err)
{
    for (int i = 0; i < n_stop; i++) {
        size_t n = strlen(stop[i]), bad = atom_utf8_check(stop[i], n);
        if (n == 0)
            return atom_fail(err, ATOM_ERR_INVALID, "a stop string is empty");
        if (bad < n)
            return atom_fail(err, ATOM_ERR_INVALID, "a stop string is not UTF-8 at byte %zu", bad);
    }
    *s = (struct atom_stop_text){.stop = stop, .n_stop = n_stop, .text = malloc(FIRST_ROOM), .room = FIRST_ROOM};
    if (!s->text)
        return atom_fail_nomem(err, FIRST_ROOM);
    s->text[0] = 0;
    return ATOM_OK;
}

void atom_stop_text_fini(struct atom_stop_text *s)
{
    free(s->text);
    *s = (struct atom_stop_text){0};
}

static enum atom_status append(struct atom_stop_text *s, const char *text, size_t n_bytes, struct atom_error *err)
{
    if (s->n_bytes + n_bytes + 1 > s->room) {
        size_t room = 2 * (s->n_bytes + n_bytes + 1);
        char *more = realloc(s->text, room);
        if (!more)
            return atom_fail_nomem(err, room);
        s->text = more;
        s->room = room;
    }
    memcpy(s->text + s->n_bytes, text, n_bytes);
    s->n_bytes += n_bytes;
    s->text[s->n_bytes] = 0;
    return ATOM_OK;
}

/* The most bytes of text's end that start a stop string and do not fill it. */
static size_t started(const struct atom_stop_text *s)
{
    size_t most = 0;
    for (int i = 0; i < s->n_stop; i++) {
        size_t tail = s->n_bytes - s->n_certain, n = strlen(s->stop[i]) - 1;
        for (n = n < tail ? n : tail; n > most; n--)
            if (memcmp(s->text + s->n_bytes - n, s->stop[i], n) == 0)
                most = n;
    }
    return most;
}

enum atom_status atom_stop_text_add(struct atom_stop_text *s, const char *text, size_t n_bytes, struct atom_error *err)
{
    assert(!s->found);
    enum atom_status st = append(s, text, n_bytes, err);
    if (st)
        return st;
    const char *from = s->text + s->n_certain, *first = NULL;
    for (int i = 0; i < s->n_stop; i++) {
        const char *at = memmem(from, s->n_bytes - s->n_certain, s->stop[i], strlen(s->stop[i]));
        if (at && (!first || at < first))
            first = at;
    }
    s->found = first != NULL;
    if (first) {
        s->n_bytes = (size_t)(first - s->text);
        s->text[s->n_bytes] = 0;
    }
    s->n_certain = s->n_bytes - (first ? 0 : started(s));
    return ATOM_OK;
}

void atom_stop_text_finish(struct atom_stop_text *s) { s->n_certain = s->n_bytes; }
