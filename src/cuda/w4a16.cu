/* SPDX-License-Identifier: Apache-2.0 */
/* Linears of INT4 weights and 16-bit activations: packing by a kernel, and checks. */
#include "cuda/w4a16.cuh"

#include <stdlib.h>

/* ---- packing ----------------------------------------------------------------------------------------------------- */

struct packer {
    struct atom_cuda_tensors parts[ATOM_CUDA_MAX_PARTS];
    struct atom_cuda_w4a16_weights w;
};

/* The part that stacked row r comes from; r becomes its row there. */
static __device__ const struct atom_cuda_tensors &part_of(const struct packer &p, int &r)
{
    int part = 0;
    if (p.w.by_turns) {
        part = r / 8 % 2;
        r = r / 16 * 8 + r % 8;
    } else
        while (r >= p.parts[part].n)
            r -= p.parts[part++].n;
    return p.parts[part];
}

/* q+8 of stacked row r, channel c. */
static __device__ uint32_t stored_q(const struct packer &p, int r, int c)
{
    if (r >= p.w.n || c >= p.w.k)
        return 8;
    const struct atom_cuda_tensors &t = part_of(p, r);
    int both = t.qweight[(size_t)r * (size_t)((p.w.k + 1) / 2) + (size_t)(c / 2)];
    return (uint32_t)(c % 2 ? both >> 4 : both & 15);
}

static __device__ uint16_t stored_scale(const struct packer &p, int r, int group)
{
    if (r >= p.w.n)
        return 0;
    const struct atom_cuda_tensors &t = part_of(p, r);
    return t.scales[(size_t)(r / t.rows_per_scale) * (size_t)p.w.n_groups + (size_t)group];
}

/* One block a group of a tile, a thread a word at a time. */
static __global__ void pack(const struct packer p)
{
    int group = blockIdx.x, row0 = blockIdx.y * W4_ROWS;
    uint8_t *to = p.w.data + ((size_t)blockIdx.y * (size_t)p.w.n_groups + (size_t)group) * W4_GROUP_BYTES;
    for (int u = threadIdx.x; u < W4_NIBBLE_BYTES / 4; u += blockDim.x) {
        int step = u % 4, lane = u / 4 % 32, warp = u / 128 % 4, half = u / 512 % 2, warpgroup = u / 1024;
        int r = row0 + warpgroup * 64 + warp * 16 + lane / 4;
        int c = group * ATOM_CUDA_RUN + half * 64 + step * 16 + lane % 4 * 2;
        uint32_t word = 0;
        for (int e = 0; e < 4; e++)
            for (int high = 0; high < 2; high++)
                word |= stored_q(p, r + e % 2 * 8, c + e / 2 * 8 + high) << (4 * e + 16 * high);
        reinterpret_cast<uint32_t *>(to)[u] = word;
    }
    uint16_t *scales = reinterpret_cast<uint16_t *>(to + W4_NIBBLE_BYTES);
    for (int i = threadIdx.x; i < W4_ROWS; i += blockDim.x)
        scales[i] = stored_scale(p, row0 + i, group);
}

static enum atom_status check_device(struct atom_error *err)
{
    const struct atom_cuda_device *d = atom_cuda_opened();
    if (!d)
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (d->major != 9)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s has compute capability %d.%d: w4a16, INT4 weights with 16-bit activations, is written for "
                         "9.0 alone",
                         d->name, d->major, d->minor);
    return ATOM_OK;
}

