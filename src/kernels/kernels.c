/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kernels.h"

#include <cpuid.h>

static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

unsigned atom_cpu_detect(void)
{
    unsigned cpu = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        cpu |= ATOM_CPU_AVX2;
    if (cpu && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        cpu |= ATOM_CPU_AVX512;
    if ((cpu & ATOM_CPU_AVX512) && __builtin_cpu_supports("avx512bf16"))
        cpu |= ATOM_CPU_BF16;
    return cpu;
}

void atom_kernels_init(struct atom_kernels *k, unsigned cpu)
{
    *k = (struct atom_kernels){0};
    atom_kernels_scalar(k);
    if (cpu & ATOM_CPU_AVX2)
        atom_kernels_avx2(k);
    if (cpu & ATOM_CPU_AVX512)
        atom_kernels_avx512(k);
    if (cpu & ATOM_CPU_BF16)
        atom_kernels_avx512bf16(k);
}
