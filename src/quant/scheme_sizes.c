/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/scheme_sizes.h"

#include "kernels/float_formats.h"
#include "model/layer.h"
#include "quant/order.h"

static const char *narrowest_site(const struct atom_config *cfg, int *k)
{
    int i = 0;
    *k = atom_narrowest_site(cfg);
    while (i < ATOM_N_SITES - 1 && atom_site_channels(cfg, (enum atom_site_id)i) != *k)
        i++;
    return atom_site_names[i];
}

static const char *shortest_linear(const struct atom_config *cfg, int *n)
{
    int at = 0;
    for (int p = 1; p < ATOM_N_PROJ; p++)
        at = atom_proj_rows(cfg, p) < atom_proj_rows(cfg, at) ? p : at;
    *n = atom_proj_rows(cfg, at);
    return atom_projs[at].name;
}

enum atom_status atom_scheme_settle(const struct atom_config *cfg, bool fit, struct atom_scheme *s,
                                    struct atom_error *err)
{
    int k, n;
    const char *site = narrowest_site(cfg, &k), *linear = shortest_linear(cfg, &n);
    if (s->outliers < 0)
        s->outliers = atom_outliers_quarter(128, k);
    if (s->wbits == 16 && s->abits == 16)
        return ATOM_OK;
    bool many_outliers = s->outliers > k;
    bool wide = s->group > k && !atom_format_group(s->format); /* what a format fixes stays */
    bool tall = s->wbits < 16 && s->rows_per_scale > n;
    if (many_outliers && !fit)
        return atom_fail(err, ATOM_ERR_INVALID, "%d outliers are more than the %d channels of %s", s->outliers, k,
                         site);
    if (wide && !fit)
        return atom_fail(err, ATOM_ERR_INVALID,
                         "a group of %d is more than the %d channels of %s; 0 makes a group of a whole row", s->group,
                         k, site);
    if (tall && !fit)
        return atom_fail(err, ATOM_ERR_INVALID, "%d rows per scale are more than the %d rows of %s", s->rows_per_scale,
                         n, linear);
    s->outliers = many_outliers ? k : s->outliers;
    s->group = wide ? k : s->group;
    s->rows_per_scale = tall ? n : s->rows_per_scale;
    return ATOM_OK;
}
