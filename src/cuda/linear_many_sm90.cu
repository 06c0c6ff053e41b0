/* SPDX-License-Identifier: Apache-2.0 */
/* Linear on Hopper for many tokens, where the tensor cores should never wait.
 *
 * A block computes 128 rows times BN tokens, two warpgroups 64 rows each. What limits such a kernel there (measured,
 * docs/gpu.md): beside a wgmma at full speed a scheduler has one instruction in two cycles for everything
 * else, and each cycle in which shared memory returns data to registers costs the wgmma most of a cycle. So
 *
 * - the products of row scale and token scale, one for each sum, are made by the tensor cores too: a tf32 wgmma of
 *   depth 8, the token's scale cut in three parts of 11, 11 and 2 bits, the row's fitting in 11. Then a sum costs two
 *   instructions, conversion and fma. The product is cut off where the specification rounds: at most one unit in the
 *   last place.
 * - a warpgroup's tokens are two halves with sums of their own: one half is on the tensor cores while the other is
 *   scaled. A half's products are started in two quarters, so that the next run's weights can take the registers of
 *   the first while the second is at work.
 *
 * Two threads bring runs into a ring of stages; the token scales come cut already (ops.h). Two blocks that form a
 * cluster have the same tokens: each brings half of them, for both. */
#include "cuda/early.cuh"
#include "cuda/linear_many_out_sm90.cuh"

/* The ring as those see it who fill it. */
struct feed {
    uint8_t *stages;
    int stage;
    uint32_t phase;
};

template <int BN> static __device__ __forceinline__ uint8_t *stage_of(const struct feed &r)
{
    return r.stages + (size_t)r.stage * many_shape<BN>::STAGE_BYTES;
}

static __device__ __forceinline__ uint64_t *barrier_at(uint8_t *p) { return reinterpret_cast<uint64_t *>(p); }

/* The blocks of a cluster take work items in turn: tokens fastest, so that what runs at once shares weights. Those of
 * tiles that are split come last, a tile's splits beside each other; or, HALVED, both blocks take half of the runs of
 * one tile. */
template <int BN, bool HALVED>
static __device__ __forceinline__ bool item_at(const struct args &a, int i, struct item &it)
{
    enum { CLUSTER = many_shape<BN>::CLUSTER };
    uint32_t tok_tiles = a.tok_tiles, splits = a.splits, whole = a.whole_pairs * tok_tiles, at = i, pair = 0;
    it.split = 0;
    it.n_splits = 1;
    if (HALVED && at >= whole) {
        at -= whole;
        it.n_splits = 2;
        it.row_tile = a.whole_pairs * CLUSTER + (int)(at / tok_tiles);
        it.tok0 = (int)(at % tok_tiles) * BN;
        it.run0 = cluster_rank() ? a.n_runs / 2 : 0;
        it.run1 = it.run0 + a.n_runs / 2;
        return it.row_tile < a.row_tiles;
    }
    if (!HALVED && at >= whole) {
        at -= whole;
        it.n_splits = a.splits;
        it.split = (int)(at % splits);
        at /= splits;
        pair = a.whole_pairs;
    }
    it.word = (int)at * CLUSTER + (int)cluster_rank();
    it.slot = it.word * a.splits + it.split;
    it.row_tile = (int)(pair + at / tok_tiles) * CLUSTER + (int)cluster_rank();
    it.tok0 = (int)(at % tok_tiles) * BN;
    it.run0 = a.n_runs * it.split / it.n_splits;
    it.run1 = a.n_runs * (it.split + 1) / it.n_splits;
    return it.row_tile < a.row_tiles;
}

/* ---- feeding ----------------------------------------------------------------------------------------------------- */

/* Two threads bring a stage. They have few registers and few turns to issue, and what they take longer the tensor cores
 * wait: so each does little, and by steps.
 *
 * Weights and scales: N_BYTES of weights a run, `runs` of them from w on; `step` floats to the next run's scales. */
template <int BN, int N_BYTES>
static __device__ __forceinline__ void bring_rows(struct feed &r, const uint8_t *&w, const float *&parts, int runs,
                                                  uint32_t part_bytes, size_t step)
{
    using S = many_shape<BN>;
    for (; runs > 0; runs--, next<S>(r)) {
        uint8_t *to = stage_of<BN>(r);
        uint64_t *full = barrier_at(to + S::FULL_AT);
        barrier_wait(barrier_at(to + S::EMPTY_AT), r.phase ^ 1);
        barrier_arrive_expect(full, S::ACT_BYTES + N_BYTES + part_bytes);
        bulk_copy(to + S::WEIGHT_AT, w, N_BYTES, full);
        bulk_copy(to + S::TOK_SCALE_AT, parts, part_bytes, full);
        w += N_BYTES;
        parts += step;
    }
}

