/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with AVX-VNNI: the integer linear alone differs. */
#include "dot_avxvnni.h"

#include "kernels/avx2/int_tile.h"

void atom_kernels_avxvnni(struct atom_kernels *k)
{
    atom_kernels_avx2(k);
    k->name = "avxvnni";
    k->linear_int = linear_int;
}
