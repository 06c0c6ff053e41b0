/* SPDX-License-Identifier: Apache-2.0 */
/* From the tensors of a checkpoint to a layer in a backend's form. */
#include "base/thread.h"
#include "model/foreign_layer.h"
#include "model/layer.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 160 };

struct loader {
    const struct atom_backend *b;
    const struct atom_layer_source *src;
    int index;
    struct atom_layer *layer;
};

static const char *name_of(const struct loader *ld, char *buf, const char *what, const char *suffix)
{
    snprintf(buf, NAME_BYTES, "model.layers.%d.%s%s", ld->index, what, suffix);
    return buf;
}

static enum atom_status need(const struct loader *ld, const char *what, const char *suffix, unsigned dtypes, int64_t d0,
                             int64_t d1, const struct atom_tensor **out, struct atom_error *err)
{
    char name[NAME_BYTES];
    return atom_tensors_need(ld->src->tensors, name_of(ld, name, what, suffix), dtypes, d0, d1, out, err);
}

static enum atom_status check_permutation(const struct atom_tensor *t, const int32_t *order, int k,
                                          struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    bool *seen = calloc((size_t)k, 1);
    if (!seen)
        return atom_fail_nomem(err, (size_t)k);
    for (int i = 0; i < k && !st; i++) {
        if (order[i] < 0 || order[i] >= k || seen[order[i]])
            st = atom_fail(err, ATOM_ERR_FORMAT, "%s: tensor '%s' is no order of %d channels: entry %d is %d%s",
                           t->file, t->name, k, i, order[i], order[i] >= 0 && order[i] < k ? ", seen before" : "");
        else
            seen[order[i]] = true;
    }
    free(seen);
    return st;
}

static enum atom_status read_order(const struct loader *ld, enum atom_site_id id, struct atom_site *site,
                                   struct atom_error *err)
{
    int k = site->lay.k;
    const struct atom_tensor *t = NULL;
    const int32_t *given = ld->src->orders ? ld->src->orders[id] : NULL;
    char name[NAME_BYTES];
    if (ld->src->orders && !given)
        return ATOM_OK;
    if (!given) {
        name_of(ld, name, atom_site_names[id], ".order");
        if (!atom_tensors_find(ld->src->tensors, name) && site->lay.outliers == 0)
            return ATOM_OK;
        enum atom_status st = atom_tensors_need(ld->src->tensors, name, 1u << ATOM_I32, k, -1, &t, err);
        if (st)
            return st;
    }
    site->order = malloc((size_t)k * sizeof *site->order);
    if (!site->order)
        return atom_fail_nomem(err, (size_t)k * sizeof *site->order);
    memcpy(site->order, given ? (const void *)given : t->data, (size_t)k * sizeof *site->order);
    return given ? ATOM_OK : check_permutation(t, site->order, k, err);
}

static enum atom_status make_site(const struct loader *ld, enum atom_site_id id, struct atom_error *err)
{
    struct atom_site *site = &ld->layer->sites[id];
    const struct atom_scheme *scheme = &ld->src->scheme;
    enum atom_status st = atom_scheme_layout(scheme, atom_site_channels(ld->src->cfg, id), &site->lay, err);
    if (st)
        return st;
    site->bits = scheme->abits;
    site->clip = scheme->act_clip;
    site->form = (struct atom_number_form){scheme->format, scheme->outlier_bits};
    site->gathers = id != ATOM_DOWN_IN;
    return scheme->wbits == 16 && scheme->abits == 16 ? ATOM_OK : read_order(ld, id, site, err);
}

/* Largest magnitude as bits: loops that compilers turn into vectors, at the speed of memory. */
static uint32_t worst_16(const uint8_t *p, size_t n)
{
    uint16_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        h &= 0x7FFF;
        worst = h > worst ? h : worst;
    }
    return worst;
}

static uint32_t worst_32(const uint8_t *p, size_t n)
{
    uint32_t worst = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, p + 4 * i, sizeof bits);
        bits &= 0x7FFFFFFF;
        worst = bits > worst ? bits : worst;
    }
    return worst;
}

