/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <cpuid.h>
#include <string.h>

static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* GCC 12 has no name of it that __builtin_cpu_supports takes. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

unsigned atom_cpu_detect(void)
{
    unsigned cpu = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        cpu |= ATOM_CPU_AVX2;
    if (cpu && has_avxvnni())
        cpu |= ATOM_CPU_AVXVNNI;
    if (cpu && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        cpu |= ATOM_CPU_AVX512;
    if ((cpu & ATOM_CPU_AVX512) && __builtin_cpu_supports("avx512bf16"))
        cpu |= ATOM_CPU_BF16;
    return cpu;
}

bool atom_cpu_mask(const char *tier, unsigned *mask)
{
    static const struct {
        const char *name;
        unsigned mask;
    } tiers[] = {{"scalar", 0},
                 {"avx2", ATOM_CPU_AVX2},
                 {"avxvnni", ATOM_CPU_AVX2 | ATOM_CPU_AVXVNNI},
                 {"avx512", ATOM_CPU_AVX2 | ATOM_CPU_AVX512},
                 {"avx512bf16", ATOM_CPU_AVX2 | ATOM_CPU_AVX512 | ATOM_CPU_BF16}};
    for (size_t i = 0; i < sizeof tiers / sizeof tiers[0]; i++)
        if (strcmp(tier, tiers[i].name) == 0) {
            *mask = tiers[i].mask;
            return true;
        }
    return false;
}

void atom_kernels_init(struct atom_kernels *k, unsigned cpu)
{
    *k = (struct atom_kernels){0};
    atom_kernels_scalar(k);
    if (cpu & ATOM_CPU_AVX2)
        atom_kernels_avx2(k);
    if (cpu & ATOM_CPU_AVXVNNI)
        atom_kernels_avxvnni(k);
    if (cpu & ATOM_CPU_AVX512)
        atom_kernels_avx512(k);
    if (cpu & ATOM_CPU_BF16)
        atom_kernels_avx512bf16(k);
}
