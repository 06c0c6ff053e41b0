/* SPDX-License-Identifier: Apache-2.0 */
/* How many processors this process may use: its affinity mask, and the quota of its control groups (version 2). */
#include "base/thread.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int in_affinity_mask(void)
{
    /* A mask too small for this kernel is refused, so larger ones are tried. */
    for (int room = 1024; room <= 65536; room *= 4) {
        cpu_set_t *mask = CPU_ALLOC((size_t)room);
        if (!mask)
            break;
        size_t n_bytes = CPU_ALLOC_SIZE((size_t)room);
        int n = sched_getaffinity(0, n_bytes, mask) ? 0 : CPU_COUNT_S(n_bytes, mask);
        CPU_FREE(mask);
        if (n > 0)
            return n;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < 65536 ? (int)online : 1;
}

/* The quota of one group in whole processors, rounded up; 0 when it has none. */
static int group_quota(const char *group)
{
    char path[4096];
    long long quota, period;
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
    FILE *file = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
    if (!file)
        return 0;
    int fields = fscanf(file, "%lld %lld", &quota, &period);
    fclose(file);
    if (fields != 2 || quota <= 0 || period <= 0 || quota / period > 65535)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* The group this process is in, as "/a/b"; "" for the root or when it cannot be told. */
static void own_group(char *group, size_t room)
{
    char line[4096];
    FILE *file = fopen("/proc/self/cgroup", "re");
    group[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) == 0)
            snprintf(group, room, "%s", line + 3);
    }
    if (file)
        fclose(file);
}

int atom_processors(void)
{
    char group[4096];
    int n = in_affinity_mask();
    own_group(group, sizeof group);
    /* Every group on the way up limits those in it. */
    for (;;) {
        int quota = group_quota(group);
        if (quota > 0 && quota < n)
            n = quota;
        char *slash = strrchr(group, '/');
        if (!slash)
            return n;
        *slash = 0;
    }
}
