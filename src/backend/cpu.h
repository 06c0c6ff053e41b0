/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the CPU backend. */
#ifndef ATOM_BACKEND_CPU_H
#define ATOM_BACKEND_CPU_H

#include "backend/backend.h"

enum {
    ATOM_TOK_CHUNK = 96,                    /* tokens a linear's task takes: a multiple of the tile */
    ATOM_SPLIT = 256,                       /* positions attention softmaxes at once; fixed, so that results are */
    ATOM_QUERY_ROWS = ATOM_MAX_QUERY_HEADS, /* query rows of an attention task */
    ATOM_PARTIALS_PER_WORKER = 2048,        /* results of splits: few tokens over many positions */
};

extern struct atom_kernels atom_kern;

/* Per-worker memory. */
struct atom_scratch {
    float *run;    /* [128][32] a run of weights */
    float *tile;   /* [ATOM_TOK_CHUNK][32] a linear's result */
    float *row;    /* [widest site] */
    float *keys;   /* [ATOM_SPLIT/32][head_dim][32] */
    float *values; /* [head_dim/32 up][ATOM_SPLIT][32] */
    float *q;      /* [ATOM_QUERY_ROWS][head_dim] */
    float *scores; /* [ATOM_QUERY_ROWS][ATOM_SPLIT] */
    float *part;   /* [ATOM_QUERY_ROWS][head_dim up to 32] one split's result */
    float *sum;    /* the same, all splits so far */
};

struct atom_work {
    struct atom_work_shape shape;
    int n_tok, n_workers;
    float *buf[ATOM_N_BUFS];
    int width[ATOM_N_BUFS];
    struct atom_acts acts; /* q NULL: floats only */
    int8_t *q;
    float *scales, *x;
    int32_t *sums;
    bool x_ready;                 /* acts.x holds the acts as floats */
    bool h_ready;                 /* and h as bfloat16 */
    uint16_t *h;                  /* [max_tok, max_row_bytes]; NULL where no kernel wants it */
    int *bad;                     /* [max_tok] */
    struct atom_scratch *scratch; /* [n_workers] */
    float *block;                 /* all scratch memory */
    size_t max_partials;          /* results of splits that wait to be merged */
    struct atom_partial *partials;
    float *partial_rows; /* [max_partials][head_dim up to 32] */
};

struct atom_linear {
    struct atom_packed p;
    struct atom_layout lay; /* its own copy */
};

struct atom_kv {
    struct atom_kv_config cfg;
    struct atom_kv_shape shape;
    size_t head_bytes;  /* K and V of one head in one page */
    size_t page_bytes;  /* all heads */
    size_t layer_bytes; /* all pages */
    uint8_t *data;
    double *inv_freq; /* [head_dim/2] */
    float *cos, *sin; /* [pages of max_position][head_dim/2][16] */
    int rope_pages;   /* of these, how many are filled: as many as positions have been stored in */
};

/* A site's row rounded and read back in place; false when a number is not finite. */
bool atom_cpu_round_row(struct atom_work *w, const struct atom_site *site, int t, float *row);
/* Row `row` of a quantized part as floats [k] in stored order. */
void atom_cpu_read_back(const struct atom_site *site, const struct atom_linear_part *part, size_t row, float *out);

static inline bool atom_kind_is_float(enum atom_weight_kind kind) { return kind <= ATOM_W_BF16; }

enum atom_status atom_cpu_linear_create(const struct atom_site *site, const struct atom_linear_part *parts, int n_parts,
                                        struct atom_linear **out, struct atom_error *err);
void atom_cpu_linear_free(struct atom_linear *lin);
void atom_cpu_linear_take_bias(struct atom_linear *lin, struct atom_linear *from);
void atom_cpu_linear(struct atom_work *w, const struct atom_linear *lin, enum atom_buf dst, bool add);
/* y [n_tok, n] (ld apart) = acts * lin (+ y when add) */
void atom_cpu_linear_into(struct atom_work *w, const struct atom_linear *lin, float *y, size_t ld, bool add);

enum atom_status atom_cpu_kv_create(const struct atom_kv_config *cfg, struct atom_kv **out, struct atom_error *err);
void atom_cpu_kv_free(struct atom_kv *kv);
size_t atom_cpu_kv_bytes(const struct atom_kv *kv);
/* In place, of one head vector. */
void atom_cpu_rotate(float *x, int n, bool undo);
/* K, then V, of one head in a page. */
uint8_t *atom_cpu_head_page(const struct atom_kv *kv, int layer, int page, int head);
void atom_cpu_store(struct atom_work *w, struct atom_kv *kv, int layer, const struct atom_batch *batch, int where);
void atom_cpu_attend(struct atom_work *w, const struct atom_kv *kv, int layer, const struct atom_batch *batch);

#endif