/* How many runs' weights are brought before the kernel in front has ended. */
template <int BN> static __device__ __forceinline__ int runs_ahead(const struct item &it)
{
    return min(it.run1 - it.run0, (int)many_shape<BN>::STAGES);
}

static __device__ __forceinline__ uint32_t part_bytes_of(const struct args &a, const struct item &it, int tokens)
{
    return (uint32_t)min(a.tok_stride - it.tok0, tokens) * 16;
}

template <int BN, bool HALVED>
static __device__ __forceinline__ void bring_weights_ahead(const struct args &a, struct feed r)
{
    using S = many_shape<BN>;
    struct item it;
    int n = item_at<BN, HALVED>(a, blockIdx.x / S::CLUSTER, it) ? runs_ahead<BN>(it) : 0;
    for (int i = 0; i < n; i++, next<S>(r)) {
        uint8_t *to = stage_of<BN>(r);
        uint64_t *full = barrier_at(to + S::FULL_AT);
        uint32_t w_bytes = it.run0 + i < a.n_groups ? NIBBLE_RUN_BYTES : BYTE_RUN_BYTES;
        barrier_arrive_expect(full, S::ACT_BYTES + w_bytes + part_bytes_of(a, it, BN));
        bulk_copy(to + S::WEIGHT_AT, a.weights + (size_t)it.row_tile * a.tile_bytes + run_at(a, it.run0 + i), w_bytes,
                  full);
    }
}

/* The scales that belong to them. */
template <int BN>
static __device__ __forceinline__ int bring_scales_ahead(const struct args &a, const struct item &it, struct feed &r)
{
    using S = many_shape<BN>;
    int n = runs_ahead<BN>(it);
    for (int i = 0; i < n; i++, next<S>(r)) {
        uint8_t *to = stage_of<BN>(r);
        bulk_copy(to + S::TOK_SCALE_AT,
                  a.scale_parts + ((size_t)min(it.run0 + i, a.n_groups) * a.tok_stride + it.tok0) * 4,
                  part_bytes_of(a, it, BN), barrier_at(to + S::FULL_AT));
    }
    return n;
}

template <int BN, bool HALVED> static __device__ __forceinline__ void produce_rows(const struct args &a, struct feed r)
{
    using S = many_shape<BN>;
    struct item it;
    early_wait();
    int ahead = item_at<BN, HALVED>(a, blockIdx.x / S::CLUSTER, it) ? bring_scales_ahead<BN>(a, it, r) : 0;
    for (int i = blockIdx.x / S::CLUSTER; item_at<BN, HALVED>(a, i, it); i += gridDim.x / S::CLUSTER) {
        int run0 = it.run0 + ahead;
        const uint8_t *w = a.weights + (size_t)it.row_tile * a.tile_bytes + run_at(a, run0);
        int nibbles = max(0, min(it.run1, a.n_groups) - run0), scale = min(run0, a.n_groups);
        ahead = 0;
        const float *parts = a.scale_parts + ((size_t)scale * a.tok_stride + it.tok0) * 4;
        uint32_t part_bytes = part_bytes_of(a, it, BN);
        bring_rows<BN, NIBBLE_RUN_BYTES>(r, w, parts, nibbles, part_bytes, (size_t)a.tok_stride * 4);
        bring_rows<BN, BYTE_RUN_BYTES>(r, w, parts, it.run1 - run0 - nibbles, part_bytes, 0);
    }
}

/* All tokens of runs that the other block does not take. */
template <int BN>
static __device__ __forceinline__ void bring_own_tokens(const CUtensorMap *map, int x, int tok0, int runs,
                                                        struct feed &r)
{
    using S = many_shape<BN>;
    enum { SHARE = BN / S::CLUSTER };
    for (; runs > 0; runs--, next<S>(r), x += ATOM_CUDA_RUN) {
        uint8_t *to = stage_of<BN>(r);
        barrier_wait(barrier_at(to + S::EMPTY_AT), r.phase ^ 1);
#pragma unroll
        for (int i = 0; i < S::CLUSTER; i++)
            tensor_copy(to + i * SHARE * ATOM_CUDA_RUN, map, x, tok0 + i * SHARE, barrier_at(to + S::FULL_AT));
    }
}

