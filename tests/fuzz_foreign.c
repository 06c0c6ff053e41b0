/* SPDX-License-Identifier: Apache-2.0 */
/* However a small GPTQ or compressed-tensors file is damaged, what is read of it lies inside the file. The input is a
 * config and edits of a sound file: bytes [what, where (2), new byte] .... */
#include "fuzz.h"

#include "model/foreign_layer.h"
#include "model/safetensors_header.h"

enum { WIDTH = 8, HEADER_BYTES = 4096, DATA_BYTES = 2048 };

static const uint8_t seed[] = {1, 0x10, 0x05, 1, 0x10, 0x0B, 0xFF};
const void *const fuzz_seed = seed;
const size_t fuzz_seed_bytes = sizeof seed;

static const struct atom_foreign configs[] = {
    {.format = &atom_foreign_gptq, .bits = 4, .group = 4, .symmetric = true, .ordered = true, .zero_offset = 1},
    {.format = &atom_foreign_gptq, .bits = 4, .group = 4, .ordered = true},
    {.format = &atom_foreign_compressed, .bits = 4, .group = 4, .ordered = true},
    {.format = &atom_foreign_compressed, .bits = 8, .group = 0, .symmetric = true, .bytes = true},
};
enum { N_CONFIGS = sizeof configs / sizeof configs[0] };

struct part {
    const char *name, *dtype;
    int d0, d1, n_bytes; /* d1 0: one dimension */
    uint8_t fill;
};

/* Eight rows of eight channels in two groups of four; the last in one. */
static const struct part parts[N_CONFIGS][5] = {
    {{"qweight", "I32", 1, 8, 32, 0x5A},
     {"qzeros", "I32", 2, 1, 8, 0x77},
     {"scales", "F16", 2, 8, 32, 0x2E},
     {"g_idx", "I32", 8, 0, 32, 0}},
    {{"qweight", "I32", 1, 8, 32, 0x5A},
     {"qzeros", "I32", 2, 1, 8, 0x36},
     {"scales", "F32", 2, 8, 64, 0x2E},
     {"g_idx", "I32", 8, 0, 32, 0}},
    {{"weight_packed", "I32", 8, 1, 32, 0x5A},
     {"weight_scale", "BF16", 8, 2, 32, 0x3E},
     {"weight_zero_point", "I32", 1, 2, 8, 0x97},
     {"weight_g_idx", "I32", 8, 0, 32, 0xFF},
     {"weight_shape", "I64", 2, 0, 16, 0}},
    {{"weight", "I8", 8, 8, 64, 0x81}, {"weight_scale", "F16", 8, 1, 16, 0x2E}},
};

/* The sound file, its header padded with spaces; returns its length. */
static size_t build(int config, uint8_t *file)
{
    char header[HEADER_BYTES + 1];
    size_t at = 0, n = 0;
    uint8_t *data = file + 8 + HEADER_BYTES;
    for (int p = 0; p < ATOM_N_PROJ; p++)
        for (const struct part *t = parts[config]; t < parts[config] + 5 && t->name; t++) {
            char second[8] = "";
            if (t->d1)
                snprintf(second, sizeof second, ",%d", t->d1);
            n += (size_t)snprintf(
                header + n, sizeof header - n,
                "%s\"model.layers.0.%s.%s\":{\"dtype\":\"%s\",\"shape\":[%d%s],\"data_offsets\":[%zu,%zu]}",
                n ? "," : "{", atom_projs[p].name, t->name, t->dtype, t->d0, second, at, at + (size_t)t->n_bytes);
            memset(data + at, t->fill, (size_t)t->n_bytes);
            if (strcmp(t->dtype, "I64") == 0)
                memcpy(data + at, (const int64_t[]){WIDTH, WIDTH}, 16);
            at += (size_t)t->n_bytes;
        }
    memset(file, 0, 8);
    file[1] = HEADER_BYTES >> 8;
    memset(file + 8, ' ', HEADER_BYTES);
    memcpy(file + 8, header, n);
    file[8 + n] = '}';
    return 8 + HEADER_BYTES + at;
}

static void read_all(const struct atom_config *cfg, const struct atom_tensors *tensors)
{
    struct atom_foreign_layer layer;
    struct atom_error err = {0};
    if (atom_foreign_layer_open(cfg, tensors, 0, &layer, &err)) {
        if (!err.message[0])
            abort();
        return;
    }
    for (int p = 0; p < ATOM_N_PROJ; p++) {
        struct atom_linear_part part = {.n = WIDTH};
        void *memory = NULL;
        if (atom_foreign_part(&layer, p, &part, &memory, &err) && !err.message[0])
            abort();
        free(memory);
    }
    atom_foreign_layer_fini(&layer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static uint8_t file[8 + HEADER_BYTES + DATA_BYTES];
    struct atom_tensor_list list = {0};
    struct atom_tensors *tensors;
    if (!n_bytes)
        return 0;
    int config = data[0] % N_CONFIGS;
    struct atom_config cfg = {.hidden = WIDTH, .intermediate = WIDTH, .layers = 1, .heads = 1, .kv_heads = 1};
    cfg.head_dim = WIDTH;
    cfg.foreign = configs[config];
    cfg.scheme.abits = 16;
    size_t n = build(config, file);
    for (size_t i = 1; i + 2 < n_bytes; i += 3)
        file[(size_t)(data[i] << 8 | data[i + 1]) % n] = data[i + 2];
    uint8_t *exact = malloc(n); /* so that a sanitizer sees one byte too far */
    if (!exact)
        return 0;
    memcpy(exact, file, n);
    if (!atom_safetensors_parse(exact, n, "fuzz", &list, NULL) && !atom_tensors_wrap(list.at, list.n, &tensors, NULL)) {
        read_all(&cfg, tensors);
        atom_tensors_close(tensors);
    }
    atom_tensor_list_fini(&list);
    free(exact);
    return 0;
}
