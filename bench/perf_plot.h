/* SPDX-License-Identifier: Apache-2.0 */
/* Line charts as SVG: axes with ticks and units, linear or logarithmic, a legend, several charts
 * below each other in one picture.
 *
 *      title
 *   y  │      .───●   legend
 *      │  ●──'
 *      └──────────── x
 *
 * Thread rule: any thread. */
#ifndef BT_BENCH_PERF_PLOT_H
#define BT_BENCH_PERF_PLOT_H
#include "core/strbuf.h"

typedef struct {
    const char *name;
    const double *x, *y; /* [n]; on a logarithmic axis points not above 0 are left out */
    uint32_t n;
} bt_perf_series;

typedef enum {
    BT_PERF_LINEAR,
    BT_PERF_LOG,       /* ticks at 1, 2 and 5 of every decade */
    BT_PERF_LOG_BYTES, /* ticks at powers of two: 4 KiB */
} bt_perf_scale;

typedef struct {
    const char *title, *x_label, *y_label; /* labels with their unit */
    bt_perf_scale x_scale, y_scale;
    const bt_perf_series *series; /* [n_series] */
    uint32_t n_series;
} bt_perf_chart;

/* Appends the whole picture. */
void bt_perf_plot(const bt_perf_chart *charts, uint32_t n_charts, bt_strbuf *out);
/* Writes it to a file. Errors: IO, NO_MEMORY. */
baton_status bt_perf_plot_file(const bt_perf_chart *charts, uint32_t n_charts, const char *path);

#endif
