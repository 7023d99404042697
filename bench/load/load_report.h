/* SPDX-License-Identifier: Apache-2.0 */
/* A run as a table for people, and its answers as a file.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_REPORT_H
#define BT_BENCH_LOAD_REPORT_H
#include "bench/load/load_summary.h"
#include "core/strbuf.h"

void bt_load_report_table(const bt_load_options *options, const bt_load_result *result,
                          const bt_load_summary *summary, bt_strbuf *out);
/* One JSON object a line, in the order of the workload, without times: two runs that got the same
 * answers give the same file. Errors: IO and others of opening and writing. */
baton_status bt_load_report_answers(const char *path, const bt_load_result *result);

#endif