template <int BN, bool HALVED>
static __device__ __forceinline__ void produce_tokens(const struct args &a, const CUtensorMap *map, struct feed r)
{
    using S = many_shape<BN>;
    enum { SHARE = BN / S::CLUSTER };
    struct item it;
    int first = (int)cluster_rank() * SHARE;
    early_wait();
    for (int i = blockIdx.x / S::CLUSTER; item_at<BN, HALVED>(a, i, it); i += gridDim.x / S::CLUSTER) {
        int x = it.run0 * ATOM_CUDA_RUN, y = it.tok0 + first, runs = it.run1 - it.run0;
        if (HALVED && it.n_splits > 1) {
            bring_own_tokens<BN>(map, x, it.tok0, runs, r);
            continue;
        }
        for (; runs > 0; runs--, next<S>(r), x += ATOM_CUDA_RUN) {
            uint8_t *to = stage_of<BN>(r);
            barrier_wait(barrier_at(to + S::EMPTY_AT), r.phase ^ 1);
            tensor_copy(to + first * ATOM_CUDA_RUN, map, x, y, barrier_at(to + S::FULL_AT), (1 << S::CLUSTER) - 1);
        }
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

template <int BN, class T, bool SILU, bool DIRECT, bool HALVED>
static __device__ void multiply(const struct args &a, const struct maps &m, uint8_t *stages, struct out o)
{
    using S = many_shape<BN>;
    enum { BOX = HALVED ? BN / 2 : BN };
    int group = threadIdx.x / 128 - 1;
    struct place<BN> p = place_first<BN>(stages);
    struct item it;
    early_wait();
    for (int i = blockIdx.x / S::CLUSTER; item_at<BN, HALVED>(a, i, it); i += gridDim.x / S::CLUSTER) {
        float y[BN / 2];
        int nibbles = max(0, min(it.run1, a.n_groups) - it.run0);
        if (!SILU && !DIRECT && it.n_splits == 1)
            bring_addend<BN, BOX>(a, m, it, it.row_tile * TILE_ROWS + group * 64, o);
        if (HALVED && it.n_splits > 1)
            make_room();
        sum_tile<BN>(nibbles, it.run1 - it.run0 - nibbles, p, y);
        asm volatile("" : "+r"(i)); /* the item is found again: its registers were worth more */
        item_at<BN, HALVED>(a, i, it);
        if (HALVED && it.n_splits > 1) {
            float kept[BN / 4];
            join_halves<BN>(o, exchange_phase<BN>(a, i), y, kept);
            it.tok0 += cluster_rank() ? BN / 2 : 0;
            if (!SILU && !DIRECT && a.add) {
                warpgroup_sync(1 + group);
                bring_addend<BN / 2, BN / 2>(a, m, it, it.row_tile * TILE_ROWS + group * 64, o);
            }
            write_out<BN / 2, BN / 2, T, SILU, DIRECT>(a, m, it, o, kept);
        } else if (it.n_splits > 1) {
            leave_sums<BN>(a, it.slot, y);
        } else {
            write_out<BN, BOX, T, SILU, DIRECT>(a, m, it, o, y);
        }
    }
    early_next(); /* no sooner: blocks that wait for this kernel's end would have its multiprocessors */
    if (!HALVED && a.splits > 1)
        for (int i = blockIdx.x / S::CLUSTER; item_at<BN, HALVED>(a, i, it); i += gridDim.x / S::CLUSTER) {
            float y[BN / 2];
            if (it.n_splits == 1 || !add_splits<BN>(a, it, y))
                continue;
            if (!SILU && !DIRECT)
                bring_addend<BN, BOX>(a, m, it, it.row_tile * TILE_ROWS + group * 64, o);
            write_out<BN, BOX, T, SILU, DIRECT>(a, m, it, o, y);
        }
    if (speaks())
        tensor_store_wait_read();
}

template <int BN, class T, bool SILU, bool DIRECT, bool HALVED>
static __global__ void __launch_bounds__(THREADS, 1)
    linear(const __grid_constant__ struct maps m, const __grid_constant__ struct args a)
{
    using S = many_shape<BN>;
    extern __shared__ uint8_t raw[];
    __shared__ uint64_t added[CONSUMERS];
    struct feed r = {raw + (1024 - smem_address(raw) % 1024) % 1024, 0, 0};
    if (threadIdx.x == 0) {
        tensor_prefetch(&m.tokens);
        for (int i = 0; i < CONSUMERS; i++)
            barrier_init(&added[i], 1);
        exchange_init();
        for (int i = 0; i < S::STAGES; i++) {
            uint8_t *stage = r.stages + (size_t)i * S::STAGE_BYTES;
            barrier_init(barrier_at(stage + S::FULL_AT), 1);
            barrier_init(barrier_at(stage + S::EMPTY_AT), S::RELEASES);
        }
        barrier_init_fence();
    }
    cluster_sync();
    if (threadIdx.x < 128) {
        if (threadIdx.x == 0)
            bring_weights_ahead<BN, HALVED>(a, r);
        __syncwarp();
        registers_down<S::PRODUCER_REGISTERS>();
        if (threadIdx.x == 0)
            produce_rows<BN, HALVED>(a, r);
        if (threadIdx.x == 32)
            produce_tokens<BN, HALVED>(a, &m.tokens, r);
        __syncwarp();
        early_next();
    } else {
        registers_up<S::CONSUMER_REGISTERS>();
        int group = threadIdx.x / 128 - 1;
        struct out o = {r.stages + S::STAGES * S::STAGE_BYTES + group * S::OUT_BYTES, &added[group], 0};
        multiply<BN, T, SILU, DIRECT, HALVED>(a, m, r.stages, o);
    }
    cluster_sync(); /* nobody leaves while the other may still write to its barriers */
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <int BN, class T, bool SILU, bool DIRECT, bool HALVED>
static enum atom_status launch(const struct atom_cuda_linear *j, const struct atom_cuda_cut &cut, atom_cuda_stream s,
                               struct atom_error *err)
{
    using S = many_shape<BN>;
    struct maps m = {};
    enum atom_status st = atom_cuda_sm90_map(j->a, BN / S::CLUSTER, &m.tokens, err);
    if (!DIRECT) {
        st = st ? st : atom_cuda_sm90_map_rows(j, j->y, HALVED ? BN / 2 : BN, &m.y, err);
        st = st || !j->add ? st : atom_cuda_sm90_map_rows(j, j->add, HALVED ? BN / 2 : BN, &m.add, err);
    }
    st = st ? st
            : atom_cuda_status(cudaFuncSetAttribute(linear<BN, T, SILU, DIRECT, HALVED>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES),
                               "asking for shared memory", err);
    if (st)
        return st;
    struct args a = atom_cuda_sm90_args(j);
    a.row_tiles = j->w->n_tiles;
    a.tok_tiles = (j->a->n_tok + BN - 1) / BN;
    a.whole_pairs = cut.whole_pairs;
    a.splits = cut.splits;
    int pairs = a.row_tiles / S::CLUSTER, slots = atom_cuda_opened()->n_sm / S::CLUSTER,
        items = (a.whole_pairs + (pairs - a.whole_pairs) * (HALVED ? S::CLUSTER : a.splits)) * a.tok_tiles;
    const struct early_grid grid = {dim3((unsigned)((items < slots ? items : slots) * S::CLUSTER)), THREADS,
                                    S::SMEM_BYTES, S::CLUSTER};
    launch_early(linear<BN, T, SILU, DIRECT, HALVED>, grid, s, m, a);
    return atom_cuda_launched("starting a linear", err);
}

template <int BN, class T, bool SILU, bool DIRECT>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    struct atom_cuda_cut cut = atom_cuda_sm90_cut(j->w, j->a->n_tok);
    if constexpr (!DIRECT)
        if (cut.halved)
            return launch<BN, T, SILU, false, true>(j, cut, s, err);
    if (cut.halved)
        cut.splits = 2; /* the same sums; the other way took more registers than there are */
    return launch<BN, T, SILU, DIRECT, false>(j, cut, s, err);
}

template <int BN, class T>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    if constexpr (sizeof(T) == 2)
        if (j->w->n % 16 == 0) /* tensor copies end rows at multiples of 16 bytes alone */
            return j->silu ? launch<BN, T, true, false>(j, s, err) : launch<BN, T, false, false>(j, s, err);
    return j->silu ? launch<BN, T, true, true>(j, s, err) : launch<BN, T, false, true>(j, s, err);
}

template <int BN>
static enum atom_status launch(const struct atom_cuda_linear *j, atom_cuda_stream s, struct atom_error *err)
{
    switch (j->type) {
    case ATOM_CUDA_F16:
        return launch<BN, __half>(j, s, err);
    case ATOM_CUDA_BF16:
        return launch<BN, __nv_bfloat16>(j, s, err);
    default:
        return launch<BN, float>(j, s, err);
    }
}

enum atom_status atom_cuda_linear_many(const struct atom_cuda_linear *job, int tile, atom_cuda_stream s,
                                       struct atom_error *err)
{
    switch (tile) {
    case 64:
        return launch<64>(job, s, err);
    case 96:
        return launch<96>(job, s, err);
    default:
        return launch<128>(job, s, err);
    }
}
