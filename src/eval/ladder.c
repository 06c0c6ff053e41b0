/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/ladder.h"

#include "model/scheme.h"

#include <string.h>

enum rung {
    FLOAT,
    RTN,
    OUTLIERS_FP16,
    OUTLIERS_INT8,
    GROUPS,
    CLIPPING,
    GPTQ,
    KV,
    SCALE_PER_ROW,
    SEARCH,
    ROTATE_QK,
    ROTATE_V,
    SMOOTH,
    ASYMMETRIC,
    N_RUNGS
};

static const struct atom_rung rungs[N_RUNGS] = {
    [FLOAT] = {"float", "float", NULL},
    [RTN] = {"rtn", "round to nearest", NULL},
    [OUTLIERS_FP16] = {"outliers-fp16", "+ outliers in FP16 (simulated)", NULL},
    [OUTLIERS_INT8] = {"outliers-int8", "+ outliers in INT8 instead", NULL},
    [GROUPS] = {"groups", "+ groups, two rows a scale", NULL},
    [CLIPPING] = {"clipping", "+ clipping", NULL},
    [GPTQ] = {"gptq", "+ GPTQ", NULL},
    [KV] = {"kv", "+ KV cache", "paper"},
    [SCALE_PER_ROW] = {"scale-per-row", "+ a scale for each row", NULL},
    [SEARCH] = {"search", "+ weight clip searched", NULL},
    [ROTATE_QK] = {"rotate-qk", "+ keys after RoPE, Q and K rotated", NULL},
    [ROTATE_V] = {"rotate-v", "+ V rotated", NULL},
    [SMOOTH] = {"smooth", "+ smoothing in groups", NULL},
    [ASYMMETRIC] = {"asymmetric", "+ asymmetric calibration", "default"},
};

const struct atom_rung *atom_rungs(int *n)
{
    *n = N_RUNGS;
    return rungs;
}

static void climb(struct atom_scheme *s, enum rung to, int bits, int outliers)
{
    switch (to) {
    case RTN:
        s->wbits = s->abits = bits;
        break;
    case OUTLIERS_FP16:
        s->outliers = outliers;
        s->outlier_bits = 16;
        break;
    case OUTLIERS_INT8:
        s->outlier_bits = 8;
        break;
    case GROUPS:
        s->group = 128;
        s->rows_per_scale = 2;
        break;
    case CLIPPING:
        s->act_clip = 0.9f;
        s->weight_clip = 0.85f;
        break;
    case GPTQ:
        s->gptq = true;
        break;
    case KV:
        s->kvbits = bits;
        break;
    case SCALE_PER_ROW:
        s->rows_per_scale = 1;
        break;
    case SEARCH:
        s->weight_clip = 1;
        s->clip_search = true;
        break;
    case ROTATE_QK:
        s->kv_rope = ATOM_KV_POST;
        s->rotate |= ATOM_ROTATE_QK;
        break;
    case ROTATE_V:
        s->rotate |= ATOM_ROTATE_V;
        break;
    case SMOOTH:
        s->smooth = 0.5f;
        break;
    case ASYMMETRIC:
        s->asymmetric = 0.5f;
        break;
    case FLOAT:
    case N_RUNGS:
        break;
    }
}

void atom_rung_scheme(int rung, int bits, int outliers, struct atom_scheme *out)
{
    *out = atom_scheme_float;
    for (int i = 0; i <= rung; i++)
        climb(out, (enum rung)i, bits, outliers);
}
