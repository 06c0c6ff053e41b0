/* SPDX-License-Identifier: Apache-2.0 */
/* The scheme that `atom quantize` is asked for: a named one with single parameters changed. */
#ifndef ATOM_CLI_QUANTIZE_SCHEME_H
#define ATOM_CLI_QUANTIZE_SCHEME_H

#include "options.h"

/* What the command line said; -1, 0 for clips, leave the named scheme's value. */
struct quantize_scheme {
    const char *name;
    int wbits, abits, kvbits, group, outliers, outlier_bits, rows_per_scale, kv_rope, rotate, lm_head, format,
        smooth_search;
    float act_clip, weight_clip, kv_clip, smooth, asymmetric;
    bool search, no_search, no_gptq, gptq;
};
#define QUANTIZE_SCHEME_AS_NAMED(called)                                                                               \
    {                                                                                                                  \
        .name = (called), .wbits = -1, .abits = -1, .kvbits = -1, .group = -1, .outliers = -1, .outlier_bits = -1,     \
        .format = -1, .rows_per_scale = -1, .kv_rope = -1, .rotate = -1, .lm_head = -1, .smooth_search = -1,           \
        .smooth = -1, .asymmetric = -1                                                                                 \
    }

/* Fills o->scheme and o->fit. Returns CLI_GO_ON, or 2 after a usage error: no such scheme, options that exclude each
 * other, or one that does nothing beside the others. */
int quantize_scheme_settle(const struct cli_command *cmd, const struct quantize_scheme *asked,
                           struct atom_quantize_options *o);

/* The names of all schemes and what they are, a line each. */
const char *quantize_scheme_list(char *text, size_t room);

#endif
