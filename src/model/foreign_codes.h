/* SPDX-License-Identifier: Apache-2.0 */
/* A linear's codes where a foreign checkpoint has them, read by rows. */
#ifndef ATOM_MODEL_FOREIGN_CODES_H
#define ATOM_MODEL_FOREIGN_CODES_H

#include "model/safetensors.h"

/* w[r, c] = scale[r, g] * (code[r, c] - zero[r, g]), g = g_idx[c] or c / group. All views are of mapped tensors.
 * Codes are packed into little-endian words of 32 bits, the first in the lowest; one never crosses words. */
struct atom_codes {
    const char *name; /* of the linear, in messages; the caller's */
    int n, k, bits;
    int group, n_groups; /* group >= 1 */
    const uint8_t *words;
    size_t row_step, word_step; /* bytes from a row's word to the next row's, and to the row's next word */
    uint8_t flip;               /* XORed into a code: 0x80 makes two's complement q + 128 */
    const struct atom_tensor *scales;
    size_t scale_row, scale_group;   /* elements from one row's scale to the next row's, and to the next group's */
    const uint8_t *zeros;            /* packed down the rows; NULL: all are `zero` */
    size_t zero_word, zero_group;    /* bytes to the next word of rows, and to the next group */
    int zero;                        /* the zero point, or what is added to a packed one */
    bool symmetric;                  /* then zero points are the middle, or something is wrong */
    const struct atom_tensor *g_idx; /* I32 [k] in 0 to n_groups-1; NULL: channels in order */
};

enum { ATOM_CODE_ROWS = 32 }; /* that are read at once: words of so many rows share two cache lines */

/* Tensor NAME.part of t: NULL where there is none; or as atom_tensors_need. */
const struct atom_tensor *atom_codes_find(const struct atom_codes *c, const struct atom_tensors *t, const char *part);
enum atom_status atom_codes_need(const struct atom_codes *c, const struct atom_tensors *t, const char *part,
                                 unsigned dtypes, int64_t d0, int64_t d1, const struct atom_tensor **out,
                                 struct atom_error *err);

/* scale[r, g] and zero[r, g] of the group. */
float atom_codes_scale(const struct atom_codes *c, int row, int g);
int atom_codes_zero(const struct atom_codes *c, int row, int g);
/* The group of each channel; the caller frees it. ATOM_ERR_FORMAT naming an entry that is no group. */
enum atom_status atom_codes_groups(const struct atom_codes *c, int32_t **groups, struct atom_error *err);
/* code - zero of rows [first, first + n_rows), n_rows at most ATOM_CODE_ROWS: out [n_rows, k]. zeros
 * [n_groups, ATOM_CODE_ROWS] is scratch. */
void atom_codes_read(const struct atom_codes *c, const int32_t *groups, int first, int n_rows, int16_t *zeros,
                     int16_t *out);

/* The narrowest form for all of a linear. why (may be NULL): a few words where a wider one than its bits is needed. */
enum atom_code_form { ATOM_FORM_NIBBLE, ATOM_FORM_BYTE, ATOM_FORM_FLOAT };
enum atom_status atom_codes_form(const struct atom_codes *c, enum atom_code_form *form, const char **why,
                                 struct atom_error *err);

/* Words that hold n codes. */
static inline int64_t atom_code_words(int64_t n, int bits) { return (n * bits + 31) / 32; }

#endif
