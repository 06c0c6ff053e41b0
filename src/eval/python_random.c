/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/python_random.h"

#include <assert.h>
#include <stdbool.h>

enum { N_WORDS = ATOM_PYTHON_WORDS, DISTANCE = 397 };

/* ---- words ------------------------------------------------------------------------------------------------------- */

static uint32_t mixed(uint32_t word) { return word ^ word >> 30; }

void atom_python_seed(struct atom_python_random *r, uint64_t seed)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t n_key = key[1] ? 2 : 1;
    uint32_t *w = r->words, i = 1, k = 0;
    w[0] = 19650218;
    for (uint32_t j = 1; j < N_WORDS; j++)
        w[j] = 1812433253u * mixed(w[j - 1]) + j;
    for (int rounds = 2 * N_WORDS - 1; rounds > 0; rounds--) {
        if (rounds >= N_WORDS) {
            w[i] = (w[i] ^ mixed(w[i - 1]) * 1664525u) + key[k] + k;
            k = (k + 1) % n_key;
        } else {
            w[i] = (w[i] ^ mixed(w[i - 1]) * 1566083941u) - i;
        }
        if (++i == N_WORDS) {
            w[0] = w[N_WORDS - 1];
            i = 1;
        }
    }
    w[0] = 0x80000000u;
    r->next = N_WORDS;
}

static void renew(struct atom_python_random *r)
{
    uint32_t *w = r->words;
    for (int i = 0; i < N_WORDS; i++) {
        uint32_t y = (w[i] & 0x80000000u) | (w[(i + 1) % N_WORDS] & 0x7fffffffu);
        w[i] = w[(i + DISTANCE) % N_WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->next = 0;
}

static uint32_t draw_word(struct atom_python_random *r)
{
    if (r->next == N_WORDS)
        renew(r);
    uint32_t y = r->words[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

/* As many leading bits as n has, until they are less. */
static int draw_below(struct atom_python_random *r, int n)
{
    int bits = 0;
    uint32_t value;
    while (bits < 31 && n >> bits)
        bits++;
    do
        value = draw_word(r) >> (32 - bits);
    while (value >= (uint32_t)n);
    return (int)value;
}

static bool has(const int *list, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (list[i] == value)
            return true;
    return false;
}

/* What lies at a place of the list 0, 1, 2 ... after the exchanges so far: the last one there counts. */
static int at_place(const int *places, const int *put, int n, int place)
{
    while (n-- > 0)
        if (places[n] == place)
            return put[n];
    return place;
}

void atom_python_sample(struct atom_python_random *r, int n, int k, int *out)
{
    int places[ATOM_PYTHON_SAMPLE_MOST], put[ATOM_PYTHON_SAMPLE_MOST], few = 21, power = 1;
    assert(k <= n && k <= ATOM_PYTHON_SAMPLE_MOST);
    while (k > 5 && power < 3 * k)
        power *= 4;
    few += k > 5 ? power : 0;
    for (int i = 0; i < k; i++) {
        if (n > few) { /* drawn again while it is there already */
            do
                out[i] = draw_below(r, n);
            while (has(out, i, out[i]));
            continue;
        }
        places[i] = draw_below(r, n - i); /* taken out, and the list's end put in its place */
        out[i] = at_place(places, put, i, places[i]);
        put[i] = at_place(places, put, i, n - i - 1);
    }
}
