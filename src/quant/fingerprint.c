/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/fingerprint.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t prime = 0x9e3779b97f4a7c15u;

/* Each step can be undone, so a change of one word never gets lost in its lane. */
static uint64_t step(uint64_t h, uint64_t word)
{
    h ^= word;
    return (h << 29 | h >> 35) * prime;
}

uint64_t atom_fingerprint(uint64_t hash, const void *data, size_t n_bytes)
{
    enum { LANES = 8 };
    const uint8_t *p = data;
    uint64_t lane[LANES], word[LANES];
    size_t left = n_bytes;
    for (int i = 0; i < LANES; i++)
        lane[i] = hash + (uint64_t)i * prime;
    for (; left >= sizeof word; left -= sizeof word, p += sizeof word) {
        memcpy(word, p, sizeof word);
        for (int i = 0; i < LANES; i++)
            lane[i] = step(lane[i], word[i]);
    }
    for (; left; left--)
        lane[0] = step(lane[0], *p++);
    uint64_t h = (uint64_t)n_bytes;
    for (int i = 0; i < LANES; i++) {
        h = step(h, lane[i]);
        h ^= h >> 32;
    }
    return h;
}

enum atom_status atom_fingerprint_file(const char *path, uint64_t *out, struct atom_error *err)
{
    struct atom_map map;
    enum atom_status st = atom_map_open(path, &map, err);
    if (st)
        return st;
    uint64_t hash = atom_fingerprint(0, map.data, map.n_bytes);
    if (!atom_map_is_whole(&map))
        st = atom_fail(err, ATOM_ERR_IO, "%s was cut short while it was read", path);
    atom_map_close(&map);
    if (!st)
        *out = hash;
    return st;
}

static int decides(const struct dirent *entry)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors.index.json"};
    const char *name = entry->d_name, *dot = strrchr(name, '.');
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return dot && !strcmp(dot, ".safetensors");
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

enum atom_status atom_fingerprint_model(const char *dir, uint64_t *out, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    struct dirent **list = NULL;
    uint64_t hash = 0;
    int n = scandir(dir, &list, decides, by_name);
    if (n < 0)
        return atom_fail_errno(err, errno, "cannot read the directory %s", dir);
    for (int i = 0; i < n; i++) {
        char *path = st ? NULL : atom_path_join(dir, list[i]->d_name);
        uint64_t content = 0;
        if (!st)
            st = path ? atom_fingerprint_file(path, &content, err) : atom_fail_nomem(err, strlen(dir));
        hash = atom_fingerprint(hash, list[i]->d_name, strlen(list[i]->d_name));
        hash = atom_fingerprint(hash, &content, sizeof content);
        free(path);
        free(list[i]);
    }
    free(list);
    if (!st)
        *out = hash;
    return st;
}

void atom_fingerprint_options(const struct atom_scheme *scheme, int samples, int window, char text[512])
{
    snprintf(
        text, 512,
        "w%d a%d kv%d group %d outliers %d rows %d clip %.9g %.9g %.9g search %d rope %d rotate %u head %d gptq %d "
        "smooth %.9g asymmetric %.9g format %d outlier bits %d samples %d window %d",
        scheme->wbits, scheme->abits, scheme->kvbits, scheme->group, scheme->outliers, scheme->rows_per_scale,
        (double)scheme->act_clip, (double)scheme->weight_clip, (double)scheme->kv_clip, scheme->clip_search,
        (int)scheme->kv_rope, scheme->rotate, scheme->lm_head_bits, scheme->gptq, (double)scheme->smooth,
        (double)scheme->asymmetric, (int)scheme->format, scheme->outlier_bits == 16 ? 16 : 8, samples, window);
}
