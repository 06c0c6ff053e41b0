/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"
#include "base/thread.h"

static enum atom_status tier_mask(const char *cpu, unsigned *mask, struct atom_error *err)
{
    unsigned here = atom_cpu_detect();
    if (!cpu) {
        *mask = here & ~(unsigned)ATOM_CPU_BF16;
        return ATOM_OK;
    }
    if (!atom_cpu_mask(cpu, mask))
        return atom_fail(err, ATOM_ERR_INVALID,
                         "unknown tier '%s': expected scalar, avx2, avxvnni, avx512 or avx512bf16", cpu);
    if (*mask & ~here)
        return atom_fail(err, ATOM_ERR_UNSUPPORTED, "this processor has no %s tier", cpu);
    return ATOM_OK;
}

enum atom_status atom_runtime_init(const struct atom_runtime_options *opt, struct atom_error *err)
{
    unsigned mask;
    enum atom_status st = tier_mask(opt ? opt->cpu : NULL, &mask, err);
    if (st)
        return st;
    if (opt && opt->threads < 0)
        return atom_fail(err, ATOM_ERR_INVALID, "threads is %d; expected 0 (all processors) or more", opt->threads);
    atom_pool_stop();
    st = atom_pool_start(opt ? opt->threads : 0, err);
    if (st)
        return st;
    atom_cpu_use(mask);
    return ATOM_OK;
}

void atom_runtime_fini(void) { atom_pool_stop(); }
int atom_runtime_threads(void) { return atom_pool_size(); }
const char *atom_runtime_cpu(void) { return atom_cpu_name() ? atom_cpu_name() : "none"; }
