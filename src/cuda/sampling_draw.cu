/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing a token: one block a row.
 *
 * All that is asked is where, in the order of choice, a sum of weights or a count is reached: by top_k, by top_p, by
 * the number drawn. How many tokens lie at which depth bounds the answer; the tokens down to there, the head, are
 * mostly few: they are sorted, and all questions end among them. Where they are many, histograms of weights over ever
 * narrower spans of the order leave what can be sorted. */
#include "cuda/sampling.cuh"

enum { HEAD = 4096, TAIL = 2048 };

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

/* Bins of depth that the answer to a question lies in. */
struct window {
    int low, high;
    unsigned count_before, count_through; /* tokens in bins before low; in those up to high */
};

struct draw_shared {
    rank head[HEAD], tail[TAIL];
    mass bin_mass[BINS];
    unsigned bin_count[BINS];
    unsigned counts[BINS]; /* of the whole row, by depth */
    mass warp_mass[32];
    unsigned warp_count[32];
    unsigned n_list;
    struct found found;
    struct span span;
    struct window window;
    int bin;
};

struct drawer {
    const float *row;
    int vocab;
    weigher w;
    draw_shared *m;
    mass total;
    unsigned head_count; /* in m->head, sorted; 0: too many */
};

/* ---- the block's sums -------------------------------------------------------------------------------------------- */

/* Sums over the lanes up to this one. */
static __device__ __forceinline__ void scan_warp(mass &w, unsigned &c)
{
#pragma unroll
    for (unsigned h = 1; h < 32; h *= 2) {
        mass other_w = __shfl_up_sync(0xFFFFFFFFu, w, h);
        unsigned other_c = __shfl_up_sync(0xFFFFFFFFu, c, h);
        w += threadIdx.x % 32 >= h ? other_w : 0;
        c += threadIdx.x % 32 >= h ? other_c : 0;
    }
}

/* Sums over the threads before this one; those of all warps are in m->warp_mass, of all threads in *sum. Two barriers.
 */
