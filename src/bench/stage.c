/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/stage.h"

#include "model/model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEED = 2, USUAL_CACHE = 32 << 20, CACHES = 4, MOST = 8 };

int atom_beyond_caches(double n_bytes)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    double enough = (double)CACHES * (double)(cache > 0 ? cache : USUAL_CACHE);
    int n = (int)(enough / n_bytes) + 1;
    return n < 2 ? 2 : n > MOST ? MOST : n;
}

static enum atom_status load_layers(struct atom_stage *s, struct atom_error *err)
{
    int n;
    enum atom_status st = atom_random_create(&s->cfg, SEED, &s->random, err);
    if (st)
        return st;
    const struct atom_tensor *list = atom_random_list(s->random, &n);
    st = atom_tensors_wrap(list, (size_t)n, &s->tensors, err);
    if (st)
        return st;
    const struct atom_layer_source source = {.cfg = &s->cfg, .tensors = s->tensors, .scheme = s->cfg.scheme};
    s->layers = calloc((size_t)s->cfg.layers, sizeof *s->layers);
    if (!s->layers)
        return atom_fail_nomem(err, (size_t)s->cfg.layers * sizeof *s->layers);
    for (int i = 0; i < s->cfg.layers && !st; i++)
        st = atom_layer_load(s->backend, &source, i, &s->layers[i], err);
    return st;
}

static enum atom_status make_x(struct atom_stage *s, struct atom_error *err)
{
    size_t n = (size_t)ATOM_STAGE_TOK * (size_t)s->cfg.hidden;
    uint32_t state = 1;
    s->x = malloc(n * sizeof *s->x);
    if (!s->x)
        return atom_fail_nomem(err, n * sizeof *s->x);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        s->x[i] = 1.7f * (float)(int32_t)state * 0x1p-31f;
    }
    return ATOM_OK;
}

enum atom_status atom_stage_open(const struct atom_shape *shape, const struct atom_scheme *scheme,
                                 struct atom_stage *out, struct atom_error *err)
{
    struct atom_stage s = {.backend = &atom_backend_cpu};
    struct atom_cost cost;
    atom_shape_config(shape, scheme, &s.cfg);
    enum atom_status st = atom_cost_of(&s.cfg, &cost, err);
    if (st)
        return st;
    s.cfg.layers = atom_beyond_caches(cost.layers_bytes / shape->layers);
    st = load_layers(&s, err);
    st = st ? st : make_x(&s, err);
    st = st ? st : atom_model_work(&s.cfg, s.backend, ATOM_STAGE_TOK, &s.work, err);
    if (st) {
        atom_stage_close(&s);
        return st;
    }
    *out = s;
    return ATOM_OK;
}

void atom_stage_close(struct atom_stage *s)
{
    if (s->kv)
        s->backend->kv_free(s->kv);
    if (s->work)
        s->backend->work_free(s->work);
    for (int i = 0; s->layers && i < s->cfg.layers; i++)
        if (s->layers[i].backend)
            atom_layer_fini(&s->layers[i]);
    free(s->layers);
    atom_tensors_close(s->tensors);
    atom_random_free(s->random);
    free(s->x);
    free(s->pages);
    memset(s, 0, sizeof *s);
}

enum atom_status atom_stage_kv(struct atom_stage *s, int bits, int n_seqs, struct atom_error *err)
{
    struct atom_scheme scheme = s->cfg.scheme;
    scheme.kvbits = bits;
    s->n_seqs = n_seqs;
    s->pages_per_seq = (ATOM_STAGE_DEPTH + ATOM_STAGE_TOK) / ATOM_PAGE;
    size_t n = (size_t)n_seqs * (size_t)s->pages_per_seq;
    if (s->kv)
        s->backend->kv_free(s->kv);
    s->kv = NULL;
    free(s->pages);
    s->pages = malloc(n * sizeof *s->pages);
    if (!s->pages)
        return atom_fail_nomem(err, n * sizeof *s->pages);
    for (size_t i = 0; i < n; i++)
        s->pages[i] = (int32_t)i;
    return atom_model_kv(&s->cfg, &scheme, s->backend, s->cfg.layers, (int)n, s->pages_per_seq * ATOM_PAGE, &s->kv,
                         err);
}

void atom_stage_abits(struct atom_stage *s, int bits)
{
    for (int i = 0; i < s->cfg.layers; i++)
        for (int j = 0; j < ATOM_N_SITES; j++)
            s->layers[i].sites[j].bits = bits;
}

void atom_stage_batch(struct atom_stage *s, int n_tok, bool apart, int depth)
{
    int n = apart ? n_tok : 1;
    for (int i = 0; i < n; i++)
        s->seqs[i] = (struct atom_batch_seq){.first_tok = i,
                                             .n_tok = apart ? 1 : n_tok,
                                             .pos0 = depth,
                                             .pages = s->pages + (size_t)i * (size_t)s->pages_per_seq};
    s->batch = (struct atom_batch){.n_tok = n_tok, .n_seqs = n, .seqs = s->seqs};
    s->backend->set_x(s->work, s->x, n_tok);
}
