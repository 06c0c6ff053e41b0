/* SPDX-License-Identifier: Apache-2.0 */
#include "base/aligned.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LINE = 64, LARGE = 1 << 20, HUGE_PAGE = 1 << 21 };

/* Stands right before a block. */
struct head {
    void *base;
    size_t n_mapped; /* 0: base is from malloc */
};

static void *place(void *base, size_t n_mapped, size_t align)
{
    uintptr_t at = ((uintptr_t)base + sizeof(struct head) + align - 1) / align * align;
    ((struct head *)at)[-1] = (struct head){base, n_mapped};
    return (void *)at;
}

static void *map_block(size_t n_bytes, bool huge)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), align = huge ? HUGE_PAGE : page, n_mapped = n_bytes + page + align;
    if (n_mapped < n_bytes)
        return NULL;
    void *base = mmap(NULL, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    void *block = place(base, n_mapped, align);
    if (huge)
        madvise(block, n_bytes, MADV_HUGEPAGE); /* refused: small pages do */
    return block;
}

static void *allocate(size_t n_bytes, bool huge)
{
    if (n_bytes >= LARGE)
        return map_block(n_bytes, huge);
    void *base = calloc(1, n_bytes + sizeof(struct head) + LINE);
    return base ? place(base, 0, LINE) : NULL;
}

void *atom_alloc64(size_t n_bytes) { return allocate(n_bytes, false); }
void *atom_alloc64_huge(size_t n_bytes) { return allocate(n_bytes, n_bytes >= HUGE_PAGE); }

void atom_free64(void *p)
{
    if (!p)
        return;
    struct head head = ((struct head *)p)[-1];
    if (head.n_mapped)
        munmap(head.base, head.n_mapped);
    else
        free(head.base);
}
