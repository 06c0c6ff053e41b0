/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of the CUDA cache share: random caches and steps on both sides, and single numbers of a page half found by
 * the drawing in kv_cache.h. */
#ifndef ATOM_TESTS_KV_PAGES_H
#define ATOM_TESTS_KV_PAGES_H

#include "cuda.h"

#include "base/half.h"
#include "cuda/kv_cache.h"

/* First bit of channel d of position p. */
static inline size_t bit_of(const struct atom_cuda_kv *kv, bool keys, int d, int p)
{
    int pairs = kv->wide / 8, tiles = kv->wide / 16, size = kv->bits == 3 ? 4 : kv->bits, w, at, unit, words, side, r;
    if (keys) {
        static const int nibble[] = {0, 4, 2, 6};
        side = d / (kv->head_dim / 2), r = d % (kv->head_dim / 2);
        unit = 4 * p + r / pairs, r %= pairs, words = pairs * size / 16;
        w = size == 4 ? r / 4 : size == 8 ? r / 2 : r / 2 * 2 + side;
        at = size == 4 ? nibble[r % 4] + side : size == 8 ? r % 2 + 2 * side : r % 2;
    } else {
        int t = d / 2 % tiles, high = p / 8, b = p % 2;
        side = d % 2, unit = d / 2 / tiles * 4 + p % 8 / 2, words = tiles * size / 4;
        w = size == 4 ? t : size == 8 ? 2 * t + high : 4 * t + 2 * high + side;
        at = size == 4 ? side + 2 * high + 4 * b : size == 8 ? 2 * side + b : b;
    }
    int units = keys ? 64 : 32, whole = words / 4 * 4;
    size_t word =
        w < whole ? (size_t)((w / 4 * units + unit) * 4 + w % 4) : (size_t)(whole * units + unit * (words % 4) + w % 4);
    return word * 32 + (size_t)(at * size);
}

static inline void put_number(const struct atom_cuda_kv *kv, uint8_t *half, bool keys, int d, int p, unsigned q)
{
    size_t bit = bit_of(kv, keys, d, p);
    uint8_t *to = half + bit / 8;
    if (kv->bits == 16)
        to[0] = (uint8_t)q, to[1] = (uint8_t)(q >> 8);
    else if (kv->bits == 8)
        *to = (uint8_t)q;
    else
        *to = (uint8_t)((*to & (bit % 8 ? 0x0F : 0xF0)) | q << bit % 8);
}

static inline uint8_t *tail_of(const struct atom_cuda_kv *kv, uint8_t *half, int p)
{
    return half + kv->half_bytes - ATOM_CUDA_KV_TAIL + 4 * (2 * (p % 8) + p / 8);
}

/* As it is read back, before any rotation. */
static inline float get_number(const struct atom_cuda_kv *kv, uint8_t *half, bool keys, int d, int p)
{
    size_t bit = bit_of(kv, keys, d, p);
    uint8_t *from = half + bit / 8, *tail = tail_of(kv, half, p);
    if (kv->bits == 16)
        return atom_f16_float((uint16_t)(from[0] | from[1] << 8));
    int q = kv->bits == 8 ? *from : (*from >> bit % 8) & 15;
    return atom_f16_float((uint16_t)(tail[0] | tail[1] << 8)) * (float)(q - tail[2]);
}

static inline uint8_t *head_half(const struct atom_cuda_kv *kv, uint8_t *pages, int page, int head, bool keys)
{
    return pages + (size_t)page * kv->page_bytes + (size_t)(2 * head + !keys) * kv->half_bytes;
}

/* ---- a step ---- */

struct step {
    struct atom_cuda_step on_device;
    struct atom_cuda_seq *seqs;
    int32_t *seq_of, *tables;
    int n_pages; /* of the cache */
};

/* Sequences of these lengths before and in the step; their rows lie in order with rows of none between them, their
 * pages all over the cache. */
