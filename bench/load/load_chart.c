/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_chart.h"

#include "bench/perf_plot.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <math.h>
#include <stdlib.h>

enum { N_POINTS = 101, N_BUCKETS = 60, MAX_CHARTS = 8, MAX_SERIES = 16 };

/* Charts being gathered; their points are owned. */
typedef struct {
    bt_perf_chart charts[MAX_CHARTS];
    uint32_t n_charts;
    bt_perf_series series[MAX_SERIES];
    uint32_t n_series;
    double *points[2 * MAX_SERIES]; /* [2 * n_series] x and y of each */
    bool failed;                    /* no memory */
} book;

static void begin_chart(book *b, const char *title, const char *x_label, const char *y_label,
                        bt_perf_scale y_scale)
{
    b->charts[b->n_charts++] = (bt_perf_chart){.title = title,
                                               .x_label = x_label,
                                               .y_label = y_label,
                                               .y_scale = y_scale,
                                               .series = &b->series[b->n_series]};
}

/* A series of n points of the chart begun last; x and y are to be filled. False: no memory. */
static bool add_series(book *b, const char *name, uint32_t n, double **x, double **y)
{
    *x = bt_calloc(n > 0 ? n : 1, sizeof(**x));
    *y = bt_calloc(n > 0 ? n : 1, sizeof(**y));
    b->points[2 * b->n_series] = *x;
    b->points[2 * b->n_series + 1] = *y;
    b->series[b->n_series++] = (bt_perf_series){name, *x, *y, n};
    b->charts[b->n_charts - 1].n_series++;
    b->failed = b->failed || *x == NULL || *y == NULL;
    return *x != NULL && *y != NULL;
}

static baton_status write_book(book *b, const char *path)
{
    baton_status status = BATON_OK;
    if (b->failed)
        status = bt_fail(BATON_ERR_NO_MEMORY, "--chart: points");
    else
        status = bt_perf_plot_file(b->charts, b->n_charts, path);
    for (uint32_t i = 0; i < 2 * b->n_series; i++)
        bt_free(b->points[i]);
    return status;
}

/* ---- distributions ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void add_distribution(book *b, const char *name, bt_load_samples *samples)
{
    double *x, *y;
    b->failed = b->failed || samples->failed;
    if (samples->n == 0 || !add_series(b, name, N_POINTS, &x, &y))
        return;
    qsort(samples->ns, samples->n, sizeof(*samples->ns), by_value);
    for (uint32_t i = 0; i < N_POINTS; i++) {
        x[i] = i;
        y[i] = bt_load_percentile(samples->ns, samples->n, i) / 1e6;
    }
}

static void add_metric(book *b, const bt_load_result *result, bt_load_metric metric)
{
    bt_load_samples samples = {0};
    bt_load_collect(result, metric, &samples);
    add_distribution(b, bt_load_metric_title(metric), &samples);
    bt_load_samples_free(&samples);
}

static const char percent_label[] = "percent of them take at most", ms_label[] = "ms";

baton_status bt_load_chart_pairs(const bt_load_metric *metrics, bt_load_samples (*samples)[2],
                                 size_t n, const char *path)
{
    book b = {0};
    for (size_t i = 0; i < n; i++) {
        begin_chart(&b, bt_load_metric_title(metrics[i]), percent_label, ms_label, BT_PERF_LOG);
        add_distribution(&b, "before", &samples[i][0]);
        add_distribution(&b, "after", &samples[i][1]);
    }
    return write_book(&b, path);
}

/* ---- over time ---- */

static void add_timeline(book *b, const char *name, const double *values, uint32_t n)
{
    double *x, *y;
    if (!add_series(b, name, n, &x, &y))
        return;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = i;
        y[i] = values[i];
    }
}

static void add_throughput(book *b, const bt_load_result *result)
{
    bt_load_timeline timeline;
    if (bt_load_timeline_make(result, &timeline) != BATON_OK) {
        b->failed = true;
        return;
    }
    begin_chart(b, "Output", "s", "tokens/s", BT_PERF_LINEAR);
    add_timeline(b, "output", timeline.tokens, timeline.n);
    begin_chart(b, "Requests at the same time", "s", "requests", BT_PERF_LINEAR);
    add_timeline(b, "running", timeline.running, timeline.n);
    bt_load_timeline_free(&timeline);
}

