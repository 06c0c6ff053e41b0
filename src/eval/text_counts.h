/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes and words of a text, shared out to its tokens. */
#ifndef ATOM_EVAL_TEXT_COUNTS_H
#define ATOM_EVAL_TEXT_COUNTS_H

#include "base/error.h"

struct atom_text_counts {
    int32_t bytes, words;
};

/* What each of ids [n] adds to the text when they are decoded in turn, into counts [n]: its bytes as soon as they are
 * certain, and the words whose first byte is among them. Words stand apart by ASCII white space. A BOS in front adds
 * nothing; other special tokens count as they are spelled. */
enum atom_status atom_text_counts_of(const struct atom_tokenizer *tok, int bos, const int32_t *ids, size_t n,
                                     struct atom_text_counts *counts, struct atom_error *err);

#endif
