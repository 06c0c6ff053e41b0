/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: a warp's results of an item, out of its registers. */
#ifndef ATOM_CUDA_DECODE_RESULT_CUH
#define ATOM_CUDA_DECODE_RESULT_CUH

#include "cuda/decode_few.cuh"
#include "cuda/decode_query.cuh"

PAGE_FN float with_lane(float x, int by) { return x + __shfl_xor_sync(0xFFFFFFFFu, x, by); }

/* Sums over the columns of a row; of two rows a lane has, the second is there when rows are. */
template <class D> PAGE_FN void fold_columns(rows<D> &r, int n, int by)
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if (j && n == 1)
            break;
        r.sum[j] = with_lane(r.sum[j], by);
        r.zeros[j] = with_lane(r.zeros[j], by);
#pragma unroll
        for (int t = 0; t < D::tiles; t++) {
            r.o[t][j] = with_lane(r.o[t][j], by);
            r.o[t][2 + j] = with_lane(r.o[t][2 + j], by);
        }
    }
}

/* Sums over the warp's positions and columns. */
template <class D> PAGE_FN void fold_rows(rows<D> &r, int n)
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if (j && n == 1)
            break;
#pragma unroll
        for (int by = 4; by < 32; by *= 2) {
            r.sum[j] = with_lane(r.sum[j], by);
            r.zeros[j] = D::integers ? with_lane(r.zeros[j], by) : 0.0f;
        }
    }
    if (D::two && r.shift < 3)
        fold_columns(r, n, 1 << (r.shift - 1));
}

/* Two neighbouring channels in their own units: of values, zero points and what a nibble's place multiplied are taken
 * out here. */
template <class D> PAGE_FN float2 two_channels(const rows<D> &r, int t, int j)
{
    const float odd = D::bits == 4 ? 0.0625f : 1.0f, all = D::integers ? 16777216.0f : 1.0f;
    if (!D::integers)
        return make_float2(r.o[t][j], r.o[t][2 + j]);
    return make_float2((r.o[t][j] - r.zeros[j]) * all, fmaf(r.o[t][2 + j], odd, -r.zeros[j]) * all);
}

template <class D> PAGE_FN void keep_row(const decode_args &a, const rows<D> &r, int j, size_t slot)
{
    int g = threadIdx.x % 32 / 4;
    float4 *to = reinterpret_cast<float4 *>(a.space.part + slot * D::wide + 2 * D::tiles * g);
#pragma unroll
    for (int t = 0; t < D::tiles; t += 2) {
        float2 x = two_channels(r, t, j), y = two_channels(r, t + 1, j);
        to[t / 2] = make_float4(x.x, x.y, y.x, y.y);
    }
    if (g == 0)
        a.space.weight[slot] = make_float2(r.max[j], r.sum[j]);
}

template <class D> PAGE_FN void write_row(const decode_args &a, const rows<D> &r, int j, size_t at)
{
    int first = 2 * D::tiles * (int)(threadIdx.x % 32 / 4);
    float by = 1.0f / r.sum[j];
#pragma unroll
    for (int t = 0; t < D::tiles; t++) {
        float2 x = two_channels(r, t, j);
        if (first + 2 * t < a.head_dim)
            write_two(a.type, a.out, at + first + 2 * t, x.x * by, x.y * by);
    }
}

/* Where the last split of a unit is finished, its rows are. */
template <class D> PAGE_FN void finish_unit(const decode_args &a, const unit &u, int n)
{
    int *arrived = a.space.arrived + (size_t)u.seq * a.heads + u.tile * a.kv_heads + u.kv_head, before = 0;
    __threadfence();
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        before = atomicAdd(arrived, 1);
    if (__shfl_sync(0xFFFFFFFFu, before, 0) != u.n_splits - 1)
        return;
    __threadfence();
    for (int row = u.tile * TILE_ROWS; row < u.tile * TILE_ROWS + n; row++) {
        int tok = row / a.rep, head = u.kv_head * a.rep + row - tok * a.rep;
        size_t at = (size_t)(u.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim);
        add_few_splits(a.space, slot_of(a.space, u.seq, tok, a.heads, head), (size_t)(u.n_tok * a.heads), u.n_splits,
                       D::wide, [&](int d, float4 x) {
                           if (d < a.head_dim)
                               write_two(a.type, a.out, at + d, x.x, x.y);
                           if (d + 2 < a.head_dim)
                               write_two(a.type, a.out, at + d + 2, x.z, x.w);
                       });
    }
    if (threadIdx.x % 32 == 0)
        *arrived = 0;
}

/* Rows of an item: written where they are whole, kept where they are a split. */
template <class D> PAGE_FN void finish_item(const decode_args &a, const place_in_step &p, rows<D> &r)
{
    const unit &u = *p.u;
    int n = rows_of(a, u);
    fold_rows(r, n);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = 2 * (int)(threadIdx.x % 4) + j;
        if (j && n == 1)
            break;
        int its = __shfl_sync(0xFFFFFFFFu, p.row, row * 4), tok = its >> 16, head = u.kv_head * a.rep + (its & 0xFFFF);
        if (row >= n)
            continue;
        if (u.n_splits > 1 || a.keep)
            keep_row(a, r, j, slot_of(a.space, u.seq, u.split * u.n_tok + tok, a.heads, head));
        else
            write_row(a, r, j, (size_t)(u.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim));
    }
    if (a.finish && u.n_splits > 1)
        finish_unit<D>(a, u, n);
}

#endif
