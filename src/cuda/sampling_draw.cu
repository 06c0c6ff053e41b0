/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing a token: one block a row, which knows the row's greatest logit.
 *
 * Weights are integers in units of 2^-42 of the greatest, so sums come out the same in any order. All that is asked is
 * where, in the order of choice, a sum of weights or a count is reached: by top_k, by top_p, by the number drawn.
 * Tokens of some weight, the head, are few: they are sorted, and nearly all questions end among them. Others are
 * answered by histograms over ever narrower spans of the order, until what is left can be sorted. */
#include "cuda/sampling.cuh"

enum { HEAD = 4096, TAIL = 2048, BINS = 2048, UNIT = 42 };

#define HEAD_DEPTH 8.0f /* of a temperature under the top */

typedef unsigned long long mass;

/* The token with which a sum is reached, and the sum with it. */
struct found {
    rank at;
    mass sum;
};

/* Ranks from high down to low, and what comes before them. */
struct span {
    rank high, low;
    mass before;
    unsigned count_before, count;
};

struct draw_shared {
    rank head[HEAD], tail[TAIL];
    mass bin_mass[BINS];
    unsigned bin_count[BINS];
    mass warp_mass[32];
    unsigned warp_count[32];
    unsigned n_list;
    struct found found;
    struct span span;
};

struct drawer {
    const float *row;
    int vocab;
    float top, inv_temperature;
    draw_shared *m;
    mass total;
    bool has_head; /* m->head holds all of it, sorted */
    mass head_mass;
    unsigned head_count;
};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* How far a logit lies under the top, in temperatures; it only grows as logits fall. */
static __device__ __forceinline__ float depth_of(const drawer &d, float logit)
{
    float below = fminf(__fsub_rn(d.top, logit), 3.4028234e38f);
    return below > 0 ? __fmul_rn(below, d.inv_temperature) : 0.0f;
}

static __device__ __forceinline__ mass weight_of(float depth)
{
    uint32_t bits = __float_as_uint(expf(-depth));
    mass all = (mass)((bits & 0x7FFFFFu) | 0x800000u) << (UNIT - 23);
    return all >> min(63u, 127u - (bits >> 23));
}

/* ---- the block's sums -------------------------------------------------------------------------------------------- */

/* Sums over the threads before this one; totals of all go to *sum and *count. Two barriers. */
static __device__ void before_me(draw_shared *m, mass &weight, unsigned &n, mass *sum, unsigned *count)
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    mass w = weight, all_w = 0;
    unsigned c = n, all_c = 0;
#pragma unroll
    for (int h = 1; h < 32; h *= 2) {
        mass other_w = __shfl_up_sync(0xFFFFFFFFu, w, h);
        unsigned other_c = __shfl_up_sync(0xFFFFFFFFu, c, h);
        w += lane >= h ? other_w : 0;
        c += lane >= h ? other_c : 0;
    }
    __syncthreads();
    if (lane == 31) {
        m->warp_mass[warp] = w;
        m->warp_count[warp] = c;
    }
    __syncthreads();
    mass before_w = w - weight;
    unsigned before_c = c - n;
    for (unsigned i = 0; i < blockDim.x / 32; i++) {
        before_w += i < warp ? m->warp_mass[i] : 0;
        before_c += i < warp ? m->warp_count[i] : 0;
        all_w += m->warp_mass[i];
        all_c += m->warp_count[i];
    }
    weight = before_w;
    n = before_c;
    *sum = all_w;
    *count = all_c;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

/* Sorts list[n], the greatest rank first (a bitonic network); its place is a power of two. */
static __device__ void sort_list(rank *list, unsigned n)
{
    unsigned size = 2;
    while (size < n)
        size *= 2;
    for (unsigned i = n + threadIdx.x; i < size; i += blockDim.x)
        list[i] = 0;
    for (unsigned k = 2; k <= size; k *= 2)
        for (unsigned j = k / 2; j; j /= 2) {
            __syncthreads();
            for (unsigned i = threadIdx.x; i < size / 2; i += blockDim.x) {
                unsigned a = 2 * i - (i & (j - 1)), b = a + j;
                rank x = list[a], y = list[b];
                if ((x < y) == !(a & k)) {
                    list[a] = y;
                    list[b] = x;
                }
            }
        }
    __syncthreads();
}

/* Among the sorted tokens of a span: the first with which count or sum exceeds x. */
static __device__ struct found find_in_list(const drawer &d, const rank *list, const struct span &s, bool by_count,
                                            mass x)
{
    draw_shared *m = d.m;
    unsigned n = s.count, each = (n + blockDim.x - 1) / blockDim.x, first = min(n, threadIdx.x * each),
             end = min(n, first + each);
    mass w = 0, sum;
    unsigned c = end - first, count;
    for (unsigned i = first; i < end; i++)
        w += weight_of(depth_of(d, rank_logit(list[i])));
    before_me(m, w, c, &sum, &count);
    w += s.before;
    c += s.count_before;
    for (unsigned i = first; i < end; i++) {
        bool earlier = by_count ? c > x : w > x;
        w += weight_of(depth_of(d, rank_logit(list[i])));
        c++;
        if (!earlier && (by_count ? c > x : w > x))
            m->found = {list[i], w};
    }
    __syncthreads();
    return m->found;
}

