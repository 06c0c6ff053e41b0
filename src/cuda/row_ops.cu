/* SPDX-License-Identifier: Apache-2.0 */
/* Row operations: checks, and the choice of a kernel. */
#include "cuda/row_ops.cuh"

#include <limits.h>

static size_t type_bytes(enum atom_cuda_float type) { return type == ATOM_CUDA_F32 ? 4 : 2; }

static enum atom_status check_rows(const struct atom_cuda_rows *r, int width, const char *what, struct atom_error *err)
{
    if (r->type != ATOM_CUDA_F32 && r->type != ATOM_CUDA_F16 && r->type != ATOM_CUDA_BF16)
        return atom_fail(err, ATOM_ERR_INVALID, "%s: there is no float type %d", what, (int)r->type);
    if (!r->x || r->n_tok < 1 || r->width != width || r->stride < (size_t)width ||
        (uintptr_t)r->x % type_bytes(r->type))
        return atom_fail(err, ATOM_ERR_INVALID, "%s: %d rows of %d floats, %zu apart, where rows of %d are expected",
                         what, r->n_tok, r->width, r->stride, width);
    return ATOM_OK;
}

static enum atom_status check_integers(const struct atom_cuda_quantizer *to, const char *what, struct atom_error *err)
{
    const struct atom_cuda_acts *a = &to->acts;
    if (to->bits < 2 || to->bits > 8 || !(to->clip > 0 && to->clip <= 1))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "%s: %d bits, clipped at %g of the largest; expected 2 to 8, or 16, "
                         "and up to 1",
                         what, to->bits, (double)to->clip);
    if (a->site.k < 1 || a->n_tok < 1 || a->tok_stride < a->n_tok || a->tok_stride % 64)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "%s: integers of %d channels, %d tokens, stride %d: expected 1 or more, and a multiple of 64",
                         what, a->site.k, a->n_tok, a->tok_stride);
    if (!a->q || !a->scales || (uintptr_t)a->q % 16 || (uintptr_t)a->scales % 4)
        return atom_fail(err, ATOM_ERR_INVALID, "%s: integers have no place, or one not at a 16-byte address", what);
    return ATOM_OK;
}

static void cut_row(row_args *a, int k, const struct atom_cuda_site *site)
{
    a->k = a->normal = k;
    a->inv_k = 1.0f / (float)k;
    a->normal_runs = (k + ATOM_CUDA_RUN - 1) / ATOM_CUDA_RUN;
    a->first_shared = INT_MAX;
    if (site) {
        a->normal = k - site->outliers;
        a->normal_runs = site->whole ? site->n_runs : site->n_groups;
        a->whole = site->whole;
        a->k_padded = site->k_padded;
        a->outlier_scale = site->n_groups;
        a->first_shared = site->whole ? 0 : site->n_runs - site->n_groups > 1 ? site->n_groups : INT_MAX;
    }
    a->chunks = (site ? site->k_padded : a->normal_runs * ATOM_CUDA_RUN) / CHUNK;
}

static enum atom_status fill_out(row_args *a, const struct atom_cuda_quantizer *to, const char *what,
                                 struct atom_error *err)
{
    bool floats = to->bits == 16;
    enum atom_status st = floats ? check_rows(&to->floats, to->floats.width, what, err) : check_integers(to, what, err);
    if (st)
        return st;
    a->n_tok = floats ? to->floats.n_tok : to->acts.n_tok;
    a->order = to->order;
    a->bad = to->bad;
    a->where = to->where;
    if (floats) {
        a->y = to->floats.x;
        a->y_stride = to->floats.stride;
        a->y_type = to->floats.type;
        cut_row(a, to->floats.width, NULL);
        return ATOM_OK;
    }
    a->q = to->acts.q;
    a->scales = to->acts.scales;
    a->scale_parts = to->acts.scale_parts;
    a->tok_stride = to->acts.tok_stride;
    a->clip = to->clip;
    a->top = (float)((1 << (to->bits - 1)) - 1);
    a->inv_top = 1.0f / a->top;
    cut_row(a, to->acts.site.k, &to->acts.site);
    return ATOM_OK;
}

