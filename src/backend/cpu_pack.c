/* SPDX-License-Identifier: Apache-2.0 */
/* From the tensors of a checkpoint to panels of 32 rows. */
#include "backend/cpu.h"
#include "base/aligned.h"
#include "base/thread.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { STEP = 4 * ATOM_PANEL }; /* bytes of a step: four of each row */

static size_t element_bytes(enum atom_weight_kind kind) { return kind == ATOM_W_F32 ? 4 : 2; }

static size_t panel_bytes(const struct atom_layout *lay, enum atom_weight_kind kind)
{
    if (atom_kind_is_float(kind))
        return (size_t)lay->k * ATOM_PANEL * element_bytes(kind);
    size_t normal =
        lay->first_outlier_run < lay->n_runs ? (size_t)lay->runs[lay->first_outlier_run].offset : (size_t)lay->k_padded;
    size_t outliers = (size_t)lay->k_padded - normal;
    return normal * (kind == ATOM_W_NIBBLE ? 16 : 32) + outliers * 32;
}

struct packer {
    struct atom_linear *lin;
    const struct atom_site *site;
    const struct atom_linear_part *parts;
    int n_parts;
};

static void pack_float_row(const struct packer *pk, const struct atom_linear_part *part, int row, int r, uint8_t *panel)
{
    size_t size = element_bytes(part->kind), k = (size_t)pk->site->lay.k;
    size_t from = (size_t)(part->row_order ? part->row_order[row] : row) * k;
    const int32_t *order = pk->site->order;
    for (size_t c = 0; c < k; c++) {
        size_t at = from + (order ? (size_t)order[c] : c);
        memcpy(panel + (c * ATOM_PANEL + (size_t)r) * size, (const uint8_t *)part->weight + at * size, size);
    }
}

static int stored_q(const struct atom_linear_part *part, int row, int c, int normal)
{
    if (part->kind == ATOM_W_BYTE)
        return ((const int8_t *)part->qweight)[(size_t)row * (size_t)normal + (size_t)c];
    uint8_t both = part->qweight[(size_t)row * (size_t)((normal + 1) / 2) + (size_t)(c / 2)];
    return (c % 2 ? both >> 4 : both & 15) - 8;
}

static void pack_int_row(const struct packer *pk, const struct atom_linear_part *part, int row, int r, uint8_t *panel)
{
    const struct atom_layout *lay = &pk->lin->lay;
    int normal = lay->k - lay->outliers;
    uint8_t *to = panel + (size_t)r * 4;
    for (int i = 0; i < lay->n_runs; i++) {
        const struct atom_run *run = &lay->runs[i];
        bool outlier = run->scale == lay->n_groups, nibbles = part->kind == ATOM_W_NIBBLE && !outlier;
        for (int c = 0; c < run->padded; c++) {
            int at = run->first + c, q = 0;
            if (c < run->len)
                q = outlier ? part->outlier_qweight[(size_t)row * (size_t)lay->outliers + (size_t)(at - normal)]
                            : stored_q(part, row, at, normal);
            if (!nibbles)
                to[(size_t)(c / 4) * STEP + (size_t)(c % 4)] = (uint8_t)(q + 128);
            else if (c % 8 < 4)
                to[(size_t)(c / 8) * STEP + (size_t)(c % 4)] = (uint8_t)(q + 8);
            else
                to[(size_t)(c / 8) * STEP + (size_t)(c % 4)] |= (uint8_t)((q + 8) << 4);
        }
        to += (size_t)run->padded * (nibbles ? 16 : 32);
    }
}

static void pack_scales(const struct packer *pk, const struct atom_linear_part *part, int row, int out_row)
{
    const struct atom_layout *lay = &pk->lin->lay;
    uint16_t *to = pk->lin->p.scales + (size_t)(out_row / ATOM_PANEL) * (size_t)lay->n_scales * ATOM_PANEL +
                   (size_t)(out_row % ATOM_PANEL);
    const uint8_t *from = part->scales; /* F16, at any address */
    from += (size_t)(row / part->rows_per_scale) * (size_t)lay->n_groups * 2;
    for (int g = 0; g < lay->n_groups; g++)
        memcpy(&to[g * ATOM_PANEL], from + 2 * g, 2);
    if (lay->outliers)
        memcpy(&to[lay->n_groups * ATOM_PANEL], (const uint8_t *)part->outlier_scales + 2 * (size_t)row, 2);
}

