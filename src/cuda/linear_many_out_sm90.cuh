/* SPDX-License-Identifier: Apache-2.0 */
/* Results of the many-token linear of Hopper on their way to memory, and a tile's sums that meet before: halves in
 * shared memory, splits in the workspace. */
#ifndef ATOM_CUDA_LINEAR_MANY_OUT_SM90_CUH
#define ATOM_CUDA_LINEAR_MANY_OUT_SM90_CUH

#include "cuda/linear_many_sm90.cuh"

/* What a launch describes to the tensor copies. */
struct maps {
    CUtensorMap tokens, y, add;
};

/* Results of two bytes go through shared memory: [BN tokens][64 rows, or 32 of silu], swizzled as a tensor copy wants
 * it. What is to be added came the same way while the tile was computed. */
struct out {
    uint8_t *tile;
    uint64_t *added;
    uint32_t phase;
};

/* Where lane l of a stmatrix of four 8x8 tiles puts its row: tokens 8j on, rows 16 of this warp; then the next 8
 * tokens. silu: two tiles, rows 8 of this warp. */
template <bool SILU> static __device__ __forceinline__ uint32_t out_place(const struct out &o, int j)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    int tok = 8 * j + lane % 8 + (SILU ? lane / 8 % 2 : lane / 16) * 8, chunk = SILU ? warp : 2 * warp + lane / 8 % 2;
    return smem_address(o.tile) +
           (SILU ? tok * 64 + ((chunk ^ tok / 2 % 4) * 16) : tok * 128 + ((chunk ^ tok % 8) * 16));
}

static __device__ __forceinline__ bool speaks() { return threadIdx.x % 128 == 0; } /* for its warpgroup */

/* BOX: of how many tokens a tensor copy is. */
template <int BN, int BOX>
static __device__ __forceinline__ void bring_addend(const struct args &a, const struct maps &m, const struct item &it,
                                                    int row0, struct out &o)
{
    if (!a.add || !speaks())
        return;
    tensor_store_wait_read();
    barrier_arrive_expect(o.added, BN * 128);
#pragma unroll
    for (int t = 0; t < BN; t += BOX)
        tensor_copy(o.tile + t * 128, &m.add, row0, it.tok0 + t, o.added);
}

template <class T> static __device__ __forceinline__ void add_pair(uint32_t two, float &a, float &b)
{
    T t[2];
    memcpy(t, &two, sizeof t);
    a += to_float(t[0]);
    b += to_float(t[1]);
}

static __device__ __forceinline__ float bias_of(const struct args &a, int row)
{
    return a.bias && row < a.n ? a.bias[row] : 0.0f;
}

/* MORE: there is a bias or an addend. Without, most of the instructions are not there, a twentieth of a tile's. */
template <int BN, class T, bool MORE>
static __device__ __forceinline__ void tile_out(const struct args &a, int row0, struct out &o, float (&y)[BN / 2])
{
    int row = row0 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    float bias[2] = {MORE ? bias_of(a, row) : 0.0f, MORE ? bias_of(a, row + 8) : 0.0f};
    if (MORE && a.add)
        barrier_wait(o.added, o.phase);
#pragma unroll
    for (int j = 0; j < BN / 8; j += 2) {
        uint32_t at = out_place<false>(o, j), x[4] = {};
        if (MORE && a.add)
            load_4x8x8_transposed(x, at);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float u = y[4 * j + 2 * i], v = y[4 * j + 2 * i + 1];
            if (MORE)
                u += bias[i % 2], v += bias[i % 2];
            if (MORE && a.add)
                add_pair<T>(x[i], u, v);
            x[i] = pack2(u, v, (T *)0);
        }
        store_4x8x8_transposed(at, x);
    }
    o.phase ^= MORE && a.add;
}

template <int BN, class T, bool MORE>
static __device__ __forceinline__ void tile_out_silu(const struct args &a, int row0, struct out &o, float (&y)[BN / 2])
{
    int row = row0 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    float bias[2] = {MORE ? bias_of(a, row) : 0.0f, MORE ? bias_of(a, row + 8) : 0.0f};
#pragma unroll
    for (int j = 0; j < BN / 8; j += 2) {
        uint32_t x[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float *e = &y[4 * (j + i)];
            if (MORE)
                e[0] += bias[0], e[1] += bias[0], e[2] += bias[1], e[3] += bias[1];
            x[i] = pack2(silu(e[0], e[2]), silu(e[1], e[3]), (T *)0);
        }
        store_2x8x8_transposed(out_place<true>(o, j), x);
    }
}

/* Halves of a tile's sums meet where its results are staged: block r of the cluster keeps those of half r of the
 * tokens, to which each of its warpgroups adds what the other block's sends, [BN/4][128]. `room` says that the other
 * block has room for them, `come` that they are here. All threads do the same, and nothing of this is in registers
 * while a tile is computed: branches and registers would be paid for in the loop. */
struct exchange {
    uint64_t room[CONSUMERS], come[CONSUMERS];
};