static inline struct step make_step(int n_seqs, const int *pos0, const int *n_tok)
{
    struct step s = {.on_device = {.max_seqs = n_seqs, .max_pages = 1}};
    int rows = 0, taken = 0;
    s.seqs = calloc((size_t)n_seqs, sizeof *s.seqs);
    assert_non_null(s.seqs);
    for (int i = 0; i < n_seqs; i++) {
        int n = (pos0[i] + n_tok[i] + 15) / 16;
        rows += between(0, 1);
        s.seqs[i] = (struct atom_cuda_seq){.first_tok = rows, .n_tok = n_tok[i], .pos0 = pos0[i]};
        rows += n_tok[i];
        s.n_pages += n;
        s.on_device.max_pages = n > s.on_device.max_pages ? n : s.on_device.max_pages;
    }
    s.n_pages += 3;
    s.on_device.max_tok = rows + 2;
    s.seq_of = malloc((size_t)(rows + 2) * sizeof(int32_t));
    s.tables = malloc((size_t)(n_seqs * s.on_device.max_pages) * sizeof(int32_t));
    int *order = malloc((size_t)s.n_pages * sizeof(int));
    assert_non_null(s.seq_of);
    assert_non_null(s.tables);
    assert_non_null(order);
    memset(s.seq_of, 0xFF, (size_t)(rows + 2) * sizeof(int32_t));
    memset(s.tables, 0x7F, (size_t)(n_seqs * s.on_device.max_pages) * sizeof(int32_t));
    for (int i = 0; i < s.n_pages; i++) {
        int j = between(0, i);
        order[i] = order[j];
        order[j] = i;
    }
    for (int i = 0; i < n_seqs; i++) {
        for (int t = 0; t < n_tok[i]; t++)
            s.seq_of[s.seqs[i].first_tok + t] = i;
        for (int p = 0; p < (pos0[i] + n_tok[i] + 15) / 16; p++)
            s.tables[i * s.on_device.max_pages + p] = order[taken++];
    }
    free(order);
    s.on_device.seqs = on_device(s.seqs, (size_t)n_seqs * sizeof *s.seqs);
    s.on_device.seq_of = on_device(s.seq_of, (size_t)(rows + 2) * sizeof(int32_t));
    s.on_device.tables = on_device(s.tables, (size_t)(n_seqs * s.on_device.max_pages) * sizeof(int32_t));
    return s;
}

static inline void drop_step(struct step *s)
{
    atom_cuda_free((void *)(uintptr_t)s->on_device.seqs);
    atom_cuda_free((void *)(uintptr_t)s->on_device.seq_of);
    atom_cuda_free((void *)(uintptr_t)s->on_device.tables);
    free(s->seqs);
    free(s->seq_of);
    free(s->tables);
}

/* ---- rows of any type ---- */

static inline size_t type_bytes(enum atom_cuda_float t) { return t == ATOM_CUDA_F32 ? 4 : 2; }

static inline float read_row(enum atom_cuda_float type, const void *x, size_t i)
{
    float f;
    uint16_t h;
    memcpy(&f, (const uint8_t *)x + i * type_bytes(type), type == ATOM_CUDA_F32 ? sizeof f : 0);
    memcpy(&h, (const uint8_t *)x + i * type_bytes(type), sizeof h);
    return type == ATOM_CUDA_F32 ? f : type == ATOM_CUDA_F16 ? atom_f16_float(h) : atom_bf16_float(h);
}

static inline void write_row(enum atom_cuda_float type, void *x, size_t i, float f)
{
    uint16_t h = type == ATOM_CUDA_F16 ? atom_float_f16(f) : atom_float_bf16(f);
    memcpy((uint8_t *)x + i * type_bytes(type), type == ATOM_CUDA_F32 ? (void *)&f : (void *)&h, type_bytes(type));
}

/* Angles as the device has them, [n, half, 2], also at *host. */
static inline float *make_turns(int n, int half, float **host)
{
    double *freq = malloc((size_t)half * sizeof(double));
    size_t n_bytes = (size_t)n * (size_t)half * 2 * sizeof(float);
    float *turns = on_device(NULL, n_bytes);
    *host = malloc(n_bytes);
    assert_non_null(freq);
    assert_non_null(*host);
    for (int i = 0; i < half; i++)
        freq[i] = pow(10000.0, -(double)i / half);
    double *there = on_device(freq, (size_t)half * sizeof(double));
    cuda_ok(atom_cuda_turns(turns, n, half, there, NULL, &cuda_err));
    cuda_ok(atom_cuda_download(*host, turns, n_bytes, &cuda_err));
    atom_cuda_free(there);
    free(freq);
    return turns;
}

/* (x[i], x[i+half]) by the angles of position p. */
static inline void turn(float *x, const float *turns, int p, int half)
{
    for (int i = 0; i < half; i++) {
        const float *t = turns + ((size_t)p * (size_t)half + (size_t)i) * 2;
        float a = x[i], b = x[i + half];
        x[i] = a * t[0] - b * t[1];
        x[i + half] = fmaf(b, t[0], a * t[1]);
    }
}

#endif
