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
    float *read_back; /* [workers, k]; NULL: parts are packed as they are */
};

/* Where a row of a panel comes from; no part: it pads the last panel. */
struct source {
    const struct atom_linear_part *part;
    size_t row;
};

static void find_rows(const struct packer *pk, int panel, struct source rows[ATOM_PANEL])
{
    for (int r = 0; r < ATOM_PANEL; r++) {
        int row = panel * ATOM_PANEL + r, i = 0;
        while (i < pk->n_parts && row >= pk->parts[i].n)
            row -= pk->parts[i++].n;
        rows[r] = (struct source){i < pk->n_parts ? &pk->parts[i] : NULL, (size_t)row};
    }
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

/* Row r of a panel: picked, column by column, from a row that the first level of cache holds. */
static inline void pick_columns(const uint8_t *row, const int32_t *order, int k, size_t size, uint8_t *to)
{
    for (int c = 0; c < k; c++)
        memcpy(to + (size_t)c * ATOM_PANEL * size, row + (size_t)(order ? order[c] : c) * size, size);
}

static void pack_float_row(const struct packer *pk, const struct source *s, int r, uint8_t *panel)
{
    const struct atom_linear_part *part = s->part;
    const int32_t *order = pk->site->order;
    int k = pk->site->lay.k;
    size_t size = element_bytes(part->kind), row = part->row_order ? (size_t)part->row_order[s->row] : s->row;
    const uint8_t *from = (const uint8_t *)part->weight + row * (size_t)k * size;
    if (size == 4)
        pick_columns(from, order, k, 4, panel + (size_t)r * 4);
    else
        pick_columns(from, order, k, 2, panel + (size_t)r * 2);
}

/* The same of a row that is simulated. */
static void read_back_row(const struct packer *pk, const struct source *s, int r, float *row, uint8_t *panel)
{
    atom_cpu_read_back(pk->site, s->part, s->row, row);
    pick_columns((const uint8_t *)row, NULL, pk->site->lay.k, sizeof *row, panel + (size_t)r * sizeof *row);
}

/* ---- integers ---------------------------------------------------------------------------------------------------- */

enum { RUN_STEPS = ATOM_RUN_MAX / 4 }; /* of a run at most */

/* Eight channels of a row, the first in the lowest nibble, in the order a step has them: 0 4 1 5 2 6 3 7. */
static inline uint32_t shuffle(uint32_t x)
{
    uint32_t t = (x ^ x >> 8) & 0x0000FF00;
    x ^= t ^ t << 8;
    t = (x ^ x >> 4) & 0x00F000F0;
    return x ^ t ^ t << 4;
}

/* The steps of a run from four bytes a step of each row. Rows are turned first, then transposed: either loop is one
 * that compilers are good at. */
static inline void put_steps(const uint8_t *const rows[ATOM_PANEL], int n_steps, bool nibbles, uint8_t *to)
{
    uint32_t words[ATOM_PANEL][RUN_STEPS];
    for (int r = 0; r < ATOM_PANEL; r++) {
        memcpy(words[r], rows[r], (size_t)n_steps * 4);
        if (nibbles)
            for (int i = 0; i < n_steps; i++)
                words[r][i] = shuffle(words[r][i]);
        else
            for (int i = 0; i < n_steps; i++)
                words[r][i] ^= 0x80808080; /* q + 128 */
    }
    for (int i = 0; i < n_steps; i++, to += STEP)
        for (int r = 0; r < ATOM_PANEL; r++)
            memcpy(to + 4 * r, &words[r][i], 4);
}

/* Whole runs by themselves: their length, known to the compiler, is worth 40 %. */
static void put_run(const uint8_t *const rows[ATOM_PANEL], int n_steps, bool nibbles, uint8_t *to)
{
    if (nibbles && n_steps == ATOM_RUN_MAX / 8)
        put_steps(rows, ATOM_RUN_MAX / 8, true, to);
    else if (!nibbles && n_steps == ATOM_RUN_MAX / 4)
        put_steps(rows, ATOM_RUN_MAX / 4, false, to);
    else
        put_steps(rows, n_steps, nibbles, to);
}

/* A run whose columns start at an odd one, or fill no whole step, is copied to start at an even one and padded with
 * q = 0. */
static const uint8_t *stage_run(const uint8_t *row, const struct atom_run *run, bool nibbles, uint8_t *stage)
{
    if (!nibbles) {
        memcpy(stage, row + run->first, (size_t)run->len);
        memset(stage + run->len, 0, (size_t)(run->padded - run->len));
        return stage;
    }
    for (int c = 0; c < run->padded; c++) {
        int at = run->first + c, q = c < run->len ? row[at / 2] >> (at % 2 * 4) & 15 : 8;
        stage[c / 2] = (uint8_t)(c % 2 ? stage[c / 2] | q << 4 : q);
    }
    return stage;
}

/* Where a source's integers of a run start. */
static const uint8_t *find_run(const struct atom_layout *lay, const struct source *s, struct atom_run run,
                               uint8_t *stage)
{
    int normal = lay->k - lay->outliers;
    bool outlier = run.scale == lay->n_groups, nibbles = s->part->kind == ATOM_W_NIBBLE && !outlier;
    const uint8_t *row;
    if (outlier) {
        row = (const uint8_t *)s->part->outlier_qweight + s->row * (size_t)lay->outliers;
        run.first -= normal;
    } else {
        row = s->part->qweight + s->row * (size_t)(nibbles ? (normal + 1) / 2 : normal);
    }
    if (run.len < run.padded || (nibbles && run.first % 2))
        return stage_run(row, &run, nibbles, stage);
    return row + (nibbles ? run.first / 2 : run.first);
}

static void pack_integers(const struct packer *pk, const struct source rows[ATOM_PANEL], uint8_t *to)
{
    const struct atom_layout *lay = &pk->lin->lay;
    uint8_t stage[ATOM_PANEL][ATOM_RUN_MAX], zeros[2][ATOM_RUN_MAX];
    const uint8_t *from[ATOM_PANEL];
    memset(zeros[false], 0, sizeof zeros[false]);
    memset(zeros[true], 0x88, sizeof zeros[true]);
    for (int i = 0; i < lay->n_runs; i++) {
        const struct atom_run *run = &lay->runs[i];
        bool nibbles = pk->lin->p.kind == ATOM_W_NIBBLE && run->scale < lay->n_groups;
        int n_steps = run->padded / (nibbles ? 8 : 4);
        for (int r = 0; r < ATOM_PANEL; r++)
            from[r] = rows[r].part ? find_run(lay, &rows[r], *run, stage[r]) : zeros[nibbles];
        put_run(from, n_steps, nibbles, to);
        to += n_steps * STEP;
    }
}

/* Row r of a panel's scales. */
static void pack_scales(const struct atom_layout *lay, const struct source *s, uint16_t *to)
{
    const struct atom_linear_part *part = s->part;
    const uint8_t *from = part->scales; /* F16, at any address */
    size_t stride = part->row_scales ? 0 : 2, set = s->row / (size_t)part->rows_per_scale;
    from += set * (part->row_scales ? 2 : (size_t)lay->n_groups * 2);
    for (int g = 0; g < lay->n_groups; g++)
        memcpy(&to[g * ATOM_PANEL], from + stride * (size_t)g, 2);
    if (lay->outliers)
        memcpy(&to[lay->n_groups * ATOM_PANEL], (const uint8_t *)part->outlier_scales + 2 * s->row, 2);
}

/* ---- panels ------------------------------------------------------------------------------------------------------ */

static void pack_panel(void *ctx, int panel, int worker)
{
    const struct packer *pk = ctx;
    const struct atom_packed *p = &pk->lin->p;
    bool floats = atom_kind_is_float(p->kind);
    uint8_t *to = p->data + (size_t)panel * p->panel_bytes;
    size_t scales = (size_t)panel * (size_t)p->lay->n_scales * ATOM_PANEL;
    struct source rows[ATOM_PANEL];
    float *read_back = pk->read_back ? pk->read_back + (size_t)worker * (size_t)p->lay->k : NULL;
    find_rows(pk, panel, rows);
    if (!floats)
        pack_integers(pk, rows, to);
    for (int r = 0; r < ATOM_PANEL; r++) {
        if (rows[r].part && read_back)
            read_back_row(pk, &rows[r], r, read_back, to);
        else if (rows[r].part && floats)
            pack_float_row(pk, &rows[r], r, to);
        else if (rows[r].part)
            pack_scales(p->lay, &rows[r], p->scales + scales + r);
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
    struct packer pk = {lin, site, parts, n_parts, NULL};
    struct atom_packed *p = &lin->p;
    bool simulated = !atom_kind_is_float(parts[0].kind) && atom_site_is_simulated(site);
    p->kind = simulated ? ATOM_W_F32 : parts[0].kind;
    bool floats = atom_kind_is_float(p->kind);
    /* Groups mean nothing to floats, whose sums are one chain: runs as long as can be are the fastest. */
    st = atom_layout_init(&lin->lay, lay->k, floats ? 0 : lay->group, floats ? 0 : lay->outliers, err);
    if (st)
        goto fail;
    lay = &lin->lay;
    p->lay = lay;
    for (int i = 0; i < n_parts; i++) {
        assert(parts[i].kind == parts[0].kind);
        p->n += parts[i].n;
    }
    p->n_panels = (p->n + ATOM_PANEL - 1) / ATOM_PANEL;
    p->panel_bytes = panel_bytes(lay, p->kind);
    size_t n_bytes = p->panel_bytes * (size_t)p->n_panels;
    size_t scale_bytes = floats ? 0 : (size_t)p->n_panels * ATOM_PANEL * (size_t)lay->n_scales * 2;
    p->data = atom_alloc64_huge(n_bytes);
    p->scales = scale_bytes ? atom_alloc64_huge(scale_bytes) : NULL;
    size_t row_bytes = simulated ? (size_t)atom_pool_size() * (size_t)lay->k * sizeof *pk.read_back : 0;
    pk.read_back = row_bytes ? malloc(row_bytes) : NULL;
    if (!p->data || (scale_bytes && !p->scales) || (row_bytes && !pk.read_back)) {
        st = atom_fail_nomem(err, n_bytes + scale_bytes + row_bytes);
        goto fail;
    }
    st = gather_bias(p, parts, n_parts, err);
    if (st)
        goto fail;
    atom_parallel(p->n_panels, pack_panel, &pk);
    free(pk.read_back);
    *out = lin;
    return ATOM_OK;
fail:
    free(pk.read_back);
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