/* Rows that pad the last panel: q = 0 everywhere, which the unsigned form stores as 8 or 128. */
static void pack_empty_row(const struct packer *pk, int r, uint8_t *panel)
{
    const struct atom_layout *lay = &pk->lin->lay;
    uint8_t *to = panel + (size_t)r * 4;
    for (int i = 0; i < lay->n_runs; i++) {
        bool nibbles = pk->lin->p.kind == ATOM_W_NIBBLE && lay->runs[i].scale < lay->n_groups;
        int steps = lay->runs[i].padded / (nibbles ? 8 : 4);
        for (int s = 0; s < steps; s++)
            memset(to + (size_t)s * STEP, nibbles ? 0x88 : 0x80, 4);
        to += (size_t)steps * STEP;
    }
}

static void pack_panel(void *ctx, int panel, int worker)
{
    const struct packer *pk = ctx;
    struct atom_packed *p = &pk->lin->p;
    uint8_t *to = p->data + (size_t)panel * p->panel_bytes;
    (void)worker;
    for (int r = 0; r < ATOM_PANEL; r++) {
        int out_row = panel * ATOM_PANEL + r, row = out_row, part = 0;
        while (part < pk->n_parts && row >= pk->parts[part].n)
            row -= pk->parts[part++].n;
        if (part == pk->n_parts) {
            if (!atom_kind_is_float(p->kind))
                pack_empty_row(pk, r, to);
        } else if (atom_kind_is_float(p->kind)) {
            pack_float_row(pk, &pk->parts[part], row, r, to);
        } else {
            pack_int_row(pk, &pk->parts[part], row, r, to);
            pack_scales(pk, &pk->parts[part], row, out_row);
        }
    }
}

static enum atom_status gather_bias(struct atom_packed *p, const struct atom_linear_part *parts, int n_parts,
                                    struct atom_error *err)
{
    bool any = false;
    for (int i = 0; i < n_parts; i++)
        any |= parts[i].bias != NULL;
    if (!any)
        return ATOM_OK;
    p->bias = calloc((size_t)p->n, sizeof *p->bias);
    if (!p->bias)
        return atom_fail_nomem(err, (size_t)p->n * sizeof *p->bias);
    for (int i = 0, at = 0; i < n_parts; at += parts[i++].n)
        if (parts[i].bias)
            memcpy(p->bias + at, parts[i].bias, (size_t)parts[i].n * sizeof *p->bias);
    return ATOM_OK;
}

enum atom_status atom_cpu_linear_create(const struct atom_site *site, const struct atom_linear_part *parts, int n_parts,
                                        struct atom_linear **out, struct atom_error *err)
{
    const struct atom_layout *lay = &site->lay;
    enum atom_status st = ATOM_ERR_NOMEM;
    struct atom_linear *lin = calloc(1, sizeof *lin);
    if (!lin)
        return atom_fail_nomem(err, sizeof *lin);
    st = atom_layout_init(&lin->lay, lay->k, lay->group, lay->outliers, err);
    if (st)
        goto fail;
    struct atom_packed *p = &lin->p;
    p->kind = parts[0].kind;
    p->lay = &lin->lay;
    for (int i = 0; i < n_parts; i++) {
        assert(parts[i].kind == p->kind);
        p->n += parts[i].n;
    }
    p->n_panels = (p->n + ATOM_PANEL - 1) / ATOM_PANEL;
    p->panel_bytes = panel_bytes(lay, p->kind);
    size_t n_bytes = p->panel_bytes * (size_t)p->n_panels;
    size_t scale_bytes = atom_kind_is_float(p->kind) ? 0 : (size_t)p->n_panels * ATOM_PANEL * (size_t)lay->n_scales * 2;
    p->data = atom_alloc64_huge(n_bytes);
    p->scales = scale_bytes ? atom_alloc64_huge(scale_bytes) : NULL;
    if (!p->data || (scale_bytes && !p->scales)) {
        st = atom_fail_nomem(err, n_bytes + scale_bytes);
        goto fail;
    }
    st = gather_bias(p, parts, n_parts, err);
    if (st)
        goto fail;
    struct packer pk = {lin, site, parts, n_parts};
    atom_parallel(p->n_panels, pack_panel, &pk);
    *out = lin;
    return ATOM_OK;
fail:
    atom_cpu_linear_free(lin);
    return st;
}

void atom_cpu_linear_free(struct atom_linear *lin)
{
    if (!lin)
        return;
    atom_free64(lin->p.data);
    atom_free64(lin->p.scales);
    free(lin->p.bias);
    atom_layout_fini(&lin->lay);
    free(lin);
}

void atom_cpu_linear_take_bias(struct atom_linear *lin, struct atom_linear *from)
{
    assert(lin->p.n == from->p.n && !lin->p.bias);
    lin->p.bias = from->p.bias;
    from->p.bias = NULL;
}
