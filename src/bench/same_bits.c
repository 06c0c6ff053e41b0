/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/same_bits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_DEPTH = 300, MAX_SEEN = 8, MAX_TOK = 19, SEQS = 7, LOGIT_ROWS = 3 };

const int atom_checked_tokens[4] = {1, SEQS, MAX_TOK, 0};

/* What one run of the chain shows, piece by piece. */
struct seen {
    const char *what[MAX_SEEN];
    float *x[MAX_SEEN];
    size_t n[MAX_SEEN];
    int count;
    bool nomem;
};

static void drop(struct seen *seen)
{
    for (int i = 0; i < seen->count; i++)
        free(seen->x[i]);
    *seen = (struct seen){.count = 0};
}

static float *room_for(struct seen *seen, const char *what, size_t n)
{
    float *x = malloc(n * sizeof *x);
    seen->nomem |= !x;
    if (!x)
        return NULL;
    seen->what[seen->count] = what;
    seen->n[seen->count] = n;
    return seen->x[seen->count++] = x;
}

static void see_acts(const struct atom_stage *s, const struct atom_site *site, const char *what, struct seen *seen)
{
    float *x = room_for(seen, what, (size_t)s->batch.n_tok * (size_t)site->lay.k);
    if (x)
        s->backend->get_acts(s->work, x);
}

static void see_x(const struct atom_stage *s, const char *what, struct seen *seen)
{
    float *x = room_for(seen, what, (size_t)s->batch.n_tok * (size_t)s->cfg.hidden);
    if (x)
        s->backend->get_x(s->work, x);
}

/* ---- a layer ----------------------------------------------------------------------------------------------------- */

/* Sites that keep floats, through which attention and silu can be seen as they are. */
struct plain {
    struct atom_site att, mlp;
};

static enum atom_status plain_init(const struct atom_config *cfg, struct plain *p, struct atom_error *err)
{
    *p = (struct plain){{.bits = 16, .clip = 1, .gathers = true}, {.bits = 16, .clip = 1}};
    enum atom_status st = atom_layout_init(&p->att.lay, atom_site_channels(cfg, ATOM_O_IN), 0, 0, err);
    return st ? st : atom_layout_init(&p->mlp.lay, cfg->intermediate, 0, 0, err);
}

static void plain_fini(struct plain *p)
{
    atom_layout_fini(&p->att.lay);
    atom_layout_fini(&p->mlp.lay);
}

static void attention(struct atom_stage *s, const struct plain *plain, struct seen *seen)
{
    const struct atom_backend *b = s->backend;
    const struct atom_layer *layer = &s->layers[0];
    b->norm(s->work, layer->norms[0], s->cfg.rms_eps, &layer->sites[ATOM_ATTN_IN], 1);
    see_acts(s, &layer->sites[ATOM_ATTN_IN], "norm", seen);
    b->linear(s->work, layer->linears[ATOM_LIN_QKV], ATOM_BUF_QKV, false);
    /* The same rows, turned further each time, fill the cache to a depth that takes more than one split. */
    int step = s->batch.n_seqs == 1 ? s->batch.n_tok : 1;
    for (int at = 0; at <= AT_DEPTH; at += step) {
        for (int i = 0; i < s->batch.n_seqs; i++)
            s->seqs[i].pos0 = at;
        b->store(s->work, s->kv, 0, &s->batch, 1);
    }
    b->attend(s->work, s->kv, 0, &s->batch);
    b->gather(s->work, &plain->att, 1);
    see_acts(s, &plain->att, "the qkv linear, store or attend", seen);
    b->gather(s->work, &layer->sites[ATOM_O_IN], 1);
    see_acts(s, &layer->sites[ATOM_O_IN], "gather", seen);
    b->linear(s->work, layer->linears[ATOM_LIN_O], ATOM_BUF_X, true);
    see_x(s, "the o linear", seen);
}

