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
/* KiB of this process that are in huge pages now; 0 also where the system does not say. */
uint64_t bt_perf_huge_kb(void);
/* This process gets no transparent huge pages from here on. Errors: UNSUPPORTED. */
baton_status bt_perf_refuse_huge(void);
/* Ends that poll have a core each: a wake-up may put both on the waker's, where they would take
 * turns. Moves the calling thread, and no other, to the nth CPU of those it may use; does nothing
 * when there are fewer. */
void bt_perf_pin(uint32_t nth);
/* CPU time of all threads, user and system. */
uint64_t bt_perf_cpu_ns(void);

#endif
