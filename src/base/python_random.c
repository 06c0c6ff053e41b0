/* SPDX-License-Identifier: Apache-2.0 */
#include "base/python_random.h"

enum { WORDS = 624, AHEAD = 397 };

void atom_python_random_seed(struct atom_python_random *r, uint32_t seed)
{
    uint32_t *s = r->state;
    s[0] = 19650218;
    for (uint32_t i = 1; i < WORDS; i++)
        s[i] = 1812433253u * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
    /* init_by_array with the one key that a seed under 2^32 is. */
    for (int i = 1, n = 0; n < WORDS; n++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + seed;
        if (++i == WORDS) {
            s[0] = s[WORDS - 1];
            i = 1;
        }
    }
    for (uint32_t i = 2, n = 1; n < WORDS; n++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - i;
        if (++i == WORDS) {
            s[0] = s[WORDS - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    r->used = WORDS;
}

static void twist(uint32_t *s)
{
    for (int i = 0; i < WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % WORDS] & 0x7fffffffu);
        s[i] = s[(i + AHEAD) % WORDS] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

static uint32_t next_word(struct atom_python_random *r)
{
    if (r->used == WORDS) {
        twist(r->state);
        r->used = 0;
    }
    uint32_t y = r->state[r->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

int atom_python_randint(struct atom_python_random *r, int most)
{
    uint32_t n = (uint32_t)most + 1, drawn;
    int bits = 0;
    while (bits < 32 && n >> bits)
        bits++;
    do
        drawn = next_word(r) >> (32 - bits);
    while (drawn >= n);
    return (int)drawn;
}
