/* SPDX-License-Identifier: Apache-2.0 */
/* What this process uses.
 * Thread rule: any thread. */
#ifndef BT_BENCH_PERF_USAGE_H
#define BT_BENCH_PERF_USAGE_H
#include <baton/status.h>

typedef struct {
    uint64_t rss_kb;
    uint64_t fds;
    uint64_t maps;       /* pieces of address space */
    uint64_t registered; /* memory registered with UCX, and its workers */
    uint64_t remotes;    /* keys of others' memory that are unpacked */
} bt_perf_usage;

/* Errors: IO. */
baton_status bt_perf_usage_now(bt_perf_usage *usage);
/* CPU time of all threads, user and system. */
uint64_t bt_perf_cpu_ns(void);

#endif
