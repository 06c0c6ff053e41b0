/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/calibrate.h"
#include "base/thread.h"
#include "model/foreign_layer.h"
#include "model/model.h"
#include "quant/hessian.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct atom_calib {
    struct atom_calib_setup set;
    size_t window_floats;
    float *exact, *quantized; /* [windows, window, hidden] each */
    float *next;              /* float windows after the layer, until the quantized ones follow; NULL: in place */
    struct atom_work *work;
    struct atom_kv *kv_exact, *kv;
    int32_t *pages;
    /* of the pass that runs */
    const struct atom_calib_seen *seen;
    int at_window;
    const struct atom_calib_sums *sums;
    float *acts;                     /* [window, widest site] */
    float *exact_acts[ATOM_N_SITES]; /* [window, k] in stored order; only for cross sums */
    bool keeping;                    /* the exact run of a window, whose acts are kept */
};

static void embed(struct atom_calib *c, const struct atom_tensor *t)
{
    size_t n = (size_t)c->set.windows * (size_t)c->set.window, hidden = (size_t)c->set.cfg->hidden;
    for (size_t i = 0; i < n; i++)
        atom_tensor_floats(t, (size_t)c->set.ids[i] * hidden, hidden, c->exact + i * hidden);
    memcpy(c->quantized, c->exact, n * hidden * sizeof *c->exact);
}

static enum atom_status make_work(struct atom_calib *c, struct atom_error *err)
{
    const struct atom_calib_setup *s = &c->set;
    struct atom_config cfg = *s->cfg;
    const struct atom_scheme exact = cfg.scheme;
    int n_pages = (s->window + ATOM_PAGE - 1) / ATOM_PAGE;
    cfg.scheme = *s->scheme;
    enum atom_status st = atom_model_work(&cfg, s->backend, s->window, &c->work, err);
    st = st ? st : atom_model_kv(&cfg, &exact, s->backend, 1, n_pages, s->window, &c->kv_exact, err);
    st = st ? st : atom_model_kv(&cfg, s->scheme, s->backend, 1, n_pages, s->window, &c->kv, err);
    c->pages = malloc((size_t)n_pages * sizeof *c->pages);
    if (!st && !c->pages)
        st = atom_fail_nomem(err, (size_t)n_pages * sizeof *c->pages);
    for (int i = 0; !st && i < n_pages; i++)
        c->pages[i] = i;
    return st;
}

enum atom_status atom_calib_create(const struct atom_calib_setup *setup, struct atom_calib **out,
                                   struct atom_error *err)
{
    const struct atom_tensor *t;
    const struct atom_config *cfg = setup->cfg;
    enum atom_status st =
        atom_tensors_need(setup->tensors, "model.embed_tokens.weight", ATOM_FLOATS, cfg->vocab, cfg->hidden, &t, err);
    if (st)
        return st;
    struct atom_calib *c = calloc(1, sizeof *c);
    if (!c)
        return atom_fail_nomem(err, sizeof *c);
    c->set = *setup;
    c->window_floats = (size_t)setup->window * (size_t)cfg->hidden;
    size_t n_bytes = (size_t)setup->windows * c->window_floats * sizeof(float), widest = 0;
    for (int i = 0; i < ATOM_N_SITES; i++) {
        size_t k = (size_t)atom_site_channels(cfg, (enum atom_site_id)i);
        widest = k > widest ? k : widest;
    }
    c->exact = malloc(n_bytes);
    c->quantized = malloc(n_bytes);
    c->next = setup->keep_exact ? malloc(n_bytes) : NULL;
    c->acts = malloc((size_t)setup->window * widest * sizeof(float));
    st = !c->exact || !c->quantized || !c->acts || (setup->keep_exact && !c->next) ? atom_fail_nomem(err, n_bytes)
                                                                                   : make_work(c, err);
    if (st) {
        atom_calib_free(c);
        return st;
    }
    embed(c, t);
    c->set.ids = NULL;
    *out = c;
    return ATOM_OK;
}

void atom_calib_free(struct atom_calib *c)
{
    if (!c)
        return;
    if (c->work)
        c->set.backend->work_free(c->work);
    if (c->kv)
        c->set.backend->kv_free(c->kv);
    if (c->kv_exact)
        c->set.backend->kv_free(c->kv_exact);
    for (int i = 0; i < ATOM_N_SITES; i++)
        free(c->exact_acts[i]);
    free(c->exact);
    free(c->quantized);
    free(c->next);
    free(c->acts);
    free(c->pages);
    free(c);
}

