/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/peaks.h"

#include <string.h>

enum { STRIDE = 64 };

static uint64_t read_words(const uint8_t *from, size_t n_bytes, size_t ahead, int streams)
{
    size_t each = n_bytes / (size_t)streams;
    uint64_t sum[STRIDE / 8] = {0}, all = 0;
    for (size_t i = 0; i < each; i += STRIDE)
        for (int s = 0; s < streams; s++) {
            const uint8_t *at = from + (size_t)s * each + i;
            if (ahead)
                __builtin_prefetch(at + ahead);
            for (int j = 0; j < STRIDE / 8; j++) {
                uint64_t word;
                memcpy(&word, at + 8 * j, sizeof word);
                sum[j] ^= word;
            }
        }
    for (int j = 0; j < STRIDE / 8; j++)
        all ^= sum[j];
    return all;
}

void atom_peaks_scalar(struct atom_peaks *p)
{
    *p = (struct atom_peaks){.n_readers = 1};
    p->readers[0].how = "plain loads";
    p->readers[0].read = read_words;
}
