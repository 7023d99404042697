/* SPDX-License-Identifier: Apache-2.0 */
/* baton-perf's figures as a table or as JSON.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_REPORT_H
#define BT_BENCH_PERF_REPORT_H
#include "bench/perf_run.h"

typedef struct {
    double min, median, max;
} bt_perf_spread;

/* Of `field` ns of samples[n], n > 0, as microseconds. field is an offset in bt_perf_sample.
 * Errors: NO_MEMORY. */
baton_status bt_perf_spread_us(const bt_perf_sample *samples, uint32_t n, size_t field,
                               bt_perf_spread *spread);
/* Errors: NO_MEMORY. */
baton_status bt_perf_report(const bt_perf_options *options, const bt_perf_result *result,
                            bt_strbuf *out);

#endif