int64_t atom_calib_tokens(const struct atom_calib *c) { return (int64_t)c->set.windows * c->set.window; }

/* One window x through a layer; the result stays in the work's X. */
static enum atom_status run_window(struct atom_calib *c, int index, const struct atom_layer *layer, struct atom_kv *kv,
                                   const float *x, atom_site_fn *at_site, struct atom_error *err)
{
    const struct atom_backend *b = c->set.backend;
    const struct atom_batch_seq seq = {0, c->set.window, 0, c->pages};
    const struct atom_batch batch = {.n_tok = c->set.window, .n_seqs = 1, .seqs = &seq};
    const struct atom_step step = {c->work, kv, &batch, c->set.cfg->rms_eps, at_site, c};
    char where[64];
    b->set_x(c->work, x, c->set.window);
    atom_layer_step(layer, index, 0, &step);
    for (int t = 0; t < c->set.window; t++)
        if (b->bad(c->work, t))
            return atom_fail(err, ATOM_ERR_NUMERIC, "calibration met a number that is not finite at %s",
                             atom_where_text(b->bad(c->work, t), where, sizeof where));
    return ATOM_OK;
}

static enum atom_status tick(const struct atom_calib *c, struct atom_error *err)
{
    if (c->set.tick && !c->set.tick(c->set.user))
        return atom_fail(err, ATOM_ERR_CANCELLED, "quantization was stopped; --resume goes on from the last layer");
    return ATOM_OK;
}

/* ---- float pass -------------------------------------------------------------------------------------------------- */

struct seen_task {
    const float *x;
    double *energy;
    float *peak;
    int n_tok, k;
};

enum { SEEN_CHANNELS = 64 };

static void see_channels(void *ctx, int block, int worker)
{
    const struct seen_task *e = ctx;
    int first = block * SEEN_CHANNELS, n = e->k - first < SEEN_CHANNELS ? e->k - first : SEEN_CHANNELS;
    double sum[SEEN_CHANNELS] = {0};
    float peak[SEEN_CHANNELS] = {0};
    (void)worker;
    for (int t = 0; t < e->n_tok; t++) {
        const float *x = e->x + (size_t)t * (size_t)e->k + (size_t)first;
        for (int i = 0; i < n; i++) {
            sum[i] += (double)x[i] * (double)x[i];
            peak[i] = fabsf(x[i]) > peak[i] ? fabsf(x[i]) : peak[i];
        }
    }
    for (int i = 0; i < n; i++) {
        e->energy[first + i] += sum[i];
        if (e->peak)
            e->peak[first + i] = peak[i] > e->peak[first + i] ? peak[i] : e->peak[first + i];
    }
}

/* Those of this window's tokens that are among n_rows spread over all. */
static void keep_rows(const struct atom_calib *c, int k, float *rows)
{
    int64_t all = atom_calib_tokens(c), first = (int64_t)c->at_window * c->set.window, n = c->seen->n_rows;
    for (int64_t r = first * n / all; r < n; r++) {
        int64_t t = (2 * r + 1) * all / (2 * n) - first;
        if (t >= c->set.window)
            break;
        if (t >= 0)
            memcpy(rows + (size_t)r * (size_t)k, c->acts + (size_t)t * (size_t)k, (size_t)k * sizeof *rows);
    }
}

static bool at_float_site(void *user, enum atom_site_id site, struct atom_work *w)
{
    struct atom_calib *c = user;
    int k = atom_site_channels(c->set.cfg, site);
    if (!c->seen->energy[site])
        return true;
    c->set.backend->get_acts(w, c->acts);
    struct seen_task task = {c->acts, c->seen->energy[site], c->seen->peak[site], c->set.window, k};
    atom_parallel((k + SEEN_CHANNELS - 1) / SEEN_CHANNELS, see_channels, &task);
    if (c->seen->rows[site])
        keep_rows(c, k, c->seen->rows[site]);
    return true;
}

enum atom_status atom_calib_float(struct atom_calib *c, int index, const struct atom_calib_seen *seen,
                                  struct atom_error *err)
{
    struct atom_layer layer;
    const struct atom_config *cfg = c->set.cfg;
    struct atom_layer_source src = {.cfg = cfg, .tensors = c->set.tensors, .scheme = cfg->scheme};
    enum atom_status st = cfg->foreign.format
                              ? atom_foreign_layer_load(c->set.backend, cfg, c->set.tensors, index, &layer, err)
                              : atom_layer_load(c->set.backend, &src, index, &layer, err);
    if (st)
        return st;
    c->seen = seen;
    for (int i = 0; i < c->set.windows && !st; i++) {
        size_t at = (size_t)i * c->window_floats;
        c->at_window = i;
        st = run_window(c, index, &layer, c->kv_exact, c->exact + at, seen ? at_float_site : NULL, err);
        c->set.backend->get_x(c->work, (c->next ? c->next : c->exact) + at);
        st = st ? st : tick(c, err);
    }
    atom_layer_fini(&layer);
    return st;
}

