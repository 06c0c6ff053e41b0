/* SPDX-License-Identifier: Apache-2.0 */
/* Which form each linear takes, and in which order its channels come. */
#include "model/foreign_layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- orders ------------------------------------------------------------------------------------------------------ */

/* Channels sorted by group, each group's as they came; order [k], counts [n_groups] of zeros. False: the groups are not
 * cut as a layout cuts them. */
static bool sort_by_group(const struct atom_codes *c, const int32_t *groups, int32_t *order, int32_t *counts)
{
    for (int i = 0; i < c->k; i++) {
        int64_t at = (int64_t)groups[i] * c->group + counts[groups[i]]++;
        if (counts[groups[i]] > c->group || at >= c->k)
            return false;
        order[at] = i;
    }
    return true;
}

static bool is_sorted(const int32_t *groups, int k)
{
    for (int i = 1; i < k; i++)
        if (groups[i] < groups[i - 1])
            return false;
    return true;
}

static enum atom_status make_order(const struct atom_codes *c, const int32_t *groups, int32_t **order, const char **why,
                                   struct atom_error *err)
{
    int32_t *sorted = malloc((size_t)c->k * sizeof *sorted), *counts = calloc((size_t)c->n_groups, sizeof *counts);
    enum atom_status st = ATOM_OK;
    if (!sorted || !counts)
        st = atom_fail_nomem(err, (size_t)c->k * sizeof *sorted);
    else if (!sort_by_group(c, groups, sorted, counts))
        *why = "groups of different sizes";
    free(counts);
    if (!st && !*why && !is_sorted(groups, c->k))
        *order = sorted;
    else
        free(sorted);
    return st;
}

/* Groups of all that reads a site, which must be the same for the site to have an order. *why: what is in the way. */
static enum atom_status order_site(const struct atom_foreign_layer *l, enum atom_site_id site, int32_t **order,
                                   const char **why, struct atom_error *err)
{
    int32_t *first = NULL, *groups = NULL;
    const struct atom_codes *c = NULL;
    enum atom_status st = ATOM_OK;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        if (atom_projs[p].site != site || l->linears[p].weight)
            continue;
        st = atom_codes_groups(&l->linears[p].codes, &groups, err);
        if (!st && first && memcmp(first, groups, (size_t)c->k * sizeof *first))
            *why = "another g_idx than its neighbours'";
        if (!st && first)
            free(groups);
        else if (!st)
            first = groups, c = &l->linears[p].codes;
    }
    if (!st && c && !*why)
        st = make_order(c, first, order, why, err);
    free(first);
    return st;
}

/* ---- forms ------------------------------------------------------------------------------------------------------- */

/* Some programs write a bias for every linear; one that config.json does not speak of may only be zeros. */
static enum atom_status check_bias(const struct atom_config *cfg, const struct atom_tensors *tensors, int proj,
                                   const struct atom_foreign_linear *lin, struct atom_error *err)
{
    char name[sizeof lin->name + sizeof ".bias"];
    snprintf(name, sizeof name, "%s.bias", lin->name);
    const struct atom_tensor *bias = atom_tensors_find(tensors, name);
    bool known = atom_projs[proj].linear <= ATOM_LIN_O ? cfg->attention_bias : cfg->mlp_bias;
    for (size_t i = 0; bias && !known && i < bias->n_bytes; i++)
        if (((const uint8_t *)bias->data)[i])
            return atom_fail(err, ATOM_ERR_UNSUPPORTED,
                             "%s: tensor '%s' is a bias that is not zero, but config.json says that there is none",
                             bias->file, bias->name);
    return ATOM_OK;
}

