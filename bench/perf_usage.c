/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_usage.h"

#include "core/fail.h"
#include "transport/transport.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* getrusage's sum, but exact to the nanosecond instead of to the scheduler's tick. */
uint64_t bt_perf_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

void bt_perf_pin(uint32_t nth)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return;
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || nth-- != 0)
            continue;
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one); /* without it the figures are worse, not wrong */
        return;
    }
}

static baton_status count_fds(uint64_t *n)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL)
        return bt_fail_errno(BATON_ERR_IO, errno, "perf: /proc/self/fd");
    for (*n = 0; readdir(folder) != NULL;)
        ++*n;
    closedir(folder);
    *n -= 3; /* ".", ".." and the folder itself */
    return BATON_OK;
}

static baton_status count_lines(const char *path, uint64_t *n)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return bt_fail_errno(BATON_ERR_IO, errno, "perf: %s", path);
    int c;
    for (*n = 0; (c = getc(file)) != EOF;)
        *n += c == '\n';
    fclose(file);
    return BATON_OK;
}

uint64_t bt_perf_huge_kb(void)
{
    static const char *const fields[] = {
        "AnonHugePages:", "ShmemPmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:"};
    char line[256];
    uint64_t kb = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
            if (strncmp(line, fields[i], strlen(fields[i])) == 0)
                kb += strtoull(line + strlen(fields[i]), NULL, 10);
        }
    }
    if (file != NULL)
        fclose(file);
    return kb;
}

baton_status bt_perf_refuse_huge(void)
{
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        return bt_fail_errno(BATON_ERR_UNSUPPORTED, errno, "perf: --huge-pages off");
    return BATON_OK;
}

baton_status bt_perf_usage_now(bt_perf_usage *usage)
{
    unsigned long long size, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    int n = file != NULL ? fscanf(file, "%llu %llu", &size, &resident) : 0;
    if (file != NULL)
        fclose(file);
    if (n != 2)
        return bt_fail(BATON_ERR_IO, "perf: cannot read /proc/self/statm");
    bt_transport_counts live = bt_transport_live();
    *usage = (bt_perf_usage){.rss_kb = resident * (uint64_t)sysconf(_SC_PAGESIZE) / 1024,
                             .registered = live.memories + live.workers,
                             .remotes = live.remotes};
    BATON_TRY(count_fds(&usage->fds));
    return count_lines("/proc/self/maps", &usage->maps);
}
