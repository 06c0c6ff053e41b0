/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu/gpu_acts.h"

#include "base/error.h"
#include "bench/gpu/gpu_linear.h"
#include "cuda/row_ops.h"

#include <string.h>

enum { SEED_Q = 1, SEED_SCALES = 2, SEED_X = 3 };

static int stride_of(int n_tok) { return (n_tok + 63) / 64 * 64; }
static enum atom_gpu_random kind_of(const struct atom_gpu_acts *a)
{
    return a->bits == 4 ? ATOM_GPU_NIBBLES : ATOM_GPU_BYTES;
}

size_t atom_gpu_acts_bytes(const struct atom_cuda_site *site, int n_tok)
{
    return (size_t)stride_of(n_tok) *
           ((size_t)site->k_padded + sizeof(float) * (size_t)site->n_scales * (site->whole ? 1 : 5));
}

enum atom_status atom_gpu_acts_open(const struct atom_cuda_site *site, int bits, int max_tok, struct atom_gpu_acts *out,
                                    struct atom_error *err)
{
    struct atom_gpu_acts *a = out;
    size_t stride = (size_t)stride_of(max_tok), row = (size_t)site->k_padded;
    size_t scales = stride * (size_t)site->n_scales * sizeof(float), floats = (size_t)max_tok * (size_t)site->k * 2;
    *a = (struct atom_gpu_acts){.site = *site, .bits = bits};
    enum atom_status st = atom_gpu_alloc_random(atom_gpu_pool(stride * row), kind_of(a), SEED_Q, &a->q, err);
    st = st ? st : atom_gpu_alloc_random(atom_gpu_pool(scales), ATOM_GPU_FSCALES, SEED_SCALES, &a->scales, err);
    st = st ? st : atom_gpu_alloc_random(floats, ATOM_GPU_HALVES, SEED_X, &a->x, err);
    st = st ? st : atom_cuda_alloc(stride * row, &a->made_q, err);
    st = st ? st : atom_cuda_alloc(scales, &a->made_scales, err);
    if (!site->whole) {
        st = st ? st : atom_cuda_alloc(atom_gpu_pool(4 * scales), &a->parts, err);
        st = st ? st : atom_cuda_alloc(4 * scales, &a->made_parts, err);
    }
    if (st)
        atom_gpu_acts_close(a);
    return st;
}

void atom_gpu_acts_close(struct atom_gpu_acts *a)
{
    void *const device[] = {a->q, a->scales, a->parts, a->x, a->made_q, a->made_scales, a->made_parts};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        atom_cuda_free(device[i]);
    memset(a, 0, sizeof *a);
}

enum atom_status atom_gpu_acts_set(struct atom_gpu_acts *a, int n_tok, int copies, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    a->n_tok = n_tok;
    a->tok_stride = stride_of(n_tok);
    a->q_bytes = (size_t)a->tok_stride * (size_t)a->site.k_padded;
    a->scale_count = (size_t)a->tok_stride * (size_t)a->site.n_scales;
    for (int i = 0; i < copies && a->parts && !st; i++) {
        const struct atom_cuda_acts acts = atom_gpu_acts_copy(a, i);
        st = atom_cuda_cut_scales(&acts, NULL, err);
    }
    return st ? st : atom_cuda_stream_wait(NULL, err);
}

struct atom_cuda_acts atom_gpu_acts_copy(const struct atom_gpu_acts *a, int copy)
{
    size_t scales = (size_t)copy * a->scale_count;
    return (struct atom_cuda_acts){.site = a->site,
                                   .n_tok = a->n_tok,
                                   .tok_stride = a->tok_stride,
                                   .q = (int8_t *)a->q + (size_t)copy * a->q_bytes,
                                   .scales = (float *)a->scales + scales,
                                   .bits = a->bits,
                                   .scale_parts = a->parts ? (float *)a->parts + 4 * scales : NULL};
}

enum atom_status atom_gpu_acts_quantize(const struct atom_gpu_acts *a, atom_cuda_stream s, struct atom_error *err)
{
    const struct atom_cuda_row_op job = {.in = {ATOM_CUDA_F16, a->x, (size_t)a->site.k, a->n_tok, a->site.k},
                                         .to = {.bits = a->bits,
                                                .clip = 0.9f,
                                                .acts = {.site = a->site,
                                                         .n_tok = a->n_tok,
                                                         .tok_stride = a->tok_stride,
                                                         .q = a->made_q,
                                                         .scales = a->made_scales,
                                                         .bits = a->bits,
                                                         .scale_parts = a->made_parts}}};
    return atom_cuda_gather(&job, s, err);
}

int atom_gpu_acts_q(const struct atom_gpu_acts *a, int copy, int tok, size_t channel)
{
    size_t i = (size_t)copy * a->q_bytes + (size_t)tok * (size_t)a->site.k_padded + channel;
    return (int8_t)atom_gpu_byte_at(kind_of(a), SEED_Q, i);
}

double atom_gpu_acts_scale(const struct atom_gpu_acts *a, int copy, int tok, int scale)
{
    size_t i = (size_t)copy * a->scale_count + (size_t)scale * (size_t)a->tok_stride + (size_t)tok;
    return (double)atom_gpu_float_at(ATOM_GPU_FSCALES, SEED_SCALES, i);
}