enum { CHECKED_BYTES = 1 << 18 }; /* at once */

struct finite_task {
    const struct atom_tensor *t;
    atomic_bool bad;
};

static void check_block(void *ctx, int i, int worker)
{
    struct finite_task *task = ctx;
    enum atom_dtype dtype = task->t->dtype;
    size_t first = (size_t)i * CHECKED_BYTES, left = task->t->n_bytes - first;
    size_t n_bytes = left < CHECKED_BYTES ? left : CHECKED_BYTES;
    const uint8_t *p = (const uint8_t *)task->t->data + first;
    uint32_t infinity = dtype == ATOM_F32 ? 0x7F800000 : dtype == ATOM_F16 ? 0x7C00 : 0x7F80;
    (void)worker;
    if ((dtype == ATOM_F32 ? worst_32(p, n_bytes / 4) : worst_16(p, n_bytes / 2)) >= infinity)
        atomic_store(&task->bad, true);
}

enum atom_status atom_tensor_finite(const struct atom_tensor *t, struct atom_error *err)
{
    struct finite_task task = {.t = t};
    size_t n = t->n_bytes / atom_dtype_bytes(t->dtype), i = 0;
    atom_parallel((int)((t->n_bytes + CHECKED_BYTES - 1) / CHECKED_BYTES), check_block, &task);
    if (!atomic_load(&task.bad))
        return ATOM_OK;
    float x = 0;
    for (; i < n; i++) {
        atom_tensor_floats(t, i, 1, &x);
        if (!isfinite(x))
            break;
    }
    return atom_fail(err, ATOM_ERR_NUMERIC, "%s: tensor '%s' holds %f at element %zu; it must be finite", t->file,
                     t->name, (double)x, i);
}

/* Codes of 8-bit numbers: an error names the first that, under `mask`, is `limit` or more. */
static enum atom_status check_codes(const struct atom_tensor *t, unsigned limit, unsigned mask, struct atom_error *err)
{
    const uint8_t *codes = t->data;
    for (size_t i = 0; i < t->n_bytes; i++)
        if ((codes[i] & mask) >= limit)
            return atom_fail(err, ATOM_ERR_NUMERIC,
                             "%s: tensor '%s' holds code %#x at element %zu: no number it may be", t->file, t->name,
                             codes[i], i);
    return ATOM_OK;
}

static enum atom_status make_norm(const struct loader *ld, int which, struct atom_error *err)
{
    const char *what = which ? "post_attention_layernorm" : "input_layernorm";
    const struct atom_site *site = &ld->layer->sites[which ? ATOM_MLP_IN : ATOM_ATTN_IN];
    int k = site->lay.k;
    const struct atom_tensor *t;
    enum atom_status st = need(ld, what, ".weight", ATOM_FLOATS, k, -1, &t, err);
    if (st)
        return st;
    float *natural = malloc((size_t)k * sizeof *natural), *norm = malloc((size_t)k * sizeof *norm);
    ld->layer->norms[which] = norm;
    if (!natural || !norm) {
        free(natural);
        return atom_fail_nomem(err, (size_t)k * sizeof *norm);
    }
    atom_tensor_floats(t, 0, (size_t)k, natural);
    for (int i = 0; i < k; i++)
        norm[i] = natural[site->order ? site->order[i] : i];
    st = atom_tensor_finite(t, err);
    free(natural);
    return st;
}

