/* SPDX-License-Identifier: Apache-2.0 */
/* Charts of a run: SVG files, and a line of blocks for the terminal.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_CHART_H
#define BT_BENCH_LOAD_CHART_H
#include "bench/load/load_search.h"
#include "core/strbuf.h"

/* Distributions of TTFT and end-to-end, of TPOT and ITL; output tokens and running requests over
 * time; TTFT over time; behind them, when there was a search, what its steps found. Errors: IO,
 * NO_MEMORY. */
baton_status bt_load_chart_run(const bt_load_result *result, const bt_load_search *search,
                               const char *path);
/* Distributions of n metrics, each of two runs: samples[n] is sorted. Errors: IO, NO_MEMORY. */
baton_status bt_load_chart_pairs(const bt_load_metric *metrics, bt_load_samples (*samples)[2],
                                 size_t n, const char *path);

/* values[n] as at most `width` blocks of eight heights, each the mean of its share of them; the
 * fullest is full. */
void bt_load_sparkline(const double *values, uint32_t n, uint32_t width, bt_strbuf *out);

#endif
