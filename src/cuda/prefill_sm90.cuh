/* SPDX-License-Identifier: Apache-2.0 */
/* Inside Hopper's prefill attention: what the warpgroups of a block share (attention_prefill_sm90.cu says who they
 * are), and how blocks wait for one another. */
#ifndef ATOM_CUDA_PREFILL_SM90_CUH
#define ATOM_CUDA_PREFILL_SM90_CUH

#include "cuda/attention_plan.cuh"
#include "cuda/mma.cuh"
#include "cuda/ptx.cuh"

enum {
    CONSUMERS = 2,
    THREADS = 128 * (CONSUMERS + 2),
    LOADERS = 64,          /* threads that bring query rows */
    STAGES = 2,            /* of keys, of values, of queries, of tiles to expand */
    PAGES = 8,             /* of those tiles, at most, that wait in shared memory */
    PAGE_ROOM = 24 * 1024, /* for them */
    PRODUCER_REGISTERS = 40,
    EXPANDER_REGISTERS = 72,
    CONSUMER_REGISTERS = 200, /* in all, 512 */
};

struct args {
    struct prefill_args a;
    struct plan *plan;
    const struct group *groups;
    int *ready, *read; /* of each group: warps that have expanded a tile, units that need its tiles no more */
    int *filled;       /* of each place in the ring: warps that have expanded a tile there */
    uint8_t *tiles;
    int bits;
};

/* Query rows row0.. of a KV head, and the keys they see. n_tiles 0: there are no more units. */
struct unit {
    int first_tok, n_rows, pos0, row0, head;
    int n_tiles, tile0; /* where they start, counted from the first group's */
    int group;
};

/* A tile to expand. */
struct task {
    int tile0_pos, end; /* its first position, the sequence's end; end 0: there are no more */
    int head, group, place;
    int pages[KEY_TILE / PAGE]; /* -1: past the end */
};

struct shared {
    uint64_t unit_full[STAGES], q_full[STAGES], q_empty[STAGES];
    uint64_t k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    uint64_t task_full[STAGES], task_empty[STAGES];
    uint64_t page_full[PAGES], page_empty[PAGES];
    struct unit units[STAGES];
    struct task tasks[STAGES];
    float4 turns[2][8][32]; /* of a page's first and last 8 positions: what is inside_turns' */
};

/* Then come queries, keys, values, each a ring of stages, and pages. */
template <int D> struct smem {
    enum {
        BYTES = tile_bytes(D, KEY_TILE),
        K_AT = STAGES * BYTES,
        V_AT = 2 * STAGES * BYTES,
        PAGES_AT = 3 * STAGES * BYTES,
        ALL = PAGES_AT + PAGE_ROOM + 1024,
    };
    static_assert(QUERY_TILE == KEY_TILE, "query rows lie as keys do");
};

struct turn {
    int stage;
    uint32_t phase;
};
static __device__ __forceinline__ void next(struct turn &t)
{
    if (++t.stage == STAGES) {
        t.stage = 0;
        t.phase ^= 1;
    }
}

static __device__ __forceinline__ void arrive_at(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(b)) : "memory");
}
/* What threads wrote to shared memory, for tensor cores; what others wrote to device memory, for bulk copies. */
static __device__ __forceinline__ void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
static __device__ __forceinline__ void fence_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/* ---- among blocks ---- */

static __device__ __forceinline__ int count_at(const int *count)
{
    int x;
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(x) : "l"(count) : "memory");
    return x;
}
static __device__ __forceinline__ void wait_count(const int *count, int n)
{
    while (count_at(count) < n)
        __nanosleep(64);
}
/* Fences take a microsecond: one for whatever is counted after it. */
static __device__ __forceinline__ void fence_counts() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
static __device__ __forceinline__ void add_count(int *count)
{
    asm volatile("red.relaxed.gpu.global.add.s32 [%0], 1;" ::"l"(count) : "memory");
}

#endif
