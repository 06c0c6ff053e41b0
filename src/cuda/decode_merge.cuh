/* SPDX-License-Identifier: Apache-2.0 */
/* Decode attention: the warps' results of an item become one, and those of a sequence's splits its rows.
 *
 * Four rows at a time go through the page each warp read last; a warp then has a row to itself. */
#ifndef ATOM_CUDA_DECODE_MERGE_CUH
#define ATOM_CUDA_DECODE_MERGE_CUH

#include "cuda/decode_query.cuh"

enum { PASS_ROWS = 4 };

/* Largest score, sum of weights and of weights times zero points, of each warp's part of each row. */
template <int WARPS> struct warp_sums {
    float4 of[WARPS][TILE_ROWS];
    const float *rows[WARPS]; /* where its rows of a pass are, [PASS_ROWS][wide] */
};

PAGE_FN void write_two(enum atom_cuda_float type, void *x, size_t i, float a, float b)
{
    if (type == ATOM_CUDA_F32)
        *reinterpret_cast<float2 *>((float *)x + i) = make_float2(a, b);
    else if (type == ATOM_CUDA_F16)
        *reinterpret_cast<__half2 *>((__half *)x + i) = __floats2half2_rn(a, b);
    else
        *reinterpret_cast<__nv_bfloat162 *>((__nv_bfloat16 *)x + i) = __floats2bfloat162_rn(a, b);
}

PAGE_FN float with_lane(float x, int by) { return x + __shfl_xor_sync(0xFFFFFFFFu, x, by); }

/* Sums over the columns of a row; of two rows a lane has, the second is there when rows are. */
template <class D> PAGE_FN void fold_columns(rows<D> &r, int by)
{
#pragma unroll
    for (int j = 0; j < 2; j++) {
        if (j && r.n == 1)
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
template <class D> PAGE_FN void fold_rows(rows<D> &r)
{
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int by = 4; by < 32; by *= 2) {
            r.sum[j] = with_lane(r.sum[j], by);
            r.zeros[j] = with_lane(r.zeros[j], by);
        }
    if (r.run > 1 && r.shift == 1)
        fold_columns(r, 1);
    if (r.run > 2 || (r.run == 2 && r.shift == 2))
        fold_columns(r, 2);
}

/* ---- between warps ----------------------------------------------------------------------------------------------- */

/* This warp's rows of a pass, [PASS_ROWS][wide] as mma left them. */
template <class D> PAGE_FN void put_rows(const rows<D> &r, int pass, float *to)
{
    int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int row = 2 * (lane % 4) + j;
        if (row >= r.n || row / PASS_ROWS != pass)
            continue;
        float *at = to + row % PASS_ROWS * D::wide + 2 * D::tiles * g;
#pragma unroll
        for (int t = 0; t < D::tiles; t += 2)
            *reinterpret_cast<float4 *>(at + 2 * t) =
                make_float4(r.o[t][j], r.o[t][2 + j], r.o[t + 1][j], r.o[t + 1][2 + j]);
    }
}

template <class D, int WARPS> PAGE_FN void put_sums(const rows<D> &r, warp_sums<WARPS> &sums, const float *rows_at)
{
    int lane = threadIdx.x % 32;
    if (lane == 0)
        sums.rows[threadIdx.x / 32] = rows_at;
    if (lane >= 4)
        return;
#pragma unroll
    for (int j = 0; j < 2; j++)
        sums.of[threadIdx.x / 32][2 * lane + j] = make_float4(r.max[j], r.sum[j], r.zeros[j], 0.0f);
}

/* Four channels of a row from all warps, in their own units. */
template <class D, int WARPS> PAGE_FN float4 add_warps(const warp_sums<WARPS> &sums, int row, int d, float top)
{
    const float odd = D::bits == 4 ? 0.0625f : 1.0f, all = D::integers ? 16777216.0f : 1.0f;
    float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        float4 s = sums.of[w][row], x = *reinterpret_cast<const float4 *>(sums.rows[w] + row % PASS_ROWS * D::wide + d);
        float by = exp2_fast(s.x - top) * all;
        o.x = fmaf(x.x - s.z, by, o.x);
        o.y = fmaf(fmaf(x.y, odd, -s.z), by, o.y);
        o.z = fmaf(x.z - s.z, by, o.z);
        o.w = fmaf(fmaf(x.w, odd, -s.z), by, o.w);
    }
    return o;
}

template <class D> PAGE_FN void write_four(const decode_args &a, size_t at, int d, float4 x)
{
    if (d < a.head_dim)
        write_two(a.type, a.out, at + d, x.x, x.y);
    if (d + 2 < a.head_dim)
        write_two(a.type, a.out, at + d + 2, x.z, x.w);
}

PAGE_FN size_t slot_of(const decode_args &a, const unit &u, int split, int tok, int head)
{
    return ((size_t)u.seq * a.space.slots + split * u.n_tok + tok) * a.heads + head;
}

