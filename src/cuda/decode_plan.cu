/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: the workspace, and a step's sequences cut into units once for all its layers. */
#include "cuda/check.cuh"
#include "cuda/decode.cuh"

#define PLAN_FN static __device__ __forceinline__

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
    d.n_units = (int *)at, at += 256;
    d.units = (unit *)at, at += up(units * sizeof(unit));
    d.arrived = (int *)at, at += up((size_t)max_seqs * (size_t)kv->heads * sizeof(int));
    d.turns = (uint4 *)at, at += (size_t)(TURN_PAGES * kv->wide / 16) * 512;
    d.weight = (float2 *)at, at += up(rows * sizeof(float2));
    d.part = (float *)at, at += up(rows * (size_t)kv->wide * sizeof(float));
    d.n_bytes = (size_t)(at - (uint8_t *)workspace);
    return d;
}

extern "C" size_t atom_cuda_decode_workspace(const struct atom_cuda_kv *kv, int max_seqs, int max_position)
{
    return atom_cuda_decode_space(kv, max_seqs, (max_position + PAGE - 1) / PAGE, NULL).n_bytes;
}

struct angles {
    const float2 *turns; /* [max_position, pairs] */
    int max_position, pairs, wide;
};

PLAN_FN uint32_t two_halves(float a, float b)
{
    __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<uint32_t *>(&h);
}

/* Cos and sin of the places of some pages, [page][tile][lane]: cos of a lane's two pairs of a tile at position g =
 * lane/4, sin of them, then the same at position g + 8. Places that no position has are those of the last one. */
PLAN_FN void keep_turns(const angles &a, uint4 *to)
{
    int per_lane = a.wide / 8, tiles = a.wide / 16;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < TURN_PAGES * tiles * 32;
         i += (int)(gridDim.x * blockDim.x)) {
        int lane = i % 32, pair = lane % 4 * per_lane + i / 32 % tiles * 2;
        uint32_t w[4];
        for (int j = 0; j < 2; j++) {
            int position = i / 32 / tiles * PAGE + lane / 4 + 8 * j;
            const float2 *t = a.turns + (size_t)(position < a.max_position ? position : a.max_position - 1) * a.pairs;
            float2 x = pair < a.pairs ? t[pair] : make_float2(0.0f, 0.0f);
            float2 y = pair + 1 < a.pairs ? t[pair + 1] : make_float2(0.0f, 0.0f);
            w[2 * j] = two_halves(x.x, y.x);
            w[2 * j + 1] = two_halves(x.y, y.y);
        }
        to[i] = make_uint4(w[0], w[1], w[2], w[3]);
    }
}

/* Pages are computed two at a time. */
PLAN_FN int split_from(int n_pages, int n_splits, int split)
{
    int64_t pairs = (n_pages + 1) / 2;
    return min((int)(pairs * split / n_splits) * 2, n_pages);
}

/* Of a step's sequence i; none: n_tok is 0. */
struct cut {
    struct atom_cuda_seq seq;
    int n_pages, n_splits, n_tiles;
};

PLAN_FN cut cut_sequence(const struct atom_cuda_step &step, int i, int rep)
{
    cut c = {step.seqs[i], 0, 0, 0};
    if (c.seq.n_tok < 1 || c.seq.n_tok > ATOM_CUDA_DECODE_TOK)
        return c;
    c.n_pages = (c.seq.pos0 + c.seq.n_tok + PAGE - 1) / PAGE;
    c.n_splits = splits_of(c.n_pages, c.seq.n_tok);
    c.n_tiles = (c.seq.n_tok * rep + TILE_ROWS - 1) / TILE_ROWS;
    return c;
}

/* Long units first, by their number of pages up to SIZES - 1. */
enum { SIZES = 64 };

PLAN_FN int rank_of(int n_pages) { return n_pages < SIZES ? SIZES - 1 - n_pages : 0; }

/* How many units there are of each rank, then where the first of them goes. */
static __device__ void count_units(const struct atom_cuda_step &step, int rep, int *at, int *n_units)
{
    if (threadIdx.x < SIZES)
        at[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < step.max_seqs; i += blockDim.x) {
        cut c = cut_sequence(step, i, rep);
        for (int s = 0; s < c.n_splits; s++)
            atomicAdd(at + rank_of(split_from(c.n_pages, c.n_splits, s + 1) - split_from(c.n_pages, c.n_splits, s)),
                      c.n_tiles);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int n = 0;
        for (int i = 0; i < SIZES; i++) {
            int here = at[i];
            at[i] = n;
            n += here;
        }
        *n_units = n;
    }
    __syncthreads();
}

/* The first block, and all for angles. The order of units of a length is nobody's business: no result depends on it. */
static __global__ void plan(const struct atom_cuda_step step, const decode_space d, int n_arrived, int rep,
                            const angles a)
{
    __shared__ int at[SIZES];
    keep_turns(a, d.turns);
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n_arrived; i += (int)(gridDim.x * blockDim.x))
        d.arrived[i] = 0;
    if (blockIdx.x > 0)
        return;
    count_units(step, rep, at, d.n_units);
    for (int i = threadIdx.x; i < step.max_seqs; i += blockDim.x) {
        cut c = cut_sequence(step, i, rep);
        for (int s = 0; s < c.n_splits; s++) {
            int first = split_from(c.n_pages, c.n_splits, s), n = split_from(c.n_pages, c.n_splits, s + 1) - first;
            int to = atomicAdd(at + rank_of(n), c.n_tiles);
            for (int t = 0; t < c.n_tiles; t++)
                d.units[to++] = {i,           first,           n,           (uint8_t)s, (uint8_t)c.n_splits,
                                 (uint16_t)t, c.seq.first_tok, c.seq.n_tok, c.seq.pos0, 0};
        }
    }
}

extern "C" enum atom_status atom_cuda_decode_plan(const struct atom_cuda_attend *job, atom_cuda_stream s,
                                                  struct atom_error *err)
{
    const struct atom_cuda_step *step = job->step;
    if (step->max_seqs < 1 || step->max_pages < 1 || !job->workspace || !job->kv->turns)
        return atom_fail(err, ATOM_ERR_INVALID, "a step of %d sequences of %d pages, or no workspace or angles",
                         step->max_seqs, step->max_pages);
    decode_space d = atom_cuda_decode_space(job->kv, step->max_seqs, step->max_pages, job->workspace);
    const struct atom_cuda_kv *kv = job->kv;
    const angles a = {(const float2 *)kv->turns, kv->max_position, kv->head_dim / 2, kv->wide};
    plan<<<TURN_PAGES, 256, 0, s>>>(*step, d, step->max_seqs * kv->heads, kv->heads / kv->kv_heads, a);
    return atom_cuda_launched("cutting sequences for decode", err);
}
