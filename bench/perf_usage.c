/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_usage.h"

#include <time.h>

/* getrusage's sum, but exact to the nanosecond instead of to the scheduler's tick. */
uint64_t bt_perf_cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}
