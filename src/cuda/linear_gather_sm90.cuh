/* SPDX-License-Identifier: Apache-2.0 */
/* Adding up a tile of few tokens whose runs are split among the blocks of a cluster, over their shared memory.
 *
 * A unit is what a warp has of 8 tokens: 16 rows of them, four sums a thread. Each block owns some units: the others
 * send theirs, which tell a barrier there themselves that they have come, and the owner adds up, the splits in order.
 */
#ifndef ATOM_CUDA_LINEAR_GATHER_SM90_CUH
#define ATOM_CUDA_LINEAR_GATHER_SM90_CUH

#include "cuda/linear_sm90.cuh"

template <int BN> struct gather_shape {
    enum {
        UNITS = BN, /* BN / 8 of each of 8 warps */
        UNIT_BYTES = 512,
        BYTES = (BN < 64 ? BN : 7 * BN / 8) * UNIT_BYTES, /* of what comes from others at most */
    };
};

/* Where a block's units go; which it owns, the first to the one before end; what it waits for. */
template <int BN> struct gather {
    int first, end;
    uint2 to[BN]; /* of each unit, shared memory and barrier in its owner; {0} where that is this block */
    uint64_t ready, free;
};

template <int BN> static __device__ __forceinline__ int most_units(int n) { return (BN + n - 1) / n; }
/* The first of n blocks' `owner`. */
template <int BN> static __device__ __forceinline__ int first_unit(int owner, int n)
{
    return (owner * BN + n - 1) / n;
}

template <int BN> static __device__ __forceinline__ void gather_expect(struct gather<BN> &g, int n)
{
    barrier_arrive_expect(&g.ready, (uint32_t)((n - 1) * (g.end - g.first) * gather_shape<BN>::UNIT_BYTES));
}

/* By all consumers, before the cluster knows that it has begun. */
template <int BN> static __device__ __forceinline__ void gather_init(struct gather<BN> &g, int n, uint32_t sums)
{
    int unit = threadIdx.x, rank = (int)cluster_rank();
    if (unit < BN) {
        int owner = unit * n / BN, from = rank - (rank > owner);
        uint32_t at =
            sums + (from * most_units<BN>(n) + unit - first_unit<BN>(owner, n)) * gather_shape<BN>::UNIT_BYTES;
        g.to[unit] = owner == rank
                         ? make_uint2(0, 0)
                         : make_uint2(cluster_address(at, owner), cluster_address(smem_address(&g.ready), owner));
    }
    if (threadIdx.x == 0) {
        g.first = first_unit<BN>(rank, n);
        g.end = first_unit<BN>(rank + 1, n);
        barrier_init(&g.ready, 1);
        barrier_init(&g.free, n - 1);
        gather_expect(g, n);
    }
}

template <int BN>
static __device__ __forceinline__ void send_units(const struct gather<BN> &g, const float (&y)[BN / 2])
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < BN / 8; j++) {
        uint2 to = g.to[8 * j + warp];
        if (to.x)
            store_remote(to.x + lane * 16, &y[4 * j], to.y);
    }
}

/* By asm, as the compiler would make an index into registers of it, which there is not. */
static __device__ __forceinline__ void take_if(bool so, const float *from, float (&to)[4])
{
    asm("{ .reg .pred p; setp.ne.u32 p, %4, 0;"
        " @p mov.f32 %0, %5; @p mov.f32 %1, %6; @p mov.f32 %2, %7; @p mov.f32 %3, %8; }"
        : "+f"(to[0]), "+f"(to[1]), "+f"(to[2]), "+f"(to[3])
        : "r"((uint32_t)so), "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3]));
}

/* This warp's sums of 8 tokens, of all splits. */
template <int BN>
static __device__ __forceinline__ void add_unit(int n, uint32_t received, int unit, const float (&y)[BN / 2],
                                                float (&sum)[4])
{
    float own[4] = {};
#pragma unroll
    for (int j = 0; j < BN / 8; j++)
        take_if(unit / 8 == j, &y[4 * j], own);
    uint32_t at = received + threadIdx.x % 32 * 16, step = most_units<BN>(n) * gather_shape<BN>::UNIT_BYTES;
    int rank = (int)cluster_rank();
#pragma unroll
    for (int split = 0; split < FEW_SPLITS; split++) {
        float4 v = make_float4(own[0], own[1], own[2], own[3]);
        if (split < n && split != rank) {
            v = load_floats(at);
            at += step;
        }
        if (split == 0)
            sum[0] = v.x, sum[1] = v.y, sum[2] = v.z, sum[3] = v.w;
        else if (split < n)
            sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
    }
}

/* How far a thread has come: of which tile's units it waits for, and where those of others are put. */
struct gathering {
    uint32_t sums, phase;
    bool more; /* another tile follows, of this and all blocks of the cluster */
};

/* Sends what others own, adds up and writes what this block owns. */
template <int BN, class T, bool SILU>
static __device__ __forceinline__ void gather_tile(const struct args &a, struct gather<BN> &g, int row_tile,
                                                   struct gathering &at, const float (&y)[BN / 2])
{
    int warp = threadIdx.x / 32, n = a.splits;
    barrier_wait(&g.free, at.phase ^ 1); /* all have added up the tile before, if there was one */
    send_units(g, y);
    barrier_wait(&g.ready, at.phase);
    at.phase ^= 1;
    for (int first = g.first, unit = first + ((warp - first) & 7); unit < g.end; unit += 8) {
        float sum[4];
        add_unit<BN>(n, at.sums + (unit - first) * gather_shape<BN>::UNIT_BYTES, unit, y, sum);
        struct item it = {};
        it.tok0 = unit / 8 * 8;
        put_tile<8, T, SILU>(a, it, row_tile * TILE_ROWS + warp * 16, sum);
    }
    if (!at.more)
        return;
    if (threadIdx.x == 0)
        gather_expect(g, n);
    asm volatile("bar.sync 1, 256;" ::: "memory");
    if (threadIdx.x < n && threadIdx.x != cluster_rank())
        barrier_arrive_cluster(cluster_address(smem_address(&g.free), threadIdx.x), true);
}

#endif
