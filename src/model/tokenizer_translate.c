/* SPDX-License-Identifier: Apache-2.0 */
/* From Oniguruma's words to PCRE2's. */
#include "model/tokenizer_regex.h"

#include <stdio.h>
#include <string.h>

/* The two disagree on U+180E and on what a word character is, so these classes are spelled out. */
#define SPACES                                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                     \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* Letters and numbers that Unicode 15 and 16 brought, which a PCRE2 of Unicode 14 takes for unassigned. */
#define LETTERS                                                                                                        \
    "\\p{L}\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}"        \
    "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"         \
    "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"          \
    "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"                   \
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"                    \
    "\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBERS                                                                                                        \
    "\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"                       \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"        \
    "\\x{1e5f1}-\\x{1e5fa}"
#define WORD                                                                                                           \
    LETTERS "\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"                 \
            "\\x{1f170}-\\x{1f189}"

struct reader {
    const struct atom_node *where;
    const char *pattern;
    size_t n, at;
    struct atom_text *out;
    bool in_class;
};

static int peek(const struct reader *r, size_t ahead)
{
    return r->at + ahead < r->n ? (uint8_t)r->pattern[r->at + ahead] : -1;
}

static void copy(struct reader *r, size_t n)
{
    atom_text_add(r->out, r->pattern + r->at, n);
    r->at += n;
}

static void put(struct reader *r, const char *text) { atom_text_add(r->out, text, strlen(text)); }

static enum atom_status refuse(const struct reader *r, const char *what, struct atom_error *err)
{
    return atom_fail(err, ATOM_ERR_UNSUPPORTED, "%s: %s: the regex '%.200s' has %s at byte %zu, which is not done here",
                     r->where->file, r->where->path, r->pattern, what, r->at);
}

/* A class by its members; outside brackets they get brackets. */
static void put_class(struct reader *r, size_t n_read, bool negated, const char *members)
{
    if (!r->in_class)
        put(r, negated ? "[^" : "[");
    put(r, members);
    if (!r->in_class)
        put(r, "]");
    r->at += n_read;
}

static enum atom_status read_braced_escape(struct reader *r, struct atom_error *err)
{
    const char *close = memchr(r->pattern + r->at, '}', r->n - r->at);
    if (peek(r, 2) != '{' || !close)
        return refuse(r, "\\p without {name}", err);
    bool negated = peek(r, 1) == 'P';
    if (peek(r, 1) != 'x' && peek(r, 4) == '}' && (peek(r, 3) == 'L' || peek(r, 3) == 'N') && !(negated && r->in_class))
        put_class(r, 5, negated, peek(r, 3) == 'L' ? LETTERS : NUMBERS);
    else
        copy(r, (size_t)(close + 1 - (r->pattern + r->at)));
    return ATOM_OK;
}

/* \uHHHH; \xHH and \x{H...} read alike. */
static enum atom_status read_code_point(struct reader *r, struct atom_error *err)
{
    if (peek(r, 1) == 'x' && peek(r, 2) == '{')
        return read_braced_escape(r, err);
    size_t digits = peek(r, 1) == 'u' ? 4 : 2;
    for (size_t i = 0; i < digits; i++)
        if (!strchr("0123456789abcdefABCDEF", peek(r, 2 + i)) || peek(r, 2 + i) <= 0)
            return refuse(r, "a code point with too few digits", err);
    put(r, "\\x{");
    r->at += 2;
    copy(r, digits);
    put(r, "}");
    return ATOM_OK;
}

