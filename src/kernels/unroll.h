/* SPDX-License-Identifier: Apache-2.0 */
/* UNROLL before a loop whose number of rounds is constant: what it indexes are registers. */
#ifndef ATOM_KERNELS_UNROLL_H
#define ATOM_KERNELS_UNROLL_H

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#endif
