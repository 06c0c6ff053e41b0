/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/machine.h"

#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef ATOM_COMMIT
#define ATOM_COMMIT ""
#endif

const char *atom_machine_name(void)
{
    static char name[49];
    uint32_t words[12] = {0};
    if (name[0])
        return name;
    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]))
            return "unknown";
    char text[49] = "";
    memcpy(text, words, sizeof words);
    const char *from = text + strspn(text, " ");
    size_t n = strlen(from);
    while (n && from[n - 1] == ' ')
        n--;
    snprintf(name, sizeof name, "%.*s", (int)n, from);
    return name;
}

const char *atom_machine_compiler(void)
{
#ifdef __clang__
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

const char *atom_machine_commit(void) { return ATOM_COMMIT; }

double atom_machine_peak_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return 1024 * kib;
}

void atom_machine_forget_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        return;
    fputs("5", f);
    fclose(f);
}
