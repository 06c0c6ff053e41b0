/* SPDX-License-Identifier: Apache-2.0 */
/* The paged KV cache on a CUDA device: pages, what a step is of, writing keys and values, attention over them.
 *
 * A page holds 16 positions of one layer; in it lie the KV heads one after the other, each a half of keys and a half of
 * values. A half is its integers (or F16 numbers) and then, where they are integers, a tail of 64 bytes: 4 bytes a
 * position, its F16 scale, its zero point, a byte of 0; position p is entry 2*(p%8) + p/8 of the tail.
 *
 * The order inside is the tensor cores': what a lane of a warp reads in pieces of 16 bytes are its fragments of mma
 * m16n8k16, keys as A of 16 positions by channels, values as A of channels by 16 positions. `wide` is head_dim up to
 * 64, 96, 128 or 256; with H = head_dim/2, P = wide/8 and T = wide/16,
 *
 *   keys    unit 4*p + c, of 64: pairs cP .. cP+P-1 of position p; pair i is channels i and i+H, which RoPE rotates
 *   values  unit 4*g + c, of 32: channels 2Tg .. 2Tg+2T-1 of positions 2c, 2c+1, 2c+8 and 2c+9
 *
 *   a half  [piece][unit][16 bytes] for as many whole pieces as a unit has, then [unit][4, 8 or 12 bytes], the tail
 *
 * A unit is words of 32 bits. Of keys, low bits first, i = 4w (4 bits), 2w (8 bits), w & ~1 (16 bits) past cP:
 *
 *   4 bits  i, i+H | i+2, i+2+H | i+1, i+1+H | i+3, i+3+H     a byte is a pair; bits 4j and 4j+16 make a half2
 *   8 bits  i, i+1, i+H, i+1+H
 *   16      i, i+1 (even w); i+H, i+1+H (odd w)
 *
 * Of values, channel d = 2Tg + 2t and e = d+1, at positions a = 2c, b = 2c+1:
 *
 *   4 bits  word t: d e of a | d e of a+8 | d e of b | d e of b+8
 *   8 bits  words 2t: d of a, d of b, e of a, e of b; 2t+1: the same of a+8, b+8
 *   16      words 4t: d of a, b; 4t+1: e of a, b; 4t+2: d of a+8, b+8; 4t+3: e of a+8, b+8
 *
 * Channels past head_dim are never written. A page never holds a number that is not finite: pages are zeroed when they
 * are made, and a vector that its cache cannot hold is stored as zeros. So a position that holds nothing yet is left
 * out by giving it no weight. */
#ifndef ATOM_CUDA_KV_CACHE_H
#define ATOM_CUDA_KV_CACHE_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ATOM_CUDA_PAGE = 16, /* positions */
    ATOM_CUDA_MAX_HEAD = 256,
    ATOM_CUDA_KV_TAIL = 64,  /* bytes */
    ATOM_CUDA_DECODE_TOK = 8 /* new tokens of a sequence that decode attends to; more are prefill */
};

/* One layer's pages, or those of any layer but for `pages`. */
struct atom_cuda_kv {
    int heads, kv_heads, head_dim; /* head_dim even, at most 256; heads a multiple of kv_heads */
    int bits;                      /* 16: F16; 8, 4, 3 (kept as 4) */
    float clip;
    enum atom_kv_rope rope; /* keys are rotated when read (PRE) or were when stored (POST) */
    unsigned rotate;        /* ATOM_ROTATE_...: Hadamard of q and k after RoPE (POST only), of v */
    int n_pages, max_position;
    const float *turns; /* [max_position, head_dim/2, 2]: cos and sin; atom_cuda_turns makes them */
    uint8_t *pages;     /* [n_pages][kv_heads][2 halves] */

    int wide; /* from here on filled by atom_cuda_kv_init */
    size_t half_bytes;
    size_t page_bytes; /* all heads */
};

