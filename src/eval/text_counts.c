/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/text_counts.h"

#include <stdbool.h>
#include <string.h>

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static struct atom_text_counts count_piece(const char *text, size_t n_bytes, bool *in_word)
{
    struct atom_text_counts c = {.bytes = (int32_t)n_bytes};
    for (size_t i = 0; i < n_bytes; i++) {
        bool space = is_space(text[i]);
        c.words += !space && !*in_word;
        *in_word = !space;
    }
    return c;
}

enum atom_status atom_text_counts_of(const struct atom_tokenizer *tok, int bos, const int32_t *ids, size_t n,
                                     struct atom_text_counts *counts, struct atom_error *err)
{
    struct atom_stream_decoder *dec;
    bool in_word = false;
    enum atom_status st = atom_stream_decoder_create(tok, 0, &dec, err);
    if (st)
        return st;
    for (size_t i = 0; i < n && !st; i++) {
        const char *piece;
        size_t n_bytes;
        counts[i] = (struct atom_text_counts){0};
        if (i == 0 && ids[0] == bos)
            continue;
        st = atom_stream_decoder_push(dec, ids[i], &piece, &n_bytes, err);
        if (!st)
            counts[i] = count_piece(piece, n_bytes, &in_word);
    }
    atom_stream_decoder_free(dec);
    return st;
}