/* \b and \B by hand, since "word" differs. */
static void put_boundary(struct reader *r, bool negated)
{
    put(r, negated ? "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))"
                   : "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
    r->at += 2;
}

static enum atom_status read_letter_escape(struct reader *r, struct atom_error *err)
{
    char name[24];
    int c = peek(r, 1);
    switch (c) {
    case 's':
        put_class(r, 2, false, SPACES);
        return ATOM_OK;
    case 'S':
        put_class(r, 2, false, NOT_SPACES);
        return ATOM_OK;
    case 'w':
        put_class(r, 2, false, WORD);
        return ATOM_OK;
    case 'W':
        if (r->in_class)
            return refuse(r, "\\W inside brackets", err);
        put_class(r, 2, true, WORD);
        return ATOM_OK;
    case 'v': /* all vertical space for PCRE2 */
        put(r, "\\x{b}");
        r->at += 2;
        return ATOM_OK;
    case 'p':
    case 'P':
        return read_braced_escape(r, err);
    case 'x':
    case 'u':
        return read_code_point(r, err);
    default:
        break;
    }
    if (!r->in_class && (c == 'b' || c == 'B')) {
        put_boundary(r, c == 'B');
        return ATOM_OK;
    }
    if (strchr("dDrntfae", c) || (!r->in_class && strchr("AzZ", c))) {
        copy(r, 2);
        return ATOM_OK;
    }
    snprintf(name, sizeof name, "\\%c%s", c, r->in_class ? " inside brackets" : "");
    return refuse(r, name, err);
}

static enum atom_status read_escape(struct reader *r, struct atom_error *err)
{
    int c = peek(r, 1);
    if (c <= 0)
        return refuse(r, "a lone backslash", err);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return read_letter_escape(r, err);
    if (c >= '0' && c <= '9')
        return refuse(r, "a back-reference or octal number", err);
    size_t len = 1;
    if (c >= 0x80)
        atom_utf8_get(r->pattern + r->at + 1, &len);
    copy(r, 1 + len);
    return ATOM_OK;
}

static enum atom_status read_class(struct reader *r, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    r->in_class = true;
    copy(r, peek(r, 1) == '^' ? 2 : 1);
    if (peek(r, 0) == ']')
        return refuse(r, "']' first in brackets", err);
    while (!st && r->at < r->n && peek(r, 0) != ']') {
        if (peek(r, 0) == '\\')
            st = read_escape(r, err);
        else if (peek(r, 0) == '[')
            st = refuse(r, "brackets in brackets", err);
        else if (peek(r, 0) == '&' && peek(r, 1) == '&')
            st = refuse(r, "&&", err);
        else
            copy(r, 1);
    }
    r->in_class = false;
    if (!st && r->at < r->n)
        copy(r, 1);
    return st;
}

static enum atom_status read_group(struct reader *r, struct atom_error *err)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"};
    const char *p = r->pattern + r->at;
    size_t left = r->n - r->at;
    if (peek(r, 1) == '*')
        return refuse(r, "(*", err);
    if (peek(r, 1) != '?') {
        copy(r, 1);
        return ATOM_OK;
    }
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        size_t n = strlen(same[i]);
        if (left >= n && memcmp(p, same[i], n) == 0) {
            copy(r, n);
            return ATOM_OK;
        }
    }
    /* Further in, the two disagree on how alternatives after it group. */
    if (r->at == 0 && left >= 4 && memcmp(p, "(?i)", 4) == 0) {
        copy(r, 4);
        return ATOM_OK;
    }
    return refuse(r, "a group of a kind", err);
}

static size_t read_digits(const struct reader *r, size_t from)
{
    while (peek(r, from) >= '0' && peek(r, from) <= '9')
        from++;
    return from;
}

/* {n}, {n,}, {n,m}, {,m}; anything else in braces stands for itself. */
static enum atom_status read_brace(struct reader *r, struct atom_error *err)
{
    size_t first = read_digits(r, 1), end = first;
    if (peek(r, end) == ',')
        end = read_digits(r, end + 1);
    bool fixed = end == first;
    if (peek(r, end) != '}' || end == 1 || (first == 1 && end == 2)) {
        put(r, "\\{");
        r->at++;
        return ATOM_OK;
    }
    if (peek(r, end + 1) == '+' || (fixed && peek(r, end + 1) == '?'))
        return refuse(r, "'+' or '?' after a count", err);
    if (first == 1) {
        put(r, "{0");
        r->at++;
        copy(r, end);
    } else {
        copy(r, end + 1);
    }
    return ATOM_OK;
}

enum atom_status atom_regex_translate(const struct atom_node *where, const char *pattern, size_t n,
                                      struct atom_text *out, struct atom_error *err)
{
    struct reader r = {where, pattern, n, 0, out, false};
    enum atom_status st = ATOM_OK;
    while (!st && r.at < n) {
        switch (pattern[r.at]) {
        case '\\':
            st = read_escape(&r, err);
            break;
        case '[':
            st = read_class(&r, err);
            break;
        case '(':
            st = read_group(&r, err);
            break;
        case '{':
            st = read_brace(&r, err);
            break;
        default:
            copy(&r, 1);
        }
    }
    return st;
}
