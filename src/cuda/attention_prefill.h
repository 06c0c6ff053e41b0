/* SPDX-License-Identifier: Apache-2.0 */
/* Attention of many new tokens over pages: prefill, in one piece or in chunks. */
#ifndef ATOM_CUDA_ATTENTION_PREFILL_H
#define ATOM_CUDA_ATTENTION_PREFILL_H

#include "cuda/kv_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[t, h] of every row of a sequence with more than ATOM_CUDA_DECODE_TOK new tokens, as struct atom_cuda_attend
 * says; other rows are left alone. q, what pages hold (keys rotated where they must be, by cos and sin in F16 too) and
 * the softmax's weights are rounded to F16, sums are float, and where V was rotated the result is rounded to its type
 * once more; beyond F16's range keys and values are held to it, and a query makes its row NaN, as does one that is not
 * finite: that row alone. Keys come in tiles counted from position 0, so that a row's result does not depend on other
 * sequences; cutting a sequence in other chunks changes it within rounding. Rows of q and out start at 16-byte
 * addresses, their strides are multiples of 8; scale is above 0.
 *
 * The workspace belongs to one run at a time; its content is of no importance. */
size_t atom_cuda_prefill_workspace(const struct atom_cuda_kv *kv, const struct atom_cuda_step *step);
enum atom_status atom_cuda_prefill_run(const struct atom_cuda_attend *job, atom_cuda_stream s, struct atom_error *err);

/* The same by the kernel for devices before sm_90, which every device runs; without workspace. */
enum atom_status atom_cuda_prefill_plain(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                         struct atom_error *err);

#ifdef __cplusplus
}
#endif

#endif