PAGE_FN size_t out_at(const decode_args &a, const unit &u, int tok, int head)
{
    return (size_t)(u.first_tok + tok) * a.out_stride + (size_t)(head * a.head_dim);
}

/* A row that is done; scratch, [wide], is this warp's. */
template <class D>
PAGE_FN void finish_row(const decode_args &a, const unit &u, int tok, int head, float4 (&o)[(D::wide + 127) / 128],
                        float total, float *scratch)
{
    int lane = threadIdx.x % 32;
    size_t at = out_at(a, u, tok, head);
    total = 1.0f / total;
#pragma unroll
    for (int k = 0; k < (D::wide + 127) / 128; k++) {
        o[k] = make_float4(o[k].x * total, o[k].y * total, o[k].z * total, o[k].w * total);
        if (a.undo_v && 4 * lane + 128 * k < D::wide)
            reinterpret_cast<float4 *>(scratch)[lane + 32 * k] = o[k];
    }
    if (a.undo_v)
        hadamard(scratch, a.hadamard, true);
#pragma unroll
    for (int k = 0; k < (D::wide + 127) / 128; k++)
        if (4 * lane + 128 * k < D::wide)
            write_four<D>(a, at, 4 * lane + 128 * k,
                          a.undo_v ? reinterpret_cast<const float4 *>(scratch)[lane + 32 * k] : o[k]);
}

/* One row of an item out of all warps' parts: written, or kept for its split. */
template <class D, int WARPS>
PAGE_FN void fold_row(const decode_args &a, const place_in_step &p, const warp_sums<WARPS> &sums, int row)
{
    constexpr int each = (D::wide + 127) / 128;
    int lane = threadIdx.x % 32;
    int tok = __shfl_sync(0xFFFFFFFFu, p.tok, row * 4), head = __shfl_sync(0xFFFFFFFFu, p.head, row * 4);
    float top = NOTHING_YET, total = 0.0f;
    float4 o[each];
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        top = fmaxf(top, sums.of[w][row].x);
#pragma unroll
    for (int w = 0; w < WARPS; w++)
        total = fmaf(sums.of[w][row].y, exp2_fast(sums.of[w][row].x - top), total);
#pragma unroll
    for (int k = 0; k < each; k++) {
        o[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (4 * lane + 128 * k < D::wide)
            o[k] = add_warps<D>(sums, row, 4 * lane + 128 * k, top);
    }
    if (p.u->n_splits == 1) {
        __syncwarp();
        return finish_row<D>(a, *p.u, tok, head, o, total,
                             const_cast<float *>(sums.rows[0]) + row % PASS_ROWS * D::wide);
    }
    size_t slot = slot_of(a, *p.u, p.u->split, tok, head);
#pragma unroll
    for (int k = 0; k < each; k++)
        if (4 * lane + 128 * k < D::wide)
            reinterpret_cast<float4 *>(a.space.part + slot * D::wide)[lane + 32 * k] = o[k];
    if (lane == 0)
        a.space.weight[slot] = make_float2(top, total);
}

/* ---- between splits ---------------------------------------------------------------------------------------------- */

PAGE_FN int *arrivals(const decode_args &a, const unit &u)
{
    return a.space.arrived + ((size_t)u.seq * a.kv_heads + u.kv_head) * a.space.tiles + u.tile;
}

/* Splits of a row added in order. */
template <class D> PAGE_FN void merge_row(const decode_args &a, const unit &u, int row, float *scratch)
{
    constexpr int each = (D::wide + 127) / 128;
    int lane = threadIdx.x % 32, n = u.n_splits, rep = a.heads / a.kv_heads;
    int tok = (u.tile * TILE_ROWS + row) / rep, head = u.kv_head * rep + (u.tile * TILE_ROWS + row) % rep;
    float4 o[each] = {};
    float top = NOTHING_YET, total = 0.0f;
    for (int s = lane; s < n; s += 32)
        top = fmaxf(top, __ldcg(&a.space.weight[slot_of(a, u, s, tok, head)]).x);
#pragma unroll
    for (int by = 1; by < 32; by *= 2)
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, by));
#pragma unroll 8
    for (int s = 0; s < n; s++) {
        size_t slot = slot_of(a, u, s, tok, head);
        float2 w = __ldcg(&a.space.weight[slot]);
        float by = exp2_fast(w.x - top);
        total = fmaf(w.y, by, total);
#pragma unroll
        for (int k = 0; k < each; k++)
            if (4 * lane + 128 * k < D::wide) {
                float4 x = __ldcg((const float4 *)(a.space.part + slot * D::wide) + lane + 32 * k);
                o[k].x = fmaf(x.x, by, o[k].x);
                o[k].y = fmaf(x.y, by, o[k].y);
                o[k].z = fmaf(x.z, by, o[k].z);
                o[k].w = fmaf(x.w, by, o[k].w);
            }
    }
    finish_row<D>(a, u, tok, head, o, total, scratch);
    __syncwarp();
}

#endif
