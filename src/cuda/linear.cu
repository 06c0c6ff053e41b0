/* SPDX-License-Identifier: Apache-2.0 */
/* Linears: packing by a kernel, checks, and the choice of a kernel. */
#include "cuda/linear.cuh"
#include "cuda/scale_parts.cuh"
#include "cuda/stacked.cuh"

#include <stdlib.h>

extern "C" void atom_cuda_site_init(struct atom_cuda_site *site, int k, int outliers)
{
    site->k = k;
    site->outliers = outliers;
    site->whole = false;
    site->n_groups = (k - outliers + ATOM_CUDA_RUN - 1) / ATOM_CUDA_RUN;
    site->n_scales = site->n_groups + (outliers > 0);
    site->n_runs = site->n_groups + (outliers + ATOM_CUDA_RUN - 1) / ATOM_CUDA_RUN;
    site->k_padded = site->n_runs * ATOM_CUDA_RUN;
}

extern "C" void atom_cuda_site_init_whole(struct atom_cuda_site *site, int k)
{
    atom_cuda_site_init(site, k, 0);
    site->whole = true;
    site->n_groups = site->n_scales = 1;
}

/* ---- scales ------------------------------------------------------------------------------------------------------ */

static __global__ void cut(const float *scales, int n, int n_normal, float4 *parts)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        parts[i] = scale_parts(scales[i], i >= n_normal);
}

extern "C" enum atom_status atom_cuda_cut_scales(const struct atom_cuda_acts *a, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    const int THREADS = 256;
    if (a->tok_stride < 1 || a->site.n_scales < 1 || (int64_t)a->tok_stride * a->site.n_scales > INT32_MAX - THREADS)
        return atom_fail(err, ATOM_ERR_INVALID, "scales of %d tokens, %d each: expected 1 or more, and no 2^31 in all",
                         a->tok_stride, a->site.n_scales);
    if (!a->scales || !a->scale_parts || (uintptr_t)a->scale_parts % 16)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "scales to cut have no place, or their parts one that is no 16-byte address");
    int n = a->tok_stride * a->site.n_scales;
    cut<<<(unsigned)((n + THREADS - 1) / THREADS), THREADS, 0, s>>>(a->scales, n, a->tok_stride * a->site.n_groups,
                                                                    reinterpret_cast<float4 *>(a->scale_parts));
    return atom_cuda_launched("cutting scales", err);
}

/* ---- forms ------------------------------------------------------------------------------------------------------- */

static enum atom_cuda_form forced = ATOM_CUDA_FORM_AUTO;

extern "C" void atom_cuda_force_form(enum atom_cuda_form form) { forced = form; }

extern "C" enum atom_status atom_cuda_form_for_device(enum atom_cuda_form wish, enum atom_cuda_form *out,
                                                      struct atom_error *err)
{
    const struct atom_cuda_device *d = atom_cuda_opened();
    if (!d)
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    bool hopper = d->major == 9 && d->minor == 0;
    if (wish == ATOM_CUDA_FORM_SM90 && !hopper)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                         "%s has compute capability %d.%d: that form of a linear is for 9.0 alone", d->name, d->major,
                         d->minor);
    if (wish != ATOM_CUDA_FORM_AUTO)
        *out = wish;
    else if (hopper)
        *out = ATOM_CUDA_FORM_SM90;
    else
        *out = d->major == 8 ? ATOM_CUDA_FORM_SM80 : ATOM_CUDA_FORM_SM80_BYTES;
    return ATOM_OK;
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

struct packer {
    struct stacked from;
    size_t tile_bytes;
    uint8_t *data;
};