static __device__ __forceinline__ struct exchange *exchange()
{
    static __shared__ struct exchange x;
    return &x;
}

static __device__ __forceinline__ void exchange_init()
{
    for (int i = 0; i < CONSUMERS; i++) {
        barrier_init(&exchange()->room[i], 1);
        barrier_init(&exchange()->come[i], 128);
    }
}

static __device__ __forceinline__ uint32_t there(const void *shared)
{
    return cluster_address(smem_address(shared), cluster_rank() ^ 1);
}

/* A warpgroup tells the other block's when its results have left. */
static __device__ __forceinline__ void make_room()
{
    if (speaks()) {
        tensor_store_wait_read();
        barrier_arrive_release_cluster(there(&exchange()->room[threadIdx.x / 128 - 1]));
    }
}

/* The parity of the exchanges before item i. */
template <int BN> static __device__ __forceinline__ uint32_t exchange_phase(const struct args &a, int i)
{
    return (uint32_t)(i - a.whole_pairs * a.tok_tiles) / (gridDim.x / many_shape<BN>::CLUSTER) & 1;
}

/* `kept` becomes the whole sums of this block's half of the tokens. */
template <int BN>
static __device__ __forceinline__ void join_halves(const struct out &o, uint32_t phase, const float (&y)[BN / 2],
                                                   float (&kept)[BN / 4])
{
    uint32_t group = threadIdx.x / 128 - 1, place = threadIdx.x % 128 * 4, to = there(o.tile) + place;
    bool high = cluster_rank();
    barrier_wait_cluster(&exchange()->room[group], phase);
#pragma unroll
    for (int e = 0; e < BN / 4; e++)
        store_cluster(to + e * 512, high ? y[e] : y[e + BN / 4]);
    barrier_arrive_release_cluster(there(&exchange()->come[group]));
    barrier_wait_cluster(&exchange()->come[group], phase);
#pragma unroll
    for (int e = 0; e < BN / 4; e++)
        kept[e] = (high ? y[e + BN / 4] : y[e]) + reinterpret_cast<const float *>(o.tile + place)[e * 128];
}

template <int BN, int BOX, class T, bool SILU, bool DIRECT>
static __device__ __forceinline__ void write_out(const struct args &a, const struct maps &m, const struct item &it,
                                                 struct out &o, float (&y)[BN / 2])
{
    int group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, row0 = it.row_tile * TILE_ROWS + group * 64;
    if constexpr (DIRECT) {
        put_tile<BN, T, SILU>(a, it, row0 + warp * 16, y);
    } else {
        if (!a.add) { /* bring_addend has waited for it otherwise */
            if (speaks())
                tensor_store_wait_read();
            warpgroup_sync(1 + group);
        }
        if constexpr (SILU) {
            if (a.bias)
                tile_out_silu<BN, T, true>(a, row0, o, y);
            else
                tile_out_silu<BN, T, false>(a, row0, o, y);
        } else if (a.bias || a.add) {
            tile_out<BN, T, true>(a, row0, o, y);
        } else {
            tile_out<BN, T, false>(a, row0, o, y);
        }
        shared_to_tensor_cores();
        warpgroup_sync(1 + group);
        if (speaks()) {
#pragma unroll
            for (int t = 0; t < BN; t += BOX)
                tensor_store(&m.y, SILU ? row0 / 2 : row0, it.tok0 + t, o.tile + t * (SILU ? 64 : 128));
        }
    }
}

/* DIRECT: results go to memory one by one, for types of four bytes and rows whose length the tensor copy cannot have.
 */

/* ---- splits ------------------------------------------------------------------------------------------------------ */

/* Leaves a split's sums of a tile in the workspace. */
template <int BN> static __device__ __forceinline__ void leave_sums(const struct args &a, int slot, float (&y)[BN / 2])
{
    float *to = a.partials + (size_t)slot * (BN / 2) * 256 + threadIdx.x - 128;
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        __stcg(to + e * 256, y[e]);
}

/* After leave_sums, perhaps a while. True for the last split to come, which then has all of them added up in order. */
template <int BN>
static __device__ __forceinline__ bool add_splits(const struct args &a, const struct item &it, float (&y)[BN / 2])
{
    __shared__ int last;
    int t = threadIdx.x - 128;
    asm volatile("bar.sync 3, 256;" ::: "memory");
    if (t == 0)
        last = add_acq_rel(&a.arrived[it.word], 1) == it.n_splits - 1;
    asm volatile("bar.sync 3, 256;" ::: "memory");
    if (!last)
        return false;
    const float *from = a.partials + (size_t)(it.slot - it.split) * (BN / 2) * 256 + t;
#pragma unroll
    for (int e = 0; e < BN / 2; e++)
        y[e] = __ldcg(from + e * 256);
    for (int i = 1; i < it.n_splits; i++) {
        from += (BN / 2) * 256;
#pragma unroll
        for (int e = 0; e < BN / 2; e++)
            y[e] += __ldcg(from + e * 256);
    }
    if (t == 0)
        a.arrived[it.word] = 0; /* as the next job wants it */
    return true;
}

#endif
