/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of CUDA code share: a device or a reason to skip, and arrays on both sides. */
#ifndef ATOM_TESTS_CUDA_H
#define ATOM_TESTS_CUDA_H

#include "inputs.h"

#include "cuda/cuda.h"

static struct atom_error cuda_err;
static struct atom_cuda_device cuda_device;

/* In front of every test: skips it, saying why, where there is no device. */
static inline bool have_device(void)
{
    return atom_cuda_opened() || atom_cuda_open(0, &cuda_device, &cuda_err) == ATOM_OK;
}

#define need_device()                                                                                                  \
    do {                                                                                                               \
        if (!have_device())                                                                                            \
            skip_because(cuda_err.message);                                                                            \
    } while (0)

#define cuda_ok(call) assert_ok(call, &cuda_err)

/* Device memory with a copy of n_bytes (host NULL: bytes of 0xFF, which are NaN as floats). */
static inline void *on_device(const void *host, size_t n_bytes)
{
    void *p = NULL;
    cuda_ok(atom_cuda_alloc(n_bytes, &p, &cuda_err));
    if (host)
        cuda_ok(atom_cuda_upload(p, host, n_bytes, &cuda_err));
    else
        cuda_ok(atom_cuda_fill(p, 0xFF, n_bytes, &cuda_err));
    return p;
}

#endif