/* One block a run of a tile, a thread 16 bytes at a time. */
static __global__ void pack(const struct packer p)
{
    int run = blockIdx.x, tile = blockIdx.y;
    bool nibbles = run < p.from.site.n_groups;
    uint8_t *to = p.data + (size_t)tile * p.tile_bytes +
                  (nibbles ? (size_t)run * NIBBLE_RUN_BYTES
                           : (size_t)p.from.site.n_groups * NIBBLE_RUN_BYTES +
                                 (size_t)(run - p.from.site.n_groups) * BYTE_RUN_BYTES);
    int units = (nibbles ? NIBBLE_BYTES : BYTE_BYTES) / 16, parts = nibbles ? 2 : 4;
    for (int u = threadIdx.x; u < units; u += blockDim.x) {
        int lane = u % 32, warp = u / 32 % 4, step = u / 128 % parts, group = u / 128 / parts;
        uint32_t words[4];
        for (int i = 0; i < 4; i++) {
            int r = tile * TILE_ROWS + group * 64 + warp * 16 + lane / 4 + i % 2 * 8;
            int c = step * (nibbles ? 64 : 32) + lane % 4 * 4 + i / 2 * 16;
            words[i] = 0;
            for (int b = 0; b < 4; b++) {
                uint32_t q = (uint32_t)stored_q(p.from, r, run, c + b) & (nibbles ? 15u : 255u);
                if (nibbles)
                    q |= ((uint32_t)stored_q(p.from, r, run, c + 32 + b) & 15u) << 4;
                words[i] |= q << (8 * b);
            }
        }
        reinterpret_cast<uint4 *>(to)[u] = make_uint4(words[0], words[1], words[2], words[3]);
    }
    uint16_t *scales = reinterpret_cast<uint16_t *>(to + units * 16);
    for (int i = threadIdx.x; i < TILE_ROWS; i += blockDim.x)
        scales[i] = stored_scale(p.from, tile * TILE_ROWS + i, run);
}

static void layout_sm90(struct atom_cuda_weights *w)
{
    w->n_tiles = (w->n + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS) * 2;
    w->tile_bytes =
        (size_t)w->site.n_groups * NIBBLE_RUN_BYTES + (size_t)(w->site.n_runs - w->site.n_groups) * BYTE_RUN_BYTES;
    atom_cuda_sm90_find_cuts(w);
}

static enum atom_status pack_sm90(const struct stacked *from, const struct atom_cuda_weights *w, atom_cuda_stream s,
                                  struct atom_error *err)
{
    const struct packer p = {*from, w->tile_bytes, w->data};
    pack<<<dim3((unsigned)w->site.n_runs, (unsigned)w->n_tiles), 256, 0, s>>>(p);
    return atom_cuda_launched("packing a linear", err);
}

/* Beyond these no model is, and no integer overflows on the way. */
enum { MAX_CHANNELS = 1 << 24, MAX_ROWS = 1 << 22, MAX_TOK = 1 << 20 };

static enum atom_status check_site(const struct atom_cuda_site *site, struct atom_error *err)
{
    struct atom_cuda_site s;
    if (site->k < 1 || site->k > MAX_CHANNELS || site->outliers < 0 || site->outliers > site->k)
        return atom_fail(err, ATOM_ERR_INVALID, "a site of %d channels, %d of them outliers; expected 1 to %d channels",
                         site->k, site->outliers, MAX_CHANNELS);
    if (site->whole)
        return atom_fail(err, ATOM_ERR_INVALID, "an INT4 linear wants one scale a group; its site has one a token");
    atom_cuda_site_init(&s, site->k, site->outliers);
    if (site->n_groups != s.n_groups || site->n_scales != s.n_scales || site->n_runs != s.n_runs ||
        site->k_padded != s.k_padded)
        return atom_fail(err, ATOM_ERR_INVALID, "a site of %d channels, %d of them outliers, whose counts are others",
                         site->k, site->outliers);
    return ATOM_OK;
}

