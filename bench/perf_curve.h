/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of many sizes, and over several transports: --curve and --transport all.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_CURVE_H
#define BT_BENCH_PERF_CURVE_H
#include "bench/perf_options.h"

/* Page bytes x pages, over the transport asked for or all of them; draws it where --plot says.
 * What cannot be measured is told in its place. As bt_perf_latency otherwise. */
baton_status bt_perf_curve(const bt_perf_options *options, const char *program, bt_strbuf *out);
/* One size, every transport. */
baton_status bt_perf_side_by_side(const bt_perf_options *options, const char *program,
                                  bt_strbuf *out);

#endif
