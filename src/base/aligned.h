/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of memory for numbers: 64-byte aligned, zero, and resident only where they are touched. */
#ifndef ATOM_BASE_ALIGNED_H
#define ATOM_BASE_ALIGNED_H

#include <stddef.h>

/* NULL: there is none. Large blocks come from the system in pages that cost nothing until they are written, so that
 * buffers and caches may be sized for the most that can come. */
void *atom_alloc64(size_t n_bytes);
/* The same for what is written whole and then streamed: in huge pages where the system has them. They spare page
 * faults and address translations (packing 3.4 GB takes 1.5 s instead of 2.1), but a byte written makes 2 MiB resident:
 * with caches and work buffers in them a 7B model would hold 52 MiB more at its first token. */
void *atom_alloc64_huge(size_t n_bytes);
void atom_free64(void *p); /* of either; NULL is fine */

#endif