static void mlp(struct atom_stage *s, const struct plain *plain, struct seen *seen)
{
    const struct atom_backend *b = s->backend;
    const struct atom_layer *layer = &s->layers[0];
    b->norm(s->work, layer->norms[1], s->cfg.rms_eps, &layer->sites[ATOM_MLP_IN], 1);
    see_acts(s, &layer->sites[ATOM_MLP_IN], "norm", seen);
    b->linear(s->work, layer->linears[ATOM_LIN_GATE_UP], ATOM_BUF_GATE_UP, false);
    b->silu(s->work, &plain->mlp, 1);
    see_acts(s, &plain->mlp, "the gate_up linear or silu", seen);
    b->silu(s->work, &layer->sites[ATOM_DOWN_IN], 1);
    see_acts(s, &layer->sites[ATOM_DOWN_IN], "silu", seen);
    b->linear(s->work, layer->linears[ATOM_LIN_DOWN], ATOM_BUF_X, true);
    see_x(s, "the down linear", seen);
}

static void use_tier(const char *tier)
{
    unsigned mask = 0;
    if (atom_cpu_mask(tier, &mask))
        atom_cpu_use(mask);
}

static enum atom_status compare(const struct seen *fast, const struct seen *scalar, int n_tok, struct atom_error *err)
{
    if (fast->nomem || scalar->nomem)
        return atom_fail(err, ATOM_ERR_NOMEM, "out of memory comparing tiers");
    for (int i = 0; i < fast->count; i++)
        if (memcmp(fast->x[i], scalar->x[i], fast->n[i] * sizeof(float)))
            return atom_fail(err, ATOM_ERR_NUMERIC, "%s and scalar differ at %d tokens: %s", atom_cpu_name(), n_tok,
                             fast->what[i]);
    return ATOM_OK;
}

static enum atom_status check_finite(const struct atom_stage *s, struct atom_error *err)
{
    for (int t = 0; t < s->batch.n_tok; t++)
        if (s->backend->bad(s->work, t))
            return atom_fail(err, ATOM_ERR_NUMERIC, "token %d of a measured layer met a number that is not finite", t);
    return ATOM_OK;
}

static enum atom_status same_layer(struct atom_stage *s, const struct plain *plain, int n_tok, struct atom_error *err)
{
    const char *tier = atom_cpu_name();
    struct seen seen[2] = {{.count = 0}, {.count = 0}};
    enum atom_status st = ATOM_OK;
    for (int i = 0; i < 2 && !st; i++) {
        if (i)
            use_tier("scalar");
        atom_stage_batch(s, n_tok, n_tok == SEQS, AT_DEPTH);
        attention(s, plain, &seen[i]);
        mlp(s, plain, &seen[i]);
        st = check_finite(s, err);
    }
    use_tier(tier);
    st = st ? st : compare(&seen[0], &seen[1], n_tok, err);
    drop(&seen[0]);
    drop(&seen[1]);
    return st;
}

enum atom_status atom_same_bits(struct atom_stage *s, int abits, int kvbits, struct atom_error *err)
{
    struct plain plain;
    enum atom_status st = plain_init(&s->cfg, &plain, err);
    atom_stage_abits(s, abits);
    for (int i = 0; atom_checked_tokens[i] && !st; i++) {
        st = atom_stage_kv(s, kvbits, SEQS, err);
        st = st ? st : same_layer(s, &plain, atom_checked_tokens[i], err);
    }
    plain_fini(&plain);
    return st;
}

/* ---- logits ------------------------------------------------------------------------------------------------------ */

enum atom_status atom_same_logits(struct atom_stage *s, const struct atom_site *site, const struct atom_linear *head,
                                  int n, struct atom_error *err)
{
    static const int rows[LOGIT_ROWS] = {2, 0, 1};
    const char *tier = atom_cpu_name();
    enum atom_status st = ATOM_OK;
    for (int n_tok = 1; n_tok <= LOGIT_ROWS && !st; n_tok += LOGIT_ROWS - 1) {
        struct seen seen[2] = {{.count = 0}, {.count = 0}};
        for (int i = 0; i < 2; i++) {
            float *out = room_for(&seen[i], "logits", (size_t)n_tok * (size_t)n);
            use_tier(i ? "scalar" : tier);
            atom_stage_batch(s, LOGIT_ROWS, true, 0);
            if (out)
                s->backend->logits(s->work, s->layers[0].norms[0], s->cfg.rms_eps, site, head, rows, n_tok, out);
        }
        use_tier(tier);
        st = compare(&seen[0], &seen[1], n_tok, err);
        drop(&seen[0]);
        drop(&seen[1]);
    }
    return st;
}