/* Whether a block's shared memory holds a row of that many chunks. */
static bool fits_shared(int chunks, enum atom_cuda_float type)
{
    const struct atom_cuda_device *d = atom_cuda_opened();
    size_t most = d->major == 9 ? 227 : d->minor == 0 && d->major == 8 ? 163 : 99;
    size_t rows = chunks > MAX_THREADS ? 1 : 3; /* and places */
    return rows * (size_t)(chunks + 2 * 32) * CHUNK * type_bytes(type) + 2048 <= most * 1024;
}

static void set_rows(row_args *a, const struct atom_cuda_rows *in)
{
    size_t size = type_bytes(in->type);
    a->x = in->x;
    a->stride = in->stride;
    a->n_rows = in->n_tok;
    a->even = !a->rows &&
              ((uintptr_t)in->x | in->stride * size | (uintptr_t)a->order | (uintptr_t)a->weight) % 16 == 0 &&
              (a->k | a->normal) % CHUNK == 0;
}

static enum atom_status run(const row_args *a, enum atom_cuda_float type, const char *what, atom_cuda_stream s,
                            struct atom_error *err)
{
    if (!atom_cuda_opened())
        return atom_fail(err, ATOM_ERR_INVALID, "no CUDA device is open");
    bool staged = a->source == ROW_GATHERED || a->source == ROW_NORM;
    if (a->chunks > MAX_THREADS * MAX_CHUNKS || (staged && !fits_shared(a->chunks, type)))
        atom_cuda_long_rows(*a, type, s);
    else if (staged && !atom_cuda_paired_rows(*a, type, s))
        atom_cuda_gathered_rows(*a, type, s);
    else if (!staged)
        atom_cuda_direct_rows(*a, type, s);
    return atom_cuda_launched(what, err);
}

static enum atom_status run_op(const struct atom_cuda_row_op *job, enum row_source source, atom_cuda_stream s,
                               struct atom_error *err)
{
    static const char *const names[] = {"a gather", "a norm", "silu", "a quantizer"};
    row_args a = {};
    enum atom_status st = fill_out(&a, &job->to, names[source], err);
    st = st ? st : check_rows(&job->in, source == ROW_SILU ? 2 * a.k : a.k, names[source], err);
    if (st)
        return st;
    if (!job->rows && job->in.n_tok != a.n_tok)
        return atom_fail(err, ATOM_ERR_INVALID, "%s: %d rows for %d tokens", names[source], job->in.n_tok, a.n_tok);
    if (source == ROW_NORM && (!job->weight || !(job->eps >= 0)))
        return atom_fail(err, ATOM_ERR_INVALID, "a norm has no weights, or eps is %g", (double)job->eps);
    if (source == ROW_SILU && a.order)
        return atom_fail(err, ATOM_ERR_INVALID, "silu takes no order: its rows are stored in it");
    a.source = source;
    a.rows = job->rows;
    a.weight = source == ROW_NORM ? job->weight : NULL;
    set_rows(&a, &job->in);
    a.eps = job->eps;
    return run(&a, job->in.type, names[source], s, err);
}

extern "C" enum atom_status atom_cuda_norm(const struct atom_cuda_row_op *job, atom_cuda_stream s,
                                           struct atom_error *err)
{
    return run_op(job, ROW_NORM, s, err);
}

extern "C" enum atom_status atom_cuda_gather(const struct atom_cuda_row_op *job, atom_cuda_stream s,
                                             struct atom_error *err)
{
    return run_op(job, job->to.order ? ROW_GATHERED : ROW_PLAIN, s, err);
}

extern "C" enum atom_status atom_cuda_silu_mul(const struct atom_cuda_row_op *job, atom_cuda_stream s,
                                               struct atom_error *err)
{
    return run_op(job, ROW_SILU, s, err);
}

extern "C" enum atom_status atom_cuda_check_rows(const struct atom_cuda_row_check *job, atom_cuda_stream s,
                                                 struct atom_error *err)
{
    row_args a = {};
    enum atom_status st = check_rows(&job->in, job->in.width, "a check", err);
    if (st)
        return st;
    if (job->in.width < 1 || !job->bad || !job->where)
        return atom_fail(err, ATOM_ERR_INVALID, "a check of rows has no channels, or nowhere to say what it finds");
    cut_row(&a, job->in.width, NULL);
    a.source = ROW_NORM;
    a.eps = 1.0f; /* so that a row of zeros is fine */
    set_rows(&a, &job->in);
    a.n_tok = job->in.n_tok;
    a.bad = job->bad;
    a.where = job->where;
    return run(&a, job->in.type, "a check of rows", s, err);
}
