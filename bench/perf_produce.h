/* SPDX-License-Identifier: Apache-2.0 */
/* The exposed time: pages are pushed as prefill computes them, one every so many milliseconds, and
 * what counts is how long after the last push the proxy may let decode go.
 *
 *   push 0     push 1     ...     push n-1 ─┐exposed┌─ notice `ready` arrives
 *   |── MS ────|── MS ────| ... ──|         └───────┘
 *
 * This process also plays the proxy, and takes the notice. Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_PRODUCE_H
#define BT_BENCH_PERF_PRODUCE_H
#include "bench/perf_options.h"

/* As bt_perf_latency. */
baton_status bt_perf_produce(const bt_perf_options *options, const char *program, bt_strbuf *out);

#endif