static enum atom_status check_parts(int k, const struct atom_cuda_tensors *parts, int n_parts, bool by_turns,
                                    struct atom_error *err)
{
    if (k < 1 || n_parts < 1 || n_parts > ATOM_CUDA_MAX_PARTS)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d channels, %d parts; expected 1 or more, and 1 to %d", k,
                         n_parts, ATOM_CUDA_MAX_PARTS);
    if (by_turns && (n_parts != 2 || parts[0].n != parts[1].n || parts[0].n % 8))
        return atom_fail(err, ATOM_ERR_INVALID, "rows by turns want two parts of the same rows, a multiple of 8");
    for (int i = 0; i < n_parts; i++)
        if (parts[i].n < 1 || parts[i].rows_per_scale < 1 || !parts[i].qweight || !parts[i].scales ||
            parts[i].outlier_qweight)
            return atom_fail(err, ATOM_ERR_INVALID,
                             "part %d of a w4a16 linear has no rows, lacks a tensor or has outliers", i);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_w4a16_weights_create(int k, const struct atom_cuda_tensors *parts, int n_parts,
                                                           bool by_turns, atom_cuda_stream s,
                                                           struct atom_cuda_w4a16_weights **out, struct atom_error *err)
{
    enum atom_status st = check_device(err);
    st = st ? st : check_parts(k, parts, n_parts, by_turns, err);
    if (st)
        return st;
    struct atom_cuda_w4a16_weights *w = (struct atom_cuda_w4a16_weights *)calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    struct packer p = {};
    for (int i = 0; i < n_parts; i++) {
        p.parts[i] = parts[i];
        w->n += parts[i].n;
    }
    w->k = k;
    w->by_turns = by_turns;
    w->n_groups = (k + ATOM_CUDA_RUN - 1) / ATOM_CUDA_RUN;
    w->n_tiles = (w->n + 2 * W4_ROWS - 1) / (2 * W4_ROWS) * 2;
    st = atom_cuda_alloc(atom_cuda_w4a16_weights_bytes(w), (void **)&w->data, err);
    if (!st) {
        p.w = *w;
        pack<<<dim3((unsigned)w->n_groups, (unsigned)w->n_tiles), 256, 0, s>>>(p);
        st = atom_cuda_launched("packing a w4a16 linear", err);
    }
    if (st) {
        atom_cuda_w4a16_weights_free(w);
        return st;
    }
    *out = w;
    return ATOM_OK;
}

extern "C" void atom_cuda_w4a16_weights_free(struct atom_cuda_w4a16_weights *w)
{
    if (!w)
        return;
    atom_cuda_free(w->data);
    free(w);
}

extern "C" size_t atom_cuda_w4a16_weights_bytes(const struct atom_cuda_w4a16_weights *w)
{
    return (size_t)w->n_tiles * (size_t)w->n_groups * W4_GROUP_BYTES;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static bool aligned(const void *p, size_t stride) { return (uintptr_t)p % 16 == 0 && stride % 8 == 0; }

static enum atom_status check_job(const struct atom_cuda_w4a16 *j, struct atom_error *err)
{
    int columns = j->silu ? j->w->n / 2 : j->w->n;
    if (j->x_type != ATOM_CUDA_F16 && j->x_type != ATOM_CUDA_BF16)
        return atom_fail(err, ATOM_ERR_INVALID, "w4a16 wants activations of F16 or BF16");
    if (j->n_tok < 1)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d tokens: expected 1 or more", j->n_tok);
    if (j->x_stride < (size_t)j->w->k || !aligned(j->x, j->x_stride))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "rows of %d channels, %zu apart: expected a multiple of 8, at 16-byte addresses", j->w->k,
                         j->x_stride);
    if (j->silu && (!j->w->by_turns || j->add))
        return atom_fail(err, ATOM_ERR_INVALID, "silu wants rows by turns and nothing to add");
    if (j->y_stride < (size_t)columns || !aligned(j->y, j->y_stride) || !aligned(j->add, 0))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "rows of %d results, %zu apart: expected a multiple of 8, at 16-byte addresses", columns,
                         j->y_stride);
    return ATOM_OK;
}

extern "C" size_t atom_cuda_w4a16_workspace(const struct atom_cuda_w4a16_weights *w)
{
    return atom_cuda_w4a16_workspace_sm90(w);
}

extern "C" enum atom_status atom_cuda_w4a16_run(const struct atom_cuda_w4a16 *job, atom_cuda_stream s,
                                                struct atom_error *err)
{
    enum atom_status st = check_device(err);
    st = st ? st : check_job(job, err);
    return st ? st : atom_cuda_w4a16_sm90(job, s, err);
}