/* The bias of a projection in stored row order, malloc'd; NULL when the model has none. */
static enum atom_status read_bias(const struct loader *ld, int proj, const int32_t *row_order, float **out,
                                  struct atom_error *err)
{
    const struct atom_config *cfg = ld->src->cfg;
    int n = atom_proj_rows(cfg, proj);
    const struct atom_tensor *t;
    *out = NULL;
    if (!(atom_projs[proj].linear <= ATOM_LIN_O ? cfg->attention_bias : cfg->mlp_bias))
        return ATOM_OK;
    enum atom_status st = need(ld, atom_projs[proj].name, ".bias", ATOM_FLOATS, n, -1, &t, err);
    if (st)
        return st;
    float *natural = malloc((size_t)n * sizeof *natural), *bias = malloc((size_t)n * sizeof *bias);
    if (!natural || !bias) {
        free(natural);
        free(bias);
        return atom_fail_nomem(err, (size_t)n * sizeof *bias);
    }
    atom_tensor_floats(t, 0, (size_t)n, natural);
    for (int i = 0; i < n; i++)
        bias[i] = natural[row_order ? row_order[i] : i];
    st = atom_tensor_finite(t, err);
    free(natural);
    *out = bias;
    return st;
}

/* F16 scales, or bytes of which none may be negative or no number. */
static enum atom_status scales_of_part(const struct loader *ld, const char *what, int64_t sets, int64_t groups,
                                       struct atom_linear_part *part, struct atom_error *err)
{
    enum atom_format format = ld->src->scheme.format;
    bool bytes = format == ATOM_FORMAT_NVFP4 || format == ATOM_FORMAT_MXFP4;
    const struct atom_tensor *t;
    enum atom_status st = need(ld, what, ".scales", 1u << (bytes ? ATOM_U8 : ATOM_F16), sets, groups, &t, err);
    if (st)
        return st;
    part->scales = t->data;
    if (!bytes)
        return atom_tensor_finite(t, err);
    st = check_codes(t, format == ATOM_FORMAT_NVFP4 ? 0x7f : 0xff, 0xff, err);
    if (st || format != ATOM_FORMAT_NVFP4)
        return st;
    st = need(ld, what, ".tensor_scale", 1u << ATOM_F32, 1, -1, &t, err);
    st = st ? st : atom_tensor_finite(t, err);
    if (st)
        return st;
    atom_tensor_floats(t, 0, 1, &part->tensor_scale);
    if (part->tensor_scale > 0)
        return ATOM_OK;
    return atom_fail(err, ATOM_ERR_NUMERIC, "%s: tensor '%s' is %g; it must be above 0", t->file, t->name,
                     (double)part->tensor_scale);
}

static enum atom_status outliers_of_part(const struct loader *ld, const char *what, int outliers,
                                         struct atom_linear_part *part, struct atom_error *err)
{
    const struct atom_scheme *s = &ld->src->scheme;
    bool codes = s->format != ATOM_FORMAT_INT;
    const struct atom_tensor *t;
    enum atom_status st;
    if (s->outlier_bits == 16) {
        st = need(ld, what, ".outlier_weight", 1u << ATOM_F16, part->n, outliers, &t, err);
        st = st ? st : atom_tensor_finite(t, err);
        part->outlier_weight = st ? NULL : t->data;
        return st;
    }
    st = need(ld, what, ".outlier_qweight", 1u << (codes ? ATOM_U8 : ATOM_I8), part->n, outliers, &t, err);
    st = st || !codes ? st : check_codes(t, 0x7f, 0x7f, err);
    if (st)
        return st;
    part->outlier_qweight = t->data;
    st = need(ld, what, ".outlier_scales", 1u << ATOM_F16, part->n, -1, &t, err);
    st = st ? st : atom_tensor_finite(t, err);
    part->outlier_scales = st ? NULL : t->data;
    return st;
}

static enum atom_status quantized_part(const struct loader *ld, int proj, struct atom_linear_part *part,
                                       struct atom_error *err)
{
    const struct atom_scheme *s = &ld->src->scheme;
    const struct atom_layout *lay = &ld->layer->sites[atom_projs[proj].site].lay;
    const char *what = atom_projs[proj].name;
    int64_t n = part->n, normal = lay->k - lay->outliers, c = s->rows_per_scale;
    bool bytes = s->wbits == 8;
    const struct atom_tensor *t;
    enum atom_status st =
        need(ld, what, ".qweight", 1u << (bytes ? ATOM_I8 : ATOM_U8), n, bytes ? normal : (normal + 1) / 2, &t, err);
    if (st)
        return st;
    part->kind = bytes ? ATOM_W_BYTE : ATOM_W_NIBBLE;
    part->qweight = t->data;
    part->rows_per_scale = s->rows_per_scale;
    st = scales_of_part(ld, what, (n + c - 1) / c, lay->n_groups, part, err);
    return st || !lay->outliers ? st : outliers_of_part(ld, what, lay->outliers, part, err);
}