/* Checks the numbers (not the pointers, which may come later) and fills the rest. */
enum atom_status atom_cuda_kv_init(struct atom_cuda_kv *kv, struct atom_error *err);

/* turns[p, i] = cos, sin of p * inv_freq[i], inv_freq [half] in device memory, found in double precision. */
enum atom_status atom_cuda_turns(float *turns, int max_position, int half, const double *inv_freq, atom_cuda_stream s,
                                 struct atom_error *err);

/* ---- a step -------------------------------------------------------------------------------------------------------
 * All in device memory, so that a captured graph serves every step of up to so many sequences and tokens. */

struct atom_cuda_seq {
    int32_t first_tok, n_tok; /* its rows; n_tok 0: there is no such sequence in this step */
    int32_t pos0;             /* position of the first */
    int32_t unused;
};

struct atom_cuda_step {
    const struct atom_cuda_seq *seqs; /* [max_seqs] */
    const int32_t *seq_of;            /* [max_tok] sequence of a row; -1: the row belongs to none */
    const int32_t *tables;            /* [max_seqs, max_pages]: page of position p is tables[seq, p/16] */
    int max_seqs, max_tok;            /* bounds, known to the host */
    int max_pages;                    /* of a sequence: the row length of tables */
};

/* ---- writing ------------------------------------------------------------------------------------------------------
 */

/* Rotates q in place, and appends k and v to the pages. A number that is not finite, or that F16 pages cannot hold, in
 * k or v of row t makes bad[t] = where, unless bad[t] holds a place already. */
struct atom_cuda_store {
    const struct atom_cuda_kv *kv;
    const struct atom_cuda_step *step;
    enum atom_cuda_float type;
    void *qkv;         /* [max_tok, (heads + 2*kv_heads) * head_dim]: q, k, v, heads in order */
    size_t qkv_stride; /* elements, as every stride */
    int32_t *bad;      /* [max_tok] */
    int32_t where;     /* not 0 */
};
enum atom_status atom_cuda_store_run(const struct atom_cuda_store *job, atom_cuda_stream s, struct atom_error *err);

/* ---- attention ----------------------------------------------------------------------------------------------------
 * out[t, h] = sum over positions up to t's own of softmax(scale * q[t, h] . k) * v, over what the pages hold; V's
 * Hadamard is undone. A score that overflows makes its row NaN. Sequences of 1 to ATOM_CUDA_DECODE_TOK new tokens are
 * decode's, longer ones prefill's: both may run for one step, each leaves the other's rows alone. */

struct atom_cuda_attend {
    const struct atom_cuda_kv *kv;
    const struct atom_cuda_step *step;
    enum atom_cuda_float type; /* of q and out */
    const void *q;             /* [max_tok, heads * head_dim], as the store left it */
    void *out;                 /* [max_tok, heads * head_dim] */
    size_t q_stride, out_stride;
    float scale;     /* 1/sqrt(head_dim) */
    void *workspace; /* of the launcher's own size */
};

/* Decode's workspace for steps of up to so many sequences whose positions end before max_position; larger than a step
 * needs will do. */
size_t atom_cuda_decode_workspace(const struct atom_cuda_kv *kv, int max_seqs, int max_position);
/* Once a step, before the first layer's attention: cuts the sequences into work, into the workspace, where the layers'
 * runs find it, and angles; the job's step and turns must be the same. How a sequence is cut depends on its own length
 * alone. */
enum atom_status atom_cuda_decode_plan(const struct atom_cuda_attend *job, atom_cuda_stream s, struct atom_error *err);
/* Reads the plan, the step and turns before the kernel in front of it on the stream has ended, so that one must not
 * start early itself (early.cuh); the store and attention do not mind. Fastest where head_dim is 64, 96, 128 or 256,
 * queries are F16 and rows begin at 16-byte addresses. With PRE, keys of 16 bits are turned in half precision: those
 * beyond 46,000 overflow. */
enum atom_status atom_cuda_decode_run(const struct atom_cuda_attend *job, atom_cuda_stream s, struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
