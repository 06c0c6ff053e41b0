/* SPDX-License-Identifier: Apache-2.0 */
/* What a backend does: about a dozen operations on work buffers it owns. A layer's step (model/layer.c) reads the
 * same on every backend.
 *
 *   X [tok, hidden] --norm--> ACTS --linear--> QKV --store--> q in QKV, k and v in pages --attend--> ATT
 *   ATT --gather--> ACTS --linear +=--> X --norm--> ACTS --linear--> GATE_UP --silu--> ACTS --linear +=--> X
 *
 * All sizes are fixed when a work is created; a step allocates nothing. A work belongs to one thread at a time, and
 * so does a cache that is stored into. */
#ifndef ATOM_BACKEND_BACKEND_H
#define ATOM_BACKEND_BACKEND_H

#include "kernels/float_formats.h"
#include "kernels/kernels.h"

enum { ATOM_MAX_QUERY_HEADS = 64 /* for one KV head */, ATOM_MAX_HEAD_DIM = 1024 };

enum atom_site_id { ATOM_ATTN_IN, ATOM_O_IN, ATOM_MLP_IN, ATOM_DOWN_IN, ATOM_N_SITES };

/* A place where activations are quantized. */
struct atom_site {
    struct atom_layout lay;
    int32_t *order; /* [k] stored channel -> natural channel; NULL: identity */
    bool gathers;   /* false at down_in, whose input comes in stored order already */
    int bits;       /* 16: floats */
    float clip;
    struct atom_number_form form; /* of activations and of the weights that meet them */
};

/* No packed kernel computes such a site: its numbers are read back and multiplied as floats. */
static inline bool atom_site_is_simulated(const struct atom_site *s)
{
    return s->form.format != ATOM_FORMAT_INT || (s->form.outlier_bits == 16 && s->lay.outliers > 0);
}

/* One tensor set of a linear; a linear is parts stacked by rows over one site. Borrowed until linear_create returns. */
struct atom_linear_part {
    const char *name; /* for messages */
    int n;
    /* 16 bits: the natural [n, k] matrix, its columns then gathered by the site's order, its rows by row_order */
    enum atom_weight_kind kind; /* ATOM_W_F32/F16/BF16; ATOM_W_NIBBLE or ATOM_W_BYTE: the fields below */
    const void *weight;
    const int32_t *row_order; /* NULL: identity */
    /* quantized: tensors of docs/design.md section 4, as the site's form has them */
    const uint8_t *qweight;
    const void *scales; /* F16, at any address, as outlier_scales */
    int rows_per_scale;
    bool row_scales;               /* scales are [ceil(n / rows_per_scale)] alone: one for all groups of a row */
    const int8_t *outlier_qweight; /* E4M3 codes beside float formats */
    const void *outlier_scales;
    const void *outlier_weight; /* F16 [n, outliers], at any address: outliers of 16 bits, instead of the two above */
    float tensor_scale;         /* of NVFP4 */
    const float *bias;          /* [n] in stored row order, or NULL */
};

struct atom_linear; /* packed, owned by the backend */
struct atom_work;   /* step buffers */
struct atom_kv;     /* pages of all layers */

struct atom_work_shape {
    int max_tok, hidden, qkv_rows, att_width, gate_up_rows;
    int max_row_bytes, max_scales, max_runs; /* over all sites' layouts */
    int head_dim;
};

struct atom_kv_config {
    int layers, heads, kv_heads, head_dim;
    int n_pages, max_position;
    int bits; /* 32: float32; 16, 8, 4, 3 */
    float clip;
    enum atom_kv_rope rope;
    unsigned rotate;
    const double *inv_freq; /* [head_dim/2]: angle per position, borrowed for the call */
};

struct atom_batch_seq {
    int first_tok, n_tok; /* its rows of the batch */
    int pos0;             /* position of the first */
    const int32_t *pages; /* page of position p: pages[p/16] */
};

struct atom_batch {
    int n_tok, n_seqs;
    const int32_t *tokens; /* [n_tok] */
    const struct atom_batch_seq *seqs;
};

enum atom_buf { ATOM_BUF_X, ATOM_BUF_QKV, ATOM_BUF_ATT, ATOM_BUF_GATE_UP, ATOM_N_BUFS };

struct atom_backend {
    const char *name;
    enum atom_status (*linear_create)(const struct atom_site *site, const struct atom_linear_part *parts, int n_parts,
                                      struct atom_linear **out, struct atom_error *err);
    void (*linear_free)(struct atom_linear *lin);
    /* moves the bias of `from`, a linear of the same shape, into lin */
    void (*linear_take_bias)(struct atom_linear *lin, struct atom_linear *from);
    enum atom_status (*work_create)(const struct atom_work_shape *shape, struct atom_work **out,
                                    struct atom_error *err);
    void (*work_free)(struct atom_work *w);
    enum atom_status (*kv_create)(const struct atom_kv_config *cfg, struct atom_kv **out, struct atom_error *err);
    void (*kv_free)(struct atom_kv *kv);
    size_t (*kv_bytes)(const struct atom_kv *kv);

    /* X = rows of the embedding [vocab, hidden] of this kind (F32, F16, BF16) */
    void (*embed)(struct atom_work *w, enum atom_weight_kind kind, const void *embedding, const int32_t *tokens,
                  int n_tok);
    /* ACTS = quantized RMSNorm(X); weight is in stored order. A sum of squares that overflows is not finite. */
    void (*norm)(struct atom_work *w, const float *weight, float eps, const struct atom_site *site, int where);
    void (*gather)(struct atom_work *w, const struct atom_site *site, int where); /* ACTS = quantized ATT */
    void (*silu)(struct atom_work *w, const struct atom_site *site, int where);   /* ACTS = quantized silu(g)*u */
    void (*linear)(struct atom_work *w, const struct atom_linear *lin, enum atom_buf dst, bool add);
    void (*store)(struct atom_work *w, struct atom_kv *kv, int layer, const struct atom_batch *batch, int where);
    void (*attend)(struct atom_work *w, const struct atom_kv *kv, int layer, const struct atom_batch *batch);
    /* logits [n, vocab] of rows of X; site is the head's. Those of a row whose norm is not finite are not either. */
    void (*logits)(struct atom_work *w, const float *norm_weight, float eps, const struct atom_site *site,
                   const struct atom_linear *head, const int *rows, int n, float *out);

    void (*set_x)(struct atom_work *w, const float *x, int n_tok); /* [n_tok, hidden] */
    void (*get_x)(struct atom_work *w, float *x);
    /* ACTS as floats [n_tok, k] in stored order, integers read back */
    void (*get_acts)(struct atom_work *w, float *out);
    void (*check)(struct atom_work *w, int where); /* finds the tokens that a norm of X would find */
    /* Where token t first met a number that is not finite: the `where` of that operation, 0: nowhere. */
    int (*bad)(const struct atom_work *w, int t);
};

extern const struct atom_backend atom_backend_cpu;

/* The CPU backend's kernels: the strongest tier within the mask. Not while a step runs. */
void atom_cpu_use(unsigned cpu);
const char *atom_cpu_name(void);
const struct atom_kernels *atom_cpu_kernels(void);

#endif
