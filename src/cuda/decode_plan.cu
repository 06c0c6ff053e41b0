/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: the workspace, and a step's sequences cut into units once for all its layers. */
#include "cuda/check.cuh"
#include "cuda/decode.cuh"

static size_t up(size_t n_bytes) { return (n_bytes + 255) / 256 * 256; }

decode_space atom_cuda_decode_space(const struct atom_cuda_kv *kv, int max_seqs, int max_pages, void *workspace)
{
    uint8_t *at = (uint8_t *)workspace;
    decode_space d = {};
    size_t tiles = (size_t)(kv->heads / kv->kv_heads / TILE_ROWS);
    for (int n = 1, slots; n <= ATOM_CUDA_DECODE_TOK; n++) {
        slots = n * splits_of(max_pages, n);
        d.slots = slots > d.slots ? slots : d.slots;
    }
    size_t rows = (size_t)max_seqs * (size_t)d.slots * (size_t)kv->heads;
    size_t units = (size_t)max_seqs * (size_t)d.slots * (2 + tiles);
    d.max_units = (int)units;
    d.n_units = (int *)at, d.taken = (int *)at + 1, at += 256;
    d.units = (unit *)at, at += up(units * sizeof(unit));
    d.weight = (float2 *)at, at += up(rows * sizeof(float2));
    d.part = (float *)at, at += up(rows * (size_t)kv->wide * sizeof(float));
    d.n_bytes = (size_t)(at - (uint8_t *)workspace);
    return d;
}

extern "C" size_t atom_cuda_decode_workspace(const struct atom_cuda_kv *kv, int max_seqs, int max_position)
{
    return atom_cuda_decode_space(kv, max_seqs, (max_position + PAGE - 1) / PAGE, NULL).n_bytes;
}

/* One block. The order of units is nobody's business: no result depends on it. */
static __global__ void plan(const struct atom_cuda_step step, const decode_space d, int rep)
{
    __shared__ int taken;
    if (threadIdx.x == 0)
        taken = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < step.max_seqs; i += blockDim.x) {
        struct atom_cuda_seq seq = step.seqs[i];
        if (seq.n_tok < 1 || seq.n_tok > ATOM_CUDA_DECODE_TOK)
            continue;
        int n_pages = (seq.pos0 + seq.n_tok + PAGE - 1) / PAGE;
        int n_splits = splits_of(n_pages, seq.n_tok), n_tiles = (seq.n_tok * rep + TILE_ROWS - 1) / TILE_ROWS;
        int at = atomicAdd(&taken, n_splits * n_tiles);
        for (int s = 0; s < n_splits; s++)
            for (int t = 0; t < n_tiles; t++) {
                int first = (int)((int64_t)n_pages * s / n_splits), last = (int)((int64_t)n_pages * (s + 1) / n_splits);
                d.units[at++] = {i,           first,         last - first, (uint8_t)s, (uint8_t)n_splits,
                                 (uint16_t)t, seq.first_tok, seq.n_tok,    seq.pos0,   0};
            }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *d.n_units = taken;
        d.taken[0] = d.taken[1] = 0;
    }
}

extern "C" enum atom_status atom_cuda_decode_plan(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                                  struct atom_error *err)
{
    const struct atom_cuda_step *step = job->step;
    if (step->max_seqs < 1 || step->max_pages < 1 || !job->workspace)
        return atom_fail(err, ATOM_ERR_INVALID, "a step of %d sequences of %d pages, or no workspace", step->max_seqs,
                         step->max_pages);
    decode_space d = atom_cuda_decode_space(job->kv, step->max_seqs, step->max_pages, job->workspace);
    plan<<<1, 256, 0, s>>>(*step, d, job->kv->heads / job->kv->kv_heads);
    return atom_cuda_launched("cutting sequences for decode", err);
}