/* Tokens that `wanted` says yes to, if there is room for all of them, are in list afterwards, sorted. */
template <class F> static __device__ unsigned collect(const drawer &d, rank *list, unsigned room, F wanted)
{
    draw_shared *m = d.m;
    __syncthreads();
    if (threadIdx.x == 0)
        m->n_list = 0;
    __syncthreads();
    each_logit(d.row, 0, d.vocab, [&](float x, int id, bool there) {
        if (there && wanted(x, id)) {
            unsigned at = atomicAdd(&m->n_list, 1u);
            if (at < room)
                list[at] = rank_of(x, id);
        }
    });
    __syncthreads();
    unsigned n = m->n_list;
    if (n <= room)
        sort_list(list, n);
    return n;
}

/* Sums all weights, and sorts the head. */
static __device__ void take_head(drawer &d)
{
    mass w = 0, head = 0;
    unsigned none = 0, count;
    d.head_count = collect(d, d.m->head, HEAD, [&](float x, int) {
        float depth = depth_of(d, x);
        mass one = weight_of(depth);
        w += one;
        bool in = depth < HEAD_DEPTH;
        head += in ? one : 0;
        return in;
    });
    before_me(d.m, w, none, &d.total, &count);
    before_me(d.m, head, none, &d.head_mass, &count);
    d.has_head = d.head_count <= HEAD;
}

/* ---- histograms -------------------------------------------------------------------------------------------------- */

/* Bins of even depth, finer than weights are. */
static __device__ __forceinline__ int depth_bin(const drawer &d, float logit)
{
    return (int)fminf(depth_of(d, logit) * (BINS / 32), BINS - 1.0f);
}

/* The smallest rank whose depth bin is at most b. */
static __device__ rank lowest_rank(const drawer &d, int b)
{
    uint32_t low = logit_key(-3.4028234e38f), high = logit_key(d.top);
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (depth_bin(d, key_logit(mid)) <= b)
            high = mid;
        else
            low = mid + 1;
    }
    return (rank)low << 32;
}

/* Adds a warp's numbers to their bins (-1: none); a warp that meets in one bin adds first. */
static __device__ __forceinline__ void add_to_bins(draw_shared *m, int bin, mass w)
{
    int same;
    __match_all_sync(0xFFFFFFFFu, bin, &same);
    if (same && bin >= 0) {
#pragma unroll
        for (int h = 16; h; h /= 2)
            w += __shfl_xor_sync(0xFFFFFFFFu, w, h);
        if (threadIdx.x % 32 == 0) {
            atomicAdd(&m->bin_mass[bin], w);
            atomicAdd(&m->bin_count[bin], 32u);
        }
    } else if (bin >= 0) {
        atomicAdd(&m->bin_mass[bin], w);
        atomicAdd(&m->bin_count[bin], 1u);
    }
}

/* The bin where count or sum exceeds x, from what lies before the first bin; m->span gets what lies before it. */
static __device__ int find_bin(draw_shared *m, const struct span &s, bool by_count, mass x)
{
    const int EACH = BINS / DRAW_THREADS;
    int first = threadIdx.x * EACH;
    mass w = 0, sum;
    unsigned c = 0, count;
    __syncthreads();
    for (int i = 0; i < EACH; i++) {
        w += m->bin_mass[first + i];
        c += m->bin_count[first + i];
    }
    before_me(m, w, c, &sum, &count);
    w += s.before;
    c += s.count_before;
    for (int i = 0; i < EACH; i++) {
        mass w_after = w + m->bin_mass[first + i];
        unsigned c_after = c + m->bin_count[first + i];
        if (by_count ? c <= x && x < c_after : w <= x && x < w_after) {
            m->span = {0, 0, w, c, c_after - c};
            m->n_list = first + i;
        }
        w = w_after;
        c = c_after;
    }
    __syncthreads();
    return (int)m->n_list;
}

static __device__ void clear_bins(draw_shared *m)
{
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) {
        m->bin_mass[i] = 0;
        m->bin_count[i] = 0;
    }
    __syncthreads();
}

/* All tokens by depth: the span that holds what is looked for. */
static __device__ struct span first_span(const drawer &d, bool by_count, mass x)
{
    clear_bins(d.m);
    each_logit(d.row, 0, d.vocab, [&](float logit, int, bool there) {
        float depth = depth_of(d, logit);
        add_to_bins(d.m, there ? depth_bin(d, logit) : -1, there ? weight_of(depth) : 0);
    });
    int bin = find_bin(d.m, {}, by_count, x);
    struct span s = d.m->span;
    s.low = bin == BINS - 1 ? 0 : lowest_rank(d, bin);
    s.high = bin == 0 ? ~0ull : lowest_rank(d, bin - 1) - 1;
    return s;
}

