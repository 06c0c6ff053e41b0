/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/gpu_plan.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const atom_gpu_scheme_names[ATOM_GPU_N_SCHEMES] = {"w4a4", "w4a8", "w8a8", "w4a16", "fp16", "int8", "fp8"};

enum { MOST_ROWS = 1 << 20, OUTLIERS = 128 };

static int smaller(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

static enum atom_status add_matrix(struct atom_gpu_plan *p, int n, int k, const char *whose, struct atom_error *err)
{
    struct atom_gpu_matrix *m = p->matrices;
    while (m < p->matrices + p->n_matrices && (m->n != n || m->k != k))
        m++;
    if (m == p->matrices + p->n_matrices) {
        if (p->n_matrices == ATOM_GPU_MAX_MATRICES)
            return atom_fail(err, ATOM_ERR_INVALID, "more than %d linears", ATOM_GPU_MAX_MATRICES);
        p->n_matrices++;
        *m = (struct atom_gpu_matrix){.n = n, .k = k, .outliers = OUTLIERS < k / 4 ? OUTLIERS : k / 4};
        snprintf(m->shape, sizeof m->shape, "%dx%d", n, k);
    }
    size_t used = strlen(m->whose);
    if (*whose && !strstr(m->whose, whose))
        snprintf(m->whose + used, sizeof m->whose - used, "%s%s", used ? ", " : "", whose);
    return ATOM_OK;
}

static enum atom_status add_model(struct atom_gpu_plan *p, const struct atom_shape *s, struct atom_error *err)
{
    int heads = s->heads * s->head_dim, kv = 2 * s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int n, k;
    } linears[] = {{"qkv", heads + kv, s->hidden},
                   {"o", s->hidden, heads},
                   {"gate_up", 2 * s->intermediate, s->hidden},
                   {"down", s->hidden, s->intermediate}};
    enum atom_status st = ATOM_OK;
    for (size_t i = 0; i < sizeof linears / sizeof linears[0] && !st; i++) {
        char whose[64];
        snprintf(whose, sizeof whose, "%s %s", s->name, linears[i].name);
        st = add_matrix(p, linears[i].n, linears[i].k, whose, err);
    }
    p->models[p->n_models++] = s;
    return st;
}

/* "11008x4096" */
static bool read_matrix(const char *text, int *n, int *k)
{
    char *end;
    long rows = strtol(text, &end, 10), channels;
    if (*text < '0' || *text > '9' || *end != 'x' || end[1] < '0' || end[1] > '9')
        return false;
    channels = strtol(end + 1, &end, 10);
    if (*end || rows < 1 || rows > MOST_ROWS || channels < 1 || channels > MOST_ROWS)
        return false;
    *n = (int)rows;
    *k = (int)channels;
    return true;
}

static enum atom_status add_shape(struct atom_gpu_plan *p, const char *text, struct atom_error *err)
{
    const struct atom_shape *model;
    struct atom_error why = {0};
    int n, k;
    if (read_matrix(text, &n, &k))
        return add_matrix(p, n, k, "", err);
    if (atom_shape_find(text, &model, &why))
        return atom_fail(err, ATOM_ERR_INVALID, "%s; a linear by itself is rows x channels, as 11008x4096",
                         why.message);
    return add_model(p, model, err);
}

/* ---- schemes ----------------------------------------------------------------------------------------------------- */

static enum atom_status read_schemes(const char *text, bool out[ATOM_GPU_N_SCHEMES], struct atom_error *err)
{
    for (int i = 0; i < ATOM_GPU_N_SCHEMES; i++)
        out[i] = !text;
    for (const char *at = text; at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        int i = 0;
        while (i < ATOM_GPU_N_SCHEMES &&
               (strlen(atom_gpu_scheme_names[i]) != n || memcmp(atom_gpu_scheme_names[i], at, n) != 0))
            i++;
        if (i == ATOM_GPU_N_SCHEMES)
            return atom_fail(err, ATOM_ERR_INVALID,
                             "there is no scheme '%.*s'; there are w4a4, w4a8, w8a8, w4a16, fp16, int8, fp8",
                             (int)(n < 40 ? n : 40), at);
        out[i] = true;
        at += n;
        if (!*at)
            break;
    }
    return ATOM_OK;
}

enum atom_status atom_gpu_plan_make(const struct atom_gpu_options *opt, struct atom_gpu_plan *out,
                                    struct atom_error *err)
{
    static const char *const usual[] = {"7b", "8b"};
    static const struct atom_bench_list tokens = {7, {1, 4, 16, 64, 256, 1024, 4096}};
    const char *const *shapes = opt->n_shapes ? opt->shapes : usual;
    int n_shapes = opt->n_shapes ? opt->n_shapes : 2;
    memset(out, 0, sizeof *out);
    if (n_shapes > ATOM_BENCH_MAX_LIST)
        return atom_fail(err, ATOM_ERR_INVALID, "%d shapes; %d are the most", n_shapes, ATOM_BENCH_MAX_LIST);
    enum atom_status st = read_schemes(opt->schemes, out->schemes, err);
    for (int i = 0; i < n_shapes && !st; i++)
        st = add_shape(out, shapes[i], err);
    out->tokens = opt->tokens.n ? opt->tokens : tokens;
    qsort(out->tokens.at, (size_t)out->tokens.n, sizeof out->tokens.at[0], smaller);
    out->max_tok = out->tokens.at[out->tokens.n - 1];
    return st;
}

enum atom_status atom_gpu_check(const struct atom_gpu_options *opt, struct atom_error *err)
{
    struct atom_gpu_plan plan;
    return atom_gpu_plan_make(opt, &plan, err);
}
