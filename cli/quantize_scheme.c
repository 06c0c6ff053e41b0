/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize_scheme.h"

#include <stdio.h>

enum { ASKED_PEAK = 1 }; /* of --smooth-search: this word or a later one */

/* ---- what is asked for, on top of the named scheme ----------------------------------------------------------------
 */

static void apply_counts(const struct quantize_scheme *r, struct atom_scheme *s)
{
    static const unsigned rotations[] = {0, ATOM_ROTATE_QK, ATOM_ROTATE_V, ATOM_ROTATE_QK | ATOM_ROTATE_V};
    const struct {
        int from, *to;
    } ints[] = {{r->wbits, &s->wbits},          {r->abits, &s->abits},
                {r->kvbits, &s->kvbits},        {r->group, &s->group},
                {r->outliers, &s->outliers},    {r->rows_per_scale, &s->rows_per_scale},
                {r->lm_head, &s->lm_head_bits}, {r->outlier_bits, &s->outlier_bits}};
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++)
        if (ints[i].from >= 0)
            *ints[i].to = ints[i].from;
    if (r->format >= 0)
        s->format = (enum atom_format)r->format;
    if (r->kv_rope >= 0)
        s->kv_rope = r->kv_rope == 0 ? ATOM_KV_PRE : ATOM_KV_POST;
    if (r->rotate >= 0)
        s->rotate = rotations[r->rotate];
}

static void apply_clips(const struct quantize_scheme *r, struct atom_scheme *s)
{
    if (r->act_clip > 0)
        s->act_clip = r->act_clip;
    if (r->kv_clip > 0)
        s->kv_clip = r->kv_clip;
    if (r->weight_clip > 0) {
        s->weight_clip = r->weight_clip;
        s->clip_search = false;
    }
    if (r->search || r->no_search)
        s->clip_search = r->search;
}

static void apply_fitting(const struct quantize_scheme *r, struct atom_scheme *s)
{
    if (r->no_gptq || r->gptq)
        s->gptq = r->gptq;
    if (r->smooth >= 0)
        s->smooth = r->smooth;
    if (r->smooth_search >= 0)
        s->smooth_search = (enum atom_smooth_search)r->smooth_search;
    if (r->asymmetric >= 0)
        s->asymmetric = r->asymmetric;
}

/* What the named scheme has and the options leave without effect goes, so that the checkpoint says what was done. */
static void drop_idle(struct atom_scheme *s)
{
    if (s->wbits == 16) {
        s->gptq = s->clip_search = false;
        s->smooth = 0;
    }
    if (!s->gptq)
        s->asymmetric = 0;
    if (!(s->smooth > 0))
        s->smooth_search = ATOM_SMOOTH_FIXED;
}

/* ---- what makes no sense -------------------------------------------------------------------------------------------
 */

/* `s` is the scheme as asked for. */
static int refuse_idle(const struct cli_command *cmd, const struct quantize_scheme *r, const struct atom_scheme *s)
{
    const bool stored = s->wbits == 16, exact = s->abits == 16, search = s->smooth_search != ATOM_SMOOTH_FIXED;
    const struct {
        bool asked, idle;
        const char *option, *why;
    } rows[] = {
        {r->smooth_search >= ASKED_PEAK, stored, "--smooth-search", "beside --wbits 16"},
        {r->smooth_search >= ASKED_PEAK, !(s->smooth > 0), "--smooth-search", "beside --smooth 0"},
        {r->smooth > 0, stored, "--smooth", "beside --wbits 16"},
        {r->smooth > 0, exact && !search, "--smooth", "beside --abits 16 without --smooth-search"},
        {r->asymmetric > 0, stored, "--asymmetric", "beside --wbits 16"},
        {r->asymmetric > 0, !s->gptq, "--asymmetric", "without --gptq"},
        {r->gptq, stored, "--gptq", "beside --wbits 16"},
        {r->search, stored, "--search-clip", "beside --wbits 16"},
        {r->weight_clip > 0, stored, "--weight-clip", "beside --wbits 16"},
        {r->rows_per_scale > 1, stored, "--rows-per-scale", "beside --wbits 16"},
        {r->act_clip > 0, exact, "--act-clip", "beside --abits 16"},
        {r->kv_clip > 0, s->kvbits == 16, "--kv-clip", "beside --kvbits 16"},
        {r->format > 0, stored && exact, "--format", "beside --wbits 16 --abits 16"},
        {r->group > 0, stored && exact, "--group", "beside --wbits 16 --abits 16"},
        {r->outliers > 0, stored && exact, "--outliers", "beside --wbits 16 --abits 16"},
        {r->outlier_bits > 0, stored && exact, "--outlier-bits", "beside --wbits 16 --abits 16"},
        {r->outlier_bits > 0, s->outliers == 0, "--outlier-bits", "beside --outliers 0"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].asked && rows[i].idle)
            return cli_usage(cmd, "%s does nothing %s (the scheme is '%s')", rows[i].option, rows[i].why, r->name);
    return CLI_GO_ON;
}

int quantize_scheme_settle(const struct cli_command *cmd, const struct quantize_scheme *r,
                           struct atom_quantize_options *o)
{
    struct atom_error err = {0};
    if (r->gptq && r->no_gptq)
        return cli_usage(cmd, "--gptq and --no-gptq exclude each other");
    if (r->search && r->no_search)
        return cli_usage(cmd, "--search-clip and --no-search-clip exclude each other");
    if (atom_scheme_named(r->name, &o->scheme, &err))
        return cli_usage(cmd, "%s", err.message);
    apply_counts(r, &o->scheme);
    apply_clips(r, &o->scheme);
    apply_fitting(r, &o->scheme);
    int rc = refuse_idle(cmd, r, &o->scheme);
    drop_idle(&o->scheme);
    /* What somebody asks for in numbers is not to be another number. */
    o->fit = r->group < 0 && r->outliers < 0 && r->rows_per_scale < 0;
    return rc;
}

const char *quantize_scheme_list(char *text, size_t room)
{
    int n, used = 0;
    const struct atom_named_scheme *s = atom_named_schemes(&n);
    for (int i = 0; i < n && (size_t)used < room; i++) {
        char names[64];
        snprintf(names, sizeof names, "%s%s%s", s[i].name, s[i].also ? ", " : "", s[i].also ? s[i].also : "");
        used += snprintf(text + used, room - (size_t)used, "  %-18s  %s\n", names, s[i].about);
    }
    return text;
}
