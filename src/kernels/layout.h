/* SPDX-License-Identifier: Apache-2.0 */
/* How the channels of a site are cut: groups that share a scale, and runs that are summed in integers.
 *
 * A site's K channels, in stored order, are K-O normal channels in groups of G (0: one group) and O outliers in one
 * INT8 group. A run is at most 128 consecutive channels of one group: its INT32 sum is exact and so is the sum's
 * float32 form. In memory each run is padded to a multiple of 8 channels with zeros. */
#ifndef ATOM_KERNELS_LAYOUT_H
#define ATOM_KERNELS_LAYOUT_H

#include "base/error.h"

enum { ATOM_RUN_MAX = 128, ATOM_RUN_PAD = 8 };

struct atom_run {
    int first, len; /* channels [first, first+len) in stored order */
    int offset;     /* where it starts among padded channels; a multiple of 8 */
    int padded;     /* len rounded up to 8 */
    int scale;      /* index of its group; the outliers' is n_groups */
};

struct atom_layout {
    int k, group, outliers;
    int n_groups; /* normal groups */
    int n_scales; /* n_groups, and one more when there are outliers */
    int n_runs;   /* outlier runs come last */
    int first_outlier_run;
    int k_padded;
    int row_bytes; /* from one token's integers to the next one's: an odd number of cache lines, so that a tile's rows
                    * do not meet in one set of the cache */
    struct atom_run *runs;
};

enum atom_status atom_layout_init(struct atom_layout *lay, int k, int group, int outliers, struct atom_error *err);
void atom_layout_fini(struct atom_layout *lay);

#endif
