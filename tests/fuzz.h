/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer's body is LLVMFuzzerTestOneInput. With -DFUZZ_MAIN it gets a main too: `fuzz_x N [SEED_FILE]`
 * feeds it N mutations of a file (or of its own seed), the same ones every time. */
#ifndef ATOM_TESTS_FUZZ_H
#define ATOM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
extern const void *const fuzz_seed;
extern const size_t fuzz_seed_bytes;

#ifdef FUZZ_MAIN

enum { FUZZ_BYTES = 1 << 16 };

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) % below);
}

/* Bytes flipped, digits changed, pieces doubled or dropped, the end cut off. Returns the new length. */
static size_t mutate(uint8_t *data, size_t n)
{
    static const char telling[] = "0123456789-{}[]\",:eE.\\ \0\xff";
    for (uint32_t rounds = 1 + draw(4); rounds && n; rounds--) {
        /* Mostly near the beginning, where headers are. */
        uint32_t at = draw(draw(2) ? (uint32_t)n : (uint32_t)(n < 600 ? n : 600)), size = 1 + draw(40);
        size = at + size > n ? (uint32_t)n - at : size;
        switch (draw(6)) {
        case 0:
            data[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1:
        case 2:
            data[at] = (uint8_t)telling[draw(sizeof telling - 1)];
            break;
        case 3:
            memmove(data + at, data + at + size, n - at - size);
            n -= size;
            break;
        case 4:
            if (n + size <= FUZZ_BYTES) {
                memmove(data + at + size, data + at, n - at);
                n += size;
            }
            break;
        default:
            n = draw(20) ? n : at;
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    static uint8_t seed[FUZZ_BYTES], data[FUZZ_BYTES];
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    size_t n_seed = file ? fread(seed, 1, sizeof seed, file) : fuzz_seed_bytes;
    if (file)
        fclose(file);
    else
        memcpy(seed, fuzz_seed, n_seed);
    if (argc < 2 || (argc == 3 && !file)) {
        fprintf(stderr, "usage: %s N [SEED_FILE]\n", argv[0]);
        return 2;
    }
    for (long i = 0; i < atol(argv[1]); i++) {
        memcpy(data, seed, n_seed);
        size_t n = i ? mutate(data, n_seed) : n_seed;
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too far */
        if (!exact)
            return 1;
        memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    return 0;
}

#endif
#endif
