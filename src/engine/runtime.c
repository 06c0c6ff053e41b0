/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"
#include "base/thread.h"

#include <string.h>

static enum atom_status tier_mask(const char *cpu, unsigned *mask, struct atom_error *err)
{
    static const struct {
        const char *name;
        unsigned mask;
    } tiers[] = {{"scalar", 0},
                 {"avx2", ATOM_CPU_AVX2},
                 {"avx512", ATOM_CPU_AVX2 | ATOM_CPU_AVX512},
                 {"avx512bf16", ATOM_CPU_AVX2 | ATOM_CPU_AVX512 | ATOM_CPU_BF16}};
    *mask = atom_cpu_detect();
    if (!cpu) {
        *mask &= ~(unsigned)ATOM_CPU_BF16;
        return ATOM_OK;
    }
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0]; i++)
        if (strcmp(cpu, tiers[i].name) == 0) {
            if (tiers[i].mask & ~*mask)
                return atom_fail(err, ATOM_ERR_UNSUPPORTED, "this processor has no %s tier", cpu);
            *mask = tiers[i].mask;
            return ATOM_OK;
        }
    return atom_fail(err, ATOM_ERR_INVALID, "unknown tier '%s': expected scalar, avx2, avx512 or avx512bf16", cpu);
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
