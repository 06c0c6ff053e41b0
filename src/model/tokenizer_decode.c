/* SPDX-License-Identifier: Apache-2.0 */
#include "model/tokenizer_decode.h"

#include "model/tokenizer_bpe.h"

#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD"

static bool feed(struct atom_chain_run *run, size_t i, const char *p, size_t n);

static bool starts_with(const char *p, size_t n, const struct atom_text *start)
{
    return n >= start->n && memcmp(p, start->data, start->n) == 0;
}

/* Hands on what the stage has put together. */
static bool hand_on(struct atom_chain_run *run, size_t i)
{
    struct atom_text *out = &run->states[i].output;
    return !out->failed && feed(run, i + 1, out->data, out->n);
}

static bool feed_replace(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    const struct atom_stage *s = &run->chain->stages[i];
    struct atom_text *out = &run->states[i].output;
    bool drop = s->drop_first && run->states[i].count++ == 0;
    size_t at = atom_text_find(p, n, 0, s->pattern.data, s->pattern.n), from = 0;
    if (at == n)
        return feed(run, i + 1, p, n);
    out->n = 0;
    while (at < n) {
        atom_text_add(out, p + from, at - from);
        if (!drop)
            atom_text_add(out, s->content.data, s->content.n);
        from = at + s->pattern.n;
        at = atom_text_find(p, n, from, s->pattern.data, s->pattern.n);
    }
    atom_text_add(out, p + from, n - from);
    return hand_on(run, i);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
        return (c | 0x20) - 'a' + 10;
    return -1;
}