static enum atom_status check_part(const struct atom_cuda_site *site, const struct atom_cuda_tensors *p, int i,
                                   struct atom_error *err)
{
    if (p->n < 1 || p->n > MAX_ROWS || p->rows_per_scale < 1)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "part %d of a linear has %d rows, %d a scale; expected 1 to %d, and at least 1", i, p->n,
                         p->rows_per_scale, MAX_ROWS);
    if ((site->n_groups && (!p->qweight || !p->scales)) ||
        (site->outliers && (!p->outlier_qweight || !p->outlier_scales)))
        return atom_fail(err, ATOM_ERR_INVALID, "part %d of a linear lacks a tensor", i);
    if (((uintptr_t)p->scales | (uintptr_t)p->outlier_scales) % sizeof(uint16_t))
        return atom_fail(err, ATOM_ERR_INVALID, "part %d of a linear has scales at an odd address", i);
    return ATOM_OK;
}

/* A linear that starts early (early.cuh) brings weights before the kernel in front of it has ended: that must not be
 * the one that packs them, so something that is no kernel stands between. */
enum { FENCE_BYTES = 16 };

static enum atom_status check_parts(const struct atom_cuda_site *site, const struct atom_cuda_tensors *parts,
                                    int n_parts, bool by_turns, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    int n = 0;
    if (n_parts < 1 || n_parts > ATOM_CUDA_MAX_PARTS)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d parts; expected 1 to %d", n_parts, ATOM_CUDA_MAX_PARTS);
    for (int i = 0; i < n_parts && !st; i++) {
        st = check_part(site, &parts[i], i, err);
        n += st ? 0 : parts[i].n;
    }
    if (st)
        return st;
    if (by_turns && (n_parts != 2 || parts[0].n != parts[1].n || parts[0].n % 8))
        return atom_fail(err, ATOM_ERR_INVALID, "rows by turns want two parts of the same rows, a multiple of 8");
    if (n > MAX_ROWS)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d rows; at most %d", n, MAX_ROWS);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_weights_create(const struct atom_cuda_site *site,
                                                     const struct atom_cuda_tensors *parts, int n_parts, bool by_turns,
                                                     atom_cuda_stream s, struct atom_cuda_weights **out,
                                                     struct atom_error *err)
{
    enum atom_cuda_form form = ATOM_CUDA_FORM_AUTO;
    if (!site || !parts || !out)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear without a site, its parts or a place for it");
    enum atom_status st = check_site(site, err);
    st = st ? st : check_parts(site, parts, n_parts, by_turns, err);
    st = st ? st : atom_cuda_form_for_device(forced, &form, err);
    if (st)
        return st;
    struct atom_cuda_weights *w = (struct atom_cuda_weights *)calloc(1, sizeof *w);
    if (!w)
        return atom_fail_nomem(err, sizeof *w);
    struct stacked from = {};
    for (int i = 0; i < n_parts; i++) {
        from.parts[i] = parts[i];
        w->n += parts[i].n;
    }
    w->site = from.site = *site;
    w->by_turns = from.by_turns = by_turns;
    from.n_parts = n_parts;
    from.n = w->n;
    w->form = form;
    if (form == ATOM_CUDA_FORM_SM90)
        layout_sm90(w);
    else
        atom_cuda_sm80_layout(w);
    size_t n_bytes = w->tile_bytes * (size_t)w->n_tiles;
    st = atom_cuda_alloc(n_bytes + FENCE_BYTES, (void **)&w->data, err);
    if (!st)
        st = form == ATOM_CUDA_FORM_SM90 ? pack_sm90(&from, w, s, err) : atom_cuda_sm80_pack(&from, w, s, err);
    if (!st)
        st = atom_cuda_status(cudaMemsetAsync(w->data + n_bytes, 0, FENCE_BYTES, s), "packing a linear", err);
    if (st) {
        atom_cuda_weights_free(w);
        return st;
    }
    *out = w;
    return ATOM_OK;
}

extern "C" void atom_cuda_weights_free(struct atom_cuda_weights *w)
{
    if (!w)
        return;
    atom_cuda_free(w->data);
    free(w);
}