static enum atom_status open_linear(const struct atom_config *cfg, const struct atom_tensors *tensors, int index,
                                    int proj, struct atom_foreign_linear *out, struct atom_error *err)
{
    char name[sizeof out->name + sizeof ".weight"];
    int n = atom_proj_rows(cfg, proj), k = atom_site_channels(cfg, atom_projs[proj].site);
    snprintf(out->name, sizeof out->name, "model.layers.%d.%s", index, atom_projs[proj].name);
    out->codes = (struct atom_codes){.name = out->name, .n = n, .k = k};
    enum atom_status st = check_bias(cfg, tensors, proj, out, err);
    st = st ? st : cfg->foreign.format->open(&cfg->foreign, tensors, &out->codes, err);
    if (st || out->codes.words)
        return st ? st : atom_codes_form(&out->codes, &out->form, &out->why, err);
    snprintf(name, sizeof name, "%s.weight", out->name);
    out->form = ATOM_FORM_FLOAT;
    out->why = "stored as floats";
    return atom_tensors_need(tensors, name, ATOM_FLOATS, n, k, &out->weight, err);
}

/* One form for all that reads a site: the widest. */
static enum atom_status settle_site(const struct atom_config *cfg, struct atom_foreign_layer *l, enum atom_site_id site,
                                    struct atom_error *err)
{
    enum atom_code_form widest = ATOM_FORM_NIBBLE;
    const char *why = NULL, *order_why = NULL;
    int floats = 0, n = 0;
    enum atom_status st = order_site(l, site, &l->orders[site], &order_why, err);
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        if (atom_projs[p].site != site)
            continue;
        const struct atom_foreign_linear *lin = &l->linears[p];
        if (cfg->scheme.abits < 16 && lin->weight)
            st = atom_fail(err, ATOM_ERR_UNSUPPORTED,
                           "%s is stored as floats, but %s quantizes the activations of all linears to %d bits here; a "
                           "linear left out of that is not supported",
                           lin->name, cfg->foreign.format->method, cfg->scheme.abits);
        if (lin->form > widest)
            widest = lin->form, why = lin->why;
        floats += lin->weight != NULL;
        n++;
    }
    if (order_why)
        widest = ATOM_FORM_FLOAT, why = order_why;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        if (atom_projs[p].site == site) {
            struct atom_foreign_linear *lin = &l->linears[p];
            lin->why = lin->form == widest && lin->why ? lin->why
                       : floats && floats < n          ? "a neighbour stored as floats"
                                                       : why;
            lin->form = widest;
        }
    return st;
}

enum atom_status atom_foreign_layer_open(const struct atom_config *cfg, const struct atom_tensors *tensors, int index,
                                         struct atom_foreign_layer *out, struct atom_error *err)
{
    enum atom_status st = ATOM_OK;
    memset(out, 0, sizeof *out);
    for (int p = 0; p < ATOM_N_PROJ && !st; p++)
        st = open_linear(cfg, tensors, index, p, &out->linears[p], err);
    for (int i = 0; i < ATOM_N_SITES && !st; i++)
        st = settle_site(cfg, out, (enum atom_site_id)i, err);
    if (st)
        atom_foreign_layer_fini(out);
    return st;
}

void atom_foreign_layer_fini(struct atom_foreign_layer *l)
{
    for (int i = 0; i < ATOM_N_SITES; i++)
        free(l->orders[i]);
    memset(l, 0, sizeof *l);
}

enum atom_status atom_foreign_layer_load(const struct atom_backend *b, const struct atom_config *cfg,
                                         const struct atom_tensors *tensors, int index, struct atom_layer *out,
                                         struct atom_error *err)
{
    struct atom_foreign_layer foreign;
    enum atom_status st = atom_foreign_layer_open(cfg, tensors, index, &foreign, err);
    if (st)
        return st;
    const struct atom_layer_source src = {.cfg = cfg,
                                          .tensors = tensors,
                                          .scheme = cfg->scheme,
                                          .orders = (const int32_t *const *)foreign.orders,
                                          .foreign = &foreign};
    st = atom_layer_load(b, &src, index, out, err);
    atom_foreign_layer_fini(&foreign);
    return st;
}
