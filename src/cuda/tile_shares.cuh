/* SPDX-License-Identifier: Apache-2.0 */
/* How blocks that stay share the tiles of a linear.
 *
 * A tile takes so many steps along K. Workers (blocks, or clusters of them) first take whole tiles in turn. The tiles
 * after those are cut: their steps, tile after tile, are dealt out evenly, so that a worker gets a piece of a tile,
 * perhaps whole ones, and a piece of another. Sums of pieces meet in the workspace; the last worker to come adds them
 * up, in the order of their steps. Where the cuts are depends on tiles, steps and workers alone. */
#ifndef ATOM_CUDA_TILE_SHARES_CUH
#define ATOM_CUDA_TILE_SHARES_CUH

/* Where a tile lies: bands of eight tiles of tokens, in a band tokens first, then rows; so that what runs at once
 * shares weights and tokens alike, and both stay in the cache. */
static __device__ __forceinline__ void tile_place(int tile, int tok_tiles, int row_tiles, int &tok, int &row)
{
    enum { BAND = 8 };
    int first = tile / (BAND * row_tiles) * BAND, width = tok_tiles - first < BAND ? tok_tiles - first : BAND;
    tile -= first * row_tiles;
    tok = first + tile % width;
    row = tile / width;
}

struct tiles {
    int count, whole; /* those that are not cut come first */
    int steps;        /* of a tile */
};

/* A worker's place, and what it is to do next: steps from, to of a tile. */
struct share {
    int worker, workers;
    int tile, from, to;
    int at, end; /* of the steps that are dealt out */
};

/* The first of a worker's steps. Tiles that are cut are fewer than workers, so that 32 bits hold the product. */
static __device__ __forceinline__ int dealt_from(const struct tiles &t, int worker, int workers)
{
    return (int)((unsigned)((t.count - t.whole) * t.steps) * (unsigned)worker / (unsigned)workers);
}

static __device__ __forceinline__ void share_begin(const struct tiles &t, int worker, int workers, struct share &w)
{
    w.worker = worker;
    w.workers = workers;
    w.tile = worker - workers;
    w.at = dealt_from(t, worker, workers);
    w.end = dealt_from(t, worker + 1, workers);
}

static __device__ __forceinline__ bool share_next(const struct tiles &t, struct share &w)
{
    if (w.tile < t.whole)
        w.tile += w.workers;
    if (w.tile < t.whole) {
        w.from = 0;
        w.to = t.steps;
        return true;
    }
    if (w.at >= w.end)
        return false;
    w.tile = t.whole + w.at / t.steps;
    w.from = w.at % t.steps;
    w.to = w.from + w.end - w.at < t.steps ? w.from + w.end - w.at : t.steps;
    w.at += w.to - w.from;
    return true;
}

static __device__ __forceinline__ bool is_piece(const struct tiles &t, const struct share &w)
{
    return w.to - w.from < t.steps;
}

/* The worker that has a step of those that are dealt out. */
static __device__ __forceinline__ int worker_of(const struct tiles &t, const struct share &w, int step)
{
    return (int)(((unsigned)(step + 1) * (unsigned)w.workers - 1) / (unsigned)((t.count - t.whole) * t.steps));
}

/* Where pieces meet. A worker has two slots: for a piece of a tile that another began, and for one that it begins. A
 * slot is [parts][floats or integers of a thread][128 threads], a part being a warpgroup's. */
struct meeting {
    int parts;
    int *arrived; /* [tiles that are cut][parts]: steps that have come, 0 between jobs */
    void *slots;  /* [workers][2][parts][n][128] */
};

/* Leaves a warpgroup's sums; true for the last of its tile's pieces, which then has all. barrier: a named one, of the
 * 128 threads. */
template <int N, class T>
static __device__ bool meet(const struct tiles &t, const struct share &w, const struct meeting &m, int part,
                            int barrier, T (&sums)[N])
{
    __shared__ int before[8];
    int thread = threadIdx.x % 128, tile = w.tile - t.whole, first = tile * t.steps;
    T *slots = static_cast<T *>(m.slots) + (size_t)part * N * 128 + thread;
    size_t slot = (size_t)m.parts * N * 128;
    T *mine = slots + (size_t)(2 * w.worker + (w.from == 0)) * slot;
#pragma unroll
    for (int e = 0; e < N; e++)
        __stcg(mine + e * 128, sums[e]);
    __threadfence();
    asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
    if (thread == 0)
        before[barrier % 8] = atomicAdd(&m.arrived[tile * m.parts + part], w.to - w.from);
    asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
    if (before[barrier % 8] + w.to - w.from < t.steps)
        return false;
    __threadfence();
    if (thread == 0)
        m.arrived[tile * m.parts + part] = 0;
    int begun = worker_of(t, w, first), ended = worker_of(t, w, first + t.steps - 1);
    for (int worker = begun; worker <= ended; worker++) {
        const T *from = slots + (size_t)(2 * worker + (worker == begun)) * slot;
        if (dealt_from(t, worker, w.workers) == dealt_from(t, worker + 1, w.workers))
            continue;
#pragma unroll
        for (int e = 0; e < N; e++)
            sums[e] = worker == begun ? __ldcg(from + e * 128) : sums[e] + __ldcg(from + e * 128);
    }
    return true;
}

#endif