/* What a part borrows until its linear is made. */
struct part_memory {
    float *bias;
    void *foreign;
};

static enum atom_status make_part(const struct loader *ld, int proj, struct atom_linear_part *part,
                                  struct part_memory *memory, struct atom_error *err)
{
    const struct atom_config *cfg = ld->src->cfg;
    const struct atom_site *site = &ld->layer->sites[atom_projs[proj].site];
    *part = (struct atom_linear_part){.name = atom_projs[proj].name, .n = atom_proj_rows(cfg, proj)};
    if (atom_projs[proj].linear == ATOM_LIN_GATE_UP)
        part->row_order = ld->layer->sites[ATOM_DOWN_IN].order;
    enum atom_status st;
    if (ld->src->foreign) {
        st = atom_foreign_part(ld->src->foreign, proj, part, &memory->foreign, err);
    } else if (ld->src->scheme.wbits < 16 && !ld->src->float_weights) {
        st = quantized_part(ld, proj, part, err);
    } else {
        const struct atom_tensor *t;
        st = need(ld, part->name, ".weight", ATOM_FLOATS, part->n, site->lay.k, &t, err);
        st = st ? st : atom_tensor_finite(t, err);
        if (!st) {
            part->kind = atom_float_kind(t->dtype);
            part->weight = t->data;
        }
    }
    st = st ? st : read_bias(ld, proj, part->row_order, &memory->bias, err);
    part->bias = memory->bias;
    return st;
}

static enum atom_status make_linear(const struct loader *ld, enum atom_linear_id id, struct atom_error *err)
{
    struct atom_linear_part parts[ATOM_N_PROJ];
    struct part_memory memory[ATOM_N_PROJ] = {{NULL, NULL}};
    int n = 0;
    enum atom_site_id site = ATOM_ATTN_IN;
    enum atom_status st = ATOM_OK;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        if (atom_projs[p].linear == id) {
            site = atom_projs[p].site;
            st = make_part(ld, p, &parts[n], &memory[n], err);
            if (!st && parts[n].kind != parts[0].kind)
                st = atom_fail(err, ATOM_ERR_UNSUPPORTED, "layer %d: %s and %s have different dtypes; they must agree",
                               ld->index, parts[0].name, parts[n].name);
            n++;
        }
    if (!st)
        st = ld->b->linear_create(&ld->layer->sites[site], parts, n, &ld->layer->linears[id], err);
    /* Here, so that no more than one linear is ever in memory twice. */
    atom_tensors_release(ld->src->tensors);
    for (int i = 0; i < n; i++) {
        free(memory[i].bias);
        free(memory[i].foreign);
    }
    return st;
}

enum atom_status atom_layer_load(const struct atom_backend *b, const struct atom_layer_source *src, int index,
                                 struct atom_layer *out, struct atom_error *err)
{
    struct loader ld = {b, src, index, out};
    enum atom_status st = ATOM_OK;
    memset(out, 0, sizeof *out);
    out->backend = b;
    for (int i = 0; i < ATOM_N_SITES && !st; i++)
        st = make_site(&ld, (enum atom_site_id)i, err);
    for (int i = 0; i < 2 && !st; i++)
        st = make_norm(&ld, i, err);
    for (int i = 0; i < ATOM_N_LINEARS && !st; i++)
        st = make_linear(&ld, (enum atom_linear_id)i, err);
    st = st ? st : atom_tensors_check(src->tensors, err);
    if (st)
        atom_layer_fini(out);
    return st;
}