/* The byte that <0x41> stands for, -1 for other tokens. "+A" is a number to the original's parser. */
static int byte_of(const char *p, size_t n)
{
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    int high = p[3] == '+' ? 0 : hex_digit(p[3]), low = hex_digit(p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run counts as a whole, so its bytes wait until another token ends it or a byte spoils it. */
static bool end_bytes(struct atom_chain_run *run, size_t i)
{
    struct atom_stage_state *st = &run->states[i];
    bool ok = true;
    size_t n = st->held.n;
    if (n > 0 && !st->broken && atom_utf8_check(st->held.data, n) == n)
        ok = feed(run, i + 1, st->held.data, n);
    else
        for (size_t k = 0; k < n && ok; k++)
            ok = feed(run, i + 1, REPLACEMENT, 3);
    st->held.n = 0;
    st->broken = false;
    st->count = 0;
    return ok;
}

/* `count` is how far the held run has been found good. */
static bool feed_bytes(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    struct atom_stage_state *st = &run->states[i];
    int byte = byte_of(p, n);
    if (byte < 0)
        return end_bytes(run, i) && feed(run, i + 1, p, n);
    if (st->broken)
        return feed(run, i + 1, REPLACEMENT, 3);
    char c = (char)byte;
    size_t len;
    atom_text_add(&st->held, &c, 1);
    if (st->held.failed)
        return false;
    switch (atom_utf8_scan(st->held.data + st->count, st->held.n - st->count, &len)) {
    case ATOM_UTF8_CHAR:
        st->count += len;
        return true;
    case ATOM_UTF8_CUT:
        return true;
    default:
        break;
    }
    st->broken = true;
    bool ok = end_bytes(run, i);
    st->broken = true; /* until a token that is no byte comes */
    return ok;
}

static bool feed_byte_level(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    struct atom_stage_state *st = &run->states[i];
    size_t was = st->held.n, at = 0, len;
    for (; at < n; at += len) {
        int byte = atom_cp_byte(atom_utf8_get(p + at, &len));
        char c = (char)byte;
        if (byte < 0)
            break;
        atom_text_add(&st->held, &c, 1);
    }
    if (at < n) { /* a token that is not spelled in byte characters stands for itself */
        st->held.n = was;
        atom_text_add(&st->held, p, n);
    }
    st->output.n = 0;
    for (at = 0; at < st->held.n; at += len) {
        enum atom_utf8 kind = atom_utf8_scan(st->held.data + at, st->held.n - at, &len);
        if (kind == ATOM_UTF8_CUT)
            break;
        if (kind == ATOM_UTF8_CHAR)
            atom_text_add(&st->output, st->held.data + at, len);
        else
            atom_text_add(&st->output, REPLACEMENT, 3);
    }
    if (st->held.failed)
        return false;
    if (st->held.n > at)
        memmove(st->held.data, st->held.data + at, st->held.n - at);
    st->held.n -= at;
    return hand_on(run, i);
}

static bool strip_token(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    const struct atom_stage *s = &run->chain->stages[i];
    for (int k = 0; k < s->start && starts_with(p, n, &s->pattern); k++) {
        p += s->pattern.n;
        n -= s->pattern.n;
    }
    for (int k = 0; k < s->stop && n >= s->pattern.n && starts_with(p + n - s->pattern.n, s->pattern.n, &s->pattern);
         k++)
        n -= s->pattern.n;
    return feed(run, i + 1, p, n);
}

/* All parts are one token: its start is stripped once, and what may be its end is held back. */
static bool strip_part(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    const struct atom_stage *s = &run->chain->stages[i];
    struct atom_stage_state *st = &run->states[i];
    size_t mark = s->pattern.n, tail = 0;
    while (!st->broken && n > 0) {
        st->broken = st->count >= (size_t)s->start || !starts_with(p, n, &s->pattern);
        if (st->broken)
            break;
        st->count++;
        p += mark;
        n -= mark;
    }
    if (s->stop == 0 || n == 0)
        return n == 0 || feed(run, i + 1, p, n);
    st->output.n = 0;
    atom_text_add(&st->output, st->held.data, st->held.n);
    atom_text_add(&st->output, p, n);
    if (st->output.failed)
        return false;
    n = st->output.n;
    while (tail < (size_t)s->stop && n - tail * mark >= mark &&
           starts_with(st->output.data + n - (tail + 1) * mark, mark, &s->pattern))
        tail++;
    st->held.n = 0;
    atom_text_add(&st->held, st->output.data + n - tail * mark, tail * mark);
    st->output.n -= tail * mark;
    return !st->held.failed && hand_on(run, i);
}

static bool feed_join(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    bool ok = run->states[i].count++ == 0 || feed(run, i + 1, " ", 1);
    return ok && feed(run, i + 1, p, n);
}

static bool feed(struct atom_chain_run *run, size_t i, const char *p, size_t n)
{
    if (i == run->chain->n) {
        atom_text_add(&run->out, p, n);
        return !run->out.failed;
    }
    switch (run->chain->stages[i].kind) {
    case ATOM_STAGE_REPLACE:
    case ATOM_STAGE_METASPACE:
        return feed_replace(run, i, p, n);
    case ATOM_STAGE_BYTES:
        return feed_bytes(run, i, p, n);
    case ATOM_STAGE_STRIP:
        return run->chain->stages[i].fused ? strip_part(run, i, p, n) : strip_token(run, i, p, n);
    case ATOM_STAGE_BYTE_LEVEL:
        return feed_byte_level(run, i, p, n);
    case ATOM_STAGE_JOIN:
        return feed_join(run, i, p, n);
    case ATOM_STAGE_FUSE:
        break;
    }
    return feed(run, i + 1, p, n);
}

bool atom_chain_start(struct atom_chain_run *run, const struct atom_decoder_chain *chain)
{
    *run = (struct atom_chain_run){.chain = chain, .states = calloc(chain->n + 1, sizeof *run->states)};
    /* More than tokens are long, so that pushing one takes no memory. */
    bool ok = run->states && atom_text_reserve(&run->out, 1024);
    for (size_t i = 0; ok && i < chain->n; i++)
        ok = atom_text_reserve(&run->states[i].held, 256) && atom_text_reserve(&run->states[i].output, 256);
    if (!ok)
        atom_chain_stop(run);
    return ok;
}

bool atom_chain_push(struct atom_chain_run *run, const char *token, size_t n) { return feed(run, 0, token, n); }

bool atom_chain_finish(struct atom_chain_run *run)
{
    bool ok = true;
    for (size_t i = 0; i < run->chain->n; i++) {
        struct atom_stage_state *st = &run->states[i];
        enum atom_stage_kind kind = run->chain->stages[i].kind;
        if (kind == ATOM_STAGE_BYTES)
            ok = ok && end_bytes(run, i);
        else if (kind == ATOM_STAGE_BYTE_LEVEL && st->held.n > 0)
            ok = ok && feed(run, i + 1, REPLACEMENT, 3);
        st->held.n = 0;
        st->count = 0;
        st->broken = false;
    }
    return ok;
}

void atom_chain_stop(struct atom_chain_run *run)
{
    for (size_t i = 0; run->states && i < run->chain->n; i++) {
        atom_text_free(&run->states[i].held);
        atom_text_free(&run->states[i].output);
    }
    free(run->states);
    atom_text_free(&run->out);
    *run = (struct atom_chain_run){0};
}