static __device__ void before_me(draw_shared *m, mass &weight, unsigned &n, mass *sum)
{
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    mass w = weight;
    unsigned c = n;
    scan_warp(w, c);
    __syncthreads();
    if (lane == 31) {
        m->warp_mass[warp] = w;
        m->warp_count[warp] = c;
    }
    __syncthreads();
    mass warps_w = m->warp_mass[lane];
    unsigned warps_c = m->warp_count[lane];
    scan_warp(warps_w, warps_c);
    mass before_w = __shfl_sync(0xFFFFFFFFu, warps_w, (int)warp - 1);
    unsigned before_c = __shfl_sync(0xFFFFFFFFu, warps_c, (int)warp - 1);
    weight = w - weight + (warp ? before_w : 0);
    n = c - n + (warp ? before_c : 0);
    *sum = __shfl_sync(0xFFFFFFFFu, warps_w, 31);
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
    __syncthreads();
    for (unsigned k = 2; k <= size; k *= 2)
        for (unsigned j = k / 2; j; j /= 2) {
            if (j >= 32) /* nearer exchanges stay within a warp's 64 */
                __syncthreads();
            else
                __syncwarp();
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
    unsigned c = end - first;
    for (unsigned i = first; i < end; i++)
        w += weight_of(depth_of(d.w, rank_logit(list[i])));
    before_me(m, w, c, &sum);
    w += s.before;
    c += s.count_before;
    for (unsigned i = first; i < end; i++) {
        bool earlier = by_count ? c > x : w > x;
        w += weight_of(depth_of(d.w, rank_logit(list[i])));
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

/* ---- histograms -------------------------------------------------------------------------------------------------- */

/* Bounds of the weight of a bin's tokens; exp is some units off. */
static __device__ __forceinline__ mass most_weight(int bin) { return weight_of(((float)bin - 0.01f) * (32.0f / BINS)); }
static __device__ __forceinline__ mass least_weight(int bin)
{
    return bin == BINS - 1 ? 0 : weight_of(((float)bin + 1.01f) * (32.0f / BINS));
}

/* From how many tokens lie at which depth: where the sum of weights, or the count, comes to exceed x. */
static __device__ struct window find_window(const drawer &d, bool by_count, mass x)
{
    const int EACH = BINS / DRAW_THREADS;
    draw_shared *m = d.m;
    int first = threadIdx.x * EACH;
    mass least = 0, most = 0, sum;
    unsigned c = 0, same;
    if (threadIdx.x == 0)
        m->window = {BINS - 1, BINS - 1, 0, (unsigned)d.vocab};
    for (int i = first; i < first + EACH; i++) {
        c += m->counts[i];
        least += by_count ? m->counts[i] : m->counts[i] * least_weight(i);
        most += by_count ? m->counts[i] : m->counts[i] * most_weight(i);
    }
    same = c;
    before_me(m, least, c, &sum);
    before_me(m, most, same, &sum);
    for (int i = first; i < first + EACH; i++) {
        mass least_after = least + (by_count ? m->counts[i] : m->counts[i] * least_weight(i));
        mass most_after = most + (by_count ? m->counts[i] : m->counts[i] * most_weight(i));
        if (least <= x && x < least_after) {
            m->window.high = i;
            m->window.count_through = c + m->counts[i];
        }
        if (most <= x && x < most_after) {
            m->window.low = i;
            m->window.count_before = c;
        }
        c += m->counts[i];
        least = least_after;
        most = most_after;
    }
    __syncthreads();
    struct window found = m->window;
    __syncthreads();
    return found;
}

/* Sorts the tokens down to where x is exceeded, if they are not too many. */
static __device__ void take_head(drawer &d, bool by_count, mass x)
{
    struct window w = find_window(d, by_count, x);
    d.head_count = 0;
    if (w.count_through > HEAD)
        return;
    d.head_count =
        collect(d, d.m->head, HEAD, [&](float logit, int) { return depth_bin(depth_of(d.w, logit)) <= w.high; });
}

/* The smallest rank whose depth bin is at most b. */
static __device__ rank lowest_rank(const drawer &d, int b)
{
    uint32_t low = logit_key(-3.4028234e38f), high = logit_key(d.w.top);
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (depth_bin(depth_of(d.w, key_logit(mid))) <= b)
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
    unsigned c = 0;
    __syncthreads();
    for (int i = 0; i < EACH; i++) {
        w += m->bin_mass[first + i];
        c += m->bin_count[first + i];
    }
    before_me(m, w, c, &sum);
    w += s.before;
    c += s.count_before;
    for (int i = 0; i < EACH; i++) {
        mass w_after = w + m->bin_mass[first + i];
        unsigned c_after = c + m->bin_count[first + i];
        if (by_count ? c <= x && x < c_after : w <= x && x < w_after) {
            m->span = {0, 0, w, c, c_after - c};
            m->bin = first + i;
        }
        w = w_after;
        c = c_after;
    }
    __syncthreads();
    return m->bin;
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

/* The span of one bin of depth that holds what is looked for. Only weights within the window go to bins. */
static __device__ struct span first_span(const drawer &d, bool by_count, mass x)
{
    draw_shared *m = d.m;
    struct window win = find_window(d, by_count, x);
    mass before = 0, sum;
    unsigned none = 0;
    clear_bins(m);
    each_logit(d.row, 0, d.vocab, [&](float logit, int, bool there) {
        float depth = depth_of(d.w, logit);
        int bin = there ? depth_bin(depth) : BINS;
        mass w = bin <= win.high ? weight_of(depth) : 0;
        before += bin < win.low ? w : 0;
        add_to_bins(m, bin >= win.low && bin <= win.high ? bin : -1, w);
    });
    before_me(m, before, none, &sum);
    int bin = find_bin(m, {0, 0, sum, win.count_before, 0}, by_count, x);
    struct span s = m->span;
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
        add_to_bins(d.m, in ? (int)((s.high - r) >> shift) : -1, in ? weight_of(depth_of(d.w, logit)) : 0);
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
    if (d.head_count)
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

/* Among ids [first, end), with `before` them: the first with which the sum exceeds x. A warp has a stretch of them,
 * then a thread. */
static __device__ int walk(const drawer &d, int first, int end, mass before, mass x)
{
    draw_shared *m = d.m;
    int stretch = ((end - first + 31) / 32 + 31) / 32 * 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int from = min(end, first + warp * stretch), until = min(end, from + stretch), hit = -1;
    mass w = 0, sum, to = before;
    unsigned none = 0;
    for (int id = from + lane; id < until; id += 32)
        w += weight_of(depth_of(d.w, d.row[id]));
    before_me(m, w, none, &sum);
    for (int i = 0; i < 32 && hit < 0; i++) {
        before = to;
        to += m->warp_mass[i];
        hit = x < to ? i : -1;
    }
    from = min(end, first + hit * stretch), until = min(end, from + stretch);
    int each = (until - from + (int)blockDim.x - 1) / (int)blockDim.x;
    from = min(until, from + (int)threadIdx.x * each), until = min(until, from + each);
    w = 0;
    for (int id = from; id < until; id++)
        w += weight_of(depth_of(d.w, d.row[id]));
    before_me(m, w, none, &sum);
    w += before;
    for (int id = from; id < until; id++) {
        mass after = w + weight_of(depth_of(d.w, d.row[id]));
        if (w <= x && x < after)
            m->bin = id;
        w = after;
    }
    __syncthreads();
    return m->bin;
}

/* Without top_k and top_p tokens come by id. */
static __device__ int draw_by_id(const drawer &d, const struct sample_row &row, struct sample_cut cut, double u)
{
    mass x = share_of(d.total, u), before = 0;
    int i = 0;
    while (x >= before + row.shares[i])
        before += row.shares[i++];
    return walk(d, i * cut.share, min(d.vocab, (i + 1) * cut.share), before, x);
}

static __device__ int draw_in_order(drawer &d, struct sample_row &row, const struct atom_cuda_sampling &how, double u)
{
    mass total = d.total, k = (mass)how.top_k - 1;
    bool cut = how.top_k > 0 && how.top_k<d.vocab, nucleus = how.top_p> 0 && how.top_p < 1;
    for (int i = threadIdx.x; i < BINS; i += blockDim.x) {
        d.m->counts[i] = row.counts[i];
        row.counts[i] = 0;
    }
    __syncthreads();
    if (cut) {
        take_head(d, true, k);
        total = locate(d, true, k).sum;
    }
    if (nucleus) {
        mass enough = min(max((mass)ceil((double)total * (double)how.top_p), (mass)1), total);
        if (!cut)
            take_head(d, false, enough - 1);
        total = locate(d, false, enough - 1).sum;
    }
    return rank_id(locate(d, false, share_of(total, u)).at);
}

static __global__ void __launch_bounds__(DRAW_THREADS) draw(struct atom_cuda_sample job, struct sample_cut cut)
{
    extern __shared__ rank memory[];
    early_next();
    early_wait();
    struct sample_row &row = static_cast<struct sample_row *>(job.workspace)[blockIdx.x];
    const struct atom_cuda_sampling how = job.how[blockIdx.x];
    if (row.token < 0 || !draws(how))
        return;
    drawer d = {job.logits + (size_t)blockIdx.x * job.stride,
                job.vocab,
                {row.top, __frcp_rn(how.temperature)},
                reinterpret_cast<draw_shared *>(memory)};
    for (int i = 0; i < cut.n_shares; i++)
        d.total += row.shares[i];
    double u = uniform(how.seed, how.counter);
    int token = draws_in_order(how, job.vocab) ? draw_in_order(d, row, how, u) : draw_by_id(d, row, cut, u);
    if (threadIdx.x == 0)
        job.tokens[blockIdx.x] = token;
}

void atom_cuda_draw(const struct atom_cuda_sample *job, struct sample_cut cut, atom_cuda_stream s)
{
    cudaFuncSetAttribute(draw, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(draw_shared));
    launch_early(draw, {dim3((unsigned)job->n), DRAW_THREADS, sizeof(draw_shared)}, s, *job, cut);
}