/* Mean and worst of a metric of the requests that were due in each share of the run. */
static void add_by_due(book *b, const bt_load_result *result, bt_load_metric metric)
{
    double sum[N_BUCKETS] = {0}, worst[N_BUCKETS] = {0}, *x, *y, *x2, *y2;
    uint32_t count[N_BUCKETS] = {0}, n = 0, point = 0;
    for (uint32_t i = 0; i < result->n_requests; i++) {
        const bt_load_record *record = &result->records[i];
        uint64_t ns, after_ns = bt_elapsed_ns(record->start_ns, result->began_ns);
        if (!record->ok || !bt_load_value_ns(record, metric, &ns))
            continue;
        uint64_t k = (uint64_t)((double)after_ns / (double)result->duration_ns * N_BUCKETS);
        k = k < N_BUCKETS ? k : N_BUCKETS - 1;
        n += count[k]++ == 0;
        sum[k] += (double)ns / 1e6;
        worst[k] = fmax(worst[k], (double)ns / 1e6);
    }
    bool is_made = add_series(b, "mean", n, &x, &y);
    if (!add_series(b, "worst", n, &x2, &y2) || !is_made)
        return;
    for (uint32_t k = 0; k < N_BUCKETS; k++) {
        if (count[k] == 0)
            continue;
        x[point] = x2[point] = (k + 0.5) / N_BUCKETS * (double)result->duration_ns / 1e9;
        y[point] = sum[k] / count[k];
        y2[point++] = worst[k];
    }
}

/* ---- what a search found ---- */

static int by_rate(const void *a, const void *b)
{
    double x = ((const bt_load_step *)a)->rate, y = ((const bt_load_step *)b)->rate;
    return (x > y) - (x < y);
}

static void add_steps(book *b, const bt_load_search *search)
{
    static const struct {
        const char *name;
        bt_load_metric metric;
        int which;
    } lines[] = {
        {"TTFT p50", BT_LOAD_TTFT, 0},
        {"TTFT p99", BT_LOAD_TTFT, 1},
        {"TPOT p50", BT_LOAD_TPOT, 0},
        {"TPOT p99", BT_LOAD_TPOT, 1},
    };
    bt_load_search sorted = *search;
    double *x, *y;
    qsort(sorted.steps, sorted.n_steps, sizeof(sorted.steps[0]), by_rate);
    begin_chart(b, "Requests within the objectives", "requests/s offered", "percent",
                BT_PERF_LINEAR);
    if (add_series(b, "good", sorted.n_steps, &x, &y)) {
        for (uint32_t i = 0; i < sorted.n_steps; i++) {
            x[i] = sorted.steps[i].rate;
            y[i] = sorted.steps[i].good_share * 100;
        }
    }
    begin_chart(b, "Latency", "requests/s offered", ms_label, BT_PERF_LOG);
    for (size_t k = 0; k < sizeof(lines) / sizeof(lines[0]); k++) {
        if (!add_series(b, lines[k].name, sorted.n_steps, &x, &y))
            return;
        for (uint32_t i = 0; i < sorted.n_steps; i++) {
            x[i] = sorted.steps[i].rate;
            y[i] = sorted.steps[i].ms[lines[k].metric][lines[k].which];
        }
    }
}

baton_status bt_load_chart_run(const bt_load_result *result, const bt_load_search *search,
                               const char *path)
{
    book b = {0};
    if (search->n_steps > 0)
        add_steps(&b, search);
    begin_chart(&b, "First token and whole answer", percent_label, ms_label, BT_PERF_LOG);
    add_metric(&b, result, BT_LOAD_TTFT);
    add_metric(&b, result, BT_LOAD_E2EL);
    begin_chart(&b, "Between tokens", percent_label, ms_label, BT_PERF_LOG);
    add_metric(&b, result, BT_LOAD_TPOT);
    add_metric(&b, result, BT_LOAD_ITL);
    begin_chart(&b, "First token, by when a request was due", "s", ms_label, BT_PERF_LOG);
    add_by_due(&b, result, BT_LOAD_TTFT);
    add_throughput(&b, result);
    return write_book(&b, path);
}

/* ---- the terminal ---- */

void bt_load_sparkline(const double *values, uint32_t n, uint32_t width, bt_strbuf *out)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double most = 0;
    width = width < n ? width : n;
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t k = 0; k < width; k++) {
            uint32_t from = (uint32_t)((uint64_t)n * k / width);
            uint32_t until = (uint32_t)((uint64_t)n * (k + 1) / width);
            double sum = 0;
            for (uint32_t i = from; i < until; i++)
                sum += values[i];
            double mean = sum / (until - from);
            if (pass == 0)
                most = fmax(most, mean);
            else
                bt_strbuf_puts(out, blocks[most > 0 ? (int)lrint(mean / most * 7) : 0]);
        }
    }
}
