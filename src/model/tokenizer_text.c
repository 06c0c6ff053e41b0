/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Room for `need` elements of `size` bytes in *data; doubles, so that additions cost little on average. */
static bool grow(void **data, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    size_t want = *cap < 64 ? 64 : *cap * 2;
    if (want < need)
        want = need;
    if (want > SIZE_MAX / size)
        return false;
    void *p = realloc(*data, want * size);
    if (!p)
        return false;
    *data = p;
    *cap = want;
    return true;
}

bool atom_text_reserve(struct atom_text *t, size_t extra)
{
    void *data = t->data;
    if (t->failed || extra > SIZE_MAX / 2 - t->n || !grow(&data, &t->cap, t->n + extra, 1))
        t->failed = true;
    else
        t->data = data;
    return !t->failed;
}

void atom_text_add(struct atom_text *t, const char *bytes, size_t n)
{
    if (n == 0 || !atom_text_reserve(t, n))
        return;
    memcpy(t->data + t->n, bytes, n);
    t->n += n;
}

void atom_text_add_cp(struct atom_text *t, uint32_t cp)
{
    char bytes[4];
    atom_text_add(t, bytes, atom_utf8_put(cp, bytes));
}

void atom_text_free(struct atom_text *t)
{
    free(t->data);
    *t = (struct atom_text){0};
}

void atom_id_list_add(struct atom_id_list *l, const int32_t *ids, size_t n)
{
    void *data = l->ids;
    if (n == 0 || l->failed)
        return;
    if (!grow(&data, &l->cap, l->n + n, sizeof *l->ids)) {
        l->failed = true;
        return;
    }
    l->ids = data;
    memcpy(l->ids + l->n, ids, n * sizeof *ids);
    l->n += n;
}

void atom_span_list_add(struct atom_span_list *l, size_t start, size_t end, int32_t id)
{
    void *data = l->spans;
    if (l->failed)
        return;
    if (!grow(&data, &l->cap, l->n + 1, sizeof *l->spans)) {
        l->failed = true;
        return;
    }
    l->spans = data;
    l->spans[l->n++] = (struct atom_span){start, end, id};
}

/* How many bytes a character that starts with `lead` has, and which second bytes may follow; 0: none starts so.
 * (The Unicode standard, table 3-7.) */
static size_t lead_length(uint8_t lead, uint8_t *lo, uint8_t *hi)
{
    *lo = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *hi = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

enum atom_utf8 atom_utf8_scan(const char *p, size_t n, size_t *len)
{
    const uint8_t *b = (const uint8_t *)p;
    uint8_t lo, hi;
    size_t want = lead_length(b[0], &lo, &hi);
    *len = 1;
    if (want == 0)
        return ATOM_UTF8_BAD;
    while (*len < want && *len < n) {
        if (b[*len] < lo || b[*len] > hi)
            return ATOM_UTF8_BAD;
        lo = 0x80;
        hi = 0xBF;
        ++*len;
    }
    return *len == want ? ATOM_UTF8_CHAR : ATOM_UTF8_CUT;
}

size_t atom_utf8_check(const char *p, size_t n)
{
    size_t at = 0, len;
    while (at < n) {
        if ((uint8_t)p[at] < 0x80)
            at++;
        else if (atom_utf8_scan(p + at, n - at, &len) == ATOM_UTF8_CHAR)
            at += len;
        else
            return at;
    }
    return n;
}

uint32_t atom_utf8_get(const char *p, size_t *len)
{
    const uint8_t *b = (const uint8_t *)p;
    if (b[0] < 0x80) {
        *len = 1;
        return b[0];
    }
    if (b[0] < 0xE0) {
        *len = 2;
        return (b[0] & 0x1Fu) << 6 | (b[1] & 0x3Fu);
    }
    if (b[0] < 0xF0) {
        *len = 3;
        return (b[0] & 0x0Fu) << 12 | (b[1] & 0x3Fu) << 6 | (b[2] & 0x3Fu);
    }
    *len = 4;
    return (b[0] & 0x07u) << 18 | (b[1] & 0x3Fu) << 12 | (b[2] & 0x3Fu) << 6 | (b[3] & 0x3Fu);
}

size_t atom_utf8_back(const char *p, size_t end)
{
    do
        end--;
    while (end > 0 && ((uint8_t)p[end] & 0xC0) == 0x80);
    return end;
}

size_t atom_utf8_put(uint32_t cp, char *dst)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)cp, (utf8proc_uint8_t *)dst);
}

size_t atom_text_find(const char *text, size_t n, size_t from, const char *pattern, size_t n_pattern)
{
    if (from >= n)
        return n;
    const char *hit = memmem(text + from, n - from, pattern, n_pattern);
    return hit ? (size_t)(hit - text) : n;
}

bool atom_cp_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F ||
           cp == 0x3000;
}

bool atom_cp_is_number(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool atom_cp_is_word(uint32_t cp)
{
    /* Alphabetic beyond the letters: circled and squared ones. */
    if (cp == 0x200C || cp == 0x200D || (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
        (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189))
        return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

uint64_t atom_text_hash(const char *p, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ n;
    while (n > 0) {
        uint64_t word = 0;
        size_t take = n < 8 ? n : 8;
        memcpy(&word, p, take);
        h = (h ^ word) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
        p += take;
        n -= take;
    }
    return (h * 0xD6E8FEB86659FD93u) ^ (h >> 29);
}
