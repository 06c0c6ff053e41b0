/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts a step's prefill sequences into groups (attention_plan.cuh): one block. */
#include "cuda/attention_plan.cuh"

enum { PLANNERS = 1024, CLASSES = 512 /* of lengths */ };

struct planner {
    struct atom_cuda_step step;
    int kv_heads, group, ring_tiles, n_sm;
    struct plan *plan;
    struct group *groups;
    int *ready, *read, *filled;
};

static __device__ int key_tiles(const struct atom_cuda_seq &s) { return (s.pos0 + s.n_tok + KEY_TILE - 1) / KEY_TILE; }
static __device__ int class_of(const struct atom_cuda_seq &s) { return CLASSES - 1 - min(key_tiles(s), CLASSES - 1); }
static __device__ bool is_prefill(const struct atom_cuda_seq &s) { return s.n_tok > ATOM_CUDA_DECODE_TOK; }

/* x[i] becomes the sum of x[0] to x[i]. */
static __device__ void add_up(int *x, int n)
{
    __syncthreads();
    if (threadIdx.x < 32)
        for (int i = threadIdx.x, sum = 0; i - (int)threadIdx.x < n; i += 32) {
            int v = i < n ? x[i] : 0;
            for (int d = 1; d < 32; d *= 2) {
                int w = __shfl_up_sync(~0u, v, d);
                v += (int)threadIdx.x >= d ? w : 0;
            }
            v += sum;
            if (i < n)
                x[i] = v;
            sum = __shfl_sync(~0u, v, 31);
        }
    __syncthreads();
}

/* Prefill sequences by length, the longest first, one after the other at to[]; how many. Among about equal ones the
 * order is of no importance, nor is it the same twice. */
static __device__ int sort_sequences(const planner &p, int *to)
{
    __shared__ int starts[CLASSES + 1];
    for (int i = threadIdx.x; i <= CLASSES; i += PLANNERS)
        starts[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < p.step.max_seqs; i += PLANNERS)
        if (is_prefill(p.step.seqs[i]))
            atomicAdd(&starts[class_of(p.step.seqs[i]) + 1], 1);
    add_up(starts, CLASSES + 1);
    int n = starts[CLASSES];
    __syncthreads();
    for (int i = threadIdx.x; i < p.step.max_seqs; i += PLANNERS)
        if (is_prefill(p.step.seqs[i]))
            to[atomicAdd(&starts[class_of(p.step.seqs[i])], 1)] = i;
    __syncthreads();
    return n;
}

/* What a sequence adds to the counts. */
struct share {
    int groups, tiles, units;
};
static __device__ int query_tiles(const planner &p, const struct atom_cuda_seq &s)
{
    return (s.n_tok * p.group + QUERY_TILE - 1) / QUERY_TILE;
}
/* Heads of a group: enough for every multiprocessor, but half the ring at most. */
static __device__ int heads_of(const planner &p, const struct atom_cuda_seq &s)
{
    int tiles = key_tiles(s), units = query_tiles(p, s);
    int heads = max(GROUP_TILES / tiles, (p.n_sm + units - 1) / units);
    return max(1, min(min(heads, p.kv_heads), p.ring_tiles / 2 / tiles));
}
static __device__ share share_of(const planner &p, const struct atom_cuda_seq &s)
{
    int tiles = key_tiles(s), heads = heads_of(p, s);
    return {(p.kv_heads + heads - 1) / heads, tiles * p.kv_heads, query_tiles(p, s) * p.kv_heads};
}

static __device__ void write_groups(const planner &p, int seq, share at)
{
    struct atom_cuda_seq s = p.step.seqs[seq];
    int tiles = key_tiles(s), heads = heads_of(p, s), units = query_tiles(p, s);
    for (int head = 0; head < p.kv_heads; head += heads, at.groups++) {
        int n = min(heads, p.kv_heads - head);
        p.groups[at.groups] = {seq,   s.first_tok, s.n_tok * p.group, s.pos0,   head, n,
                               tiles, units,       at.tiles,          at.units, 0,    0};
        at.tiles += n * tiles;
        at.units += n * units;
    }
}

/* The first group whose tiles end behind place `tile`. */
static __device__ int group_behind(const planner &p, int n, int tile)
{
    int lo = 0;
    while (lo < n) {
        int mid = (lo + n) / 2;
        const struct group &g = p.groups[mid];
        if (g.tile0 + g.n_heads * g.key_tiles > tile)
            n = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* A ring that is no larger than keeps every multiprocessor at work, so that it stays in the L2 cache if it can: room
 * for twice as many units' heads, and for a group that is expanded meanwhile. */
static __device__ int ring_for(const planner &p, const int *order, int n)
{
    __shared__ int most;
    if (threadIdx.x == 0)
        most = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += PLANNERS) {
        struct atom_cuda_seq s = p.step.seqs[order[i]];
        int tiles = key_tiles(s), units = query_tiles(p, s), heads = (2 * p.n_sm + units - 1) / units;
        long long room = (long long)tiles * (heads + 2 * heads_of(p, s));
        atomicMax(&most, (int)min(room, (long long)p.ring_tiles));
    }
    __syncthreads();
    return max(most, 1);
}

static __global__ void __launch_bounds__(PLANNERS) plan_groups(const planner p)
{
    extern __shared__ int order[];
    int most = p.step.max_seqs + 1, *groups = order + most, *tiles = groups + most, *units = tiles + most;
    int n = sort_sequences(p, order);
    for (int i = threadIdx.x; i <= n; i += PLANNERS) {
        share s = {0, 0, 0};
        if (i)
            s = share_of(p, p.step.seqs[order[i - 1]]);
        groups[i] = s.groups, tiles[i] = s.tiles, units[i] = s.units;
    }
    add_up(groups, n + 1);
    add_up(tiles, n + 1);
    add_up(units, n + 1);
    for (int i = threadIdx.x; i < n; i += PLANNERS)
        write_groups(p, order[i], {groups[i], tiles[i], units[i]});
    __syncthreads();
    int ring = ring_for(p, order, n);
    for (int i = threadIdx.x; i < groups[n]; i += PLANNERS) {
        p.groups[i].before = group_behind(p, i, p.groups[i].tile0 - ring);
        p.ready[i] = p.read[i] = 0;
    }
    for (int i = threadIdx.x; i < ring; i += PLANNERS)
        p.filled[i] = 0;
    if (threadIdx.x == 0)
        *p.plan = {groups[n], tiles[n], units[n], ring, 0, 0};
}

enum atom_status atom_cuda_prefill_plan(const struct prefill_args *a, const struct work_layout *l, uint8_t *workspace,
                                        atom_cuda_stream s, struct atom_error *err)
{
    planner p = {};
    p.step = a->step;
    p.kv_heads = a->kv_heads;
    p.group = a->group;
    p.ring_tiles = l->ring_tiles;
    p.n_sm = atom_cuda_opened()->n_sm;
    p.plan = (struct plan *)workspace;
    p.groups = (struct group *)(workspace + l->groups_at);
    p.ready = (int *)(workspace + l->ready_at);
    p.read = (int *)(workspace + l->read_at);
    p.filled = (int *)(workspace + l->filled_at);
    plan_groups<<<1, PLANNERS, (size_t)(a->step.max_seqs + 1) * 4 * sizeof(int), s>>>(p);
    return atom_cuda_launched("planning prefill attention", err);
}
