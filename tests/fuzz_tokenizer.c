/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzzer of tokenizer.json: whatever opens must also encode, decode and close.
 *
 *     clang -fsanitize=fuzzer,address,undefined -Iinclude -Isrc tests/fuzz_tokenizer.c build/libatom.a ...
 *     cc -DFUZZ_MAIN ...: then the arguments are files to try, damaged in many places each
 */
#include "atom/atom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "<s> It's \xC3\xA9 \xE2\x96\x81 12 </s>\n  <unk>x\xF0\x9F\x98\x80";
    char path[64];
    struct atom_tokenizer *tok = NULL;
    struct atom_ids ids = {0};
    char *decoded = NULL;
    size_t n_decoded = 0;
    snprintf(path, sizeof path, "/tmp/atom-fuzz-%ld.json", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f))
        abort();
    if (!atom_tokenizer_open(path, &tok, NULL) &&
        !atom_tokenizer_encode(tok, text, sizeof text - 1, ATOM_ENCODE_POST, &ids, NULL) &&
        !atom_tokenizer_decode(tok, ids.ids, ids.n, 0, &decoded, &n_decoded, NULL) && strlen(decoded) > n_decoded)
        abort();
    free(decoded);
    atom_ids_free(&ids);
    atom_tokenizer_close(tok);
    unlink(path);
    return 0;
}

#ifdef FUZZ_MAIN
static void damage(uint8_t *data, size_t n)
{
    static const char tokens[] = "{}[]\",:\\019etn-<\xC3\xFF\0";
    for (int k = rand() % 4; k >= 0; k--)
        data[(size_t)rand() % n] = (uint8_t)tokens[(size_t)rand() % sizeof tokens];
}

int main(int argc, char **argv)
{
    static uint8_t whole[1 << 20], data[1 << 20];
    for (int a = 1; a < argc; a++) {
        FILE *f = fopen(argv[a], "rb");
        size_t n = f ? fread(whole, 1, sizeof whole, f) : 0;
        if (f)
            fclose(f);
        for (int round = 0; n > 0 && round < 3000; round++) {
            size_t cut = round % 8 ? n : (size_t)rand() % n;
            memcpy(data, whole, n);
            if (round > 0)
                damage(data, n);
            LLVMFuzzerTestOneInput(data, cut);
        }
        printf("%s: %zu bytes, done\n", argv[a], n);
    }
    return 0;
}
#endif