extern "C" size_t atom_cuda_weights_bytes(const struct atom_cuda_weights *w)
{
    return w->tile_bytes * (size_t)w->n_tiles;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static bool is_sm90(const struct atom_cuda_weights *w) { return w->form == ATOM_CUDA_FORM_SM90; }

extern "C" bool atom_cuda_linear_is_cut(const struct atom_cuda_weights *w, int n_tok, int row, int run)
{
    if (is_sm90(w))
        return atom_cuda_sm90_is_cut(w, n_tok, row, run);
    for (int s = 1, splits = atom_cuda_sm80_splits(w, n_tok); s < splits; s++)
        if (run == w->site.n_runs * s / splits)
            return true;
    return false;
}

extern "C" size_t atom_cuda_linear_workspace(const struct atom_cuda_weights *w, int max_tok)
{
    return is_sm90(w) ? atom_cuda_sm90_workspace(w, max_tok) : atom_cuda_sm80_workspace(w);
}

static enum atom_status check_acts(const struct atom_cuda_linear *j, struct atom_error *err)
{
    const struct atom_cuda_site *a = &j->a->site, *b = &j->w->site;
    enum atom_status st = check_site(a, err);
    if (st)
        return st;
    if (a->k != b->k || a->outliers != b->outliers)
        return atom_fail(err, ATOM_ERR_INVALID, "activations of %d channels, %d outliers for a linear of %d and %d",
                         a->k, a->outliers, b->k, b->outliers);
    if (j->a->n_tok < 1 || j->a->n_tok > MAX_TOK || j->a->tok_stride < j->a->n_tok || j->a->tok_stride % 64)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "activations of %d tokens, stride %d: expected 1 to %d, and a multiple of 64", j->a->n_tok,
                         j->a->tok_stride, MAX_TOK);
    if (!j->a->q || !j->a->scales || ((uintptr_t)j->a->q | (uintptr_t)j->a->scales) % 16)
        return atom_fail(err, ATOM_ERR_INVALID, "activations without integers or scales at 16-byte addresses");
    return ATOM_OK;
}

static enum atom_status check_results(const struct atom_cuda_linear *j, struct atom_error *err)
{
    int columns = j->silu ? j->w->n / 2 : j->w->n;
    if (j->type != ATOM_CUDA_F32 && j->type != ATOM_CUDA_F16 && j->type != ATOM_CUDA_BF16)
        return atom_fail(err, ATOM_ERR_INVALID, "results of type %d, which there is not", (int)j->type);
    if (j->silu && (!j->w->by_turns || j->add))
        return atom_fail(err, ATOM_ERR_INVALID, "silu wants rows by turns and nothing to add");
    if (!j->y || j->y_stride < (size_t)columns || j->y_stride % 8 || (uintptr_t)j->y % 16 || (uintptr_t)j->add % 16)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "rows of %d results, %zu apart: expected a multiple of 8, at 16-byte addresses", columns,
                         j->y_stride);
    if ((uintptr_t)j->bias % sizeof(float))
        return atom_fail(err, ATOM_ERR_INVALID, "a bias at an address that is no multiple of 4");
    if ((uintptr_t)j->workspace % 16 || (!j->workspace && atom_cuda_linear_workspace(j->w, j->a->n_tok)))
        return atom_fail(err, ATOM_ERR_INVALID, "a linear of %d rows for %d tokens wants a workspace, 16-byte aligned",
                         j->w->n, j->a->n_tok);
    return ATOM_OK;
}

extern "C" enum atom_status atom_cuda_linear_run(const struct atom_cuda_linear *job, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    if (!job || !job->w || !job->a)
        return atom_fail(err, ATOM_ERR_INVALID, "a linear without weights or activations");
    enum atom_status st = check_acts(job, err);
    st = st ? st : check_results(job, err);
    if (st)
        return st;
    return is_sm90(job->w) ? atom_cuda_linear_sm90(job, s, err) : atom_cuda_linear_sm80(job, s, err);
}