/* A span's part that holds what is looked for, one of 2048 or fewer. */
static __device__ struct span narrowed(const drawer &d, const struct span &s, bool by_count, mass x)
{
    int shift = max(0, 64 - __clzll((long long)(s.high - s.low)) - 11);
    clear_bins(d.m);
    each_logit(d.row, 0, d.vocab, [&](float logit, int id, bool there) {
        rank r = rank_of(logit, id);
        bool in = there && r >= s.low && r <= s.high;
        add_to_bins(d.m, in ? (int)((s.high - r) >> shift) : -1, in ? weight_of(depth_of(d, logit)) : 0);
    });
    int bin = find_bin(d.m, s, by_count, x);
    struct span part = d.m->span;
    part.high = s.high - ((rank)bin << shift);
    part.low = part.high - s.low < ((rank)1 << shift) ? s.low : part.high - ((rank)1 << shift) + 1;
    return part;
}

/* The token with which, in the order of choice, the count or the sum of weights exceeds x. */
static __device__ struct found locate(const drawer &d, bool by_count, mass x)
{
    if (d.has_head && x < (by_count ? d.head_count : d.head_mass))
        return find_in_list(d, d.m->head, {0, 0, 0, 0, d.head_count}, by_count, x);
    struct span s = first_span(d, by_count, x);
    while (s.count > TAIL)
        s = narrowed(d, s, by_count, x);
    collect(d, d.m->tail, TAIL, [&](float logit, int id) {
        rank r = rank_of(logit, id);
        return r >= s.low && r <= s.high;
    });
    return find_in_list(d, d.m->tail, s, by_count, x);
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* A number in [0, 1), as atom_sample has it (SplitMix64). */
static __device__ double uniform(uint64_t seed, uint64_t counter)
{
    uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static __device__ mass share_of(mass total, double u)
{
    mass x = (mass)(u * (double)total);
    return x < total ? x : total - 1;
}

/* Without top_k and top_p tokens come by id: a warp has a stretch of them, then a thread. */
static __device__ int draw_by_id(const drawer &d, double u)
{
    draw_shared *m = d.m;
    int share = ((d.vocab + 31) / 32 + 31) / 32 * 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first = min(d.vocab, warp * share), end = min(d.vocab, first + share);
    mass w = 0, sum;
    unsigned none = 0, count;
    for (int id = first + lane; id < end; id += 32)
        w += weight_of(depth_of(d, d.row[id]));
    before_me(m, w, none, &sum, &count);
    mass x = share_of(sum, u), to = 0, at = 0;
    int hit = -1;
    for (int i = 0; i < 32 && hit < 0; i++) {
        at = to;
        to += m->warp_mass[i];
        hit = x < to ? i : -1;
    }
    first = min(d.vocab, hit * share), end = min(d.vocab, first + share);
    int each = (end - first + (int)blockDim.x - 1) / (int)blockDim.x;
    int from = min(end, first + (int)threadIdx.x * each), until = min(end, from + each);
    w = 0;
    for (int id = from; id < until; id++)
        w += weight_of(depth_of(d, d.row[id]));
    before_me(m, w, none, &sum, &count);
    w += at;
    for (int id = from; id < until; id++) {
        mass after = w + weight_of(depth_of(d, d.row[id]));
        if (w <= x && x < after)
            m->found.at = rank_of(0.0f, id);
        w = after;
    }
    __syncthreads();
    return rank_id(m->found.at);
}

static __device__ int draw_in_order(drawer &d, const struct atom_cuda_sampling &how, double u)
{
    take_head(d);
    mass total = d.total;
    if (how.top_k > 0 && how.top_k < d.vocab)
        total = locate(d, true, (mass)how.top_k - 1).sum;
    if (how.top_p > 0 && how.top_p < 1) {
        mass enough = (mass)ceil((double)total * (double)how.top_p);
        total = locate(d, false, min(max(enough, (mass)1), total) - 1).sum;
    }
    return rank_id(locate(d, false, share_of(total, u)).at);
}

static __global__ void __launch_bounds__(DRAW_THREADS) draw(const struct atom_cuda_sample job)
{
    extern __shared__ rank memory[];
    const struct sample_row best = static_cast<const struct sample_row *>(job.workspace)[blockIdx.x];
    const struct atom_cuda_sampling how = job.how[blockIdx.x];
    if (best.token < 0 || !(how.temperature > 0))
        return;
    drawer d = {job.logits + (size_t)blockIdx.x * job.stride, job.vocab, best.top, __frcp_rn(how.temperature),
                reinterpret_cast<draw_shared *>(memory)};
    bool in_order = (how.top_k > 0 && how.top_k < job.vocab) || (how.top_p > 0 && how.top_p < 1);
    double u = uniform(how.seed, how.counter);
    int token = in_order ? draw_in_order(d, how, u) : draw_by_id(d, u);
    if (threadIdx.x == 0)
        job.tokens[blockIdx.x] = token;
}

void atom_cuda_draw(const struct atom_cuda_sample *job, atom_cuda_stream s)
{
    cudaFuncSetAttribute(draw, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(draw_shared));
    draw<<<job->n, DRAW_THREADS, sizeof(draw_shared), s>>>(*job);
}
