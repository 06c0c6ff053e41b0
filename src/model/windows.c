/* SPDX-License-Identifier: Apache-2.0 */
#include "model/windows.h"

#include <stdlib.h>
#include <string.h>

enum atom_status atom_ids_put_bos(struct atom_ids *ids, int bos, struct atom_error *err)
{
    if (bos < 0 || (ids->n > 0 && ids->ids[0] == bos))
        return ATOM_OK;
    int32_t *more = realloc(ids->ids, (ids->n + 1) * sizeof *more);
    if (!more)
        return atom_fail_nomem(err, (ids->n + 1) * sizeof *more);
    memmove(more + 1, more, ids->n * sizeof *more);
    more[0] = bos;
    ids->ids = more;
    ids->n++;
    return ATOM_OK;
}

enum atom_status atom_windows_of_text(const struct atom_tokenizer *tok, int bos, const char *text, size_t n_bytes,
                                      int window, struct atom_windows *out, struct atom_error *err)
{
    struct atom_windows w = {.window = window};
    if (window < 2)
        return atom_fail(err, ATOM_ERR_INVALID, "a window of %d tokens; expected 2 or more", window);
    enum atom_status st = atom_tokenizer_encode(tok, text, n_bytes, ATOM_ENCODE_POST, &w.ids, err);
    if (st)
        return st;
    st = atom_ids_put_bos(&w.ids, bos, err);
    w.n = (int64_t)w.ids.n / window;
    w.dropped = (int64_t)w.ids.n % window;
    if (!st && w.n == 0)
        st = atom_fail(err, ATOM_ERR_INVALID, "the text has %zu tokens, less than one window of %d", w.ids.n, window);
    if (st) {
        atom_windows_fini(&w);
        return st;
    }
    *out = w;
    return ATOM_OK;
}

void atom_windows_fini(struct atom_windows *w)
{
    atom_ids_free(&w->ids);
    memset(w, 0, sizeof *w);
}
