/* SPDX-License-Identifier: Apache-2.0 */
/* CPU time of this process, all threads, user and system.
 * Thread rule: any thread. */
#ifndef BT_BENCH_PERF_USAGE_H
#define BT_BENCH_PERF_USAGE_H
#include <stdint.h>

uint64_t bt_perf_cpu_ns(void);

#endif
