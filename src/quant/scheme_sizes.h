/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_QUANT_SCHEME_SIZES_H
#define ATOM_QUANT_SCHEME_SIZES_H

#include "model/config.h"

/* A scheme's counts as they will be in a model's layers. outliers -1 become 128, or a quarter of the narrowest site
 * where that is less. What is more than a site's channels, or than a linear's rows, is ATOM_ERR_INVALID naming it or,
 * with `fit`, made as many. Does not look at what a scheme does not use. */
enum atom_status atom_scheme_settle(const struct atom_config *cfg, bool fit, struct atom_scheme *s,
                                    struct atom_error *err);

#endif
