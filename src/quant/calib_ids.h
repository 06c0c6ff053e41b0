/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ATOM_QUANT_CALIB_IDS_H
#define ATOM_QUANT_CALIB_IDS_H

#include "model/windows.h"

/* JSON lines {"ids": [...]}, each at least a window long (what is over is dropped), the first `samples` of them. */
enum atom_status atom_calib_ids_read(const char *path, int samples, int window, int vocab, struct atom_windows *out,
                                     struct atom_error *err);

#endif
