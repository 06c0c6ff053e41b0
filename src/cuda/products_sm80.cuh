/* SPDX-License-Identifier: Apache-2.0 */
/* A warp's products of a run by mma.sync: operands from a slot of shared memory, integer sums, scaling.
 *
 * S is the shape of a block: MT blocks of 16 rows by NT of 8 tokens a warp, WARPS_DOWN warps over the rows,
 * WEIGHT_BYTES of weights (linear_sm80.cuh) at the start of a slot. Behind them lie the tokens' integers, 128 bytes a
 * token, the eighths of token t in the order of their number ^ t % 8; outliers fill one half of that in each of two
 * slots. */
#ifndef ATOM_CUDA_PRODUCTS_SM80_CUH
#define ATOM_CUDA_PRODUCTS_SM80_CUH

#include "cuda/linear_sm80.cuh"
#include "cuda/ptx_sm80.cuh"

/* Where this warp's and this lane's operands are in a slot. */
struct place {
    int block0;       /* of 16 rows, the warp's first in the block of threads */
    uint32_t toks_at; /* of its first 8 tokens, the first 64 channels; ^ 64: the others, as slots are aligned to 128 */
    uint32_t row_scales; /* of a quarter */
};

template <class S> static __device__ __forceinline__ struct place my_place()
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = lane % 8;
    struct place p;
    p.block0 = warp % S::WARPS_DOWN * S::MT;
    p.toks_at = S::WEIGHT_BYTES + (warp / S::WARPS_DOWN * S::NT * 8 + row) * ATOM_CUDA_RUN + ((lane / 8 ^ row) << 4);
    p.row_scales = SM80_WEIGHT_BYTES + lane / 4 * 16;
    return p;
}

enum kind { INT4, INT8, OUTLIERS };

template <enum kind KIND> struct sums {
    enum {
        /* Bits of the float with 1.5 times the power of two in whose steps sums count; nibbles as INT8 are 16 times
         * their value, so there the step is a sixteenth. Sums stay within a third of it: 2^21 at most. */
        START = KIND == INT8 ? 0x49400000 : 0x4B400000,
        TOKEN_WORDS = KIND == INT4 ? 4 : 8, /* a lane's share of 128 channels of 8 tokens */
    };
};

/* A lane's share of 8 tokens: `first` is what it loads from for the first 64 channels, `second` for the others. */
template <enum kind KIND>
static __device__ __forceinline__ void load_tokens(uint32_t first, uint32_t second, uint32_t *words)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t four[4];
        load_tiles(four, half ? second : first);
        if (KIND == INT4) {
            words[2 * half] = select_bits(0x0F0F0F0Fu, four[0], four[1] << 4);
            words[2 * half + 1] = select_bits(0x0F0F0F0Fu, four[2], four[3] << 4);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                words[4 * half + i] = four[i];
        }
    }
}

/* 64 channels, or 32 outliers, of a block of 16 rows. */
static __device__ __forceinline__ void load_rows(uint32_t slot, int block, int step, uint32_t (&words)[4])
{
    uint32_t at = slot + block / 4 * SM80_QUARTER_BYTES + (block % 4 * 2 + step) * 512 + threadIdx.x % 32 * 16;
    load_16(words, at);
}

/* Two bytes operands of one nibble one: 16 times the low nibbles, 16 times the high ones. */
static __device__ __forceinline__ void widen(const uint32_t (&words)[4], int half, uint32_t (&a)[4])
{
    a[0] = words[2 * half] << 4 & 0xF0F0F0F0u;
    a[1] = words[2 * half + 1] << 4 & 0xF0F0F0F0u;
    a[2] = words[2 * half] & 0xF0F0F0F0u;
    a[3] = words[2 * half + 1] & 0xF0F0F0F0u;
}

/* Integer sums of a run, 16 rows by 8 NB tokens. */
template <enum kind KIND, int NB>
static __device__ __forceinline__ void multiply_run(const uint32_t (&slots)[2], int block,
                                                    const uint32_t (&tokens)[NB][sums<KIND>::TOKEN_WORDS],
                                                    int (&acc)[NB][4])
{
    const int start[4] = {sums<KIND>::START, sums<KIND>::START, sums<KIND>::START, sums<KIND>::START};
    enum { STEPS = KIND == OUTLIERS ? 4 : 2 };
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        uint32_t words[4], a[4];
        load_rows(slots[step / 2], block, step % 2, words);
        if constexpr (KIND == INT8) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                widen(words, half, a);
#pragma unroll
                for (int j = 0; j < NB; j++)
                    multiply_s8(acc[j], a, tokens[j] + 4 * step + 2 * half, step + half ? acc[j] : start);
            }
        } else {
#pragma unroll
            for (int j = 0; j < NB; j++)
                if constexpr (KIND == INT4)
                    multiply_s4(acc[j], words, tokens[j] + 2 * step, step ? acc[j] : start);
                else
                    multiply_s8(acc[j], words, tokens[j] + 2 * step, step ? acc[j] : start);
        }
    }
}

/* y += a run's sums, scaled: exactly the specification's step. */
template <enum kind KIND>
static __device__ __forceinline__ void promote(const int (&acc)[4], float2 tok_scales, float2 row_scales, float *y)
{
    const float start = __int_as_float(sums<KIND>::START);
    const float scales[4] = {tok_scales.x * row_scales.x, tok_scales.y * row_scales.x, tok_scales.x * row_scales.y,
                             tok_scales.y * row_scales.y};
#pragma unroll
    for (int i = 0; i < 4; i++)
        y[i] = fmaf(__int_as_float(acc[i]) - start, scales[i], y[i]);
}

/* A run, in one slot, or two of outliers. The tokens' operands of NB blocks are held while the rows' pass by. */
template <class S, enum kind KIND>
static __device__ __forceinline__ void consume(const uint32_t (&slots)[2], const struct place &p,
                                               const float2 (&tok_scales)[S::NT], float (&y)[S::MT * S::NT * 4])
{
    enum { NB = S::NT > 4 && KIND != INT4 ? S::NT / 2 : S::NT }; /* as registers allow */
    uint32_t first = slots[0] + p.toks_at, second = (slots[KIND == OUTLIERS ? 1 : 0] + p.toks_at) ^ 64;
#pragma unroll
    for (int n0 = 0; n0 < S::NT; n0 += NB) {
        uint32_t tokens[NB][sums<KIND>::TOKEN_WORDS];
#pragma unroll
        for (int j = 0; j < NB; j++)
            load_tokens<KIND>(first + (n0 + j) * 8 * ATOM_CUDA_RUN, second + (n0 + j) * 8 * ATOM_CUDA_RUN, tokens[j]);
#pragma unroll
        for (int m = 0; m < S::MT; m++) {
            int acc[NB][4], block = p.block0 + m;
            multiply_run<KIND, NB>(slots, block, tokens, acc);
            float2 row_scales = load_half2(slots[0] + block / 4 * SM80_QUARTER_BYTES + p.row_scales + block % 4 * 4);
#pragma unroll
            for (int j = 0; j < NB; j++)
                promote<KIND>(acc[j], tok_scales[n0 + j], row_scales, y + (m * S::NT + n0 + j) * 4);
        }
    }
}

#endif
