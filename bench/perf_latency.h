/* SPDX-License-Identifier: Apache-2.0 */
/* What a hand-off takes beside its bytes: one page from its push until the other process sees it
 * committed, and the granting of pages alone.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_LATENCY_H
#define BT_BENCH_PERF_LATENCY_H
#include "bench/perf_options.h"

/* --latency. Appends the report. Result CORRUPT: a byte was wrong. Other errors: a transfer failed,
 * or nothing could run. */
baton_status bt_perf_latency(const bt_perf_options *options, const char *program, bt_strbuf *out);
/* --alloc, likewise. */
baton_status bt_perf_alloc(const bt_perf_options *options, const char *program, bt_strbuf *out);

#endif
