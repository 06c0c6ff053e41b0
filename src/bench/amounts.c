/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/amounts.h"

#include "bench/shape.h"
#include "model/layer.h"

const struct atom_op_name atom_op_names[ATOM_N_OPS] = {
    {"norm", NULL},  {"linear", "qkv"},     {"store", NULL}, {"attend", NULL},   {"gather", NULL},
    {"linear", "o"}, {"linear", "gate_up"}, {"silu", NULL},  {"linear", "down"},
};

static enum atom_status linear(enum atom_linear_id id, const struct atom_op_case *c, struct atom_amount *out,
                               struct atom_error *err)
{
    struct atom_layout lay;
    enum atom_status st = ATOM_OK;
    out->arithmetic = ATOM_BOUND_INT8;
    for (int p = 0; p < ATOM_N_PROJ && !st; p++) {
        if (atom_projs[p].linear != id)
            continue;
        int n = atom_proj_rows(c->cfg, p);
        st = atom_scheme_layout(&c->cfg->scheme, atom_site_channels(c->cfg, atom_projs[p].site), &lay, err);
        if (st)
            break;
        out->ops += 2.0 * c->n_tok * n * lay.k;
        out->bytes += atom_packed_bytes(&lay, n, c->cfg->scheme.wbits);
        atom_layout_fini(&lay);
    }
    return st;
}

/* Floats in, integers of one byte out. */
static struct atom_amount rows(const struct atom_op_case *c, double in, double out)
{
    return (struct atom_amount){.bytes = c->n_tok * (4 * in + out)};
}

static struct atom_amount attend(const struct atom_op_case *c)
{
    const struct atom_config *cfg = c->cfg;
    double each = (double)c->n_tok / c->n_seqs, width = (double)cfg->heads * cfg->head_dim;
    double seen = c->depth + (each + 1) / 2; /* positions, by a token on average */
    double kv = atom_position_bytes(cfg->kv_heads, cfg->head_dim, c->kvbits);
    return (struct atom_amount){.ops = 4 * c->n_tok * seen * width, /* scores, and weighted values */
                                .bytes = c->n_seqs * (c->depth + each) * kv,
                                .arithmetic = ATOM_BOUND_F32};
}

enum atom_status atom_op_amount(enum atom_op op, const struct atom_op_case *c, struct atom_amount *out,
                                struct atom_error *err)
{
    const struct atom_config *cfg = c->cfg;
    double h = cfg->hidden, q = (double)cfg->heads * cfg->head_dim, kv = (double)cfg->kv_heads * cfg->head_dim;
    struct atom_amount a = {0};
    enum atom_status st = ATOM_OK;
    switch (op) {
    case ATOM_OP_NORM:
        a = rows(c, h, h);
        break;
    case ATOM_OP_STORE: /* queries stay floats and are turned in place */
        a = rows(c, 2 * q + 2 * kv, atom_position_bytes(cfg->kv_heads, cfg->head_dim, c->kvbits));
        break;
    case ATOM_OP_ATTEND:
        a = attend(c);
        break;
    case ATOM_OP_GATHER:
        a = rows(c, q, q);
        break;
    case ATOM_OP_SILU:
        a = rows(c, 2.0 * cfg->intermediate, cfg->intermediate);
        break;
    case ATOM_OP_QKV:
        st = linear(ATOM_LIN_QKV, c, &a, err);
        break;
    case ATOM_OP_O:
        st = linear(ATOM_LIN_O, c, &a, err);
        break;
    case ATOM_OP_GATE_UP:
        st = linear(ATOM_LIN_GATE_UP, c, &a, err);
        break;
    default:
        st = linear(ATOM_LIN_DOWN, c, &a, err);
        break;
    }
    if (!st)
        *out = a;
    return st;
}

void atom_line_amount(struct atom_bench_line *line, const struct atom_amount *a, const struct atom_ceilings *ceilings)
{
    double read = ceilings->at[ATOM_CEIL_READ].all;
    double peak = a->arithmetic == ATOM_BOUND_INT8   ? ceilings->at[ATOM_CEIL_INT8].all
                  : a->arithmetic == ATOM_BOUND_F32  ? ceilings->at[ATOM_CEIL_F32].all
                  : a->arithmetic == ATOM_BOUND_BF16 ? ceilings->at[ATOM_CEIL_BF16].all
                                                     : 0;
    line->ops = a->ops;
    line->bytes = a->bytes;
    line->bound = peak > 0 && a->ops / peak > a->bytes / read ? a->arithmetic : ATOM_BOUND_READ;
    /* In a tier without that ceiling, what is bound by arithmetic has no share. */
    if (a->arithmetic && peak <= 0 && a->ops > 8 * a->bytes)
        line->bound = ATOM_BOUND_NONE;
}
