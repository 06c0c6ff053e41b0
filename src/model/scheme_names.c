/* SPDX-License-Identifier: Apache-2.0 */
/* The schemes that have names. */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

/* What a scheme leaves alone. */
#define UNCUT .rows_per_scale = 1, .act_clip = 1, .weight_clip = 1, .kv_clip = 1, .lm_head_bits = 16
/* So that no channel of a head stands out. */
#define ROTATED .kv_rope = ATOM_KV_POST, .rotate = ATOM_ROTATE_QK | ATOM_ROTATE_V
/* Weights that make up for the rounding before them. */
#define FITTED .clip_search = true, .gptq = true, .asymmetric = 0.5f

/* The default scheme's ingredients with other numbers; their scales cover all of a group. */
#define SIMULATED(numbers, channels)                                                                                   \
    {                                                                                                                  \
        .wbits = 4, .abits = 4, .kvbits = 4, .format = (numbers), .group = (channels), .outliers = -1, .smooth = 0.5f, \
        UNCUT, FITTED, ROTATED                                                                                         \
    }

static const struct atom_named_scheme schemes[] = {
    {"w4a4kv4",
     "default",
     "INT4 throughout, INT8 outliers, GPTQ with searched clips, smoothed groups, rotated cache",
     {.wbits = 4,
      .abits = 4,
      .kvbits = 4,
      .group = 128,
      .outliers = -1,
      .rows_per_scale = 1,
      .act_clip = 0.9f,
      .weight_clip = 1,
      .kv_clip = 1,
      .lm_head_bits = 16,
      .smooth = 0.5f,
      FITTED,
      ROTATED}},
    {"paper",
     NULL,
     "INT4 throughout as the Atom paper has it: fixed clips, GPTQ, two rows a scale, keys before RoPE",
     {.wbits = 4,
      .abits = 4,
      .kvbits = 4,
      .group = 128,
      .outliers = 128,
      .rows_per_scale = 2,
      .act_clip = 0.9f,
      .weight_clip = 0.85f,
      .kv_clip = 1,
      .kv_rope = ATOM_KV_PRE,
      .lm_head_bits = 16,
      .gptq = true}},
    {"w3a3kv4",
     "w3a3",
     "INT3 weights and activations, otherwise as w4a4kv4",
     {.wbits = 3,
      .abits = 3,
      .kvbits = 4,
      .group = 128,
      .outliers = -1,
      .rows_per_scale = 1,
      .act_clip = 0.9f,
      .weight_clip = 1,
      .kv_clip = 1,
      .lm_head_bits = 16,
      .smooth = 0.5f,
      FITTED,
      ROTATED}},
    {"w4a8kv4",
     NULL,
     "INT4 weights and cache, INT8 activations",
     {.wbits = 4, .abits = 8, .kvbits = 4, .group = 128, .outliers = -1, .smooth = 0.5f, UNCUT, FITTED, ROTATED}},
    {"w8a8",
     NULL,
     "INT8 weights and activations by plain rounding: a scale a token and an output row",
     {.wbits = 8, .abits = 8, .kvbits = 16, UNCUT}},
    {"w8a8-smooth",
     NULL,
     "the same after SmoothQuant's migration, its alpha searched for each site",
     {.wbits = 8, .abits = 8, .kvbits = 16, UNCUT, .smooth = 1, .smooth_search = ATOM_SMOOTH_PEAK}},
    {"w4a16-rtn",
     NULL,
     "INT4 weights in groups of 128 by plain rounding, float activations",
     {.wbits = 4, .abits = 16, .kvbits = 16, .group = 128, UNCUT}},
    {"w4a16-gptq",
     "w4a16",
     "the same by GPTQ, its calibration asymmetric, with searched clips",
     {.wbits = 4, .abits = 16, .kvbits = 16, .group = 128, UNCUT, FITTED}},
    {"w4a16-awq",
     NULL,
     "the same by AWQ's scaling of channels and searched clips, rounded to nearest",
     {.wbits = 4,
      .abits = 16,
      .kvbits = 16,
      .group = 128,
      UNCUT,
      .clip_search = true,
      .smooth = 1,
      .smooth_search = ATOM_SMOOTH_RMS}},
    {"kv8", NULL, "an INT8 cache alone", {.wbits = 16, .abits = 16, .kvbits = 8, UNCUT, ROTATED}},
    {"kv4", NULL, "an INT4 cache alone", {.wbits = 16, .abits = 16, .kvbits = 4, UNCUT, ROTATED}},
    {"kv3", NULL, "an INT3 cache alone", {.wbits = 16, .abits = 16, .kvbits = 3, UNCUT, ROTATED}},
    {"fp4", NULL, "FP4 in groups of 128, E4M3 outliers, INT4 cache; simulated", SIMULATED(ATOM_FORMAT_FP4, 128)},
    {"nvfp4", NULL, "NVFP4, E4M3 outliers, INT4 cache; simulated", SIMULATED(ATOM_FORMAT_NVFP4, 16)},
    {"mxfp4", NULL, "MXFP4, E4M3 outliers, INT4 cache; simulated", SIMULATED(ATOM_FORMAT_MXFP4, 32)},
};
enum { N_SCHEMES = sizeof schemes / sizeof schemes[0] };

const struct atom_named_scheme *atom_named_schemes(int *n)
{
    *n = N_SCHEMES;
    return schemes;
}

enum atom_status atom_scheme_named(const char *name, struct atom_scheme *out, struct atom_error *err)
{
    char names[400];
    size_t n = 0;
    for (int i = 0; i < N_SCHEMES; i++) {
        const struct atom_named_scheme *s = &schemes[i];
        if (strcmp(name, s->name) == 0 || (s->also && strcmp(name, s->also) == 0)) {
            *out = s->scheme;
            return ATOM_OK;
        }
        int more = snprintf(names + n, sizeof names - n, "%s%s%s%s", i ? ", " : "", s->name, s->also ? " or " : "",
                            s->also ? s->also : "");
        n += n + (size_t)more < sizeof names ? (size_t)more : 0;
    }
    return atom_fail(err, ATOM_ERR_INVALID, "there is no scheme '%.64s'; there are %s", name, names);
}
