/* SPDX-License-Identifier: Apache-2.0 */
/* Loops that do nothing but what a tier's kernels do most, to find what this machine can do at best. */
#ifndef ATOM_BENCH_PEAKS_H
#define ATOM_BENCH_PEAKS_H

#include <stddef.h>
#include <stdint.h>

/* Arithmetic on registers alone. A multiply-add counts two. */
struct atom_peak {
    const char *how; /* the instructions; NULL: this tier or processor has none */
    void (*run)(long rounds);
    double ops; /* of a round */
};

enum { ATOM_READ_UNIT = 8192 };

/* Reads n_bytes (a multiple of ATOM_READ_UNIT) as `streams` (1 to 8) that go on side by side, prefetching `ahead` bytes
 * ahead (0: not at all). What it returns depends on every byte. */
typedef uint64_t atom_read_fn(const uint8_t *from, size_t n_bytes, size_t ahead, int streams);

enum { ATOM_MAX_READERS = 2 };

struct atom_peaks {
    struct atom_peak int8, f32, bf16;
    struct {
        const char *how;
        atom_read_fn *read;
    } readers[ATOM_MAX_READERS];
    int n_readers;
};

/* To be called in this order, as far as the tier goes. */
void atom_peaks_scalar(struct atom_peaks *p);
void atom_peaks_avx2(struct atom_peaks *p);
void atom_peaks_avxvnni(struct atom_peaks *p);
void atom_peaks_avx512(struct atom_peaks *p);

#endif
