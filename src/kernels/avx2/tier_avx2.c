/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA and F16C. */
#include "vec_avx2.h"

#include "kernels/rows.h"
#include "kernels/panels.h"

#include "dot_avx2.h"

#include "kernels/avx2/int_tile.h"

void atom_kernels_avx2(struct atom_kernels *k)
{
    k->name = "avx2";
    k->linear_int = linear_int;
    fill_rows(k);
    fill_panels(k);
}
