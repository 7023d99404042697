/* SPDX-License-Identifier: Apache-2.0 */
/* A traffic matrix: N sending processes, M receiving ones, and this one, which tells the senders
 * when to move what to whom and has the receivers verify it.
 *
 *   coordinator ── setup, peer, prepare, go ──▶ workers 0..N-1 ══ pages ══▶ receivers 0..M-1
 *        └──────────────────────── setup, check ───────────────────────────────▲
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_MATRIX_H
#define BT_BENCH_PERF_MATRIX_H
#include "bench/perf_control.h"
#include "bench/perf_options.h"

/* --senders and --receivers. As bt_perf_latency. */
baton_status bt_perf_matrix(const bt_perf_options *options, const char *program, bt_strbuf *out);
/* A worker, driven over the channel until it is closed, which is no error. */
baton_status bt_perf_work_for(const bt_perf_options *options, bt_perf_control *control);

#endif
