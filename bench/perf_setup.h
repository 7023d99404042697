/* SPDX-License-Identifier: Apache-2.0 */
/* The line that tells a process of baton-perf's what work it takes part in.
 * Thread rule: any thread. */
#ifndef BT_BENCH_PERF_SETUP_H
#define BT_BENCH_PERF_SETUP_H
#include "bench/perf_control.h"
#include "bench/perf_options.h"

/* Errors: of the channel. */
baton_status bt_perf_setup_send(bt_perf_control *control, const bt_perf_options *options);
/* Overwrites what the line says: work, path and progress. Errors: BAD_MESSAGE. */
baton_status bt_perf_setup_parse(const char *line, bt_perf_options *options);

#endif
