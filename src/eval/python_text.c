/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/python_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* What str.isspace says of a character. */
static bool is_space(utf8proc_int32_t c)
{
    const utf8proc_property_t *p = utf8proc_get_property(c);
    return p->category == UTF8PROC_CATEGORY_ZS || p->bidi_class == UTF8PROC_BIDI_CLASS_WS ||
           p->bidi_class == UTF8PROC_BIDI_CLASS_B || p->bidi_class == UTF8PROC_BIDI_CLASS_S;
}

/* The character that begins at text; its bytes, or 0 where none does. */
static size_t read_character(const char *text, size_t n, utf8proc_int32_t *c)
{
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, c);
    return got < 1 ? 0 : (size_t)got;
}

size_t atom_python_rstrip(const char *text, size_t n)
{
    while (n > 0) {
        size_t at = n - 1;
        utf8proc_int32_t c;
        while (at > 0 && (text[at] & 0xC0) == 0x80)
            at--;
        if (!read_character(text + at, n - at, &c) || !is_space(c))
            break;
        n = at;
    }
    return n;
}

char *atom_python_strip(const char *text)
{
    size_t n = atom_python_rstrip(text, strlen(text)), first;
    utf8proc_int32_t c;
    while ((first = read_character(text, n, &c)) && is_space(c)) {
        text += first;
        n -= first;
    }
    return strndup(text, n);
}

/* The first `most` characters through one mapping for the first and one for the others. */
static char *map(const char *text, size_t most, utf8proc_int32_t (*first)(utf8proc_int32_t),
                 utf8proc_int32_t (*others)(utf8proc_int32_t))
{
    size_t n = strlen(text), from = 0, to = 0, step;
    utf8proc_int32_t c;
    char *out = malloc(4 * n + 1);
    for (size_t i = 0; out && i < most && (step = read_character(text + from, n - from, &c)); i++, from += step)
        to += (size_t)utf8proc_encode_char((i ? others : first)(c), (utf8proc_uint8_t *)out + to);
    if (out)
        memcpy(out + to, text + from, n - from + 1);
    return out;
}

char *atom_python_capitalize(const char *text) { return map(text, SIZE_MAX, utf8proc_totitle, utf8proc_tolower); }

char *atom_python_lower_first(const char *text) { return map(text, 1, utf8proc_tolower, utf8proc_tolower); }