/* ---- quantized pass ---------------------------------------------------------------------------------------------- */

/* out [k, k] += a' b for a, b [n, k], in blocks, of which `upper` takes those on and above the diagonal. */
struct product {
    const float *a, *b;
    float *out;
    int n, k, blocks;
    bool upper;
};

enum { BLOCK = 256 };

static void add_block(void *ctx, int i, int worker)
{
    const struct product *p = ctx;
    int r = i / p->blocks * BLOCK, c = i % p->blocks * BLOCK, k = p->k;
    int rows = k - r < BLOCK ? k - r : BLOCK, columns = k - c < BLOCK ? k - c : BLOCK;
    (void)worker;
    if (!p->upper || c >= r)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, columns, p->n, 1.0f, p->a + r, k, p->b + c, k, 1.0f,
                    p->out + (size_t)r * (size_t)k + (size_t)c, k);
}

static void add_product(const float *a, const float *b, int n, int k, bool upper, float *out)
{
    struct product p = {a, b, out, n, k, (k + BLOCK - 1) / BLOCK, upper};
    atom_parallel(p.blocks * p.blocks, add_block, &p);
}

static void add_sums(struct atom_calib *c, enum atom_site_id site, struct atom_work *w)
{
    const struct atom_calib_sums *s = c->sums;
    int k = atom_site_channels(c->set.cfg, site), n = c->set.window;
    if (c->keeping) {
        c->set.backend->get_acts(w, c->exact_acts[site]);
        return;
    }
    c->set.backend->get_acts(w, c->acts);
    add_product(c->acts, c->acts, n, k, true, s->sum[site]);
    if (!s->exact)
        return;
    float *diff = c->exact_acts[site];
    for (size_t i = 0; i < (size_t)n * (size_t)k; i++)
        diff[i] -= c->acts[i];
    add_product(diff, c->acts, n, k, false, s->cross[site]);
}

/* The step ends at the last site. */
static bool at_quantized_site(void *user, enum atom_site_id site, struct atom_work *w)
{
    struct atom_calib *c = user;
    add_sums(c, site, w);
    return site != ATOM_DOWN_IN;
}

static enum atom_status room_for_exact(struct atom_calib *c, struct atom_error *err)
{
    for (int i = 0; i < ATOM_N_SITES; i++) {
        size_t k = (size_t)atom_site_channels(c->set.cfg, (enum atom_site_id)i);
        if (c->exact_acts[i])
            continue;
        c->exact_acts[i] = malloc((size_t)c->set.window * k * sizeof(float));
        if (!c->exact_acts[i])
            return atom_fail_nomem(err, (size_t)c->set.window * k * sizeof(float));
    }
    return ATOM_OK;
}

enum atom_status atom_calib_sums(struct atom_calib *c, int index, const struct atom_layer *layer,
                                 const struct atom_calib_sums *sums, struct atom_error *err)
{
    enum atom_status st = sums->exact ? room_for_exact(c, err) : ATOM_OK;
    int blas = atom_blas_threads(1);
    c->sums = sums;
    for (int i = 0; i < c->set.windows && !st; i++) {
        size_t at = (size_t)i * c->window_floats;
        c->keeping = true;
        if (sums->exact)
            st = run_window(c, index, sums->exact, c->kv_exact, c->exact + at, at_quantized_site, err);
        c->keeping = false;
        st = st ? st : run_window(c, index, layer, c->kv, c->quantized + at, at_quantized_site, err);
        st = st ? st : tick(c, err);
    }
    atom_blas_threads(blas);
    return st;
}

enum atom_status atom_calib_advance(struct atom_calib *c, int index, const struct atom_layer *layer,
                                    struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < c->set.windows && !st; i++) {
        float *x = c->quantized + (size_t)i * c->window_floats;
        st = run_window(c, index, layer, c->kv, x, NULL, err);
        c->set.backend->get_x(c->work, x);
        st = st ? st : tick(c, err);
    }
    if (c->next && !st) {
        float *before = c->exact;
        c->exact = c->next;
        c->next = before;
    }
    return st;
}
